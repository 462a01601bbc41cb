"""The table of docs/simplifiers.md: what is left after simplifying is what it says, or less."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.load import load
from vlmpass.passes import PassManager, parse
from vlmpass.presets import SIMPLIFY

ROOT = Path(__file__).parents[2]
PEERS = ("onnxslim", "onnxsim", "onnxscript", "onnxruntime")


def rows() -> dict[str, dict[str, str]]:
    text = (ROOT / "docs" / "simplifiers.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}


@pytest.mark.parametrize(
    "name", ["decoder.float32.dyn18", "decoder.float32.ts14", "vision_resize.float32.dyn18"]
)
def test_no_more_nodes_than_the_table_says(name: str) -> None:
    model = load(ROOT / "tests" / "fixtures" / "exports" / f"{name}.onnx")
    PassManager(parse(SIMPLIFY)).run(model)
    left = sum(node.op_type != "Constant" for node in all_nodes(model))
    assert left <= int(rows()[name]["vlmpass"])


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in rows().items()])
def test_the_table_leaves_nothing_unexplained(row: dict[str, str]) -> None:
    assert row["outputs"].startswith(("identical", "within"))
    assert row["initializers"] == "kept"
    peers = [int(row[peer]) for peer in PEERS if row.get(peer, "").isdigit()]
    if int(row["vlmpass"]) > min(peers):
        assert row["difference"]
        assert "no known reason" not in row["difference"]
