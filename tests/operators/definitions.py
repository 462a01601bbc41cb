"""The definitions of kinds and traits, as checks of one node on arrays: a reason, or None."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.operators import Kind, Traits, traits_of

Arrays = list["np.ndarray | None"]
Check = Callable[["Case", np.random.Generator], "str | None"]


@dataclass(frozen=True)
class Case:
    """One node with operands and the results that onnx's own node tests expect of it."""

    name: str
    node: onnx.NodeProto
    opset: int
    operands: tuple[np.ndarray | None, ...]
    results: tuple[np.ndarray, ...]

    @property
    def identifier(self) -> tuple[str, str]:
        return self.node.domain, self.node.op_type

    def run(self, operands: Arrays) -> np.ndarray:
        """The first result for other operands."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            names = [f"in{i}" if x is not None else "" for i, x in enumerate(operands)]
            node = onnx.NodeProto()
            node.CopyFrom(self.node)
            del node.input[:]
            node.input.extend(names)
            given = {n: x for n, x in zip(names, operands, strict=True) if x is not None}
            kind = onnx.TypeProto()
            inputs = [_info(n, x) for n, x in given.items()]
            outputs = [onnx.helper.make_value_info(n, kind) for n in node.output if n]
            graph = onnx.helper.make_graph([node], "g", inputs, outputs)
            opset = onnx.helper.make_opsetid(self.node.domain, self.opset)
            model = onnx.helper.make_model(graph, opset_imports=[opset])
            return ReferenceEvaluator(model).run(None, given)[0]


def _info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, dtype, array.shape)


@cache
def cases() -> tuple[Case, ...]:
    """Every node test of onnx that is one node of tensors."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    return tuple(case for each in found if (case := _case(each)) is not None)


def _case(each) -> Case | None:
    graph = each.model.graph
    if not each.data_sets:
        return None
    operands, results = ([_array(x) for x in side] for side in each.data_sets[0])
    if len(graph.node) != 1 or each.model.functions:
        return None
    (node,) = graph.node
    given = dict(zip([value.name for value in graph.input], operands, strict=False))
    arrays = [*operands, *results]
    if not all(isinstance(array, (np.ndarray, np.generic)) for array in arrays):
        return None
    opsets = {each.domain: each.version for each in each.model.opset_import}
    inputs = tuple(np.asarray(given[name]) if name else None for name in node.input)
    outputs = tuple(np.asarray(result) for result in results)
    return Case(each.name, node, opsets.get(node.domain, 1), inputs, outputs)


def _array(value: object) -> object:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def same(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(_bits(a), _bits(b))


def _bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == object or array.dtype.kind in "USO":
        return array.astype(str)
    array = np.asarray(array, order="C").reshape(-1)
    zero = array.dtype.type(0)
    return np.where(array == zero, zero, array).view(f"V{array.dtype.itemsize}")


def _elements(array: np.ndarray) -> set[object]:
    return set(_bits(array).reshape(-1).tolist())


def _foreign(case: Case) -> set[object]:
    """Elements of the first result that no operand of its type has.

    The first operand's numbers are replaced by others that are all different and none of them zero.
    """
    operands = list(case.operands)
    first = operands[0]
    assert first is not None
    if first.dtype.kind in "fiu" and first.size < 128:
        places = np.arange(1, first.size + 1).reshape(first.shape)
        spread = places if first.itemsize == 1 else places**2
        operands[0] = (spread * np.where(places % 2, 1, -1)).astype(first.dtype)
    made, held = case.run(operands), set[object]()
    for operand in operands:
        if operand is not None and operand.dtype == made.dtype:
            held |= _elements(operand)
    return _elements(made) - held


def moves(case: Case, rng: np.random.Generator) -> str | None:
    if any(x is not None and not x.size for x in case.operands):
        return None  # what is selected of nothing is a number of the operator's
    return "its result has elements that no operand has" if _foreign(case) else None


def fills(case: Case, rng: np.random.Generator) -> str | None:
    return "it fills with more than one number" if len(_foreign(case)) > 1 else None


def elementwise(case: Case, rng: np.random.Generator) -> str | None:
    made = case.results[0]
    present = [x for x in case.operands if x is not None]
    try:
        fits = made.shape == np.broadcast_shapes(*(x.shape for x in present))
    except ValueError:
        fits = False
    if not fits:
        return f"its result is {made.shape}, which is not what its operands broadcast to"
    order = rng.permutation(made.size)

    def permuted(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, made.shape).reshape(-1)[order].reshape(made.shape)

    turned = [x if x is None or x.ndim == 0 else permuted(x) for x in case.operands]
    was = case.run(list(case.operands))
    return None if same(case.run(turned), permuted(was)) else "places matter to it"


def broadcasts(case: Case, rng: np.random.Generator) -> str | None:
    shapes = [x.shape for x in case.operands if x is not None]
    if len(shapes) > 1 and case.results[0].shape != np.broadcast_shapes(*shapes):
        return "its operands are not broadcast"
    if len(shapes) != 2 or not all(shapes) or case.node.op_type == "Mean":
        return None  # the reference evaluator adds up Mean's operands in the place of the first
    a, b = case.operands
    assert a is not None
    assert b is not None
    row, column = a.reshape(-1)[:2], b.reshape(-1)[:3, None]
    made = case.run([row, column])
    return None if made.shape == (len(column), len(row)) else "one of its operands is not broadcast"


def keeps_shape(case: Case, rng: np.random.Generator) -> str | None:
    first = case.operands[0]
    assert first is not None
    return None if case.results[0].shape == first.shape else "its result has another shape"


def keeps_order(case: Case, rng: np.random.Generator) -> str | None:
    first = case.operands[0]
    assert first is not None
    kept = same(case.results[0].reshape(-1), first.reshape(-1))
    return None if kept else "its elements come in another order, or others"


def keeps_all(case: Case, rng: np.random.Generator) -> str | None:
    first, made = case.operands[0], case.results[0]
    assert first is not None
    kept = not made.size or _elements(made) == _elements(first)
    return None if kept else "elements are lost, or others come in"


def rounds(case: Case, rng: np.random.Generator) -> str | None:
    made = case.results[0].astype(np.float64)
    finite = made[np.isfinite(made)]
    return None if np.array_equal(finite, np.round(finite)) else "its results are not whole"


def jumps(case: Case, rng: np.random.Generator) -> str | None:
    chosen = [i for i, x in enumerate(case.operands) if x is not None and x.dtype.kind == "f"]
    if not chosen or not all(case.operands[i].size for i in chosen):
        return None
    widest = max(_jump(case, chosen, rng) for _ in range(12))
    return None if widest > 0.4 else "nothing jumps"


def _jump(case: Case, chosen: list[int], rng: np.random.Generator) -> float:
    """Halve the way from operands that are all alike to random ones, where a result changes most.

    What is left at the end is a jump, if there is one.
    """
    alike = rng.standard_normal() * 4
    low = {i: np.full(case.operands[i].shape, alike) for i in chosen}
    high = {i: rng.standard_normal(case.operands[i].shape) * 4 for i in chosen}

    def run(floats: dict[int, np.ndarray]) -> np.ndarray:
        given = [floats[i].astype(x.dtype) if i in floats else x for i, x in _given(case)]
        return case.run(given).astype(np.float64)

    first, last = run(low), run(high)
    for _ in range(60):
        middle = {i: (low[i] + high[i]) / 2 for i in chosen}
        made = run(middle)
        if np.abs(made - first).max() > np.abs(last - made).max():
            high, last = middle, made
        else:
            low, first = middle, made
    return float(np.abs(last - first).max())


def _given(case: Case) -> list[tuple[int, np.ndarray | None]]:
    return list(enumerate(case.operands))


def commutative(case: Case, rng: np.random.Generator) -> str | None:
    a, b, *rest = case.operands if len(case.operands) > 1 else (*case.operands, *case.operands)
    turned = same(case.run([a, b, *rest]), case.run([b, a, *rest]))
    return None if turned else "its operands may not change places"


def associative(case: Case, rng: np.random.Generator) -> str | None:
    first = case.operands[0]
    assert first is not None
    whole = bool if first.dtype == bool else np.int64
    a, b, c = (rng.integers(0, 2 if whole is bool else 99, 40).astype(whole) for _ in range(3))
    ab, bc = case.run([a, b]), case.run([b, c])
    same_type = ab.dtype == a.dtype
    return (
        None
        if same_type and same(case.run([ab, c]), case.run([a, bc]))
        else "its operands may not be grouped otherwise"
    )


def depends_on_shape_alone(case: Case, rng: np.random.Generator) -> str | None:
    first = case.operands[0]
    assert first is not None
    other = np.zeros_like(first)
    return None if same(case.run([other]), case.results[0]) else "values matter to it"


def _spelled(types: Iterable[str]) -> set[str]:
    """Types with numpy's names for the floats."""
    names = {"tensor(float)": "tensor(float32)", "tensor(double)": "tensor(float64)"}
    return {names.get(each, each) for each in types}


_WIDER = {np.dtype(np.float32): np.float64, **dict.fromkeys(map(np.dtype, "bBhHiI"), np.int64)}


def exact(case: Case, rng: np.random.Generator) -> str | None:
    def widened(x: np.ndarray | None) -> np.ndarray | None:
        return x if x is None or x.dtype not in wider else x.astype(_WIDER[x.dtype])

    if case.node.op_type == "Scatter" or any(a.name == "reduction" for a in case.node.attribute):
        return None  # the reference evaluator has no Scatter; what combines elements computes
    first = onnx.defs.get_schema(case.node.op_type, case.opset, case.node.domain).inputs[0].types
    wider = {x.dtype for x in case.operands if x is not None} & set(_WIDER)
    wider = {
        dtype for dtype in wider if f"tensor({np.dtype(_WIDER[dtype]).name})" in _spelled(first)
    }
    places = traits_of(*case.identifier).sizes
    operands = [x if i in places else widened(x) for i, x in enumerate(case.operands)]
    was, made = case.run(list(case.operands)), case.run(operands)
    return None if same(made, was.astype(made.dtype)) else "a wider type gives something else"


def whole(case: Case, rng: np.random.Generator) -> str | None:
    places, operands = traits_of(*case.identifier).sizes, list(case.operands)
    for index, x in enumerate(operands):
        if x is not None and index not in places and x.dtype.kind == "f":
            operands[index] = rng.integers(-9, 10, x.shape).astype(x.dtype)
    made = case.run(operands)
    made = made[made == made]  # a rest of nothing is no number
    return None if np.array_equal(made, np.round(made)) else "its results are not whole"


KINDS: dict[Kind, Check] = {
    Kind.MOVE: moves,
    Kind.FILL: fills,
    Kind.ELEMENTWISE: elementwise,
    Kind.SHAPE: depends_on_shape_alone,
}


FLAGS: dict[str, Check] = {
    check.__name__: check
    for check in (
        *(commutative, associative, broadcasts, jumps, keeps_all, keeps_order, keeps_shape),
        *(exact, rounds, whole),
    )
} | {"selects": moves}
EXACT = (Kind.MOVE, Kind.FILL, Kind.SCATTER, Kind.ORDER)


def claims(traits: Traits) -> Iterator[Check]:
    """The definitions that an operator with these traits must hold to."""
    if (check := KINDS.get(traits.kind)) is not None:
        yield check
    for name, check in FLAGS.items():
        implied = {"exact": EXACT, "whole": (Kind.MOVE,)}.get(name, ())
        if getattr(traits, name) or traits.kind in implied:
            yield check
