"""Attention and rotary embeddings of exported architectures are all one node each.

BERT of the exporter on torch.export folds heads of keys into the batch, Gemma 2 has a cap, a window
and grouped heads, and GPT-NeoX turns a part of each head and guards rows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rewrite.support import run

from vlmpass.ir_tools.load import load
from vlmpass.passes.pipeline.text import parse
from vlmpass.presets import SIMPLIFY

FOLDER = Path(__file__).parents[1] / "fixtures" / "attention"
ROTARY = {"bert.dyn.sdpa": 0, "gemma2.dyn.eager.cache": 4, "neox.ts.sdpa": 4}
LAYERS = 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ROTARY)
def test_every_block_is_one_node(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    arrays = np.load(path.with_suffix(".npz"))
    feed = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    model = load(path)
    for each in parse(f"{SIMPLIFY},convert-opset{{to=23}},{SIMPLIFY},fuse,{SIMPLIFY}"):
        each.run(model)
    counts = Counter(node.op_type for node in model.graph)
    assert counts["Attention"] == LAYERS
    assert counts["RotaryEmbedding"] == ROTARY[name]
    assert not counts["Softmax"]
    names = [value.name for value in model.graph.inputs]
    feed = {key: feed[key] for key in names if key is not None}
    for wanted, got in zip(run(load(path), feed), run(model, feed), strict=True):
        assert np.abs(wanted - got).max() <= 1e-4 * max(1.0, float(np.abs(wanted).max()))
