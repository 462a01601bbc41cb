"""A sample of hostile graphs through passes and opsets; planted defects that they find."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from vlmpass.rewriter_rules.simplify import SIMPLIFY, chains

from .hostile import cases, feeds_of, judge
from .planted import Plant, function_of, never_refusing, replaced
from .trial import Finding, Trial

SEED = 2026
MODELS = 100
PARTS = 4
GUARDED = (
    "cast-of-cast", "cast-to-same", "clip-nothing", "expand-to-same", "flatten-matrix",
    "gather-of-shape", "gemm-add", "matmul-add", "pad-nothing", "reshape-of-reshape",
    "reshape-of-thin-transpose", "reshape-to-same", "scale-of-matmul", "slice-everything",
    "slice-of-slice", "split-in-one", "squeeze-of-split", "squeeze-of-unsqueeze", "sum-of-conv",
    "tile-once", "transpose-nowhere", "unsqueeze-of-squeeze",
)  # fmt: skip
"""Rules that go wrong where they do not look."""

PLANTS = [
    Plant(
        "axes are counted as they are",
        replaced(chains, "normal", lambda axes, rank: tuple(axes)),
        "squeeze",
        ("simplify",),
    ),
    Plant(
        "bits are never lost",
        replaced(chains, "holds_all", lambda wide, narrow: True),
        "cast-of-cast",
        ("simplify",),
    ),
]


def through(plant: Plant) -> Iterator[Finding]:
    for _, model in cases(SEED, plant.count, only=plant.only):
        trial = Trial(model, feeds_of(model, np.random.default_rng(SEED)))
        for text in plant.texts:
            yield from trial.through(text)


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_but_our_own_errors_and_right_models(part: int) -> None:
    models = cases(SEED + part, MODELS // PARTS)
    found = [each for name, model in models for each in judge(name, model)]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("name", GUARDED)
def test_a_rule_that_does_not_look_is_found(name: str) -> None:
    (rule,) = (each for each in SIMPLIFY if each.name == name)
    plant = Plant(name, lambda patch: None, f"^{name}$", ("simplify",), count=60)
    with function_of(rule, never_refusing(rule)):
        assert next(through(plant), None) is not None


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_defect_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.apply(monkeypatch)
    assert next(through(plant), None) is not None


def test_twenty_defects_are_planted() -> None:
    assert len(GUARDED) + len(PLANTS) >= 20
