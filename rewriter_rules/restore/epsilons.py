"""The epsilon of a norm that an exporter rounded."""

from __future__ import annotations

from onnx_ir import Node, TensorProtocol, Value

from vlmpass.ir_tools.operators import rearranging
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, Tape, rule
from vlmpass.rewriter_rules.restore.rounded import FLOAT_X, HELD, RESTORES, Exact, exactly, reading

__all__ = ["NORMS"]

EPSILONS = tuple(
    Exact(float(text), text)
    for text in (f"{digit}e-{power:02d}" for power in range(3, 13) for digit in (1, 5))
)
MEAN = P.through(P.ReduceMean(P.any, ...).shared, "Cast", *sorted(rearranging())).named("x")
SUM = P.Add(MEAN, HELD)


@rule(
    P.Sqrt(SUM) | P.Pow(SUM, P(0.5) | P(-0.5), _node="power"),
    fast_math=True,
    effects=RESTORES,
    dtypes=FLOAT_X,
)
def restore_epsilon(op: Tape, x: Value, c: TensorProtocol, power: Node | None) -> Replacement:
    """Sqrt(ReduceMean(x) + c) -> Sqrt(ReduceMean(x) + 1e-05), when c is it, rounded."""
    number = exactly(c, [EPSILONS])
    if isinstance(number, Declined):
        return number
    total = reading(op, "Add", x, number)
    return op.Sqrt(total) if power is None else op.Pow(total, power.inputs[1])


NORMS = restore_epsilon
