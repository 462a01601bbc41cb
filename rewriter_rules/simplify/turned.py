"""Transposes around what treats all elements alike: fewer of them, or none."""

from __future__ import annotations

from onnx_ir import Value

from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import normal

__all__ = ["TURNED"]

UNARY = (
    "Abs", "Cast", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh",
)  # fmt: skip
BINARY = (P.Add, P.Sub, P.Mul, P.Div, P.Max, P.Min, P.And, P.Or)


def _redone(op: Tape, value: Value, old: Value, new: Value) -> Value:
    """Return what a chain of operators makes of another value than it does now."""
    node = value.producer()
    if value is old or node is None or node.inputs[0] is None:
        return new
    inputs = [_redone(op, node.inputs[0], old, new), *node.inputs[1:]]
    return op.node(node.op_type, inputs, node.attributes)[0]


@rule(
    P.Transpose(
        P.through(P.Transpose("x", perm="inner").named("turned"), *UNARY).named("last"),
        perm="outer",
    )
)
def transpose_of_turned(
    op: Tape, x: Value, turned: Value, last: Value, inner: tuple[int, ...], outer: tuple[int, ...]
) -> Replacement:
    """Transpose(Relu(Transpose(x, p)), q) -> Relu(Transpose(x, p[q])), of all such operators."""
    if last is turned or sorted(inner) != sorted(outer):
        return refuse("nothing stands between two Transposes of one rank")
    perm = tuple(inner[axis] for axis in outer)
    start = x if perm == tuple(range(len(perm))) else op.Transpose(x, perm=perm)
    return _redone(op, last, turned, start)


@rule(
    P.either(
        *(
            act(P.Transpose("x", perm="one"), P.Transpose("y", perm="other")).named("done")
            for act in BINARY
        )
    )
)
def operator_of_transposes(
    op: Tape, x: Value, y: Value, done: Value, one: tuple[int, ...], other: tuple[int, ...]
) -> Replacement:
    """Transpose(x, p) + Transpose(y, p) -> Transpose(x + y, p), of all such operators."""
    node = done.producer()
    if one != other or node is None or len(node.inputs) != 2:
        return refuse("{} and {} are not two of a kind", one, other)
    return op.Transpose(op.node(node.op_type, [x, y], node.attributes)[0], perm=one)


@rule(P.Concat(P.several("xs", some=P.Transpose), axis="axis"))
def concat_of_transposes(op: Tape, xs: tuple[Value, ...], axis: int) -> Replacement:
    """Concat(Transpose(a, p), Transpose(b, p)) -> Transpose(Concat(a, b), p)."""
    makers = [x.producer() for x in xs if len(x.uses()) == 1 and not x.is_graph_output()]
    perms = {tuple(m.attributes.get_ints("perm", ())) for m in makers if m is not None}
    perm, below = max(perms, default=()), [m.inputs[0] for m in makers if m is not None]
    turned = all(m is not None and m.op_type == "Transpose" for m in makers)
    at = normal([axis], len(perm))
    if not turned or not perm or len(perms) != 1 or not len(below) == len(xs) > 1 or at is None:
        return refuse("its operands are not all turned alike, for it alone")
    return op.Transpose(op.Concat(*below, axis=perm[at[0]]), perm=perm)


TURNED = transpose_of_turned + operator_of_transposes + concat_of_transposes
