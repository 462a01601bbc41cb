"""Which sizes an operator needs to be equal, or equal up to broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.operators import broadcasting
from vlmpass.ir_tools.shapes.algebra import Dim, mul, product
from vlmpass.ir_tools.shapes.analysis import Facts

__all__ = ["Need", "needs"]

Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Need:
    """Sizes that must be one and the same.

    Attributes:
        sizes: The sizes.
        inputs: For each the input of the node that has it, -1 for none in particular.
        ones: Whether a size of 1 goes with every other.
    """

    sizes: tuple[Dim, ...]
    inputs: tuple[int, ...]
    ones: bool = False


def needs(node: ir.Node, facts: Facts) -> Iterator[Need]:
    """Yield what a node needs of its known input shapes; nothing for operators not listed here."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    find = _NEEDS.get(node.op_type) if domain == "" else None
    shapes = [facts[value].shape for value in node.inputs]
    if find is not None:
        yield from find(node, facts, shapes)


Shapes = Sequence["Shape | None"]


def _columns(shapes: Shapes, inputs: Sequence[int]) -> Iterator[Need]:
    """Line shapes up at their last axes."""
    known = [(shape, index) for shape, index in zip(shapes, inputs, strict=True) if shape]
    rank = max((len(shape) for shape, _ in known), default=0)
    for axis in range(1, rank + 1):
        column = [(shape[-axis], index) for shape, index in known if len(shape) >= axis]
        if len(column) > 1:
            sizes, where = zip(*column, strict=True)
            yield Need(sizes, where, ones=True)


def _elementwise(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    yield from _columns(shapes, range(len(shapes)))


def _matmul(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    a, b = shapes[:2]
    if a and b:
        yield Need((a[-1], b[-2] if len(b) > 1 else b[0]), (0, 1))
        yield from _columns([a[:-2], b[:-2]], (0, 1))


def _gemm(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    a, b = shapes[:2]
    if a and b and len(a) == len(b) == 2:
        inner = a[0 if node.attributes.get_int("transA", 0) else 1]
        yield Need((inner, b[1 if node.attributes.get_int("transB", 0) else 0]), (0, 1))
    if len(shapes) > 2:
        yield from _columns([facts[node.outputs[0]].shape, shapes[2]], (-1, 2))


def _concat(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    known = [(shape, index) for index, shape in enumerate(shapes) if shape]
    if len(known) < 2:
        return
    rank = len(known[0][0])
    axis = node.attributes.get_int("axis", 1) % rank
    for each in range(rank):
        if each != axis:
            column = [(shape[each], index) for shape, index in known]
            sizes, where = zip(*column, strict=True)
            yield Need(sizes, where)


def _reshape(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    data, after = shapes[0], facts[node.outputs[0]].shape
    if data is not None and after is not None:
        yield Need((product(data), product(after)), (0, 1))


def _expand(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    yield from _columns([shapes[0], facts[node.inputs[1]].elements], (0, 1))


def _conv(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    data, weight = shapes[:2]
    if data and weight:
        group = node.attributes.get_int("group", 1)
        yield Need((data[1], mul(weight[1], group)), (0, 1))


def _trailing(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    for index, shape in enumerate(shapes[1:], 1):
        yield from _columns([shapes[0], shape], (0, index))


def _channels(node: ir.Node, facts: Facts, shapes: Shapes) -> Iterator[Need]:
    data = shapes[0]
    for index, shape in enumerate(shapes[1:], 1):
        if data and len(data) > 1 and shape:
            yield Need((data[1], shape[0]), (0, index))


_NEEDS: dict[str, Callable[[ir.Node, Facts, Shapes], Iterator[Need]]] = {
    **dict.fromkeys(broadcasting(), _elementwise),
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Concat": _concat,
    "Reshape": _reshape,
    "Expand": _expand,
    "Conv": _conv,
    "LayerNormalization": _trailing,
    "RMSNormalization": _trailing,
    "BatchNormalization": _channels,
    "InstanceNormalization": _channels,
}
