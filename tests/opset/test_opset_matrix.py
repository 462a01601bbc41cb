"""A part of the matrix of onnx's node tests and opsets: nothing invalid, nothing wrong."""

import os
import random
import re

import numpy as np
import pytest

from .opset_cases import Verdict, cases, judge
from .opset_matrix import (
    BAD,
    BORDER,
    INTERFACE,
    REFUSED,
    TARGETS,
    Job,
    matrix,
    run,
    share,
    tally,
    widened,
)

EACH = 4
"""Opsets that every case is taken to; the script takes it to all."""


@pytest.mark.slow
def test_nothing_is_invalid_or_wrong_and_nearly_everything_is_converted():
    """Every case at a few opsets, drawn; what the whole says is in docs/opset-matrix.md."""
    workers = os.cpu_count() or 1
    kept = run(drawn(), workers=workers)
    _nothing_is_wrong(kept)
    up = tally(kept)["up"]
    assert up["right"] > 3000
    assert up.get("refused", 0) == 0
    _refused_for_what_is_known([v for v in kept if v.kind == "refused"])
    within = [v for v in kept if not re.search(INTERFACE, v.reason)]
    assert share(within) > 0.98
    wide = widened(kept, workers)
    _nothing_is_wrong(wide)
    assert [(v.case, v.target) for v in wide if re.search(BORDER, v.reason)] == []
    _refused_for_what_is_known([v for v in wide if v.kind == "refused"])
    assert share(wide) > 0.95


def drawn() -> list[Job]:
    """Return every case with some of its opsets, the same at every run."""
    draw = random.Random(7)
    found: dict[str, list[int]] = {}
    for name, target in matrix(TARGETS):
        found.setdefault(name, []).append(target)
    return [(name, target) for name in found for target in sorted(draw.sample(found[name], EACH))]


def _nothing_is_wrong(verdicts: list[Verdict]) -> None:
    bad = [v for v in verdicts if v.kind in BAD]
    assert [(v.kind, v.case, v.source, v.target, v.reason) for v in bad] == []


def _refused_for_what_is_known(refused: list[Verdict]) -> None:
    """A refusal for any other reason is a step that wants an adapter."""
    known = "|".join(pattern for pattern, _, _ in REFUSED)
    assert [(v.case, v.target) for v in refused if not re.search(known, v.reason)] == []


@pytest.mark.slow
def test_back_again_at_opsets_taken_at_random():
    """Each case of a sample goes to one opset and back; the whole is `--back` of the script."""
    random = np.random.default_rng(0)
    jobs: dict[str, list[int]] = {}
    for name, target in matrix(TARGETS, back=True):
        if not name.endswith("_expanded"):
            jobs.setdefault(name, []).append(target)
    names = random.choice(list(jobs), 150, replace=False)
    found = [judge(cases()[n], int(random.choice(jobs[n])), back=True) for n in sorted(names)]
    _nothing_is_wrong(found)
    assert sum(v.kind == "right" for v in found) > 100
