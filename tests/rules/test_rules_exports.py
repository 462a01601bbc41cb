"""Models as both PyTorch exporters write them: every norm and activation block is one node."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import difference, run

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.walk import all_nodes
from vlmpass.passes.pipeline import parse
from vlmpass.presets import SIMPLIFY

FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True)
class Export:
    """A file with the blocks its architecture has.

    Attributes:
        path: The model.
        feeds: Its inputs and references.
        blocks: How many blocks of each kind it computes.
    """

    path: Path
    feeds: Path
    blocks: dict[str, int]

    def __str__(self) -> str:
        return self.path.name.removesuffix(".onnx")

    def feed(self) -> dict[str, np.ndarray]:
        arrays = np.load(self.feeds)
        return {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}


def _exports(folder: Path) -> list[Export]:
    entries = json.loads((folder / "index.json").read_text())
    return [Export(folder / e["file"], folder / e["feeds"], e["blocks"]) for e in entries]


EXPORTS = [*_exports(FIXTURES / "exports"), *_exports(FIXTURES / "blocks")]
# What a block of each kind may have become.
FORMS = {
    "LayerNormalization": ("LayerNormalization", "SkipLayerNormalization"),
    "RMSNormalization": (
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ),
    "Gelu": ("Gelu", "FastGelu"),
    "Swish": ("Swish", "QuickGelu"),
    "Softmax": ("Softmax",),
}
LEFT = {"ReduceMean", "Erf", "Tanh", "Sigmoid", "Reciprocal", "Exp"}
PIPELINES = {
    "ort": f"{SIMPLIFY},fuse{{emit=ort}}",
    "standard": f"{SIMPLIFY},convert-opset{{to=24}},fuse",
}


def _counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(model))


def _run(text: str, path: Path) -> ir.Model:
    model = load(path)
    for each in parse(text):
        each.run(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("emit", PIPELINES)
@pytest.mark.parametrize("export", EXPORTS, ids=str)
def test_every_block_is_one_node(export: Export, emit: str) -> None:
    model = _run(PIPELINES[emit], export.path)
    counts = _counts(model)
    found = {kind: sum(counts[form] for form in forms) for kind, forms in FORMS.items()}
    assert found == {kind: export.blocks.get(kind, 0) for kind in FORMS}
    assert not export.blocks or not LEFT & set(counts)
    original = load(export.path)
    weights = {name for name in original.graph.initializers if "weight" in name}
    assert weights & set(model.graph.initializers) or not weights
    if "bfloat16" not in str(export):
        feed = export.feed()
        assert difference(run(original, feed), run(model, feed)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("export", [e for e in EXPORTS if "float32" in str(e)], ids=str)
def test_what_is_fused_for_onnx_runtime_can_be_said_in_primitive_operators(export: Export) -> None:
    model = _run(f"{PIPELINES['ort']},unfuse{{to=primitive}}", export.path)
    forms = {form for kind, forms in FORMS.items() if kind != "Softmax" for form in forms}
    assert not forms & set(_counts(model))
    assert not any(node.domain for node in all_nodes(model))
    feed = export.feed()
    assert difference(run(load(export.path), feed), run(model, feed)) == ""
