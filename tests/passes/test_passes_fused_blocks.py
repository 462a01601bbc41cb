"""What the pass fuse says of what it did: counted on the graph, with the first reason."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.load import load
from vlmpass.passes.pipeline.text import parse
from vlmpass.presets import SIMPLIFY

DECODER = Path(__file__).parents[1] / "fixtures" / "exports" / "decoder.float32.ts17.onnx"


def _told(text: str, caplog: pytest.LogCaptureFixture) -> tuple[str, int]:
    model = load(DECODER)
    with caplog.at_level(logging.INFO, logger="vlmpass"):
        for each in parse(f"{SIMPLIFY},{text}"):
            each.run(model)
    (record,) = [each for each in caplog.records if each.getMessage().startswith("fused")]
    return record.getMessage(), record.levelno


def test_all_is_fused(caplog: pytest.LogCaptureFixture) -> None:
    told = "fused: 2 attention (2 with grouped heads, 2 with their past), 4 rotary embeddings"
    assert _told("convert-opset{to=23},fuse", caplog) == (told, logging.INFO)


def test_what_is_not_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    told, level = _told("fuse{emit=ort}", caplog)
    assert told.startswith("fused: 4 rotary embeddings; not fused: 2 attention (MultiHeadAttention")
    assert "at MatMul" in told
    assert level == logging.WARNING


def test_nothing_is_missed_where_nothing_is_offered(caplog: pytest.LogCaptureFixture) -> None:
    assert _told("fuse", caplog) == ("fused: no attention", logging.INFO)


def test_only_what_a_target_runs_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rest stays spelled out, and is no reason to warn."""
    lacks = tmp_path / "lacks.toml"
    lacks.write_text(
        'inherits = "ort-cpu"\nabout = "a"\nsource = "b"\n'
        '[operators."com.microsoft"]\nRotaryEmbedding = "unsupported"\n',
        encoding="utf-8",
    )
    for target, rotary in (("ort-cpu", 4), (str(lacks), 0), ("onnx-standard", 0)):
        caplog.clear()
        told, level = _told(f"fuse{{emit=ort target={target}}}", caplog)
        assert told.startswith(f"fused: {rotary} rotary" if rotary else "fused: no attention")
        assert level == logging.INFO


def test_what_a_target_runs_slower_is_not_made() -> None:
    """Skip connections of norms, and Swish, stay apart for ONNX Runtime's CPU, and only for it."""
    for target, skips in (("", 4), (" target=ort-cpu", 0), (" target=ort-cuda", 4)):
        model = Pipeline(f"{SIMPLIFY},fuse{{emit=ort{target}}}").run(load(DECODER)).model
        made = Counter(node.op_type for node in model.graph)
        assert made["SkipSimplifiedLayerNormalization"] == skips, target
        assert made["SimplifiedLayerNormalization"] == 5 - skips, target
    for target, swishes in (("", 2), (" target=ort-cpu", 0)):
        text = f"{SIMPLIFY},convert-opset{{to=24}},fuse{{{target.strip()}}}"
        made = Counter(node.op_type for node in Pipeline(text).run(load(DECODER)).model.graph)
        assert made["Swish"] == swishes
