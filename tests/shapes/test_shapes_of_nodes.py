"""What is inferred of one node is true of what a runtime makes of it, whatever else is not known.

Random models of operators of whose sizes numbers decide, drawn with a seed:

    python -m tests.shapes.test_shapes_of_nodes COUNT [SEED] [REGEX]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from tests.fuzz.trial import copy, quiet
from tests.legalize.lacking import drawn
from tests.opset.versions.judge import Trial
from tests.opset.versions.models import Case, targets
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.load import load

_BY_NUMBERS = "^(Slice|Split|Squeeze|Unsqueeze|NonZero|Unique|Tile|Pad|Resize|TopK|Expand)$"
_MISREAD = "^(Loop|GlobalMaxPool|GlobalAveragePool)$"
"""Operators whose results the evaluator gives in other shapes."""


def wrong(case: Case) -> Iterator[str]:
    """Yield what is inferred of a case's nodes in the main graph, and is not so."""
    answer = next((each for each in Trial(case).expected if each is not None), None)
    model = load(copy(case.model))
    made = dict(zip(map(_source, model.graph.outputs), answer or (), strict=False))
    for node in model.graph:
        if node.op_type != case.operator:
            continue
        for output in node.outputs:
            output.shape = None
        infer_node(node, model.graph.opset_imports)
        for output in node.outputs:
            shape, found = output.shape, made.get(output)
            if isinstance(found, np.ndarray) and shape is not None and not _fits(shape, found):
                yield f"{case}: {output.name} is said to be {shape}, and is {found.shape}"


def _source(value: ir.Value) -> ir.Value:
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _fits(shape: ir.Shape, found: np.ndarray) -> bool:
    return len(shape) == found.ndim and all(
        not isinstance(said, int) or said == size
        for said, size in zip(shape, found.shape, strict=True)
    )


def test_sizes_of_nodes_are_not_guessed() -> None:
    chosen = [each for each in targets() if re.search(_BY_NUMBERS, each[0]) and each[2] >= 13]
    assert [line for case in drawn(chosen, 1, 1) for line in wrong(case)] == []


def main() -> int:
    count, seed, only = (*sys.argv[1:], *("1", "1", "")[len(sys.argv) - 1 :])
    quiet()
    chosen = [each for each in targets() if re.search(only, each[0]) and each[2] >= 13]
    cases = drawn(
        [each for each in chosen if not re.search(_MISREAD, each[0])], int(seed), int(count)
    )
    found = [line for case in cases for line in wrong(case)]
    print(*found, f"{len(found)} wrong", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
