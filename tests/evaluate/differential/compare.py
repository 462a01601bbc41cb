"""Folding against ONNX Runtime and the reference evaluator, on random cases of every operator.

``python -m tests.evaluate.differential.compare --count 400 --seed 3`` draws so many cases of every
operator (``--only Slice,Pad`` of these), prints what is wrong and how many were folded.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir

from tests.evaluate.differential import cases, scattered, structure
from tests.evaluate.differential.draw import Case, Draw, element_type
from tests.evaluate.differential.runtimes import Answer, in_onnxruntime, in_reference, model_of
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.evaluate import can_evaluate, evaluate
from vlmpass.ir_tools.shapes import constant_of
from vlmpass.passes.folding import constants
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.infer import Infer

GENERATORS = {**cases.GENERATORS, **structure.GENERATORS, **scattered.GENERATORS}
ROUGH = frozenset({"Erf"})
"""What the reference evaluator approximates to 1e-7, which is no reason to call others wrong."""
REFERENCE_ULPS = {"Exp": 4, "Pow": 4}
"""numpy's vectorised functions, which the reference evaluator uses, are that far off."""
Folded = list[np.ndarray] | None


@dataclass
class Trial:
    """A case and what the two others make of it."""

    case: Case
    model: onnx.ModelProto
    runtime: Answer
    reference: Answer

    def agreed(self) -> bool:
        """Whether both others give outputs, and the same, of a valid node without strings."""
        if self.case.wild or any(x is not None and x.dtype == object for x in self.case.inputs):
            return False
        a, b = self.runtime.outputs, self.reference.outputs
        return a is not None and b is not None and difference(b, a) is None

    def fault(self, folded: Folded) -> str | None:
        """Say what is wrong with a result, None if nothing is or there is none."""
        if folded is None:
            return None
        if self.runtime.outputs is None and not self.runtime.silent:
            return f"folded, but ONNX Runtime: {self.runtime.reason}"
        if self.runtime.outputs is None and self.reference.outputs is None:
            return f"folded, but nobody computes it: {self.reference.reason}"
        op_type = self.case.op_type
        for name, answer in (("ONNX Runtime", self.runtime), ("reference", self.reference)):
            if answer.outputs is None or (name == "reference" and op_type in ROUGH):
                continue
            ulps = REFERENCE_ULPS.get(op_type, 1) if name == "reference" else 1
            found = difference(folded, answer.outputs, ulps)
            if found is not None:
                return f"{name}: {found}"
        return None


@dataclass
class Tally:
    """What came of the trials of one operator."""

    trials: int = 0
    agreed: int = 0
    folded: int = 0
    declined: str = ""
    faults: list[str] = field(default_factory=list)


def draw_cases(count: int, seed: int, operators: Sequence[str]) -> list[Case]:
    drawn = []
    for op_type in operators:
        for index in range(count):
            draw = Draw((seed, index, *op_type.encode()))
            case = GENERATORS[op_type](draw, op_type)
            drawn.append(cases.wild(draw, case) if draw.chance(0.06) else case)
    return drawn


def trials_of(drawn: Sequence[Case]) -> list[Trial]:
    models = [model_of(case) for case in drawn]
    answers = in_onnxruntime(models)
    return [
        Trial(case, model, answer, in_reference(model))
        for case, model, answer in zip(drawn, models, answers, strict=True)
    ]


def directly(trial: Trial) -> Folded:
    """Evaluate the node alone."""
    (node,) = ir.from_proto(trial.model).graph
    if not can_evaluate(node) or any(
        x is not None and x.dtype == object for x in trial.case.inputs
    ):
        return None
    return evaluate(node, trial.case.inputs, {"": trial.case.opset})


def by_pass(trial: Trial) -> Folded:
    """Run the passes that fold, as the command line does."""
    model = ir.from_proto(trial.model)
    try:
        Infer().run(model)
        Fold().run(model)
    except VlmpassError:
        return None  # an invalid node
    found = [constant_of(value, model.ir_version) for value in model.graph.outputs]
    if any(tensor is None for tensor in found):
        return None
    return [tensor.numpy() for tensor in found if tensor is not None]


def lazily(trial: Trial) -> Folded:
    """Run them as if every constant were large."""
    with mock.patch.object(constants, "_EAGER", -1):
        return by_pass(trial)


WAYS: tuple[Callable[[Trial], Folded], ...] = (directly, by_pass, lazily)


def faults_of(trial: Trial) -> Iterator[str]:
    for way in WAYS:
        try:
            fault = trial.fault(way(trial))
        except Exception as error:  # noqa: BLE001 - none of ours, and so a defect
            fault = f"raises {type(error).__name__}: {error}"
        if fault is not None:
            yield f"{way.__name__}: {trial.case}: {fault}"


def run(trials: Sequence[Trial]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for trial in trials:
        tally = tallies.setdefault(trial.case.op_type, Tally())
        tally.trials += 1
        tally.faults.extend(faults_of(trial))
        if trial.agreed():
            tally.agreed += 1
            with suppress(Exception):  # counted among the faults
                folded = directly(trial)
                tally.folded += folded is not None
                if folded is None and not tally.declined:
                    tally.declined = f"{trial.case}: {trial.runtime.outputs}"
    return tallies


def _wide(array: np.ndarray) -> np.ndarray:
    kind = element_type(array)
    plain = array.dtype.kind in "iubOU" or kind in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return array if plain or kind == ir.DataType.FLOAT16 else array.astype(np.float32)


def difference(
    found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], ulps: int = 1
) -> str | None:
    """Say how two results differ: shapes, types, elements; floats may be some ulps apart."""
    for a, b in zip(found, wanted, strict=True):
        if a.shape != b.shape:
            return f"shape {a.shape}, not {b.shape}"
        both = _wide(a), _wide(b)
        if (a.dtype == object) != (b.dtype == object and a.dtype.kind != "U"):
            both = a.astype(str), b.astype(str)
        elif both[0].dtype != both[1].dtype:
            return f"type {a.dtype}, not {b.dtype}"
        if not _same(*both, ulps).all():
            return f"{a.ravel()[:8]}, not {b.ravel()[:8]}"
    return None


def _same(a: np.ndarray, b: np.ndarray, ulps: int) -> np.ndarray:
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    with np.errstate(all="ignore"):
        equal = (a == b) & (np.signbit(a) == np.signbit(b))
        step = ulps * np.spacing(np.maximum(np.abs(a), np.abs(b))).astype(np.longdouble)
        near = np.abs(a.astype(np.longdouble) - b) <= step
        return equal | (np.isnan(a) & np.isnan(b)) | (near & (a != 0) & (b != 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--declined", action="store_true")
    parser.add_argument("--show", type=int, default=3)
    given = parser.parse_args()
    operators = given.only.split(",") if given.only else sorted(GENERATORS)
    tallies = run(trials_of(draw_cases(given.count, given.seed, operators)))
    for op_type, tally in tallies.items():
        kinds = Counter(fault.split(":")[0] for fault in tally.faults)
        print(
            f"{op_type:20} {tally.trials:5} {tally.agreed:5} agreed {tally.folded:5} folded", end=""
        )
        print(f" {dict(kinds)} WRONG" if tally.faults else "")
        if given.declined and tally.declined:
            print("    declined:", tally.declined[:300])
        for fault in tally.faults[: given.show]:
            print("   ", fault)


if __name__ == "__main__":
    main()
