"""Reductions in all their spellings as one operator."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import same_shape

__all__ = ["REDUCTIONS"]

REDUCE = P.ReduceMean | P.ReduceSum | P.ReduceMax | P.ReduceMin | P.ReduceSumSquare | P.ReduceL2
REDUCED = REDUCE("x", axes="axes", keepdims=0, _node="node")


@rule((P.Reshape(REDUCED, P.any) | P.Unsqueeze(REDUCED, ...)).named("column"))
def axis_put_back(
    op: Tape, x: Value, axes: tuple[int, ...], node: Node, column: Value
) -> Replacement:
    """Unsqueeze(ReduceMean(x, axes, keepdims=0), axes) -> ReduceMean(x, axes), likewise others."""
    kept = op.node(node.op_type, [x], {"axes": axes, "keepdims": 1})[0]
    if not same_shape(kept, column):
        return refuse("{} is not known to have the shape of {} with sizes of 1", column, node)
    return kept


REDUCTIONS = RuleSet((axis_put_back,))
