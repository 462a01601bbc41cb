"""What a matrix product can do besides: transpose an operand, add a vector."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.read_attributes import float_of, int_of
from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import FLOATS, dim, rank

__all__ = ["PRODUCTS"]


def _adds_to(op: Tape, c: Value, product: Value) -> bool:
    """Return whether Gemm may add a value to a product: it broadcasts one way only."""
    size = rank(c)
    if size is None or size > 2:
        return False
    pairs = ((dim(op, c, at - size), dim(op, product, at - size)) for at in range(size))
    return all(here is not None and here in (1, there) for here, there in pairs)


@rule(P.MatMul(P.matrix("a"), P.matrix("b")).named("product") + P("c"), dtypes={"a": FLOATS})
def matmul_add(op: Tape, a: Value, b: Value, c: Value, product: Value) -> Replacement:
    """MatMul(a, b) + c -> Gemm(a, b, c), of matrices."""
    return op.Gemm(a, b, c) if _adds_to(op, c, product) else refuse("{} may be larger", c)


@rule(P.Gemm("a", "b", _node="gemm").named("product") + P("c"))
def gemm_add(op: Tape, a: Value, b: Value, c: Value, gemm: Node, product: Value) -> Replacement:
    """Gemm(a, b) + c -> Gemm(a, b, c)."""
    if float_of(gemm, "beta", 1.0) != 1.0:
        return refuse("{} scales what it adds", gemm)
    if not _adds_to(op, c, product):
        return refuse("{} may be larger than the product", c)
    return op.node("Gemm", [a, b, c], gemm.attributes)[0]


TURNED_A, TURNED_B = P.Transpose("a", perm=(1, 0)), P.Transpose("b", perm=(1, 0))


@rule(
    P.Gemm(TURNED_A.shared, "b", "c?", _node="gemm")
    | P.Gemm("a", TURNED_B.shared.named("turned"), "c?", _node="gemm")
)
def gemm_of_transpose(
    op: Tape, a: Value, b: Value, c: Value | None, gemm: Node, turned: Value | None
) -> Replacement:
    """Gemm(Transpose(a), b, c) -> Gemm(a, b, c) with transA the other way, and of b."""
    which = "transA" if turned is None else "transB"
    flipped = {**gemm.attributes, which: 1 - int_of(gemm, which, 0)}
    return op.node("Gemm", [a, b, c], flipped)[0]


@rule(
    P.MatMul(TURNED_A, P.matrix("b")) | P.MatMul(P.matrix("a"), TURNED_B.named("turned")),
    dtypes={"a": FLOATS},
)
def matmul_of_transpose(op: Tape, a: Value, b: Value, turned: Value | None) -> Replacement:
    """MatMul(Transpose(a), b) -> Gemm(a, b, transA=1), of matrices, and of b."""
    return op.Gemm(a, b, **{"transA" if turned is None else "transB": 1})


PRODUCTS = matmul_add + gemm_add + gemm_of_transpose + matmul_of_transpose
