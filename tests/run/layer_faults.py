"""Faults planted into models, one at a time: what a wrong rule, exporter or engine does to them.

python tests/run/layer_faults.py 60 0
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import generate_inputs, verify
from vlmpass.ir_tools.run.layers import compare_layers

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
MODELS = (
    "decoder.float32.ts17.onnx",
    "decoder.float32.dyn18.onnx",
    "text.float32.ts14.onnx",
    "text.float32.dyn18.onnx",
    "vision.float32.dyn18.onnx",
    "vision.float32.ts17.onnx",
)


@dataclass(frozen=True)
class Planted:
    """A model with a fault.

    Attributes:
        kind: What was done.
        source: The model without it.
        model: The model with it.
        first: Name of the first value that is wrong.
    """

    kind: str
    source: ir.Model
    model: ir.Model
    first: str


class _Site:
    """A copy of a model, and a place in it.

    Args:
        model: Typed; it stays as it is.
        draw: Chooses.
    """

    def __init__(self, model: ir.Model, draw: random.Random) -> None:
        self.model = clone(model)
        self.graph = self.model.graph
        self.draw = draw

    def node(self, *operators: str, when: Callable[[ir.Node], bool] = lambda node: True) -> ir.Node:
        found = [n for n in self.graph if n.op_type in operators and not n.domain and when(n)]
        return self.draw.choice(found)

    def value(self) -> ir.Value:
        """A float value between nodes that varies."""
        found = [
            value
            for node in self.graph
            for value in node.outputs
            if value.dtype == ir.DataType.FLOAT
            and value.shape is not None
            and len(value.shape) >= 2
            and value.uses()
            and node.op_type not in ("Constant", "ConstantOfShape", "Expand", "Cos", "Sin")
            and any(each is not None and not each.is_initializer() for each in node.inputs)
        ]
        return self.draw.choice(found)

    def const(self, array: object, dtype: type = np.float32) -> ir.Value:
        tensor = ir.tensor(np.asarray(array, dtype))
        value = ir.Value(
            name=f"planted_{len(self.graph.initializers)}",
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def chain(
        self,
        value: ir.Value,
        *steps: tuple[str, list[object], dict[str, object]],
        keep: Sequence[ir.Node] = (),
    ) -> str:
        """Put nodes behind a value; what comes out takes its name. ``...`` is what came before."""
        last, name = value, str(value.name)
        nodes = []
        for operator, operands, attributes in steps:
            given = [last if each is ... else each for each in operands]
            nodes.append(ir.node(operator, given, attributes))  # type: ignore[arg-type]
            last = nodes[-1].outputs[0]
            last.name = f"{name}__planted_{len(nodes)}"
            kind = attributes.get("to", ir.DataType.FLOAT.value)
            last.type = ir.TensorType(ir.DataType(kind))
        beside = {*nodes, *keep}
        users = [use for use in value.uses() if use.node not in beside]
        maker = value.producer()
        assert maker is not None
        self.graph.insert_after(maker, nodes)
        for use in users:
            use.node.replace_input_with(use.idx, last)
        for index, output in enumerate(list(self.graph.outputs)):
            if output is value:
                self.graph.outputs[index] = last
                last.shape = value.shape
        value.name, last.name = f"{name}__clean", name
        return name

    def weight(self, node: ir.Node, index: int, change: Callable[[np.ndarray], np.ndarray]) -> str:
        """Let a node alone take a changed weight."""
        old = node.inputs[index]
        assert old is not None
        assert old.const_value is not None
        node.replace_input_with(index, self.const(change(old.const_value.numpy().copy())))
        return str(node.outputs[0].name)


def _is_weight(node: ir.Node, index: int, rank: int | None = None) -> bool:
    if index >= len(node.inputs) or node.inputs[index] is None:
        return False
    value = node.inputs[index]
    if not value.is_initializer() or value.dtype != ir.DataType.FLOAT or not value.const_value:
        return False
    return rank is None or len(value.const_value.shape) == rank


def _weighted(site: _Site) -> ir.Node:
    return site.node("MatMul", when=lambda node: _is_weight(node, 1, 2))


def _square(node: ir.Node) -> bool:
    return _is_weight(node, 1, 2) and len({*node.inputs[1].const_value.shape.numpy()}) == 1


def _operand(node: ir.Node) -> int:
    return 0 if _is_weight(node, 0) else 1


def _scaled_constant(site: _Site) -> str:
    node = site.node("Mul", "Add", "Div", when=lambda n: _is_weight(n, 0) or _is_weight(n, 1))
    return site.weight(node, _operand(node), lambda array: array * 1.5 + 0.1)


def _swapped_inputs(site: _Site) -> str:
    def fits(node: ir.Node) -> bool:
        a, b = node.inputs[:2]
        return a is not b and a is not None and b is not None and a.dtype == ir.DataType.FLOAT

    node = site.node("Sub", "Div", when=fits)
    a, b = node.inputs
    node.replace_input_with(0, b)
    node.replace_input_with(1, a)
    return str(node.outputs[0].name)


def _replaced(site: _Site, old: tuple[str, ...], new: str) -> str:
    node = site.node(*old, when=lambda n: n.outputs[0].dtype == ir.DataType.FLOAT)
    value = node.outputs[0]
    made = ir.node(new, [node.inputs[0]])
    made.outputs[0].type = value.type
    name = str(value.name)
    site.graph.insert_after(node, made)
    value.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
    site.graph.remove(node)
    value.name, made.outputs[0].name = f"{name}__clean", name
    return name


def _dropped_bias(site: _Site) -> str:
    node = site.node("Add", when=lambda n: _is_weight(n, 0, 1) or _is_weight(n, 1, 1))
    return site.weight(node, _operand(node), lambda array: array * 0)


def _doubled(site: _Site) -> str:
    def fits(node: ir.Node) -> bool:
        a, b = node.inputs
        shapes = [None if v is None or v.shape is None else str(v.shape) for v in (a, b)]
        return shapes[0] == shapes[1] is not None and a.dtype == ir.DataType.FLOAT

    node = site.node("Add", when=fits)
    node.replace_input_with(1, node.inputs[0])
    return str(node.outputs[0].name)


def _other_axis(site: _Site) -> str:
    node = site.node("Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", len(node.inputs[0].shape) - 2)
    return str(node.outputs[0].name)


def _stale_epsilon(site: _Site) -> str:
    node = site.node("LayerNormalization", "Pow")
    if node.op_type == "Pow":
        node.replace_input_with(1, site.const(3.0))
    else:
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)
    return str(node.outputs[0].name)


def _swapped_weights(site: _Site) -> str:
    nodes = [n for n in site.graph if n.op_type == "MatMul" and _is_weight(n, 1, 2)]
    pairs = [
        (a, b)
        for i, a in enumerate(nodes)
        for b in nodes[i + 1 :]
        if a.inputs[1] is not b.inputs[1]
        and a.inputs[1].const_value.shape.numpy() == b.inputs[1].const_value.shape.numpy()
    ]
    a, b = site.draw.choice(pairs)
    one, two = a.inputs[1], b.inputs[1]
    a.replace_input_with(1, two)
    b.replace_input_with(1, one)
    return str(a.outputs[0].name)


def _rounded(site: _Site) -> str:
    def few_bits(array: np.ndarray) -> np.ndarray:
        step = np.abs(array).max() / 3
        return np.round(array / step) * step

    return site.weight(_weighted(site), 1, few_bits)


def _cut_weight(site: _Site) -> str:
    def cut(array: np.ndarray) -> np.ndarray:
        array[: array.shape[0] // 2] = 0
        return array

    return site.weight(_weighted(site), 1, cut)


def _transposed(site: _Site) -> str:
    return site.weight(site.node("MatMul", when=_square), 1, np.transpose)


def _next_row(site: _Site) -> str:
    node = site.node("Gather", when=lambda n: _is_weight(n, 0, 2))
    return site.weight(node, 0, lambda table: np.roll(table, 1, axis=0))


def _baked_batch(site: _Site) -> str:
    value = site.value()
    shape = ir.node("Shape", [value])
    shape.outputs[0].name = f"{value.name}__planted_shape"
    maker = value.producer()
    name = site.chain(
        value,
        ("Slice", [..., site.const([0], np.int64), site.const([1], np.int64),
                   site.const([0], np.int64)], {}),
        ("Expand", [..., shape.outputs[0]], {}),
        keep=[shape],
    )  # fmt: skip
    site.graph.insert_after(maker, shape)
    return name


def _chain(*steps: tuple[str, tuple[float, ...], dict[str, object]]) -> Callable[[_Site], str]:
    def plant(site: _Site) -> str:
        made = [
            (operator, [..., *(site.const(each) for each in numbers)], attributes)
            for operator, numbers, attributes in steps
        ]
        return site.chain(site.value(), *made)

    return plant


_HALF, _FLOAT, _BRAIN = (
    {"to": ir.DataType[name].value} for name in ("FLOAT16", "FLOAT", "BFLOAT16")
)
KINDS: dict[str, Callable[[_Site], str]] = {
    "wrong constant": _scaled_constant,
    "swapped inputs": _swapped_inputs,
    "lost Cast": _chain(("Cast", (), _BRAIN), ("Cast", (), _FLOAT)),
    "half overflow": _chain(
        ("Mul", (1e6,), {}), ("Cast", (), _HALF), ("Cast", (), _FLOAT), ("Mul", (1e-6,), {})
    ),
    "transposed weight": lambda site: site.weight(
        site.node("MatMul", when=_square), 1, np.transpose
    ),
    "axis off by one": _other_axis,
    "stale attribute": _stale_epsilon,
    "NaN mask": _chain(("Mul", (0.0,), {}), ("Log", (), {}), ("Mul", (0.0,), {})),
    "zeroed output": _chain(("Mul", (0.0,), {})),
    "baked batch": _baked_batch,
    "dropped bias": _dropped_bias,
    "doubled residual": _doubled,
    "sign flipped": _chain(("Neg", (), {})),
    "another activation": lambda site: _replaced(site, ("Sigmoid", "Erf"), "Tanh"),
    "lost activation": lambda site: _replaced(
        site, ("Sigmoid", "Erf", "Softmax", "Tanh"), "Identity"
    ),
    "lost root": lambda site: _replaced(site, ("Sqrt", "Reciprocal"), "Identity"),
    "wrong scale": _chain(("Mul", (0.9,), {})),
    "clipped": _chain(("Clip", (-0.05, 0.05), {})),
    "shifted": _chain(("Add", (0.05,), {})),
    "weights of few bits": _rounded,
    "weights cut off": _cut_weight,
    "weights swapped": _swapped_weights,
    "rows off by one": _next_row,
    "rounded to integers": _chain(("Round", (), {})),
}


def typed(name: str) -> ir.Model:
    from vlmpass.passes import PassManager, parse

    model = load(EXPORTS / name)
    PassManager(parse("infer")).run(model, in_place=True)
    return model


def _outputs(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        ir.save(clone(model), path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, feed)


def shows(planted: Planted) -> bool:
    """Whether ONNX Runtime gives something else by more than a hundredth, or not finite numbers."""
    feed = generate_inputs(planted.source)
    try:
        made = [_outputs(model, feed) for model in (planted.source, planted.model)]
    except Exception:  # noqa: BLE001 - a model that no longer runs is found at once
        return False
    return any(
        not np.allclose(one, two, rtol=0.01, atol=0.01 * float(np.abs(one).max() or 1))
        for one, two in zip(*made, strict=True)
        if one.dtype == np.float32
    )


def faults(number: int, seed: int) -> Iterator[Planted]:
    """Yield faults that show, each kind in turn, in a model drawn by chance."""
    models: dict[str, ir.Model] = {}
    found = 0
    for index, kind in enumerate(itertools.cycle(KINDS)):
        if found == number:
            return
        draw = random.Random(f"{seed}-{index}")
        for _ in range(40):
            name = draw.choice(MODELS)
            source = models.setdefault(name, typed(name)) if name not in models else models[name]
            site = _Site(source, draw)
            try:
                first = KINDS[kind](site)
            except IndexError:  # this model has no such node
                continue
            planted = Planted(f"{kind} in {name}", source, site.model, first)
            if shows(planted):
                found += 1
                yield planted
                break


def main(number: int, seed: int) -> int:
    """Plant many; print what is missed."""
    found = named = total = 0
    for planted in faults(number, seed):
        total += 1
        seen = not verify(planted.source, planted.model).ok
        layers = compare_layers(planted.source, planted.model)
        first = layers.layers[layers.first].name if layers.first is not None else None
        found, named = found + seen, named + (first == planted.first)
        if not seen or first != planted.first:
            print(f"{planted.kind} at {planted.first}: verify {seen}, layers {first}", flush=True)
    print(f"{total} faults: verify finds {found}, --layers names the first node of {named}")
    return 0 if found == total and named >= 0.95 * total else 1


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
