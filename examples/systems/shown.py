"""What every example of this folder shows: the runtime's words before, figures after."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import vlmpass


def refusal(run: Callable[[], object], about: str = "") -> str:
    """Return what a runtime says that it does not take; it has to refuse the model.

    Args:
        run: Loads or runs it.
        about: Where that begins.
    """
    try:
        run()
    except Exception as error:  # whatever it raises is what is shown
        text = str(error)
        if about not in text:
            raise
        told = re.sub(r"\s+", " ", text[text.index(about) :])
        return textwrap.shorten(re.sub(r"/\S*/", "", told), 120, placeholder=" …")
    raise SystemExit("the runtime takes it as it is: there is nothing to show")


def on_onnxruntime(path: Path, feed: dict[str, object] | None = None) -> object:
    """Load a model on ONNX Runtime as it is, and run it where something is fed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session if feed is None else session.run(None, feed)


def show(system: str, before: str, report: vlmpass.Report, error: float, limit: float) -> bool:
    """Print a row, for people or with --json; say whether the error is within its limit."""
    row = {
        "system": system,
        "before": before,
        "error": error,
        "limit": limit,
        "nodes": [report.before.facts.nodes, report.after.facts.nodes],
        "nbytes": [report.before.nbytes, report.after.nbytes],
        "files": 1 + report.after.shards,
    }
    if "--json" in sys.argv:
        print(json.dumps(row))
    else:
        nodes, nbytes = row["nodes"], [f"{n / 1e6:,.1f} MB" for n in row["nbytes"]]
        print(f"{system}\n    before: {before}")
        print(
            f"    after:  verified, {error:.1e} off at most where {limit:.0e} is allowed;", end=" "
        )
        print(f"nodes {nodes[0]} -> {nodes[1]}, {nbytes[0]} -> {nbytes[1]}")
    return error <= limit


def largest(report: vlmpass.Report) -> float:
    """Return the largest relative error that a conversion found."""
    assert report.checked.numbers is not None, report.checked.reason
    return report.checked.numbers.max_rel
