"""Each rule on graphs written out: what it does, and the reason where it does nothing."""

from __future__ import annotations

import pytest
from rewrite.support import refuses, rewrites

from rules.fires_simplify import FIRES
from rules.refuses_simplify import REFUSES
from vlmpass.ir_tools.rewrite import Rule
from vlmpass.rewriter_rules.simplify import SIMPLIFY

RULES = {rule.name: rule for rule in SIMPLIFY}


def _listed(table: dict[str, list[tuple[str, str, str]]]) -> list[object]:
    return [
        pytest.param(RULES[name], *case, id=f"{name}-{number}")
        for name, cases in table.items()
        for number, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("rule", "head", "before", "after"), _listed(FIRES))
def test_fires(rule: Rule, head: str, before: str, after: str) -> None:
    wanted = f"g {head} {{ {after} }}" if after else None
    rewrites(rule, f"g {head} {{ {before} }}", wanted, fast_math=True)


@pytest.mark.parametrize(("rule", "head", "body", "because"), _listed(REFUSES))
def test_refuses(rule: Rule, head: str, body: str, because: str) -> None:
    refuses(rule, f"g {head} {{ {body} }}", because, fast_math=True)


def test_every_rule_is_shown_to_fire_and_to_refuse() -> None:
    assert set(FIRES) == set(RULES)
    assert set(REFUSES) == set(RULES)
