"""The index of errors: the runtime says what stands there, and the command takes it away."""

import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
HEAD = '<ir_version: 8, opset_import: ["": 17, "org.pytorch.aten": 1]> g '
MODELS = {
    "Could not find": "(bfloat16[n] x) => (bfloat16[n] y) { y = Add(x, x) }",
    "bound to": "(float[n] x, float16[n] z) => (float[n] y) { y = Add(x, z) }",
    "Got invalid": "(float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }",
    "No Op": "(float[n] x) => (float[n] y) { y = Gelu(x) }",
    "org.pytorch": (
        "(float[1, 3, 8, 8] x) => (float[1, 3, 4, 4] y) {"
        " s = Constant<value_ints=[4, 4]>() a = Constant<value=bool {0}>()"
        ' y = org.pytorch.aten.ATen<operator="_upsample_bicubic2d_aa", overload_name="">(x, s, a)'
        " }"
    ),
}


def rows():
    """Messages and commands of the page, as they stand there."""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("| `"):
            message, _, command = (cell.strip().strip("`") for cell in line.split("|")[1:4])
            yield message, command


def run(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((2, 4), np.float32)})


@pytest.mark.parametrize("start", MODELS)
def test_a_message_is_the_runtime_s_and_its_command_helps(start, door, tmp_path):
    message, command = next(row for row in rows() if row[0].startswith(start))
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + MODELS[start]), source)
    with pytest.raises(Exception, match="ONNXRuntimeError") as told:
        run(source)
    assert message in str(told.value)
    words = {"IN": source, "OUT": out}
    code, _, err = door(*(words.get(each, each) for each in shlex.split(command)[1:]))
    assert (code, err) == (0, "")
    onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])


def test_every_command_of_the_index_is_one(door):
    for message, command in rows():
        if command.startswith("vlmpass "):
            verb, *given = shlex.split(command)[1:]
            assert door(verb, "--help")[0] == 0, message
            known = door(verb, "--help")[1]
            assert all(word in known for word in given if word.startswith("--")), message
