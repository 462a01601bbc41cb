"""Every operator version at a target that lacks it, the type it is used with, or one attribute.

As a script it draws so many models of each version:

    python -m tests.legalize.lacking --count 20 [--seed N] [--only REGEX] [--refusals]
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir

from tests.fuzz.trial import copy, place_of, proto_of, quiet
from tests.opset.versions.judge import BAD, Answer, Trial, Verdict, _border
from tests.opset.versions.models import Case, cases, targets
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.targets import Context, profile, why_not
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

_TYPES = {
    onnx.TensorProto.FLOAT16: "float double bfloat16 int32 int64 uint8 int8 bool",
    onnx.TensorProto.BFLOAT16: "float double float16 int32 int64 uint8 int8 bool",
    onnx.TensorProto.INT8: "float double float16 int32 int64 uint8 bool",
    onnx.TensorProto.UINT8: "float double float16 int32 int64 int8 bool",
    onnx.TensorProto.INT32: "float double float16 int64 uint8 int8 bool",
}
"""By the type that a target does not have, those that it has."""


def _profile(case: Case, lacks: str) -> str:
    return (
        'inherits = "onnx-standard"\nabout = "lacks something"\nsource = "made up"\n'
        f"[operators]\n{case.operator} = {lacks}\n"
    )


def lacks(case: Case) -> Iterator[str]:
    """Yield lines of profiles that do not have what a case needs."""
    yield '"unsupported"'
    kinds = {each.type.tensor_type.elem_type for each in case.model.graph.input}
    for kind in sorted(kinds & set(_TYPES)):
        yield f'"{_TYPES[kind]}"'
    for name in sorted(_attributes(case)):
        yield f'["native", "unsupported if given({name})"]'


def _attributes(case: Case) -> set[str]:
    """Return the names of all attributes that nodes of a case's operator give."""
    nodes = [node for scope in scopes(load(copy(case.model))) for node in scope.graph]
    return {name for each in nodes if each.op_type == case.operator for name in each.attributes}


class Lacking(Trial):
    """A case, made legal for targets that lack something."""

    @cached_property
    def expected(self) -> tuple[Answer, Answer]:
        """What ONNX Runtime computes; by itself the evaluator rounds halves as it likes."""
        found = super().expected
        return found if found[0] is not None else (None, None)

    def for_target(self, line: str, folder: Path) -> Verdict:
        """Make the case legal for a target with a line about its operator, and judge that."""
        path = folder / "target.toml"
        path.write_text(_profile(self.case, line))
        model = load(copy(self.case.model))

        def verdict(kind: str, detail: str = "") -> Verdict:
            return Verdict(self.case, self.case.opset, kind, detail and f"{detail} [{line}]")

        try:
            Infer().run(model)
            done = Legalize(str(path)).run(model)
            if done and Legalize(str(path)).run(model):
                return verdict("touched", "a second run changes something")
        except Refused as refused:
            return verdict("refused", "; ".join(map(str, refused.refusals)))
        except VlmpassError as error:
            return verdict("refused", str(error))
        except Exception as error:  # noqa: BLE001 - any other is what is looked for
            return verdict("raw", place_of(error))
        if not done:
            return verdict("silent")
        if left := _left(model, path):
            return verdict("invalid", f"{left} is left")
        result = proto_of(model)
        try:
            check(load(copy(result)))
        except VlmpassError as error:
            return verdict(*self._declared_wrongly(result, str(error)))
        if problem := _border(self.case.model, result):
            return verdict("border", problem)
        return verdict(*self._compared(result, self.case.opset))

    def _declared_wrongly(self, result: onnx.ModelProto, problem: str) -> tuple[str, str]:
        """Say that a result is not valid, unless what nothing here computes is declared wrongly."""
        if self.expected != (None, None):
            return "invalid", problem
        opened = copy(result)
        for each in opened.graph.output:
            for dim in each.type.tensor_type.shape.dim:
                dim.Clear()
        try:
            check(load(opened))
        except VlmpassError:
            return "invalid", problem
        return "silent", ""


def _left(model: ir.Model, path: Path) -> str:
    """Return an operator of a model that its target does not run; empty if there is none."""
    context = Context.of(model, profile(str(path)))
    for scope in scopes(model):
        here = context.at(scope.opsets)
        for node in scope.graph:
            if not why_not(node, here).runs:
                return node.op_type
    return ""


def judged(case: Case, folder: Path) -> Iterator[Verdict]:
    """Yield what becomes of a case at targets that lack something of it."""
    trial = Lacking(case)
    if trial.truthful and case.opset >= 13:
        for line in lacks(case):
            yield trial.for_target(line, folder)


def drawn(chosen: Sequence[tuple[str, int, int]], seed: int, count: int) -> Iterator[Case]:
    """Yield so many models of each version, whichever others are drawn."""
    for each in chosen:
        own = seed * 100_003 + sum(map(ord, each[0])) * 101 + each[1]
        with contextlib.suppress(AttributeError):  # some strings are drawn that numpy makes none of
            yield from cases(own, count, [each])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--refusals", action="store_true")
    asked = parser.parse_args()
    quiet()
    chosen = [each for each in targets() if re.search(asked.only, each[0]) and each[2] >= 13]
    kinds: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        for case in drawn(chosen, asked.seed, asked.count):
            for each in judged(case, Path(folder)):
                kinds[each.kind] += 1
                if each.kind in BAD or (asked.refusals and each.kind == "refused"):
                    print(each, flush=True)
    print(dict(sorted(kinds.items())))
    return int(any(kinds[each] for each in BAD))


if __name__ == "__main__":
    sys.exit(main())
