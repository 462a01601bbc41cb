"""A model judged as OpenVINO runs it."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import ArgumentError, VerifyError
from vlmpass.ir_tools.run import Runner, generate_inputs, verify, verify_recorded

pytest.importorskip("openvino")

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"


def text(body, opset=18):
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}')


@pytest.mark.parametrize("name", ["decoder.float32.dyn18.onnx", "decoder.bfloat16.dyn18.onnx"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_it_computes_what_onnx_runtime_does(name, in_memory):
    path = EXPORTS / name
    found = verify(path, vlmpass.load(path) if in_memory else path, on="openvino")
    assert found.ok
    assert (found.expected_ran.split(",")[0], found.actual_ran) == ("ONNX Runtime", "OpenVINO")


def test_weights_in_files_of_their_own_are_found(tmp_path):
    source = EXPORTS / "text.float32.ts14.onnx"
    vlmpass.save(source, tmp_path / "m.onnx", weights="copy")
    model = vlmpass.load(tmp_path / "m.onnx")
    assert verify(source, tmp_path / "m.onnx", on="openvino").ok
    assert verify(source, model, on="openvino").ok
    wrong = next(each for each in model.graph if each.op_type == "Softmax")
    wrong.attributes["axis"] = ir.AttrInt64("axis", 1)
    assert not verify(source, model, on="openvino").ok


def test_what_it_computes_otherwise_is_found():
    """It ignores antialiasing, without a word."""
    resize = text(
        """(float[1,1,16,16] x) => (float[1,1,5,5] y) {
            sizes = Constant <value = int64[4] {1,1,5,5}> ()
            y = Resize <mode = "linear", antialias = 1> (x, , , sizes)
        }"""
    )
    assert verify(resize, resize).ok
    found = verify(resize, resize, on="openvino")
    assert not found.ok
    assert found.outputs[0].max_rel > 0.05


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("(string[2] x) => (string[2] y) { y = StringConcat(x, x) }", "OpenVINO"),
        ("(float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x, x) }", "OpenVINO"),
    ],
)
def test_what_it_does_not_run_is_a_finding(body, said):
    found = verify(text(body, 20), text(body, 20), on="openvino")
    assert not found.ok
    assert said in found.findings[0]
    assert "does not" in found.findings[0]


def test_outputs_that_are_one_value_have_their_names():
    both = text("(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = Neg(x) z = Identity(y) }")
    found = verify(both, both, on="openvino")
    assert [each.name for each in found.outputs] == ["y", "z"]
    assert found.ok


def test_recorded_outputs_are_a_reference(tmp_path):
    path = EXPORTS / "text.float32.ts14.onnx"
    feed = generate_inputs(vlmpass.load(path))
    with Runner(path) as runner:
        made = {name: np.array(value) for name, value in runner.run(feed).items()}
    assert verify_recorded(made, path, inputs=feed, on="openvino").actual_ran == "OpenVINO"


def test_what_it_cannot_be_asked_for_is_refused():
    model = text("(float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(ArgumentError, match="on takes one of onnxruntime, openvino"):
        verify(model, model, on="tensorrt")
    with pytest.raises(VerifyError, match="emulated runs on ONNX Runtime"):
        verify(model, model, on="openvino", emulated="float16")
