"""Decoders with fused attention, step by step: left padding, empty caches, rows of nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from vlmpass.ir_tools.load import load
from vlmpass.passes.pipeline.text import parse
from vlmpass.presets import SIMPLIFY

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
STEPS = 16
FORMS = {
    "standard": f"{SIMPLIFY},convert-opset{{to=23}},fuse,{SIMPLIFY}",
    "ort": f"{SIMPLIFY},fuse{{emit=ort}},{SIMPLIFY}",
}


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, {name: feed[name] for name in names}))


def _close(wanted: list[np.ndarray], got: list[np.ndarray]) -> None:
    for one, two in zip(wanted, got, strict=True):
        assert one.shape == two.shape
        if one.size:
            assert np.abs(one - two).max() <= 1e-4 * max(1.0, float(np.abs(one).max()))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padded", [(0, 0), (0, 3), (2, 6)], ids=str)
@pytest.mark.parametrize("export", ["ts17", "dyn18"])
def test_sixteen_steps_after_a_prefill(export: str, padded: tuple[int, int], form: str) -> None:
    """Of an odd length, two sequences at once; all of the second may be padding."""
    path = EXPORTS / f"decoder.float32.{export}.onnx"
    model = load(path)
    for each in parse(FORMS[form]):
        each.run(model)
    counts = Counter(node.op_type for node in model.graph)
    assert counts["RotaryEmbedding"] == 4
    inside = [len(node.outputs) for node in model.graph if node.op_type == "Attention"]
    assert form == "ort" or inside == [3, 3]
    source, fused = _session(load(path)), _session(model)
    rng = np.random.default_rng(1)
    length, past = 7, [np.zeros((2, 2, 0, 8), np.float32)] * 4
    mask = np.array([[at >= count for at in range(length)] for count in padded], np.int64)
    ids = rng.integers(0, 96, (2, length))
    for _ in range(1 + STEPS):
        places = np.maximum(np.cumsum(mask, 1) - 1, 0)[:, -ids.shape[1] :]
        names = [f"past_{kind}_{layer}" for layer in range(2) for kind in ("key", "value")]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        feed |= dict(zip(names, past, strict=True))
        wanted = _run(source, feed)
        _close(wanted, _run(fused, feed))
        past = wanted[1:]
        ids = wanted[0][:, -1:].argmax(-1)
        mask = np.concatenate([mask, np.ones((2, 1), np.int64)], 1)
