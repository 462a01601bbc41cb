"""Screens of verbs that look into models: 60 columns, a pipe, and an encoding with few letters."""

import io
import json
import shlex
import sys

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.cli.app import run

COPIED = ("reference", "judged", "replay", "reproducer", "inputs", "written", "manifest")
"""How lines begin that are to be copied, and are not broken."""


def model(path, operator):
    """Write a model whose names are long, and of letters that cp1252 has not."""
    made = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 8] x, float[8, 8] w, float[8, 8] v) => (float[n, 8] y) {
            a = MatMul(x, w) c = Cast<to=1>(a) b = Relu(c) e = MatMul(b, v) f = Identity(e)
            y = Neg(f)
        }"""
    )
    rng = np.random.default_rng(0)
    for value in list(made.graph.inputs)[1:]:
        value.const_value = ir.tensor(
            rng.standard_normal((8, 8)).astype(np.float32), name=value.name
        )
        made.graph.inputs.remove(value)
        made.graph.register_initializer(value)
    for number, node in enumerate(made.graph):
        module = f"層.layers.{number}"
        node.metadata_props["pkg.torch.onnx.name_scopes"] = str(
            ["", module, f"{module}.投影→{'x' * 70}", "op"]
        )
        node.name = f"/型/層.{number}→Ω_🙂/{'attention_output_' * 6}{node.op_type}"
        for value in node.outputs:
            value.name = f"{value.name}→Ω_{'logits_of_everything_' * 5}"
        if node.op_type == "Relu":
            node.op_type = operator
    vlmpass.save(made, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    model(tmp_path / "層→a.onnx", "Relu")
    model(tmp_path / "b.onnx", "Tanh")
    script = tmp_path / "check.py"
    script.write_text(
        "import sys\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "wrong = b'Identity' not in data if sys.argv[2] == 'few' else b'Relu' in data\n"
        "sys.exit(f'{chr(0x2192)} {chr(0xfc)} ' * 30 if wrong else 0)\n"
    )
    return tmp_path


def told(*words):
    """Exit code and lines of both streams, which encode in cp1252 and are no terminal."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="") for _ in range(2)]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    try:
        code = run([str(word) for word in words])
    finally:
        sys.stdout, sys.stderr = before
    for stream in streams:
        stream.flush()
    return code, *(each.buffer.getvalue().decode("cp1252").splitlines() for each in streams)


def check(what):
    """A command that fails where an Identity has gone, or on a Relu."""
    return f"{shlex.quote(sys.executable)} -X utf8 check.py {{}} {what}"


VERBS = {
    "verify": (("verify", "層→a.onnx", "b.onnx"), 1, "not equal: 1 of 1 outputs"),
    "verify of equals": (("verify", "b.onnx", "b.onnx"), 0, "equal within the tolerance"),
    "layers": (("verify", "層→a.onnx", "b.onnx", "--layers"), 1, "made by"),
    "emulated": (
        ("verify", "層→a.onnx", "b.onnx", "--layers", "--emulate", "float15"), 2, "did you mean"
    ),
    "bisect": (
        ("bisect", "層→a.onnx", "found→", "--passes", "infer,simplify", "--check", check("few")),
        1,
        "simplify",
    ),
    "reduce": (("reduce", "層→a.onnx", "r→.onnx", "--check", check("relu")), 0, "ends with code 1"),
    "diff": (("diff", "層→a.onnx", "b.onnx"), 1, "different"),
    "extract": (("extract", "層→a.onnx", "e→.onnx", "--scope", "layers.3"), 0, "takes"),
    "extract of none": (("extract", "層→a.onnx", "e→.onnx", "--scope", "nö→"), 2, "no module"),
    "split": (("split", "層→a.onnx", "teile→", "--layers", "2"), 0, "manifest"),
}  # fmt: skip


def held(code, out, err, expected, said):
    """Hold a screen to its width."""
    assert code == expected, (out, err)
    assert any(said in line for line in out + err), (out, err)
    text = False
    for line in out:
        # A model's text is to be copied, too.
        text = line == "<" or (text and line != "}")
        assert len(line) <= 60 or text or line.startswith(COPIED), line
        assert not line.endswith(" ")
    assert (err == []) == (code != 2)


@pytest.mark.parametrize("name", VERBS)
def test_what_is_told_fits_and_can_be_encoded(folder, name):
    words, code, said = VERBS[name]
    held(*told(*words), code, said)
    if name == "split":
        held(*told("compose", "teile→", "z→.onnx"), 0, "takes")


@pytest.mark.parametrize("name", [each for each in VERBS if each not in ("layers", "verify")])
def test_json_is_valid_whatever_comes_of_it(folder, name):
    words, code, _ = VERBS[name]
    got, out, err = told(*words, "--json")
    data = json.loads("\n".join(out))
    assert got == code
    assert (err == []) == (code != 2)
    if code == 2:
        assert data["exit_code"] == 2
        assert data["error"]["problem"]
    if name == "split":
        got, out, err = told("compose", "teile→", "z→.onnx", "--json")
        assert (got, err) == (0, [])
        assert json.loads("\n".join(out))
