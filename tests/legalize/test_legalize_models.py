"""Whole exported models for targets run there and compute the same; the script has all of them."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from tests.legalize.target_models import EXPORTS, TARGETS, judge, page, sources

NEEDS = {"openvino": "openvino"}
_ALL = [(path, target) for path in sorted(EXPORTS.glob("*.onnx")) for target in TARGETS]
SAMPLE = random.Random(6).sample(_ALL, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "target"), SAMPLE, ids=lambda each: getattr(each, "stem", each))
def test_a_model_for_a_target_is_right_or_refused(path: Path, target: str) -> None:
    if target in NEEDS and importlib.util.find_spec(NEEDS[target]) is None:
        pytest.skip(f"{target} is not installed")
    (source,) = sources([str(path)])
    found = judge(source, target)
    assert found.kind in ("equal", "clean", "refused"), found
    assert found.kind != "refused" or found.reason
    assert found.model in page([found])
