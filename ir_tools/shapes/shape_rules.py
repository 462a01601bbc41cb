"""The rules of shapes: one function for an operator, found by being decorated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from vlmpass.ir_tools.shapes.call import Rule

__all__ = ["GROUP", "all_shape_rules", "shape_rule"]

GROUP = "vlmpass.shapes"
"""The entry points behind which other packages have modules with rules of shapes."""

AnyRule = TypeVar("AnyRule", bound=Rule)

_RULES: dict[tuple[str, str], Rule] = {}


def shape_rule(operators: str, domain: str = "") -> Callable[[AnyRule], AnyRule]:
    """Let a function say what is known about the outputs of operators.

    Args:
        operators: One operator or several, separated by spaces. A later rule takes the place of
            an earlier one.
        domain: Theirs; the standard one by default.
    """

    def enter(rule: AnyRule) -> AnyRule:
        _RULES.update({(domain, operator): rule for operator in operators.split()})
        return rule

    return enter


@cache
def all_shape_rules() -> Mapping[tuple[str, str], Rule]:
    """Return the rules by domain and operator, those of other packages among them."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        point.load()
    return _RULES
