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
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import onnx
import onnxruntime as ort

from vlmpass.ir_tools.system.opsets import OLDEST_OPSET
from vlmpass.rewriter_rules.opset.element_types.widen import Interface

from .opset_cases import Verdict, cases, judge, opset_of

BAD = ("wrong", "invalid", "crash", "unrun")
TARGETS = (11, 13, 15, 17, 18, 20, 21, 22, 23, 24, 25, 26)
INTERFACE = "the graph takes or gives"
"""In the reason of a refusal that nothing but another interface of the model avoids."""
BORDER = rf"{INTERFACE} (?!seq|optional)"
"""A pattern of the reasons of those that a wider element type avoids."""
REFUSED = (
    (
        BORDER,
        "an element type of the model's own inputs or outputs",
        "A conversion does not change the interface unless it is told to.",
    ),
    (
        INTERFACE,
        "optional values among the model's own inputs or outputs",
        "Before opset 15 there are none.",
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
"""Classes of refusals: a pattern of their reasons, a title, and why they are refused."""


Job = tuple[str, int]
"""A case and an opset to convert it to."""


def _shard(jobs: Sequence[Job], interface: Interface, back: bool) -> list[Verdict]:
    logging.getLogger("vlmpass").setLevel(logging.ERROR)  # of wider inputs, in every line
    with contextlib.suppress(AttributeError):
        ort.set_default_logger_severity(4)
    return [judge(cases()[name], target, interface, back=back) for name, target in jobs]


def matrix(targets: Sequence[int], only: str = "", *, back: bool = False) -> list[Job]:
    """Return every case at each opset that is not its own; if asked, those with a way back."""
    names = [name for name in cases() if re.search(only, name)]
    if back:
        names = [name for name in names if opset_of(cases()[name].model) >= OLDEST_OPSET]
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


def share(verdicts: Sequence[Verdict]) -> float:
    """Return how many of the conversions downwards that can be judged are right, of 1."""
    down = tally(verdicts)["down"]
    return down["right"] / sum(down.get(kind, 0) for kind in JUDGED)


JUDGED = ("right", "refused", "invalid", "wrong")


def _class_of(reason: str) -> int:
    found = (i for i, (pattern, _, _) in enumerate(REFUSED) if re.search(pattern, reason))
    return next(found, len(REFUSED))


def _figures(kept: Sequence[Verdict], wide: Sequence[Verdict]) -> Iterator[str]:
    """Yield the table of what became of how many."""
    rows = {
        "up": tally(kept)["up"],
        "down, the interface as it is": tally(kept)["down"],
        "down, with `interface=wider`": tally(wide)["down"],
    }
    yield from (
        "| | right | refused | invalid | wrong | cannot be judged | right of those judged |",
        "|---" * 7 + "|",
    )
    for title, counts in rows.items():
        known = [counts.get(kind, 0) for kind in JUDGED]
        cells = [title, *known, sum(counts.values()) - sum(known), f"{known[0] / sum(known):.1%}"]
        yield "| " + " | ".join(map(str, cells)) + " |"


def _classes(kept: Sequence[Verdict], wide: Sequence[Verdict]) -> Iterator[str]:
    """Yield how many are refused in each class, as it is and with wider interfaces."""
    counts = [
        collections.Counter(_class_of(v.reason) for v in found if v.kind == "refused")
        for found in (kept, wide)
    ]
    yield from ("| as it is | wider | refused for | why |", "|---|---|---|---|")
    for index, (_, title, why) in enumerate((*REFUSED, ("", "another reason", ""))):
        yield f"| {counts[0][index]} | {counts[1][index]} | {title} | {why} |"


def _refusals(kept: Sequence[Verdict], wide: Sequence[Verdict]) -> Iterator[str]:
    """Yield every reason, class by class, with how many are refused for it."""
    reasons: dict[str, tuple[list[Verdict], list[Verdict]]] = {}
    for side, found in enumerate((kept, wide)):
        for each in found:
            if each.kind == "refused":
                reasons.setdefault(each.reason.split("; ")[0], ([], []))[side].append(each)
    yield from ("| as it is | wider | operator cases | reason |", "|---|---|---|---|")
    order = sorted(reasons.items(), key=lambda r: (_class_of(r[0]), -len(r[1][0]), r[0]))
    for reason, (before, after) in order:
        names = sorted({each.case.removeprefix("test_") for each in (*before, *after)})
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        yield f"| {len(before)} | {len(after)} | {shown} | {reason} |"


def page(kept: Sequence[Verdict], wide: Sequence[Verdict]) -> str:
    """Return the figures and every reason for a refusal as a page of the documentation.

    Args:
        kept: Of the models' interfaces as they are.
        wide: With wider types where the lower opset lacks one.
    """
    lines = [
        "# The opset matrix",
        "",
        "Written by `python -m tests.opset.opset_matrix --page docs/opset-matrix.md`: the node"
        f" tests of onnx {onnx.__version__}, each converted to opsets"
        f" {', '.join(map(str, TARGETS))}, held against the full type check and against the"
        " outputs that come with it.",
        "",
        *_figures(kept, wide),
        "",
        "What cannot be judged are cases whose own model the checker refuses, or that neither"
        " ONNX Runtime nor the reference evaluator runs here.",
        "",
        *WIDER_INTERFACES,
        "",
        "## What is refused",
        "",
        "Upwards nothing is. Downwards, for want of something that the lower opset does not have:",
        "",
        *_classes(kept, wide),
        "",
        "## Every reason",
        "",
        *_refusals(kept, wide),
        "",
        "[Whole models](opset-models.md) have a page of their own.",
    ]
    return "\n".join(lines) + "\n"


WIDER_INTERFACES = (
    "## Wider interfaces",
    "",
    "A model whose inputs or outputs are of a type that the lower opset does not have (int4,"
    " float8, bfloat16 below 13) cannot be converted as it stands: no operator there reads or"
    " writes such a value, not even a Cast. `convert-opset{to=18 interface=wider}`, or `vlmpass"
    " convert --opset 18 --widen-io`, lets them take a type that holds all the values: int8 for"
    " int4 and int2, uint8 for uint4 and uint2, float16 for float8e4m3fn, float8e4m3fnuz,"
    " float8e5m2 and float4e2m1, float for float8e5m2fnuz, float8e8m0 and bfloat16. The report"
    " names each one.",
    "",
    "Such a case gets its own inputs in the wider type. Its outputs have to be of the type that was"
    " announced and equal the expected ones value by value, NaN for NaN; only where it computes in"
    " bfloat16, which it then does in float32 without rounding every step, they are compared with"
    " the accuracy of bfloat16. There is no way back: upwards the wider type stays.",
)


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
    jobs = matrix(targets, arguments.only, back=arguments.back)
    verdicts = run(jobs, arguments.interface, back=arguments.back, workers=arguments.jobs)
    for side, counts in tally(verdicts).items():
        print(side, sum(counts.values()), dict(sorted(counts.items())))
    bad = [v for v in verdicts if v.kind in BAD]
    for each in bad:
        print(f"{each.kind} {each.case} {each.source}->{each.target}: {each.reason}"[:240])
    reasons = collections.Counter(v.reason for v in verdicts if v.kind == "refused")
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}"[:200])
    if arguments.json:
        text = json.dumps([vars(each) for each in verdicts])
        pathlib.Path(arguments.json).write_text(text, encoding="utf-8")
    if arguments.page:
        wide = widened(verdicts, arguments.jobs)
        for verdict in (each for each in wide if each.kind in BAD):
            print(f"wider: {verdict}")
        pathlib.Path(arguments.page).write_text(page(verdicts, wide), encoding="utf-8")
    return 1 if any(v.kind in BAD[:3] for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
