"""What every example of this folder shows: the runtime's words before, figures after."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

import vlmpass

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def refusal(run: Callable[[], object], about: str = "") -> str:
    """Return what a runtime says that it does not take; it has to refuse the model.

    Args:
        run: Loads or runs it.
        about: Where that begins.
    """
    try:
        with silenced():
            run()
    except Exception as error:  # whatever it raises is what is shown
        text = str(error)
        if about not in text:
            raise
        told = re.sub(r"\s+", " ", text[text.index(about) :])
        return textwrap.shorten(re.sub(r"/\S*/", "", told), 120, placeholder=" …")
    raise SystemExit("the runtime takes it as it is: there is nothing to show")


@contextmanager
def silenced() -> Iterator[None]:
    """Let nothing be printed, also by C++: exporters print the graph that they refuse."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with Path(os.devnull).open("w") as nothing:
            for number in kept:
                os.dup2(nothing.fileno(), number)
        yield
    finally:
        for number, there in kept.items():
            os.dup2(there, number)
            os.close(there)


def on_onnxruntime(
    path: Path, feed: Mapping[str, np.ndarray]
) -> Callable[[], Sequence[np.ndarray]]:
    """Load a model on ONNX Runtime as it is, and return what runs it.

    Args:
        path: Of the model.
        feed: Its inputs; of a wider or narrower float than it takes they are cast.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fed = {
        each.name: feed[each.name].astype(FLOATS.get(each.type, feed[each.name].dtype))
        for each in session.get_inputs()
    }
    return partial(session.run, None, fed)


def show(
    system: str,
    before: str,
    report: vlmpass.Report,
    error: float,
    limit: float,
    run: Callable[[], object],
) -> bool:
    """Print a row, for people or with --json; say whether the error is within its limit.

    Args:
        system: What it is.
        before: What a runtime or an exporter says that does not take it.
        report: Of the conversion.
        error: Of the result.
        limit: Of the error.
        run: Runs the result once; with --time, how long that takes is shown.
    """
    row = {
        "system": system,
        "before": before,
        "error": error,
        "limit": limit,
        "nodes": [report.before.facts.nodes, report.after.facts.nodes],
        "nbytes": [report.before.nbytes, report.after.nbytes],
        "ms": milliseconds(run) if "--time" in sys.argv else None,
    }
    if "--json" in sys.argv:
        print(json.dumps(row))
    else:
        nodes, nbytes = row["nodes"], [f"{n / 1e6:,.1f} MB" for n in row["nbytes"]]
        print(f"{system}\n    before: {before}")
        print(
            f"    after:  verified, {error:.1e} off at most where {limit:.0e} is allowed;", end=" "
        )
        took = "" if row["ms"] is None else f", {row['ms']:.2f} ms"
        print(f"nodes {nodes[0]} -> {nodes[1]}, {nbytes[0]} -> {nbytes[1]}{took}")
    return error <= limit


def milliseconds(run: Callable[[], object], rounds: int = 200) -> float:
    """Return the least that a run takes, after five that warm it up."""
    taken = []
    for _ in range(rounds + 5):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return min(taken[5:])


def furthest(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Return the largest difference of outputs, relative to the largest number of its output."""
    pairs = zip(wanted, found, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def largest(report: vlmpass.Report) -> float:
    """Return the largest relative error that a conversion found."""
    assert report.checked.numbers is not None, report.checked.reason
    return report.checked.numbers.max_rel
