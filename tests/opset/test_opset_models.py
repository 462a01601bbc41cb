"""Whole exported models at other opsets compute what they computed; the script has all of them."""

import random

import pytest

from .opset_models import EXPORTS, TARGETS, judge, page

_ALL = [(path, target) for path in sorted(EXPORTS.glob("*.onnx")) for target in TARGETS]
SAMPLE = random.Random(4).sample(_ALL, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "target"), SAMPLE, ids=lambda each: getattr(each, "stem", each))
def test_export_computes_the_same(path, target):
    found = judge(path, target)
    if "bfloat16" in path.name and target < 13:
        assert found.kind == "refused"
        assert "bfloat16" in found.reason
    else:
        assert (found.kind, found.reason) == ("equal", "")
    assert found.model in page([found])
