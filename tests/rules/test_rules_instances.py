"""Every rule on random graphs made from its own pattern, compared by numbers."""

from __future__ import annotations

import pytest
from onnx_ir import Value

from rules.catalogue import HINTS, ROUNDING, RULES, RUNNING
from rules.trials import check_rule
from vlmpass.ir_tools.rewrite import P, Replacement, Rule, Tape, rule


@pytest.mark.parametrize("each", RUNNING, ids=str)
def test_fifty_random_graphs_compute_the_same_before_and_after(each: Rule) -> None:
    check_rule(each, HINTS.get(each.name, {}), ROUNDING.get(each.name, 0.0))


def test_hints_are_of_rules_that_exist() -> None:
    assert set(HINTS) <= {each.name for each in RULES}


def test_a_wrong_rule_is_caught() -> None:
    @rule(P.Sub("x", P.Sub("y", "z")))
    def misread(op: Tape, x: Value, y: Value, z: Value) -> Replacement:
        """x - (y - z) -> (x - y) - z, which is wrong."""
        return op.Sub(op.Sub(x, y), z)

    shapes = {"x": "T[a]", "y": "T[a]", "z": "T[a]"}
    with pytest.raises(AssertionError, match="misread: output 0: differs by"):
        check_rule(misread, shapes)


def test_a_rule_that_is_wrong_for_one_type_only_is_caught() -> None:
    @rule(P.Div(P.Mul("x", 3.0), 3.0))
    def cancel(op: Tape, x: Value) -> Replacement:
        """x * 3 / 3 -> x, which overflows for some."""
        return op.Div(op.Mul(x, op.const(3.0, x.dtype)), op.const(3.5, x.dtype))

    with pytest.raises(AssertionError, match="cancel: output 0"):
        check_rule(cancel, {"dtypes": ("float32", "float16")})
