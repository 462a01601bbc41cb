"""The whole matrix of onnx's node tests and opsets: nothing invalid, nothing wrong."""

import os
import re

import numpy as np
import pytest

from .opset_matrix import (
    IMPOSSIBLE,
    INTERFACE,
    TARGETS,
    Verdict,
    cases,
    judge,
    opset_of,
    run,
    tally,
)


@pytest.mark.slow
def test_nothing_is_invalid_or_wrong_and_nearly_everything_is_converted():
    """One test, since the matrix is run once; what it says is in docs/opset-matrix.md."""
    verdicts = run(os.cpu_count() or 1, TARGETS)
    bad = [v for v in verdicts if v.kind in ("wrong", "invalid", "crash", "unrun")]
    assert [(v.kind, v.case, v.source, v.target, v.reason) for v in bad] == []
    up = tally(verdicts)["up"]
    assert up["right"] > 9000
    assert up.get("refused", 0) == 0
    _everything_that_can_be_converted_goes_down([v for v in verdicts if not v.up])


def _everything_that_can_be_converted_goes_down(down: list[Verdict]) -> None:
    refused = [v for v in down if v.kind == "refused"]
    assert all(v.reason for v in refused)
    impossible = "|".join(pattern for pattern, _, _ in IMPOSSIBLE)
    assert [(v.case, v.target) for v in refused if not re.search(impossible, v.reason)] == []
    right = sum(v.kind == "right" for v in down)
    assert right > 10000
    kept = [v for v in refused if INTERFACE not in v.reason]
    assert right / (right + len(kept)) > 0.98


@pytest.mark.slow
def test_back_again_at_opsets_taken_at_random():
    """Each case of a sample goes to one opset and back; the whole is `--back` of the script."""
    random = np.random.default_rng(0)
    usable = [name for name in cases() if not name.endswith("_expanded")]
    names = random.choice(usable, 150, replace=False)
    found = []
    for name in sorted(names):
        case = cases()[name]
        targets = [target for target in TARGETS if target != opset_of(case.model)]
        found.append(judge(case, int(random.choice(targets)), back=True))
    bad = [v for v in found if v.kind in ("wrong", "invalid", "crash", "unrun")]
    assert [(v.kind, v.case, v.source, v.target, v.reason) for v in bad] == []
    assert sum(v.kind == "right" for v in found) > 100
