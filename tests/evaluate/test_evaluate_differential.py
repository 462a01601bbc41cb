"""Every operator that is folded, on random constants: as ONNX Runtime and the reference have it.

``VLMPASS_FOLD_CASES`` cases of each operator (40) and the seed ``VLMPASS_FOLD_SEED`` (7); nightly
400 of each. ``python -m tests.evaluate.differential.compare --count N --seed S`` shows more.
"""

from __future__ import annotations

import os

import pytest

from tests.evaluate.differential.compare import (
    GENERATORS,
    Trial,
    draw_cases,
    faults_of,
    run,
    trials_of,
)
from tests.evaluate.differential.planted import PLANTED
from vlmpass.ir_tools.evaluate.arithmetic import KERNELS
from vlmpass.ir_tools.evaluate.moves import MOVES
from vlmpass.ir_tools.evaluate.reference import REFERENCE

COUNT = int(os.environ.get("VLMPASS_FOLD_CASES", "40"))
SEED = int(os.environ.get("VLMPASS_FOLD_SEED", "7"))
LEAST = 0.75
# Sums and products of floats depend on their order, and so do ranges of fractions; the modes of
# Pad but for "constant", what runtimes do with nothing to compress, and fractions among the values
# of OneHot, which the reference computes with, are left to the runtime too.
LESS = {
    "CumSum": 0.2,
    "ReduceSum": 0.15,
    "ReduceProd": 0.15,
    "Sum": 0.3,
    "Pad": 0.4,
    "Range": 0.6,
    "Compress": 0.6,
    "OneHot": 0.4,
}


@pytest.fixture(scope="module")
def trials() -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in trials_of(draw_cases(COUNT, SEED, sorted(GENERATORS))):
        found.setdefault(trial.case.op_type, []).append(trial)
    return found


def test_every_operator_that_is_folded_has_cases() -> None:
    assert set(GENERATORS) == {*KERNELS, *MOVES, *REFERENCE}


@pytest.mark.parametrize("op_type", sorted(GENERATORS))
def test_folding_equals_runtime_and_reference(trials, op_type) -> None:
    tally = run(trials[op_type])[op_type]
    assert not tally.faults
    assert tally.agreed >= COUNT / 8, "hardly a case says anything"
    assert tally.folded >= LESS.get(op_type, LEAST) * tally.agreed, tally.declined


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(trials, monkeypatch, name) -> None:
    op_type, plant = PLANTED[name]
    plant(monkeypatch)
    assert any(True for trial in trials[op_type] for _ in faults_of(trial))
