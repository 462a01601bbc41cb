"""The rewriter: rules as patterns with one function, applied to a fixed point.

A rule is what `rule` makes of a function; `apply_rules` applies rules to a model.
"""

from vlmpass.ir_tools.rewrite.engine import NoFixpoint, Rewrites, apply_rules
from vlmpass.ir_tools.rewrite.explain import Attempt, explain
from vlmpass.ir_tools.rewrite.interior import Order, make_way
from vlmpass.ir_tools.rewrite.pattern import Operator, P, Pattern
from vlmpass.ir_tools.rewrite.registry import all_rules, rule_named
from vlmpass.ir_tools.rewrite.rule import (
    Declined,
    Replacement,
    Rule,
    RuleError,
    RuleSet,
    refuse,
    rule,
)
from vlmpass.ir_tools.tape import Tape

__all__ = [
    "Attempt",
    "Declined",
    "NoFixpoint",
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
    "all_rules",
    "apply_rules",
    "explain",
    "make_way",
    "refuse",
    "rule",
    "rule_named",
]
