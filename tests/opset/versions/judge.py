"""Every operator version at random opsets: valid and equal, or refused by an error of our own.

As a script it draws so many models of each version, each led to three opsets:

    python -m tests.opset.versions.judge --count 20 [--seed N] [--only REGEX] [--refusals]

A nightly run takes 100 of each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from tests.fuzz.runtime import NEWEST_OPSET, RUNTIME, evaluated
from tests.fuzz.trial import copy, place_of, proto_of, quiet
from tests.opset.opset_cases import RANDOM, differs
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, Refused, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.rewriter_rules.opset import Planner

from .models import Case, cases, targets

BAD = ("raw", "touched", "invalid", "wrong", "lost", "border")
"""What may not happen: an exception of another library, a model that planning alone has changed, a
result that is not valid or computes something else, one that ONNX Runtime has no kernel for though
it had for the source, or one with other inputs and outputs."""
MISREAD = {
    "AveragePool": 7,
    "BatchNormalization": 99,
    "Hardmax": 13,
    "LogSoftmax": 13,
    "PRelu": 7,
    "RoiAlign": 16,
    "Softmax": 13,
}
"""Versions below which the reference evaluator computes an operator otherwise: as it is from there
on, or AveragePool with its padding counted, and BatchNormalization as if it trained, or all in
one type."""
Answer = list[object] | None


@dataclass(frozen=True)
class Verdict:
    """What became of a case at an opset: one of BAD, right, refused or silent.

    Silent is one that is valid and whose source nothing here computes.
    """

    case: Case
    target: int
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.case} to {self.target}: {self.detail}"


class Trial:
    """A case, and what it computes by ONNX Runtime and by the reference evaluator."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def expected(self) -> tuple[Answer, Answer]:
        return _answers(self.case.model, self.case.feeds)

    @property
    def truthful(self) -> bool:
        """Whether outputs are declared as they are: onnx infers some sizes of Attention wrongly."""
        outputs = self.case.model.graph.output
        return all(
            isinstance(made, list) or made is None or _fits(each, np.shape(made))
            for answer in self.expected
            for each, made in zip(outputs, answer or (), strict=False)
        )

    def at(self, target: int) -> Verdict:
        """Convert the case and judge the result."""

        def verdict(kind: str, detail: str = "") -> Verdict:
            return Verdict(self.case, target, kind, detail)

        model = load(copy(self.case.model))
        before = proto_of(model).SerializeToString(deterministic=True)
        try:
            Planner(model).plan(target)
            if proto_of(model).SerializeToString(deterministic=True) != before:
                return verdict("touched", "it is another model before anything is applied")
            ConvertOpset(to=target).run(model)
        except Refused as refused:
            return verdict("refused", "; ".join(each.reason for each in refused.refusals))
        except CheckError as error:
            return verdict("invalid", str(error))
        except VlmpassError as error:
            return verdict("refused", str(error))
        except Exception as error:  # noqa: BLE001 - any other is what is looked for
            return verdict("raw", place_of(error))
        result = proto_of(model)
        try:
            check(load(copy(result)))
        except VlmpassError as error:
            return verdict(*self._faulted(target, str(error)))
        if problem := _border(self.case.model, result):
            return verdict("border", problem)
        return verdict(*self._compared(result, target))

    def _faulted(self, target: int, problem: str) -> tuple[str, str]:
        """Say that a result is not valid, unless what the source declares is not true either."""
        opened = copy(self.case.model)
        for each in opened.graph.output:
            for dim in each.type.tensor_type.shape.dim:
                dim.Clear()
        model = load(opened)
        ConvertOpset(to=target).run(model)
        try:
            check(model)
        except VlmpassError:
            return "invalid", problem
        return ("silent", "") if self.expected == (None, None) else ("invalid", problem)

    def _compared(self, result: onnx.ModelProto, target: int) -> tuple[str, str]:
        if self.expected == (None, None):
            return "silent", ""
        found = _answers(result, self.case.feeds)
        values = not RANDOM.search(self.case.operator.lower()) and not _draws(self.case)
        why = ""
        for wanted in self.expected:
            for answer in found:
                if wanted is None or answer is None:
                    continue
                unlike = _unlike(wanted, answer, values)
                why = why or unlike
                if not unlike:
                    return self._loaded(found, target)
        if why:
            return "wrong", why
        return self._unrun(result, target)

    def _unrun(self, result: onnx.ModelProto, target: int) -> tuple[str, str]:
        """Judge a result that nothing here computes, though something does the source."""
        plain = all(np.asarray(each).dtype.kind != "V" for each in self.case.feeds.values())
        if target > self.case.opset or not plain:
            return "silent", ""
        if self.expected[0] is not None or RUNTIME.fails(result, self.case.feeds):
            return "lost", "nothing runs the result"
        return "silent", ""

    def _loaded(self, found: tuple[Answer, Answer], target: int) -> tuple[str, str]:
        # Above its own opset a node is what it was: a kernel that is not there is no fault of ours.
        known = self.case.opset > target <= NEWEST_OPSET
        if self.expected[0] is not None and found[0] is None and known:
            return "lost", "ONNX Runtime runs the source and not the result"
        return "right", ""


def _fits(declared: onnx.ValueInfoProto, made: tuple[int, ...]) -> bool:
    kind = declared.type.tensor_type
    if not kind.HasField("shape"):
        return True
    sizes = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]
    pairs = zip(sizes, made, strict=False)
    return len(sizes) == len(made) and all(one in (None, other) for one, other in pairs)


def _answers(model: onnx.ModelProto, feeds: dict[str, object]) -> tuple[Answer, Answer]:
    misread = any(
        opset < MISREAD.get(node.op_type, 0)
        for nodes, opset in _nodes(model)
        for node in nodes
        if not node.domain
    )
    return RUNTIME.run(model, feeds), None if misread else evaluated(model, feeds)


def _nodes(model: onnx.ModelProto) -> Iterator[tuple[Sequence[onnx.NodeProto], int]]:
    """Yield the nodes of graphs and functions, and their opset."""
    for owner, imports in ((model.graph, model.opset_import),
                           *((each, each.opset_import) for each in model.functions)):  # fmt: skip
        opset = next((each.version for each in imports if not each.domain), 0)
        yield owner.node, opset
        for node in owner.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield attribute.g.node, opset


def _draws(case: Case) -> bool:
    """Whether a case draws numbers: Dropout in training, too."""
    training = case.operator == "Dropout" and case.version >= 12
    return training or case.operator in ("Bernoulli", "Multinomial")


def _unlike(wanted: Sequence[object], found: Sequence[object], values: bool) -> str:
    pairs = zip(wanted, found, strict=True)
    return next((why for w, f in pairs if (why := differs(w, f, 1e-4, 1e-5, values))), "")


def _border(source: onnx.ModelProto, result: onnx.ModelProto) -> str:
    """Say how the result's inputs and outputs differ from the source's; empty if they do not."""
    for side in ("input", "output"):
        old, new = (list(getattr(each.graph, side)) for each in (source, result))
        if [each.name for each in old] != [each.name for each in new]:
            return f"{side}s have other names"
        for before, after in zip(old, new, strict=True):
            if before.type.tensor_type.elem_type != after.type.tensor_type.elem_type:
                return f"{side} {before.name} has another element type"
    return ""


def judged(case: Case, seed: int = 0, count: int = 3) -> Iterator[Verdict]:
    """Lead a case to some opsets, the nearest and the farthest below more often than others."""
    rng = np.random.default_rng([seed, case.opset, *case.operator.encode()])
    trial = Trial(case)
    if not trial.truthful:
        return
    opsets = [each for each in range(OLDEST_OPSET, newest_opset() + 1) if each != case.opset]
    below = [each for each in opsets if each < case.version]
    chosen = set(rng.choice(opsets, count, replace=False).tolist())
    if below:
        chosen.add(int(rng.choice(below)))
    for target in sorted(chosen):
        yield trial.at(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--refusals", action="store_true", help="print why cases are refused")
    parser.add_argument("--shown", type=int, default=1, help="models to print of each kind")
    arguments = parser.parse_args()
    quiet()
    chosen = [each for each in targets() if re.fullmatch(arguments.only or ".*", each[0])]
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for case in cases(arguments.seed, arguments.count, chosen):
        counts["models"] += 1
        for each in judged(case, arguments.seed):
            counts[each.kind] += 1
            if each.kind == "refused":
                refusals[f"{case.operator}: {each.detail}"[:160]] += 1
            if each.kind not in BAD:
                continue
            key = f"{each.kind} {case.operator} {re.sub('[0-9.]+', '#', each.detail)[:100]}"
            seen[key] += 1
            if seen[key] <= arguments.shown:
                text = re.sub(r"\{[^{}]{80,}\}", "{…}", onnx.printer.to_text(case.model))
                print(f"{each}\n{text}\n", flush=True)
    print(dict(sorted(counts.items())))
    for key, number in (
        *seen.most_common(),
        *(refusals.most_common() if arguments.refusals else ()),
    ):
        print(f"{number:6} {key}")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
