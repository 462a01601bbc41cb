"""The node tests of onnx at every opset: the whole matrix, its figures and its page.

Run as a script it goes through the whole matrix and prints the figures:

    python -m tests.opset.opset_matrix [--jobs N] [--targets 11,13] [--only REGEX] [--page FILE]
    python -m tests.opset.opset_matrix --interface wider    # of the types that the opset has
    python -m tests.opset.opset_matrix --back    # there and back again
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import onnx
import onnxruntime as ort

from vlmpass.rewriter_rules.opset.widen import Interface

from .opset_cases import Verdict, cases, judge, opset_of

TARGETS = (11, 13, 15, 17, 18, 20, 21, 22, 23, 24, 25, 26)
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


Job = tuple[str, int]
"""A case and an opset to convert it to."""


def _shard(jobs: Sequence[Job], interface: Interface, back: bool) -> list[Verdict]:
    with contextlib.suppress(AttributeError):
        ort.set_default_logger_severity(4)
    return [judge(cases()[name], target, interface, back=back) for name, target in jobs]


def matrix(targets: Sequence[int], only: str = "") -> list[Job]:
    """Return every case at each opset that is not its own."""
    names = [name for name in cases() if re.search(only, name)]
    return [(n, t) for n in names for t in targets if t != opset_of(cases()[n].model)]


def run(
    jobs: Sequence[Job], interface: Interface = "keep", *, back: bool = False, workers: int = 1
) -> list[Verdict]:
    """Judge conversions, or round trips, in several processes."""
    parts = [jobs[index :: 4 * workers] for index in range(4 * workers)]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        pending = [pool.submit(_shard, part, interface, back) for part in parts]
        return [verdict for each in pending for verdict in each.result()]


def widened(verdicts: Sequence[Verdict], workers: int = 1) -> list[Verdict]:
    """Return the verdicts with wider interfaces: another one where the interface was the reason.

    A conversion that does not meet a type it would have to widen is the same either way.
    """
    again = {(v.case, v.target) for v in verdicts if v.kind == "refused" and INTERFACE in v.reason}
    kept = [each for each in verdicts if (each.case, each.target) not in again]
    return [*kept, *run(sorted(again), "wider", workers=workers)]


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
    parser.add_argument("--interface", choices=("keep", "wider"), default="keep")
    parser.add_argument("--back", action="store_true", help="to each opset and back again")
    parser.add_argument("--json", default="")
    parser.add_argument("--page", default="", help="write the figures as Markdown")
    arguments = parser.parse_args()
    targets = [int(word) for word in arguments.targets.split(",")]
    jobs = matrix(targets, arguments.only)
    verdicts = run(jobs, arguments.interface, back=arguments.back, workers=arguments.jobs)
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
