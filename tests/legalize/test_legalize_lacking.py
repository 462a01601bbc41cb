"""Random models of operator versions at targets that lack them: equal, or refused by name.

Of the versions that onnx has, ``VLMPASS_LACKING_VERSIONS`` (100, nightly all) are drawn with the
seed ``VLMPASS_LACKING_SEED`` (3); ``python -m tests.legalize.lacking`` takes all.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.legalize.lacking import drawn, judged
from tests.opset.versions.judge import BAD, Verdict
from tests.opset.versions.models import targets

COUNT = int(os.environ.get("VLMPASS_LACKING_VERSIONS", "100"))
SEED = int(os.environ.get("VLMPASS_LACKING_SEED", "3"))


def test_operator_versions_at_targets_that_lack_them(tmp_path: Path) -> None:
    known = [each for each in targets() if each[2] >= 13]
    places = np.random.default_rng(SEED).permutation(len(known))[:COUNT]
    found: list[Verdict] = []
    for case in drawn([known[place] for place in sorted(places)], SEED, 1):
        found.extend(judged(case, tmp_path))
    assert [str(each) for each in found if each.kind in BAD] == []
    assert sum(each.kind == "right" for each in found) > COUNT // 6
