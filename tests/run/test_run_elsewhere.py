"""A model judged as onnxruntime-web or IREE runs it."""

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import Runner, verify
from vlmpass.ir_tools.system.runtime import RUNTIME_NAMES, require_runtime, runtime_version


def require(runtime):
    try:
        require_runtime(runtime)
    except VerifyError as error:
        pytest.skip(f"{error}; {error.remedy}")


@pytest.fixture(params=["iree", "ort-web-wasm"])
def runtime(request):
    require(request.param)
    return request.param


def text(body, opset=18):
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}')


def product(second="2.0"):
    return text(
        f"""(float[n, 2] x, int64[n] i) => (float[n, 2] y, int64[n] j) {{
            w = Constant <value = float[2, 2] {{1.0, {second}, -0.5, 0.25}}> ()
            m = MatMul(x, w)
            y = Tanh(m)
            j = Add(i, i)
        }}"""
    )


def test_it_computes_what_onnx_runtime_does(runtime):
    found = verify(product(), product(), on=runtime)
    assert found.ok
    assert found.actual_ran == RUNTIME_NAMES[runtime]
    assert [each.name for each in found.outputs] == ["y", "j"]


def test_what_differs_is_found(runtime):
    found = verify(product(), product("1.5"), on=runtime)
    assert not found.ok
    assert [each.name for each in found.outputs if not each.ok] == ["y"]


def test_weights_in_files_of_their_own_are_found(runtime, tmp_path):
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = text("(float[2, 64] x) => (float[2, 64] y) { y = Mul(x, x) }")
    (node,) = model.graph
    node.op_type = "MatMul"
    node.replace_input_with(1, ir.Value(name="w", const_value=ir.tensor(weight)))
    model.graph.register_initializer(node.inputs[1])
    vlmpass.save(model, tmp_path / "m.onnx", weights="copy")
    assert (tmp_path / "m.onnx.data").exists()
    assert verify(model, tmp_path / "m.onnx", on=runtime).ok
    assert verify(model, vlmpass.load(tmp_path / "m.onnx"), on=runtime).ok


@pytest.mark.parametrize(
    ("runtime", "body", "said"),
    [
        ("ort-web-wasm", "(bfloat16[2] x) => (float[2] y) { y = Cast <to = 1> (x) }", "type: 16"),
        ("iree", "(string[2] x) => (string[2] y) { y = StringConcat(x, x) }", "StringConcat"),
    ],
    indirect=["runtime"],
)
def test_what_it_does_not_run_is_a_finding(runtime, body, said):
    found = verify(text(body, 20), text(body, 20), on=runtime)
    assert not found.ok
    assert said in found.findings[0]
    assert f"{RUNTIME_NAMES[runtime]} does not" in found.findings[0]


def test_its_version_is_known(runtime):
    assert runtime_version(runtime).split()[1][0].isdigit()


def test_what_is_not_installed_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ORT_WEB", str(tmp_path))
    with pytest.raises(VerifyError, match=r"onnxruntime-web|Node\.js"):
        Runner(product(), backend="ort-web-wasm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VerifyError, match="IREE is not installed") as error:
        Runner(product(), backend="iree")
    assert "vlmpass[targets]" in str(error.value.remedy)
