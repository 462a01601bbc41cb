"""Whole exported models for targets run there and compute the same; the script has all of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.legalize.target_models import EXPORTS, RUNS, TARGETS, judge, page, sources
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.system.runtime import require_runtime

_QUICK = [each for each in TARGETS if each != "iree"]
"""IREE compiles a model for half a minute."""

_ALL = [(path, target) for path in sorted(EXPORTS.glob("*.onnx")) for target in _QUICK]
SAMPLE = random.Random(6).sample(_ALL, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "target"), SAMPLE, ids=lambda each: getattr(each, "stem", each))
def test_a_model_for_a_target_is_right_or_refused(path: Path, target: str) -> None:
    if target in RUNS:
        try:
            require_runtime(RUNS[target])
        except VerifyError as error:
            pytest.skip(str(error))
    (source,) = sources([str(path)])
    found = judge(source, target)
    assert found.kind in ("equal", "clean", "refused"), found
    assert found.kind != "refused" or found.reason
    assert found.model in page([found])
