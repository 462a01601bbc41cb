"""`check --target`: whether a runtime takes a model as it stands, why not, and what helps."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import parser

from vlmpass import Pipeline
from vlmpass.cli.app import run

HEAD = '<ir_version: {ir}, opset_import: ["" : {opset}]>'
RELU = "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"
DRAWN = "g (float[2,3] x) => (float[2,3] y) { y = RandomNormalLike(x) }"
HALF = "g (bfloat16[2,3] x, bfloat16[3,3] w) => (bfloat16[2,3] y) { y = MatMul(x, w) }"
FOREIGN = "g (float[2,3] x) => (float[2,3] y) { y = mine.Op(x) }"
MINE = """about = "an appliance"
source = "its manual"
[reads]
opset = [9, 17]
ir-version = 8
"""


def model(folder: Path, text: str, opset: int = 18, ir: int = 8) -> str:
    path = folder / "model.onnx"
    head = HEAD.format(ir=ir, opset=opset)
    if "mine." in text:
        head = head.replace("]>", ', "mine" : 1]>')
    onnx.save(parser.parse_model(head + text), path)
    return str(path)


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = run(["check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_what_the_runtime_loads(tmp_path: Path, capsys) -> None:
    code, said = checked(capsys, model(tmp_path, RELU), "--target", "ort-cpu")
    assert (code, said["ok"]) == (0, True)
    found = {"name": "ort-cpu", "ok": True, "finding": None, "remedy": None, "loaded": True}
    assert said["target"] == found


@pytest.mark.parametrize(
    ("text", "opset", "reason", "option"),
    [(DRAWN, 22, "RandomNormalLike", "--opset 21"), (HALF, 18, "MatMul", "--dtype float32")],
)
def test_what_helps_is_a_command_that_does(
    tmp_path: Path, capsys, text: str, opset: int, reason: str, option: str
) -> None:
    path = model(tmp_path, text, opset)
    code, said = checked(capsys, path, "--target", "ort-cpu")
    assert code == 1
    found = said["target"]
    assert isinstance(found, dict)
    assert reason in found["finding"]
    assert found["remedy"] == f"vlmpass convert --target ort-cpu {option}"
    out = str(tmp_path / "out.onnx")
    command = found["remedy"].removeprefix("vlmpass ").split()
    assert run([command[0], path, out, *command[1:]]) == 0
    capsys.readouterr()
    assert checked(capsys, out, "--target", "ort-cpu")[0] == 0


def test_where_nothing_is_known_to_help(tmp_path: Path, capsys) -> None:
    code, said = checked(capsys, model(tmp_path, FOREIGN), "--target", "ort-cpu")
    assert code == 1
    found = said["target"]
    assert isinstance(found, dict)
    assert "Op" in found["finding"]
    assert found["remedy"] == "none is known"


@pytest.mark.parametrize(
    ("opset", "ir", "finding"),
    [
        (18, 8, "it imports opset 18, and mine reads 9 to 17"),
        (8, 3, "it imports opset 8, and mine reads 9 to 17"),
        (17, 10, "its ir_version is 10, and mine reads 8 at most"),
    ],
)
def test_versions_that_a_target_does_not_read(
    tmp_path: Path, capsys, opset: int, ir: int, finding: str
) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    target = str(tmp_path / "mine.toml")
    path = model(tmp_path, RELU, opset, ir)
    code, said = checked(capsys, path, "--target", target)
    found = said["target"]
    assert isinstance(found, dict)
    assert (code, found["finding"]) == (1, finding)
    assert f"vlmpass convert --target {target}" in found["remedy"]
    result = Pipeline(target=target).convert(path, str(tmp_path / "out.onnx"), verify=False)
    assert result is not None
    code, said = checked(capsys, str(tmp_path / "out.onnx"), "--target", target)
    assert (code, said["ok"]) == (0, True)


def test_a_model_that_is_not_valid_is_not_tried(tmp_path: Path, capsys) -> None:
    path = model(tmp_path, "g (float[2,3] x) => (float[2,4] y) { y = Relu(x) }")
    code, said = checked(capsys, path, "--target", "ort-cpu")
    assert (code, said["target"]) == (1, None)


def test_opsets_of_functions_count(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2,3] x) => (float[2,3] y) { y = local.F(x) }
        <domain: "local", opset_import: ["" : 18]> F (a) => (b) { b = Relu(a) }"""
    onnx.save(parser.parse_model(text), tmp_path / "model.onnx")
    code, said = checked(
        capsys, str(tmp_path / "model.onnx"), "--target", str(tmp_path / "mine.toml")
    )
    assert code == 1
    assert said["target"]["finding"] == "it imports opset 18, and mine reads 9 to 17"


def test_a_conversion_for_what_nothing_here_runs_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    source = model(tmp_path, RELU)
    report = Pipeline(target=str(tmp_path / "mine.toml")).convert(source, tmp_path / "out.onnx")
    told = "mine: what it says is kept to; nothing here loads results for it"
    assert told in report.notes
    assert told not in Pipeline(target="ort-cpu").convert(source, tmp_path / "o.onnx").notes


def test_the_screen(tmp_path: Path, capsys) -> None:
    assert run(["check", model(tmp_path, RELU), "--target", "ort-cpu"]) == 0
    assert "ort-cpu: loads it" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    target = str(tmp_path / "mine.toml")
    assert run(["check", model(tmp_path, RELU, 17), "--target", target]) == 0
    assert "mine: reads its versions; nothing here loads for it" in capsys.readouterr().out
    assert run(["check", model(tmp_path, RELU), "--target", target]) == 1
    assert "mine: does not take it" in capsys.readouterr().out
    assert run(["check", model(tmp_path, RELU), "--target", "nope"]) == 2
    assert "there is no target 'nope'" in capsys.readouterr().err
