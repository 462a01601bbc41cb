"""Golden files of pipelines: pipeline text, graph before, canonical text after.

The first line is ``// -p PIPELINE``, then comes the graph, a line ``// -----``, and what the
pipeline makes of it in the canonical text of `rewrite.support`. ``pytest --update`` writes the
last part anew.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import onnx_ir as ir

from rewrite.support import canonical, check, parse, same_numbers
from vlmpass.passes.pipeline.text import parse as parse_pipeline

SEPARATOR = "\n// -----\n"


def golden(path: Path, *, update: bool) -> None:
    """Assert that a pipeline makes of a graph what its golden file says, computing the same."""
    before, _, wanted = path.read_text(encoding="utf-8").partition(SEPARATOR)
    first, _, text = before.partition("\n")
    assert first.startswith("// -p "), f"{path}: the first line names the pipeline"
    model = parse(text)
    original = ir.serde.from_proto(ir.to_proto(model))
    for each in parse_pipeline(first.removeprefix("// -p ")):
        each.run(model)
    check(model)
    same_numbers(original, model)
    found = canonical(model) + "\n"
    if update:
        path.write_text(f"{before}{SEPARATOR}{found}", encoding="utf-8")
        return
    lines = difflib.unified_diff(wanted.split("\n"), found.split("\n"), lineterm="", n=99)
    assert wanted == found, "\n".join(lines)
