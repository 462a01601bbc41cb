"""What ranges are measured with: archives of arrays, as they are and damaged."""

from __future__ import annotations

import contextlib
import zipfile

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.inputs import arrays_of, held_to
from vlmpass.ir_tools.run.spans import Span, spans
from vlmpass.rewriter_rules.quant.levels import Levels

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def test_an_input_that_runs_leave_out_is_what_it_is_then(monkeypatch):
    class Runner:
        run_all = __enter__ = __exit__ = lambda self, *_: self

    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", lambda *_, **__: Runner())
    text = """g (float[n,2] x, float[1,2] c) => (float[n,2] y) <float[1,2] c = {-4, 3}> {
        y = Sub(x, c) }"""
    model = ir.serde.from_proto(onnx.parser.parse_model(HEAD + text))
    one, two = np.ones((2, 1, 2), np.float32) * [[[1]], [[7]]]
    assert spans(model, ["c"], [{"x": one}]) == {"c": Span(-4, 3)}
    assert spans(model, ["c"], [{"x": one}, {"x": one, "c": two}]) == {"c": Span(-4, 7)}
    assert spans(model, ["c"], [{"x": one, "c": two}]) == {"c": Span(7, 7)}


def test_levels_of_spans_that_float32_does_not_hold():
    found = Levels.of(-3e38, 3e38, ir.DataType.UINT8)
    assert found.scale == pytest.approx(6e38 / 255)
    assert found.zero in (127, 128)


@pytest.mark.parametrize("seed", range(16))
def test_a_damaged_archive_is_refused_or_read(tmp_path, seed):
    dice, file = np.random.default_rng(seed), tmp_path / "a.npz"
    (np.savez_compressed if seed % 2 else np.savez)(file, x=np.ones((4, 40), np.float32))
    held = bytearray(file.read_bytes())
    for at in dice.integers(len(held), size=3):
        held[at] = dice.integers(256)
    file.write_bytes(held)
    with contextlib.suppress(VerifyError):
        assert arrays_of(file)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.array([0.5, 1]), "is float64, and input 'i' takes int64"),
        (np.array([np.nan, 1]), "is float64, and input 'i' takes int64"),
        (np.array([2**63, 1], np.uint64), "is uint64, and input 'i' takes int64"),
        (np.array([1j, 1]), "is complex128, and input 'i' takes int64"),
        (np.array([2.0, 1]), ""),
        (np.array([2, 1], np.uint8), ""),
    ],
)
def test_numbers_that_an_input_does_not_hold_are_refused(given, says):
    model = ir.serde.from_proto(
        onnx.parser.parse_model(HEAD + "g (int64[n] i) => (int64[n] y) { y = Neg(i) }")
    )
    if not says:
        assert held_to({"i": given}, model, "inputs")["i"].tolist() == [2, 1]
        return
    with pytest.raises(VerifyError, match=says):
        held_to({"i": given}, model, "inputs")


def test_what_is_no_array_in_an_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"junk")
    with pytest.raises(VerifyError, match="holds x, which is no array"):
        arrays_of(tmp_path / "a.npz")
