"""The whole matrix of onnx's node tests and opsets: nothing invalid, nothing wrong."""

import os

import pytest

from .opset_matrix import TARGETS, Verdict, run, tally

# Element types and kinds of values that the lower opset does not have at all.
ABSENT = (
    "does not admit",
    "does not have",
    "no older operator works on strings",
    "optional values",
)


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return run(os.cpu_count() or 1, TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wrong", "invalid", "crash", "unrun"])
def test_nothing_is_wrong(verdicts, kind):
    assert [(v.case, v.source, v.target, v.reason) for v in verdicts if v.kind == kind] == []


@pytest.mark.slow
def test_everything_is_converted_upwards(verdicts):
    counts = tally(verdicts)["up"]
    assert counts["right"] > 9000
    assert counts.get("refused", 0) == 0


@pytest.mark.slow
def test_nearly_everything_that_has_its_types_is_converted_downwards(verdicts):
    down = [v for v in verdicts if not v.up]
    refused = [v for v in down if v.kind == "refused"]
    avoidable = [v for v in refused if not any(word in v.reason for word in ABSENT)]
    right = sum(v.kind == "right" for v in down)
    assert right > 10000
    assert right / (right + len(avoidable)) > 0.95
    assert all(v.reason for v in refused)
