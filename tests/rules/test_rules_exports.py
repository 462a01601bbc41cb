"""Models as both PyTorch exporters write them: every norm and activation block is one node."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from rewrite.support import difference, run

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.passes.pipeline.text import parse
from vlmpass.presets import SIMPLIFY

FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True)
class Export:
    """A file with the blocks its architecture has.

    Attributes:
        path: The model.
        feeds: Its inputs and references.
        blocks: How many blocks of each kind it computes.
        opset: It was exported at.
    """

    path: Path
    feeds: Path
    blocks: dict[str, int]
    opset: int

    def __str__(self) -> str:
        return self.path.name.removesuffix(".onnx")

    def feed(self) -> dict[str, np.ndarray]:
        arrays = np.load(self.feeds)
        return {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}


def _exports(folder: Path) -> list[Export]:
    entries = json.loads((folder / "index.json").read_text())
    return [
        Export(folder / e["file"], folder / e["feeds"], e["blocks"], e["opset"]) for e in entries
    ]


EXPORTS = [*_exports(FIXTURES / "exports"), *_exports(FIXTURES / "blocks")]
FUNCTIONS = _exports(FIXTURES / "functions")
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
    "Softmax": ("Softmax", "Attention", "MultiHeadAttention"),
}
LEFT = {"ReduceMean", "Erf", "Tanh", "Sigmoid", "Reciprocal", "Exp"}
PIPELINES = {
    "ort": f"{SIMPLIFY},fuse{{emit=ort}}",
    "standard": f"{SIMPLIFY},convert-opset{{to=24}},fuse",
}


# ONNX Runtime crashes on its own operators in functions, so that these need the standard's.
NEWEST = {"standard": PIPELINES["standard"], "ort": f"{PIPELINES['standard']}{{emit=ort}}"}


def _counts(model: ir.Model) -> Counter[str]:
    """Return how many nodes of each operator run, those of a function once for every call."""
    counts: Counter[str] = Counter()
    pending = list(model.graph.all_nodes())
    while pending:
        node = pending.pop()
        function = model.functions.get(node.op_identifier())
        if function is None:
            counts[node.op_type] += 1
        else:
            pending.extend(function.all_nodes())
    return counts


def _run(text: str, path: Path) -> ir.Model:
    model = load(path)
    for each in parse(text):
        each.run(model)
    return model


def _every_block(export: Export, model: ir.Model) -> None:
    counts = _counts(model)
    found = {kind: sum(counts[form] for form in forms) for kind, forms in FORMS.items()}
    assert found == {kind: export.blocks.get(kind, 0) for kind in FORMS}
    assert not export.blocks or not LEFT & set(counts)


@pytest.mark.slow
@pytest.mark.parametrize("emit", PIPELINES)
@pytest.mark.parametrize("export", EXPORTS, ids=str)
def test_every_block_is_one_node(export: Export, emit: str) -> None:
    model = _run(PIPELINES[emit], export.path)
    _every_block(export, model)
    original = load(export.path)
    weights = {name for name in original.graph.initializers if "weight" in name}
    assert weights & set(model.graph.initializers) or not weights
    if "bfloat16" not in str(export):
        feed = export.feed()
        assert difference(run(original, feed), run(model, feed)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("emit", NEWEST)
@pytest.mark.parametrize("export", FUNCTIONS, ids=str)
def test_every_block_in_a_function_is_one_node(export: Export, emit: str, tmp_path: Path) -> None:
    """Where it is, and so for all calls; the functions stay."""
    model = _run(NEWEST[emit], export.path)
    _every_block(export, model)
    original = load(export.path)
    assert {function.name for function in model.functions.values()} == {
        function.name for function in original.functions.values()
    }
    save(model, tmp_path / "m.onnx", layout="inline")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    feed = export.feed()
    expected = run(original, feed)
    assert difference(expected, run(load(tmp_path / "m.onnx"), feed)) == ""
    assert difference(expected, run(_run("inline-functions", tmp_path / "m.onnx"), feed)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("export", FUNCTIONS, ids=str)
def test_at_its_own_opset_a_function_has_what_the_standard_has(export: Export) -> None:
    model = _run(PIPELINES["ort"], export.path)
    counts = _counts(model)
    for kind in ("Gelu", "Swish", "Softmax"):
        assert sum(counts[form] for form in FORMS[kind]) == export.blocks.get(kind, 0)
    layers = export.blocks.get("LayerNormalization", 0)
    assert counts["LayerNormalization"] == (layers if export.opset >= 17 else 0)
    assert not counts["SimplifiedLayerNormalization"]
    feed = export.feed()
    assert difference(run(load(export.path), feed), run(model, feed)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("export", [e for e in EXPORTS if "float32" in str(e)], ids=str)
def test_what_is_fused_for_onnx_runtime_can_be_said_in_primitive_operators(export: Export) -> None:
    model = _run(f"{PIPELINES['ort']},unfuse{{to=primitive}}", export.path)
    forms = {form for kind, forms in FORMS.items() if kind != "Softmax" for form in forms}
    assert not forms & set(_counts(model))
    assert not any(node.domain for node in all_nodes(model))
    feed = export.feed()
    assert difference(run(load(export.path), feed), run(model, feed)) == ""
