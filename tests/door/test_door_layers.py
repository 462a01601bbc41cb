"""verify --layers and verify against recorded outputs, on the command line."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from door_tools import child, mlp_model

import vlmpass
from vlmpass.ir_tools.run import Runner, generate_inputs

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"


def pair(folder):
    """A model, and one whose second node is another."""
    one = mlp_model(folder, "a.onnx")
    model = vlmpass.load(one)
    model.graph[1].op_type = "Tanh"
    vlmpass.save(model, folder / "b.onnx")
    return one, folder / "b.onnx"


def test_the_first_value_that_differs_is_told(door, tmp_path):
    code, out, err = door("verify", *pair(tmp_path), "--layers")
    assert (code, err) == (1, "")
    assert "the unnamed Tanh that makes 'r'" in out
    code, out, _ = door("verify", *pair(tmp_path), "--layers", "--json")
    data = json.loads(out)["layers"]
    assert data["layers"][data["first"]]["name"] == "r"


GROWS = """<ir_version: 8, opset_import: ["": 17]>
g (float[n,4] x) => (float[n,4] y) {nodes}"""


def test_a_model_that_does_not_run_all_sizes_is_found_wanting(door, tmp_path):
    """The finding stays, although nothing inside is compared then."""
    one, two = (
        GROWS.replace("{nodes}", nodes)
        for nodes in (
            "{ a = Relu(x) y = Mul(a, a) }",
            "<int64[2] s = {2, 4}> { a = Relu(x) b = Reshape(a, s) y = Mul(b, b) }",
        )
    )
    for name, text in (("one.onnx", one), ("two.onnx", two)):
        vlmpass.save(ir.from_onnx_text(text), tmp_path / name)
    code, out, err = door("verify", tmp_path / "one.onnx", tmp_path / "two.onnx", "--layers")
    assert code == 1
    assert "cannot be reshaped" in out
    assert "no value inside was compared" in err


def test_the_screen_fits_a_narrow_pipe_of_any_encoding(tmp_path):
    env = {"COLUMNS": "60", "PYTHONIOENCODING": "cp1252", "PATH": "/usr/bin:/bin"}
    one, two = pair(tmp_path)
    done = child("verify", one.name, two.name, "--layers", cwd=tmp_path, env=env, encoding="cp1252")
    assert done.returncode == 1, done.stderr
    assert all(len(line) <= 60 for line in done.stdout.splitlines())


def test_recorded_outputs_are_a_reference(door, tmp_path):
    path = mlp_model(tmp_path)
    model = vlmpass.load(path)
    feed = generate_inputs(model)
    with Runner(model) as runner:
        made = {name: np.array(value) for name, value in runner.run(feed).items()}
    np.savez(tmp_path / "in.npz", **feed)
    np.savez(tmp_path / "out.npz", **made)
    words = ("verify", tmp_path / "out.npz", path)
    code, _, err = door(*words, "--inputs", tmp_path / "in.npz")
    assert (code, err) == (0, "")
    code, _, err = door(*words)
    assert code == 2
    assert "--inputs" in err
    code, _, err = door(*words, "--inputs", tmp_path / "in.npz", "--layers")
    assert code == 2
    assert "name a model" in err


def test_pytorchs_own_number_of_bfloat16_is_read_as_that(door, tmp_path):
    path = EXPORTS / "vision.bfloat16.ts17.onnx"
    code, out, err = door("verify", path, path, "--layers", "--emulate", "bfloat16", "--json")
    assert code == 0
    assert "PyTorch's numbers" in err
    held = {each["name"] for each in json.loads(out)["layers"]["layers"]}
    assert {"/layers.0/Cast_3_output_0", "/layers.0/Mul_output_0"} <= held
    # A fault behind such a Cast is named as any other.
    model = vlmpass.load(path)
    node = next(node for node in model.graph if node.op_type == "Softmax")
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    vlmpass.save(model, tmp_path / "wrong.onnx")
    code, out, _ = door("verify", path, tmp_path / "wrong.onnx", "--layers", "--json")
    found = json.loads(out)["layers"]
    assert code == 1
    assert found["layers"][found["first"]]["name"] == node.outputs[0].name
    # One that reads otherwise is none of PyTorch's.
    assert door("verify", path, EXPORTS / "vision.float32.ts17.onnx", "--layers")[2] == err_of(path)


def err_of(path):
    """The note of a model that is read as PyTorch means it."""
    return (
        f"vlmpass: note: {path.name} has PyTorch's numbers for types and axes in 2 nodes, which no"
        " runtime takes; they are read as PyTorch means them, as convert does\n"
    )


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("(float[2] x) => (float[2] x) { }", 0, "no value inside is in both"),
        ("(float[2] x) => (float[2] y) { y = Neg(x) }", 1, "made by"),
        ("(float[3] x) => (float[3] y) { y = Abs(x) }", 1, "input 'x' has 3"),
    ],
)
def test_what_has_nothing_inside_has_a_verdict(door, tmp_path, body, code, said):
    head = '<ir_version: 8, opset_import: ["": 17]> g '
    first = body if code == 0 else "(float[2] x) => (float[2] y) { y = Abs(x) }"
    for name, text in (("a.onnx", first), ("b.onnx", body)):
        ir.save(ir.from_onnx_text(head + text), tmp_path / name)
    found, out, err = door("verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--layers")
    assert (found, err) == (code, "")
    assert ("equal within" if code == 0 else "not equal") in out
    assert said in out


def test_another_runtime_judges(door, tmp_path):
    one, two = pair(tmp_path)
    code, out, err = door("verify", one, one, "--on", "openvino")
    assert (code, err) == (0, "")
    assert "OpenVINO" in out
    assert door("verify", one, two, "--on", "openvino")[0] == 1
    for words, said in (
        (("--on", "openvin"), "did you mean 'openvino'?"),
        (("--on", "openvino", "--layers"), "leave one of them out"),
        (("--on", "openvino", "--emulate", "float16"), "leave one of them out"),
    ):
        code, _, err = door("verify", one, two, *words)
        assert code == 2
        assert said in err
