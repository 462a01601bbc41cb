"""The node tests of onnx at every opset: converted, checked, run, compared with what they expect.

Run as a script it goes through the whole matrix and prints the figures:

    python -m tests.opset.opset_matrix [--jobs N] [--targets 11,13] [--only REGEX] [--page FILE]
    python -m tests.opset.opset_matrix --back    # there and back again
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset

TARGETS = (11, 13, 15, 17, 18, 20, 21, 22, 23, 24, 25, 26)
NEWEST_OF_ORT = 26
RANDOM = re.compile("bernoulli|training_dropout|random")
INTERFACE = "the graph takes or gives"
"""In the reason of a refusal that nothing but another interface of the model avoids."""
IMPOSSIBLE = (
    (
        INTERFACE,
        "the model itself takes or gives a type that the lower opset does not have",
        "A conversion does not change the interface, and no operator of the lower opset may read"
        " or write such a value, not even a Cast.",
    ),
    (
        "no older operator works on strings",
        "strings and encoded images",
        "No older operator joins, splits or matches strings, or decodes an image.",
    ),
    (
        "the bits of",
        "the bits of floating-point numbers",
        "Arithmetic tells all numbers apart, but not one NaN from another, whose bits differ.",
    ),
    (
        "does not admit the type (seq|optional)|optional values came",
        "sequences and optional values in loops and branches",
        "Before opset 13 a Loop or If gives tensors only, before 16 no optional values; nothing"
        " older builds a sequence of computed length whose elements have shapes of their own, or"
        " chooses between two.",
    ),
)
"""Classes of refusals: a pattern of their reasons, a title, and why no conversion exists."""


@dataclass(frozen=True)
class Verdict:
    """What became of one case at one opset: right, refused, invalid, wrong or unrun."""

    case: str
    source: int
    target: int
    kind: str
    reason: str = ""

    @property
    def up(self) -> bool:
        return self.target > self.source


def opset_of(model: onnx.ModelProto) -> int | None:
    found = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    return found[0] if found else None


@functools.cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    usable = {}
    for case in found:
        opset = opset_of(case.model)
        if opset is not None and 7 <= opset <= onnx.defs.onnx_opset_version():
            usable[case.name] = case
    return dict(sorted(usable.items()))


def convert(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    converted = ir.from_proto(model)
    ConvertOpset(to=target).run(converted)
    return ir.to_proto(converted)


def _by_ort(model: onnx.ModelProto, feeds: Sequence[Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    arrays = [np.asarray(each) if isinstance(each, np.generic) else each for each in feeds]
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=False)))


def _by_reference(model: onnx.ModelProto, feeds: Sequence[Any]) -> list[Any]:
    initialized = {each.name for each in model.graph.initializer}
    names = [each.name for each in model.graph.input if each.name not in initialized]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(model).run(None, dict(zip(names, feeds, strict=False)))


def attempts(model: onnx.ModelProto, feeds: Sequence[Any]) -> Iterator[list[Any] | Exception]:
    """Yield what ONNX Runtime and then the reference evaluator compute, or their errors."""
    plain = all(
        each is not None and getattr(each, "dtype", np.dtype("f4")).kind != "V" for each in feeds
    )
    if plain and (opset_of(model) or 0) <= NEWEST_OF_ORT:
        try:
            yield _by_ort(model, feeds)
        except Exception as error:  # noqa: BLE001 - any failure to run is a result here
            yield error
    try:
        yield _by_reference(model, feeds)
    except Exception as error:  # noqa: BLE001
        yield error


def differs(expected: Any, actual: Any, rtol: float, atol: float, values: bool) -> str:
    """Say how two outputs differ; empty if they do not."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(expected) != len(actual):
            return "another sequence"
        found = (differs(e, a, rtol, atol, values) for e, a in zip(expected, actual, strict=True))
        return next((each for each in found if each), "")
    if expected is None or actual is None:
        return "" if expected is actual else "one of them is None"
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        return f"shape {actual.shape}, expected {expected.shape}"
    if expected.dtype.kind in "OUS":
        same = [_text(e) == _text(a) for e, a in zip(expected.flat, actual.flat, strict=True)]
        return "" if not values or all(same) else "other strings"
    if expected.dtype.itemsize != actual.dtype.itemsize:
        return f"type {actual.dtype}, expected {expected.dtype}"
    if expected.dtype != actual.dtype:
        actual = actual.view(expected.dtype)
    if not values:
        return ""
    if expected.dtype.kind in "biu":
        return "" if np.array_equal(actual, expected) else "other integers"
    if expected.dtype.kind == "c":
        expected, actual = expected.view("f4"), actual.view("f4")
    wide = [each.astype(np.float64) for each in (expected, actual)]
    # A transform's zeros are as noisy as its largest values are large.
    largest = np.max(np.abs(wide[0]), initial=0, where=np.isfinite(wide[0]))
    noise = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 5e-7}.get(expected.dtype.name, 0.0)
    tolerance = {"rtol": max(rtol, noise), "atol": max(atol, noise * max(largest, 1.0))}
    if np.allclose(wide[1], wide[0], equal_nan=True, **tolerance):
        return ""
    with np.errstate(all="ignore"):
        return f"off by up to {np.nanmax(np.abs(wide[0] - wide[1])):.3g}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(value: Any) -> Any:
    """Return the array of a tensor in a proto, anything else as it is."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _compare(case: Any, model: onnx.ModelProto) -> tuple[str, str]:
    """Run a model on a case's data: right, wrong or unrun, and why."""
    values = not RANDOM.search(case.name)
    worst = ("right", "")
    for data_set in case.data_sets:
        feeds, expected = ([_array(each) for each in part] for part in data_set)
        outcome = ("unrun", "")
        for result in attempts(model, feeds):
            if isinstance(result, Exception):
                outcome = max(outcome, ("unrun", str(result)[:300]), key=lambda o: len(o[1]))
                continue
            found = [
                differs(e, a, case.rtol, case.atol, values)
                for e, a in zip(expected, result, strict=True)
            ]
            outcome = ("right", "") if not any(found) else ("wrong", "; ".join(filter(None, found)))
            if outcome[0] == "right":
                break
        if outcome[0] != "right":
            worst = outcome
    return worst


def judge(case: Any, target: int, back: bool = False) -> Verdict:
    """Convert one case, if asked back again too, and say what became of it."""
    source = opset_of(case.model)
    assert source is not None

    def verdict(kind: str, reason: str = "") -> Verdict:
        return Verdict(case.name, source, target, kind, reason)

    try:
        converted = convert(case.model, target)
        if back:
            converted = convert(converted, source)
    except Refused as refused:
        return verdict("refused", "; ".join(r.reason for r in refused.refusals))
    except Exception as error:  # noqa: BLE001 - a crash is a finding, like a wrong result
        return verdict("crash", f"{type(error).__name__}: {error}"[:300])
    try:
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # noqa: BLE001
        try:
            onnx.checker.check_model(case.model, full_check=True)
        except Exception:  # noqa: BLE001
            return verdict("ill-formed source", str(error)[:200])
        return verdict("invalid", str(error)[:300])
    kind, reason = _compare(case, converted)
    if kind != "right" and _compare(case, case.model)[0] != "right":
        return verdict("source fails", reason)
    return verdict(kind, reason)


def shard(index: int, count: int, targets: Sequence[int], only: str, back: bool) -> list[Verdict]:
    """Judge every count-th case at each target that is not its own opset."""
    names = [name for name in cases() if re.search(only, name)][index::count]
    found = []
    with contextlib.suppress(AttributeError):
        ort.set_default_logger_severity(4)
    for name in names:
        case = cases()[name]
        others = [target for target in targets if target != opset_of(case.model)]
        found += [judge(case, target, back) for target in others]
    return found


def run(jobs: int, targets: Sequence[int], only: str = "", back: bool = False) -> list[Verdict]:
    """Judge the matrix, or all its round trips, in several processes."""
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        parts = [pool.submit(shard, i, 4 * jobs, targets, only, back) for i in range(4 * jobs)]
        return [verdict for part in parts for verdict in part.result()]


def tally(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Return counts by direction and kind."""
    counts: dict[str, dict[str, int]] = {"up": {}, "down": {}}
    for each in verdicts:
        side = counts["up" if each.up else "down"]
        side[each.kind] = side.get(each.kind, 0) + 1
    return counts


def _class_of(reason: str) -> int:
    found = (i for i, (pattern, _, _) in enumerate(IMPOSSIBLE) if re.search(pattern, reason))
    return next(found, len(IMPOSSIBLE))


def _ceiling(verdicts: Sequence[Verdict]) -> list[str]:
    """Return what cannot be converted at all, and what that leaves."""
    down = [each for each in verdicts if not each.up]
    right = sum(each.kind == "right" for each in down)
    counts = collections.Counter(_class_of(v.reason) for v in down if v.kind == "refused")
    bound = sum(counts[index] for index in range(len(IMPOSSIBLE)))
    return [
        "## What no conversion can do",
        "",
        f"Of the {len(down)} conversions downwards {bound} ({bound / len(down):.1%}) cannot exist,"
        f" so that {1 - bound / len(down):.1%} is the most that any converter reaches on this"
        f" matrix. Of those that can exist {right / (len(down) - bound):.1%} are converted and"
        f" right; {counts[len(IMPOSSIBLE)]} are refused for another reason.",
        "",
        "| conversions | | why |",
        "|---|---|---|",
        *(f"| {counts[i]} | {title} | {why} |" for i, (_, title, why) in enumerate(IMPOSSIBLE)),
    ]


def _refusals(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield every reason in its class."""
    reasons: dict[str, list[Verdict]] = {}
    for each in verdicts:
        if each.kind == "refused":
            reasons.setdefault(each.reason.split("; ")[0], []).append(each)
    titles = [*(title for _, title, _ in IMPOSSIBLE), "other"]
    yield from ("| class | conversions | operator cases | reason |", "|---|---|---|---|")
    order = sorted(reasons.items(), key=lambda r: (_class_of(r[0]), -len(r[1]), r[0]))
    for reason, found in order:
        names = sorted({each.case.removeprefix("test_") for each in found})
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        yield f"| {titles[_class_of(reason)]} | {len(found)} | {shown} | {reason} |"


def page(verdicts: Sequence[Verdict]) -> str:
    """Return the figures and every reason for a refusal as a page of the documentation."""
    lines = [
        "# The opset matrix",
        "",
        "Written by `python -m tests.opset.opset_matrix --page docs/opset-matrix.md`: the node"
        f" tests of onnx {onnx.__version__}, each converted to opsets"
        f" {', '.join(map(str, TARGETS))}, held against the full type check and against the"
        " outputs that come with it.",
        "",
        "| | right | refused | invalid | wrong | cannot be judged |",
        "|---|---|---|---|---|---|",
    ]
    for side, counts in tally(verdicts).items():
        bad = [counts.get(kind, 0) for kind in ("right", "refused", "invalid", "wrong")]
        rest = sum(counts.values()) - sum(bad)
        lines.append(f"| {side} | " + " | ".join(map(str, [*bad, rest])) + " |")
    lines += [
        "",
        "What cannot be judged are cases whose own model the checker refuses, or that neither"
        " ONNX Runtime nor the reference evaluator runs here.",
        "",
        *_ceiling(verdicts),
        "",
        "## Refusals",
        "",
        *_refusals(verdicts),
        "",
        "[Whole models](opset-models.md) have a page of their own.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--targets", default=",".join(map(str, TARGETS)))
    parser.add_argument("--only", default="")
    parser.add_argument("--back", action="store_true", help="to each opset and back again")
    parser.add_argument("--json", default="")
    parser.add_argument("--page", default="", help="write the figures as Markdown")
    arguments = parser.parse_args()
    targets = [int(word) for word in arguments.targets.split(",")]
    verdicts = run(arguments.jobs, targets, arguments.only, arguments.back)
    for side, counts in tally(verdicts).items():
        print(side, sum(counts.values()), dict(sorted(counts.items())))
    bad = [v for v in verdicts if v.kind in ("wrong", "invalid", "crash", "unrun")]
    for each in bad:
        print(f"{each.kind} {each.case} {each.source}->{each.target}: {each.reason}"[:240])
    reasons = collections.Counter(v.reason for v in verdicts if v.kind == "refused")
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}"[:200])
    if arguments.json:
        text = json.dumps([vars(each) for each in verdicts])
        pathlib.Path(arguments.json).write_text(text, encoding="utf-8")
    if arguments.page:
        pathlib.Path(arguments.page).write_text(page(verdicts), encoding="utf-8")
    return 1 if any(v.kind in ("wrong", "invalid", "crash") for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
