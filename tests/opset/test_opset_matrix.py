"""The whole matrix of onnx's node tests and opsets: nothing invalid, nothing wrong."""

import os

import pytest

from .opset_matrix import INTERFACE, TARGETS, Verdict, run, tally


@pytest.mark.slow
def test_nothing_is_invalid_or_wrong_and_nearly_everything_is_converted():
    """One test, since the matrix is run once; what it says is in docs/opset-matrix.md."""
    verdicts = run(os.cpu_count() or 1, TARGETS)
    bad = [v for v in verdicts if v.kind in ("wrong", "invalid", "crash", "unrun")]
    assert [(v.kind, v.case, v.source, v.target, v.reason) for v in bad] == []
    up = tally(verdicts)["up"]
    assert up["right"] > 9000
    assert up.get("refused", 0) == 0
    _nearly_everything_that_may_keep_its_interface_goes_down([v for v in verdicts if not v.up])


def _nearly_everything_that_may_keep_its_interface_goes_down(down: list[Verdict]) -> None:
    refused = [v for v in down if v.kind == "refused"]
    assert all(v.reason for v in refused)
    avoidable = [v for v in refused if INTERFACE not in v.reason]
    right = sum(v.kind == "right" for v in down)
    assert right > 10000
    assert right / (right + len(avoidable)) > 0.97
