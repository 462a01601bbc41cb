"""Whatever is inferred holds when it runs: random graphs, several sizes each, ONNX Runtime.

The graphs have axes that are named, anonymous, 0 and 1, and compute shapes from shapes. Held are
all sizes and elements that are proven, everything that infer writes, and that sizes of one symbol
are one. Planted faults show that a wrong rule does not pass.

    python -m tests.shapes.test_shapes_soundness --count 5000 --seed 100000
"""

from __future__ import annotations

import argparse
import os

import pytest

from tests.shapes.soundness.draw import Graph
from tests.shapes.soundness.held import drawn, hold
from tests.shapes.soundness.planted import FAULTS

COUNT = int(os.environ.get("VLMPASS_SHAPES_COUNT", "220"))
SEED = 0


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    found = (drawn(seed) for seed in range(SEED, SEED + COUNT))
    return [graph for graph in found if graph is not None]


def test_all_that_is_inferred_holds(graphs: list[Graph]) -> None:
    known = sum(map(hold, graphs))
    assert len(graphs) >= 0.9 * COUNT
    assert known >= 100 * len(graphs)
    operators = {node.op_type for graph in graphs for node in graph.model.graph.node}
    assert len(operators) >= 40


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(
    fault: str, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert any(map(_fails, graphs))


def _fails(graph: Graph) -> bool:
    try:
        hold(graph)
    except AssertionError:
        return True
    except (AttributeError, IndexError, TypeError, ValueError):
        return False  # a fault that only breaks the code is not caught by what it says
    return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ran = known = failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        graph = drawn(seed)
        if graph is None:
            continue
        ran += 1
        try:
            known += hold(graph)
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {error}")
    print(f"{ran} graphs ran, {known} sizes known, {failed} failed")


if __name__ == "__main__":
    main()
