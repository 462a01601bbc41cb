"""Roots of sizes that an exporter rounded: of a head for attention, of a row for embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx_ir import Node, TensorProtocol, Value

from vlmpass.ir_tools.graph.constants import constant_of, is_constant
from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.operators import keeping_order
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, Tape, rule
from vlmpass.rewriter_rules.restore.rounded import FLOAT_X, HELD, RESTORES, Exact, exactly, reading
from vlmpass.rewriter_rules.simplify.known import dim

__all__ = ["SIZES"]

LAYOUT = (*sorted(keeping_order()), "Cast", "Expand", "Transpose")
TAKEN = (*LAYOUT, "GatherElements", "Slice")
PRODUCTS = ("MatMul", "Gemm")
SQUARE_ROOTS = {0.5: "sqrt({})", -0.5: "1/sqrt({})"}
ROOTS = {**SQUARE_ROOTS, 0.25: "{}^(1/4)", -0.25: "{}^(-1/4)"}


def _kind(node: Node | None, kinds: tuple[str, ...]) -> bool:
    return node is not None and node.domain == "" and node.op_type in kinds


def _source(value: Value | None) -> Value | None:
    """Return what a value was before its elements were taken and moved into another shape."""
    while value is not None and (node := value.producer()) is not None and _kind(node, TAKEN):
        value = node.inputs[0]
    return value


def _products(value: Value) -> Iterator[Node]:
    """Yield the products that a value is an operand of, be it in another shape or scaled again."""
    pending, seen = [value], {value}
    while pending:
        for user, at in pending.pop().uses():
            if _kind(user, PRODUCTS) and at < 2:
                yield user
            elif _leaves_row(user, at) and user.outputs[0] not in seen:
                seen.add(user.outputs[0])
                pending.append(user.outputs[0])


def _leaves_row(node: Node, at: int) -> bool:
    """Whether a node gives out an operand's elements, in another layout or multiplied by one."""
    if at == 0 and _kind(node, LAYOUT):
        return True
    other = node.inputs[1 - at] if len(node.inputs) == 2 else None
    tensor = None if other is None else constant_of(other)
    return _kind(node, ("Mul", "Div")[: 2 - at]) and tensor is not None and tensor.size == 1


def _contracted(op: Tape, product: Node) -> Iterator[int]:
    """Yield the size over which a product sums, where it is known."""
    if any(attribute.is_ref() for attribute in product.attributes.values()):
        return
    turned = [int_of(product, name, 0) for name in ("transA", "transB")]
    axes = (-2 if turned[0] else -1, -1 if turned[1] else -2)
    for operand, axis in zip(product.inputs, axes, strict=False):
        size = None if operand is None else dim(op, operand, axis)
        if isinstance(size, int):
            yield size


def _is_score(product: Node) -> bool:
    """Whether both operands are computed, so that a row is one of scores, not of features."""
    sources = [_source(operand) for operand in product.inputs[:2]]
    return not any(source is None or is_constant(source) for source in sources)


def _groups(op: Tape, x: Value, y: Value) -> Iterator[list[Exact]]:
    """Yield what x may have been scaled by to become y, the best founded first."""
    used = [size for product in _products(y) for size in _contracted(op, product)]
    yield _roots(used)
    source = _source(x)
    maker = None if source is None else source.producer()
    made = maker if maker is not None and _kind(maker, PRODUCTS) else None
    summed = [] if made is None else list(_contracted(op, made))
    yield _roots(summed)
    row = dim(op, x, -1)
    if isinstance(row, int) and (made is None or not _is_score(made)):
        yield _roots([row])
    # DeBERTa adds scores of places to those of tokens, and divides each by the root of all terms.
    yield _roots([terms * size for size in (*used, *summed) for terms in (2, 3)], SQUARE_ROOTS)


def _roots(sizes: list[int], roots: Mapping[float, str] = ROOTS) -> list[Exact]:
    return [
        Exact(size**power, text.format(size))
        for size in dict.fromkeys(sizes)
        if size > 1
        for power, text in roots.items()
    ]


@rule((P.Mul | P.Div)("x", HELD, _node="scale"), fast_math=True, effects=RESTORES, dtypes=FLOAT_X)
def restore_root_of_size(op: Tape, x: Value, c: TensorProtocol, scale: Node) -> Replacement:
    """x * c -> x / sqrt(n), when c is that, rounded, and n the size of a row or a product's sum.

    The fourth root counts too, as attention scales queries and keys by one each.
    """
    number = exactly(c, _groups(op, x, scale.outputs[0]))
    return number if isinstance(number, Declined) else reading(op, scale.op_type, x, number)


SIZES = restore_root_of_size
