"""Random models of operator versions, led to random opsets: valid and equal, or refused by name.

Of the versions that onnx has, ``VLMPASS_OPSET_VERSIONS`` (200, nightly all) are drawn with the seed
``VLMPASS_OPSET_SEED`` (5); ``python -m tests.opset.versions.judge`` takes all, as often as it is
told to.
"""

from __future__ import annotations

import os
from itertools import islice

import numpy as np
import pytest

from .versions.judge import BAD, Verdict, judged
from .versions.models import cases, generators, targets
from .versions.planted import PLANTED, planted

COUNT = int(os.environ.get("VLMPASS_OPSET_VERSIONS", "200"))
SEED = int(os.environ.get("VLMPASS_OPSET_SEED", "5"))
FEW = 30
"""Models of an operator, among which a planted fault has to show."""


def test_every_operator_has_arguments() -> None:
    assert {name for name, _, _ in targets() if not generators(name)} == set()


def test_operator_versions_at_random_opsets() -> None:
    known = targets()
    places = np.random.default_rng(SEED).permutation(len(known))[:COUNT]
    found: list[Verdict] = []
    for case in cases(SEED, 1, [known[place] for place in sorted(places)]):
        found.extend(judged(case, SEED))
    assert [str(each) for each in found if each.kind in BAD] == []
    assert sum(each.kind == "right" for each in found) > 2.5 * len(places)


@pytest.mark.parametrize(("step", "kind"), PLANTED, ids=str)
def test_a_planted_fault_is_found(step, kind, monkeypatch) -> None:
    operator, source, _ = step
    chosen = [each for each in targets() if each[0] == operator and _leads_over(each, step)]
    planted(monkeypatch, step, PLANTED[step, kind])
    for case in islice(cases(SEED, FEW // len(chosen), chosen), FEW):
        if any(each.kind in BAD for each in judged(case, SEED)):
            return
    pytest.fail(f"nothing shows in {FEW} models of {operator}-{source}")


def _leads_over(version: tuple[str, int, int], step: tuple[str, int, int | None]) -> bool:
    """Whether models of a version are led over a step to some opset."""
    _, since, _ = version
    return since >= step[1] if step[2] is None or step[2] < step[1] else since <= step[1]
