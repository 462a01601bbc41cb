"""A sample of rules' cases whose attributes calls give, and those that were read as absent."""

from __future__ import annotations

import random

import pytest

from .references import cases, judge

SEED = 2026
SOME = 4


def test_attributes_that_calls_give_are_not_taken_for_absent_ones() -> None:
    for name, model, texts in random.Random(SEED).sample([*cases("fuse.attention")], SOME):
        assert not list(judge(model, texts)), name


@pytest.mark.parametrize("name", ["attention-17", "past-of-attention-24"])
def test_what_was_read_of_a_reference(name: str) -> None:
    """A perm, and whether attention is causal."""
    for found, model, texts in cases("fuse.attention"):
        if found == name:
            assert not list(judge(model, texts[-1:] if name == "attention-17" else texts[:1]))
