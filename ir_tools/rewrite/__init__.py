"""The rewriter: rules as patterns with one function, applied to a fixed point.

    @rule(P.Cast(P.Cast("x", to="inner").shared, to="outer"))
    def cast_of_cast(op: Tape, x: Value, inner: DataType, outer: DataType) -> Replacement:
        '''Cast(Cast(x, inner), outer) -> Cast(x, outer), when inner loses nothing of x.'''
        if not holds_all(inner, x.dtype):
            return refuse("{} to {} may lose bits", x.dtype, inner)
        return op.Cast(x, to=outer)

A pattern is an operator of `P` on patterns; ``"x"`` captures a value, ``"b?"`` one that may be
absent, ``"xs*"`` all that are left, a number is a constant, ``...`` any further inputs and
attributes, and Python arithmetic builds Add, Mul, Pow … Operands of commutative operators match
either way. Attributes are compared (``axis=-1``, also where the opset has them as an input) or
captured (``perm="perm"``). ``a | b`` are alternatives, `P.maybe` and `P.through` optional
wrappers, ``.named("y")`` captures what a part matches, ``.shared`` lets others use it. A part used
twice is one value; so is a capture. Several patterns are several roots that share values.

The function's annotations say what captures must be; it builds on a tape and returns what stands
for the outputs, or why not. The engine checks the rest, splices, and names what loops.
`apply_rules` applies rules to a model, `explain` says why one does not.
"""

from vlmpass.ir_tools.errors import RuleError
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges, changes
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.rewrite.captures import FloatAttr
from vlmpass.ir_tools.rewrite.engine import NoFixpoint, Rewrites, Unwanted, anything, apply_rules
from vlmpass.ir_tools.rewrite.explanation import Attempt, explain, where_it_applies
from vlmpass.ir_tools.rewrite.interior import Order, make_way
from vlmpass.ir_tools.rewrite.pattern import Operator, P, Pattern
from vlmpass.ir_tools.rewrite.registry import all_rules, rule_named
from vlmpass.ir_tools.rewrite.rule import (
    Declined,
    Replacement,
    Rule,
    RuleSet,
    refuse,
    rule,
)

__all__ = [
    "EXACT",
    "Attempt",
    "Declined",
    "Effect",
    "FloatAttr",
    "NoFixpoint",
    "NumberChanges",
    "Operator",
    "Order",
    "P",
    "Pattern",
    "Replacement",
    "Rewrites",
    "Rule",
    "RuleError",
    "RuleSet",
    "Tape",
    "Unwanted",
    "all_rules",
    "anything",
    "apply_rules",
    "changes",
    "explain",
    "make_way",
    "refuse",
    "rule",
    "rule_named",
    "where_it_applies",
]
