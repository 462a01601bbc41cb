"""A result is loaded by its target's own runtime where that is installed, before it is written."""

from __future__ import annotations

import time
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import parser

from vlmpass import Pipeline, target_loading
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import Allowance
from vlmpass.ir_tools.system import runtime
from vlmpass.ir_tools.targets import Profile, profile
from vlmpass.target_loading import load_there

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]> main_graph '
TAKEN = HEAD + (
    "(float[n,2] x) => (float[n,2] y) <float[2,2] w = {1, 2, 3, 4}>"
    " { z = MatMul(x, w) y = Relu(z) }"
)
REFUSED = HEAD + "(float[2] x) => (float[2] y) { z = com.acme.Twice(x) y = Relu(z) }"
HALVES = HEAD + (
    "(float16[b,4,s,t] x, float16[b,2,p,64] k) => (float16[b,4,s,t] y)"
    " <int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[3] at = {0,1,3}> {"
    " ks = Shape(k) past = Gather(ks, two) xs = Shape(x) rows = Gather(xs, two)"
    " r = Range(zero, rows, one) q = Add(r, past) u = Unsqueeze(q, at) w = Cast<to=10>(u)"
    " d = Add(x, w) y = Softmax(d) }"
)


def model_of(text: str) -> ir.Model:
    return ir.serde.deserialize_model(parser.parse_model(text))


def mine(folder: Path, loader: str) -> Profile:
    """Return a target of which nothing is known but what loads a result for it."""
    text = f'about = "a"\nsource = "b"\nloader = "{loader}"\n[reads]\nopset = [9, 22]\n'
    (folder / "mine.toml").write_text(text + "ir-version = 10\n", encoding="utf-8")
    return profile(str(folder / "mine.toml"))


def test_what_its_runtime_does_not_load_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    target = mine(tmp_path, "openvino")
    out = tmp_path / "out.onnx"
    with pytest.raises(VerifyError, match=r"mine does not load the result: .*Twice") as error:
        Pipeline(target=target.asked).convert(model_of(REFUSED), out)
    assert "--no-verify" in error.value.remedy
    assert not out.exists()
    Pipeline(target=target.asked).convert(model_of(REFUSED), out, verify=False)
    assert out.exists()


def test_the_last_line_says_that_it_was_loaded(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    report = Pipeline(target="openvino").convert(model_of(TAKEN), tmp_path / "out.onnx")
    assert report.checked.loaded.there == "OpenVINO loads it"
    assert str(report).rstrip().endswith("; OpenVINO loads it")


def test_large_weights_are_tried_as_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that does not show is tried as it is."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(target_loading, "EXACT_BYTES", 0)
    monkeypatch.setattr(target_loading, "_LARGE", 0)
    target, model = mine(tmp_path, "openvino"), model_of(TAKEN)
    assert load_there(model, target, Allowance()).endswith("its large weights as inputs")
    assert list(model.graph.initializers) == ["w"]
    constant = TAKEN.replace("MatMul(x, w)", "Reshape(x, v)").replace(
        "float[2,2] w = {1, 2, 3, 4}", "int64[2] v = {-1, 2}"
    )
    assert load_there(model_of(constant), target, Allowance()).startswith("OpenVINO loads it")


def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_is_importable", lambda name: False)
    told = load_there(model_of(TAKEN), mine(tmp_path, "iree"), Allowance())
    assert told.startswith("not loaded by IREE: IREE is not installed; install it: pip")


def test_what_takes_too_long_is_said(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    late = Allowance(until=time.monotonic() - 1)
    told = load_there(model_of(TAKEN), mine(tmp_path, "openvino"), late)
    assert told.startswith("not loaded by OpenVINO: ")
    assert "longer than it may" in told


@pytest.mark.slow
def test_softmax_of_halves_with_open_sizes_compiles_on_iree(tmp_path: Path) -> None:
    """As it is, IREE would take memory from the stack without bound."""
    pytest.importorskip("iree.compiler")
    with pytest.raises(VerifyError, match="stack allocation limit"):
        load_there(model_of(HALVES), mine(tmp_path, "iree"), Allowance())
    report = Pipeline(target="iree").convert(model_of(HALVES), tmp_path / "out.onnx")
    assert report.checked.loaded.there == "IREE loads it"
    assert "LogSoftmax" in report.after.facts.operators
