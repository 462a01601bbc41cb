"""Models as both PyTorch exporters write them: every norm and activation block is one node."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import difference, run

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.walk import all_nodes
from vlmpass.passes.pipeline import parse

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
FILES = [each["file"] for each in json.loads((EXPORTS / "index.json").read_text())]
FEEDS = {each["file"]: each["feeds"] for each in json.loads((EXPORTS / "index.json").read_text())}
NORMS = {
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}
ACTIVATIONS = {"Gelu", "FastGelu", "QuickGelu", "Swish"}
# By the modules' architecture: norms, activations.
BLOCKS = {"decoder": (5, 2), "vision": (7, 2), "vision_resize": (7, 2), "text": (4, 1)}
LEFT = {"ReduceMean", "Erf", "Tanh", "Sigmoid", "Reciprocal"}
PIPELINES = {
    "ort": "infer,simplify,cse,fuse{emit=ort}",
    "standard": "infer,simplify,cse,convert-opset{to=24},fuse",
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
@pytest.mark.parametrize("file", [name for name in FILES if name.split(".")[0] in BLOCKS])
def test_every_block_is_one_node(file: str, emit: str) -> None:
    model = _run(PIPELINES[emit], EXPORTS / file)
    counts = _counts(model)
    norms, activations = BLOCKS[file.split(".")[0]]
    assert sum(counts[kind] for kind in NORMS) == norms
    assert sum(counts[kind] for kind in ACTIVATIONS) == activations
    assert not LEFT & set(counts)
    original = load(EXPORTS / file)
    assert set(model.graph.initializers) & set(original.graph.initializers)
    if "bfloat16" in file:
        return
    arrays = np.load(EXPORTS / FEEDS[file])
    feed = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    assert difference(run(original, feed), run(model, feed)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("file", [name for name in FILES if "float32" in name])
def test_what_is_fused_for_onnx_runtime_can_be_said_in_primitive_operators(file: str) -> None:
    model = _run(f"{PIPELINES['ort']},unfuse{{to=primitive}}", EXPORTS / file)
    assert not (NORMS | ACTIVATIONS) & set(_counts(model))
    assert not any(node.domain for node in all_nodes(model))
    arrays = np.load(EXPORTS / FEEDS[file])
    feed = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    assert difference(run(load(EXPORTS / file), feed), run(model, feed)) == ""
