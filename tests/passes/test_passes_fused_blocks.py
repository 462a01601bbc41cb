"""What the pass fuse says of what it did: counted on the graph, with the first reason."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

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
    told = "fused: 2 attention (2 with grouped heads), 4 rotary embeddings"
    assert _told("convert-opset{to=23},fuse", caplog) == (told, logging.INFO)


def test_what_is_not_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    told, level = _told("fuse{emit=ort}", caplog)
    assert told.startswith("fused: 4 rotary embeddings; not fused: 2 attention (MultiHeadAttention")
    assert "at MatMul" in told
    assert level == logging.WARNING


def test_nothing_is_missed_where_nothing_is_offered(caplog: pytest.LogCaptureFixture) -> None:
    assert _told("fuse", caplog) == ("fused: no attention", logging.INFO)
