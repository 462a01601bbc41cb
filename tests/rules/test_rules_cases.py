"""Each rule on graphs written out: what it does, and the reason where it does nothing."""

from __future__ import annotations

import pytest
from rewrite.support import infer, parse, refuses, rewrites

from rules.catalogue import CASES, FIRES, NO_KERNEL, REFUSES, ROUNDING, RULES
from vlmpass.ir_tools.rewrite import Rule, all_rules

BY_NAME = {rule.name: rule for rule in RULES}


def _listed(table: dict[str, list[tuple[str, str, str]]]) -> list[object]:
    return [
        pytest.param(BY_NAME[name], *case, id=f"{name}-{number}")
        for name, cases in table.items()
        for number, case in enumerate(cases)
    ]


NEWER = ("RMSNormalization", "Swish(", "Swish<", "Attention<", "RotaryEmbedding")
"""What is in no opset below 23."""


def _opset(rule: Rule, text: str) -> int:
    newer = any(name in text for name in NEWER)
    return 24 if newer else max(rule.opset[0] or 0, 20)


@pytest.mark.parametrize(("rule", "head", "before", "after"), _listed(FIRES))
def test_fires(rule: Rule, head: str, before: str, after: str) -> None:
    wanted = f"g {head} {{ {after} }}" if after else None
    text = f"g {head} {{ {before} }}"
    rewrites(
        rule,
        text,
        wanted,
        opset=_opset(rule, text),
        emits=rule.emits,
        fast_math=True,
        rounding=ROUNDING.get(rule.name, 0.0),
        runs=rule.name not in NO_KERNEL,
    )


@pytest.mark.parametrize(("rule", "head", "body", "because"), _listed(REFUSES))
def test_refuses(rule: Rule, head: str, body: str, because: str) -> None:
    text = f"g {head} {{ {body} }}"
    refuses(rule, text, because, opset=_opset(rule, text), emits=rule.emits, fast_math=True)


@pytest.mark.parametrize(("rule", "head", "before", "after"), _listed(FIRES))
def test_types_that_are_inferred_are_those_declared(
    rule: Rule, head: str, before: str, after: str
) -> None:
    text = f"g {head} {{ {before} }}"
    model = parse(text, _opset(rule, text))
    declared = [value.dtype for value in model.graph.outputs]
    for node in model.graph:
        for value in node.outputs:
            value.type = value.shape = None
    assert [value.dtype for value in infer(model).graph.outputs] == declared


def test_every_rule_on_offer_is_in_the_catalogue() -> None:
    """Whose rules are drawn at random, put into branches and functions, and given other users."""
    assert {each.name for each in all_rules()} == set(BY_NAME)


def test_every_rule_is_shown_to_fire_and_to_refuse() -> None:
    assert set(FIRES) == set(BY_NAME)
    assert set(REFUSES) == set(BY_NAME)


@pytest.mark.parametrize("kind", ["FIRES", "REFUSES", "HINTS"])
def test_cases_lie_in_the_file_of_the_rules_module(kind: str) -> None:
    place = {each.name: each.function.__module__.split(".", 2)[2] for each in RULES}
    found = [(name, file) for file, cases in CASES.items() for name in getattr(cases, kind, ())]
    assert all(place[name] == file for name, file in found)
    assert len(found) == len(dict(found))
