"""A sample of hostile graphs, through passes and opsets."""

from __future__ import annotations

import pytest

from .hostile import cases, judge

SEED = 2026
MODELS = 100
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_but_our_own_errors_and_right_models(part: int) -> None:
    models = cases(SEED + part, MODELS // PARTS)
    found = [each for name, model in models for each in judge(name, model)]
    assert not found, "\n".join(map(str, found))
