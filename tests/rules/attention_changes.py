"""What a careless author might have changed in a graph of attention or of rotary embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir import Value

from vlmpass.ir_tools.graph.infer_node import infer_node

Change = Callable[[ir.Model, np.random.Generator], bool]


def _nodes(model: ir.Model, *op_types: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in op_types]


def _constant(model: ir.Model, array: np.ndarray, name: str) -> Value:
    tensor = ir.Tensor(array, name=name)
    node = ir.Node("", "Constant", (), [ir.AttrTensor("value", tensor)], num_outputs=1, name=name)
    node.outputs[0].name = name
    infer_node(node, model.opset_imports)
    model.graph.insert_before(model.graph[0], node)
    return node.outputs[0]


def size_of(size: int | ir.SymbolicDim) -> int:
    """Return a size, which the names of drawn axes say too; 0 for what is computed of them."""
    if isinstance(size, int):
        return size
    text = str(size.value)[1:]
    return int(text) if text.isdigit() else 0


def _put_before(node: ir.Node, at: int, new: ir.Node, name: str = "near") -> bool:
    """Let a new node compute an input of another."""
    assert node.graph is not None
    new.name = name
    new.outputs[0].name = f"{name}_output"
    infer_node(new, {"": 23})
    node.graph.insert_before(node, new)
    node.replace_input_with(at, new.outputs[0])
    return True


def other_softmax_axis(model: ir.Model, rng: np.random.Generator) -> bool:
    for node in _nodes(model, "Softmax"):
        node.attributes["axis"] = ir.AttrInt64("axis", -2)
    return True


def branches_swapped(model: ir.Model, rng: np.random.Generator) -> bool:
    for node in (found := _nodes(model, "Where")):
        _, first, second = node.inputs
        node.replace_input_with(1, second)
        node.replace_input_with(2, first)
    return bool(found)


def probabilities_scaled(model: ir.Model, rng: np.random.Generator) -> bool:
    product = _nodes(model, "MatMul")[-1]
    x = product.inputs[0]
    assert x is not None
    assert x.dtype is not None
    factor = _constant(model, np.asarray(0.9, x.dtype.numpy()), "keep")
    return _put_before(product, 0, ir.Node("", "Mul", [x, factor], num_outputs=1))


def scores_biased_by_head_size(model: ir.Model, rng: np.random.Generator) -> bool:
    """A scale of its own for each element of a head."""
    product = _nodes(model, "MatMul")[0]
    x = product.inputs[0]
    assert x is not None
    assert x.dtype is not None
    factors = _constant(model, np.arange(1, 5).astype(x.dtype.numpy()), "factors")
    return _put_before(product, 0, ir.Node("", "Mul", [x, factors], num_outputs=1))


def heads_in_other_order(model: ir.Model, rng: np.random.Generator) -> bool:
    """Heads repeated one after the other, all of them."""
    changed = False
    for node in _nodes(model, "Reshape"):
        x = node.inputs[0]
        if x is not None and x.shape is not None and len(x.shape) == 5 and len(node.inputs) == 2:
            turn = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", [0, 2, 1, 3, 4])])
            turn.name = f"near_{node.name}"
            turn.outputs[0].name = f"near_{node.name}_output"
            infer_node(turn, {"": 23})
            model.graph.insert_before(node, turn)
            node.replace_input_with(0, turn.outputs[0])
            changed = True
    return changed


def scale_negative(model: ir.Model, rng: np.random.Generator) -> bool:
    product = _nodes(model, "MatMul")[0]
    x = product.inputs[0]
    assert x is not None
    return _put_before(product, 0, ir.Node("", "Neg", [x], num_outputs=1))


def scale_is_none(model: ir.Model, rng: np.random.Generator) -> bool:
    """Factors that are no numbers, or of which one is nothing and another makes it infinite."""
    product = _nodes(model, "MatMul")[0]
    (user,) = [use.node for use in product.outputs[0].uses()]
    at = list(user.inputs).index(product.outputs[0])
    factors = ((np.nan,), (np.inf,), (1e-30, 1e-30, 1e30, 1e30))[rng.integers(3)]
    for number, factor in enumerate(factors):
        x = user.inputs[at]
        assert x is not None
        assert x.dtype is not None
        with np.errstate(over="ignore"):
            array = np.asarray(factor).astype(x.dtype.numpy())
        constant = _constant(model, array, f"factor{number}")
        mul = ir.Node("", "Mul", [x, constant], num_outputs=1)
        _put_before(user, at, mul, f"near{number}")
    return True


def mask_reaches_further(model: ir.Model, rng: np.random.Generator) -> bool:
    """Scores of the first key count in any case."""
    softmax = _nodes(model, "Softmax")[0]
    rows = softmax.inputs[0]
    assert rows is not None
    assert rows.dtype is not None
    assert rows.shape is not None
    first = np.arange(size_of(rows.shape[-1])) == 0
    if not first.size:
        return False
    extra = _constant(model, np.where(first, 3.0, 0.0).astype(rows.dtype.numpy()), "extra")
    return _put_before(softmax, 0, ir.Node("", "Add", [rows, extra], num_outputs=1))


def probabilities_are_a_result(model: ir.Model, rng: np.random.Generator) -> bool:
    model.graph.outputs.append(_nodes(model, "Softmax")[0].outputs[0])
    return True


def parts_swapped(model: ir.Model, rng: np.random.Generator) -> bool:
    """The other half is negated."""
    found = _nodes(model, "Concat")[-1]
    first, second = found.inputs[:2]
    found.replace_input_with(0, second)
    found.replace_input_with(1, first)
    return True


def other_half_negated(model: ir.Model, rng: np.random.Generator) -> bool:
    """Which of two halves is negated, not where it stands."""
    for negated in _nodes(model, "Neg"):
        (user,) = [use.node for use in negated.outputs[0].uses()]
        if user.op_type == "Concat" and len(user.inputs) == 2:
            other = user.inputs[1]
            user.replace_input_with(1, negated.inputs[0])
            negated.replace_input_with(0, other)
            return True
    return False


def angles_differ(model: ir.Model, rng: np.random.Generator) -> bool:
    """Both elements of a pair are turned by angles of their own."""
    done = False
    for node in _nodes(model, "Cos", "Sin"):
        x = node.inputs[0]
        assert x is not None
        assert x.shape is not None
        assert x.dtype is not None
        size = size_of(x.shape[-1])
        if not size:
            return False
        more = np.linspace(0, 1, size).astype(x.dtype.numpy())
        add = ir.Node("", "Add", [x, _constant(model, more, f"more_{node.name}")], num_outputs=1)
        add.name = f"near_{node.name}"
        add.outputs[0].name = f"near_{node.name}_output"
        infer_node(add, {"": 23})
        model.graph.insert_before(node, add)
        node.replace_input_with(0, add.outputs[0])
        done = True
    return done


def as_it_is(model: ir.Model, rng: np.random.Generator) -> bool:
    """What is drawn has near-misses of its own."""
    return True


ATTENTION: list[Change] = [
    other_softmax_axis, branches_swapped, probabilities_scaled, scores_biased_by_head_size,
    heads_in_other_order, scale_negative, mask_reaches_further, probabilities_are_a_result,
    scale_is_none,
]  # fmt: skip
ROTARY: list[Change] = [parts_swapped, other_half_negated, angles_differ]
CHANGES = {
    "attention": ATTENTION,
    "rotary-of-halves": ROTARY,
    "rotary-of-neighbours": ROTARY,
    "rotary-of-parts": ROTARY,
    "rotary-of-a-part": [as_it_is],
    "rotary-of-a-part-of-tokens": [as_it_is],
    "past-of-attention": [as_it_is],
    "past-of-multi-head-attention": [as_it_is],
    "causal-attention": [as_it_is],
}
