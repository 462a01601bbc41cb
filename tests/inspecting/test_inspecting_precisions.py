"""What each node computes in is told by name, Casts left out, and names must tell nodes apart."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.run.run_models import EXPORTS, text_model
from vlmpass.cli.app import app
from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.inspecting import precisions_of
from vlmpass.ir_tools.load import load

HALF = """g (float16[n, 8] x) => (float16[n, 8] y, int64[n, 1] i) {
  [up] w = Cast<to = 1>(x)
  [soft] s = Softmax<axis = -1>(w)
  [down] h = Cast<to = 10>(s)
  [twice] y = Add(h, h)
  [best] i = ArgMax<axis = 1>(h)
  [size] n = Shape(h)
}"""


def test_islands_and_halves_are_told_and_casts_are_not() -> None:
    found = precisions_of(text_model(HALF))
    assert found.layers == {"soft": "fp32", "twice": "fp16", "best": "fp16", "size": "fp16"}
    assert found.outputs == {
        "up": ("fp32",),
        "soft": ("fp32",),
        "down": ("fp16",),
        "twice": ("fp16",),
    }


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("[soft] ", "", "a node Softmax has no name"), ("[twice]", "[soft]", "as another has")],
)
def test_names_that_tell_nothing_apart_are_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        precisions_of(text_model(HALF.replace(old, new)))


def test_the_command_line_prints_it_for_a_float16_export(tmp_path) -> None:
    source, half = EXPORTS / "vision.float32.ts17.onnx", tmp_path / "half.onnx"
    command = ["convert", str(source), str(half), "--dtype", "float16", "--no-verify"]
    assert CliRunner().invoke(app, command).exit_code == 0
    result = CliRunner().invoke(app, ["inspect", str(half), "--precisions"])
    data = json.loads(result.stdout)
    kinds = {str(node.name): node.op_type for node in load(half).graph}
    words = {
        word: {kinds[n] for n, each in data["layers"].items() if each == word}
        for word in ("fp16", "fp32")
    }
    assert "MatMul" in words["fp16"]
    assert "Softmax" in words["fp32"]
    assert data["outputs"]
