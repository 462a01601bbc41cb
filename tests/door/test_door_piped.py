"""`-` is standard input or output where one file is enough, and is refused by name elsewhere."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from door_tools import Door, listing, mlp_model

import vlmpass


class Stream(io.TextIOWrapper):
    """A stream in memory whose bytes stay."""

    def __init__(self, data: bytes = b"", *, tty: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.fixture
def model(tmp_path, monkeypatch):
    vlmpass.save(mlp_model(tmp_path), tmp_path / "one.onnx", layout="inline")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "one.onnx"


@pytest.fixture
def piped(model, monkeypatch, capsys):
    """Call with a file for standard input."""

    def call(*arguments, given: Path | bytes = model):
        data = given if isinstance(given, bytes) else given.read_bytes()
        monkeypatch.setattr("sys.stdin", Stream(data))
        return Door(capsys)(*arguments)

    return call


def test_a_model_through_a_pipe(model, tmp_path):
    command = [sys.executable, "-m", "vlmpass", "convert", "-", "-", "--opset", "18"]
    before = listing(tmp_path)
    result = subprocess.run(
        command, input=model.read_bytes(), capture_output=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    made = onnx.load_model_from_string(result.stdout)
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == 18
    source = onnx.load(model)
    for a, b in zip(made.graph.initializer, source.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b))
    assert b"full type check passed" in result.stderr
    assert b"- \xe2\x86\x92 -" in result.stderr or b"- -> -" in result.stderr
    assert listing(tmp_path) == before


def test_every_verb_reads_it(piped, model):
    assert piped("check", "-") == (0, "-: valid\n", "")
    code, out, err = piped("inspect", "-")
    assert (code, err) == (0, "")
    assert out.startswith("-\n")
    data = json.loads(piped("inspect", "-", "--json")[1])
    assert (data["path"], data["nbytes"]) == ("-", model.stat().st_size)
    assert piped("verify", "-", model)[0] == 0
    assert piped("verify", model, "-")[0] == 0
    code, out, err = piped("rules", "explain", "undone", "-")
    assert (code, err) == (0, "")
    assert "-: tried at" in out
    assert piped("convert", "-", "made.onnx", "--opset", 18, "--no-verify")[0] == 0
    assert piped("check", "made.onnx")[0] == 0


def test_a_file_of_that_name(piped, model, tmp_path):
    assert piped("convert", model, "./-", "--opset", 18, "--layout", "inline")[0] == 0
    assert onnx.load(tmp_path / "-").opset_import[0].version == 18
    code, out, err = piped("check", "./-", given=b"")
    assert (code, err) == (0, "")
    assert out.endswith("/-: valid\n")


def test_text_is_read_too(piped, model, tmp_path):
    for suffix in ("json", "onnxtxt"):
        vlmpass.save(model, tmp_path / f"m.{suffix}", layout="inline")
        assert piped("check", "-", given=tmp_path / f"m.{suffix}")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("verify - -", "standard input holds one model, not two"),
        ("convert - --opset 18", "standard input has no name to call the result after; name OUT"),
        ("convert - - --opset 18 --json", "takes the model or the report, not both"),
        ("convert one.onnx - --opset 18 --layout hf", "layout hf has data files beside it"),
        ("convert one.onnx - --opset 18 --weights keep", "--weights keep has data files"),
        ("convert one.onnx - --opset 18 --shard-size 1KB --no-verify", "more than the 1000 bytes"),
        ("convert one.onnx --opset 18 --dump -", "--dump takes no '-'"),
        ("convert one.onnx --dtype float16 --calibrate -", "--calibrate takes no '-'"),
        ("verify one.onnx one.onnx --inputs -", "--inputs takes no '-'"),
        ("demo -", "DIR takes no '-'"),
    ],
)
def test_where_one_file_is_not_enough(piped, tmp_path, arguments, says):
    before = listing(tmp_path)
    code, out, err = piped(*arguments.split())
    assert code == 2
    assert says in err
    assert "--json" in arguments or out == ""
    assert "stands" not in err
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"", "standard input is empty; pipe a model into it"),
        (b"notes", "standard input is not an ONNX file"),
        (b"PK\x03\x04", "standard input is a zip archive"),
        (b"{}", "the model has no ir_version"),
        ("mlp.onnx", "standard input has a model whose weights are in other files; name the file"),
    ],
)
def test_what_is_no_model(piped, tmp_path, given, says):
    for verb in (("check", "-"), ("convert", "-", "o.onnx", "--simplify"), ("inspect", "-")):
        data = given if isinstance(given, bytes) else (tmp_path / given).read_bytes()
        code, out, err = piped(*verb, given=data)
        assert (code, out) == (2, "")
        assert says in err
        assert "vlmpass-run" not in err
    assert not (tmp_path / "o.onnx").exists()


def test_a_refusal_names_no_temporary_file(piped):
    code, _, err = piped("convert", "-", "o.onnx", "--passes", "set-dims{q=1}")
    assert code == 2
    assert "vlmpass-run" not in err


def test_a_terminal_is_no_place_for_a_model(door, model, monkeypatch):
    monkeypatch.setattr("sys.stdin", Stream(tty=True))
    assert "standard input is a terminal" in door("check", "-")[2]
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input is closed" in door("check", "-")[2]
    monkeypatch.setattr("sys.stdout", Stream(tty=True))
    code, _, err = door("convert", model, "-", "--opset", 18)
    assert code == 2
    assert "standard output is a terminal, and a model is no text" in err


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("to", [">/dev/full", ">&-", "| true"])
def test_an_output_that_does_not_take_it(model, tmp_path, to):
    before = listing(tmp_path)
    line = f"{sys.executable} -m vlmpass convert one.onnx - --opset 18 --no-verify {to}"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "Traceback" not in result.stderr
    assert "vlmpass-run" not in result.stderr
    if "true" not in to:
        assert result.returncode == 2
        assert result.stderr.startswith("vlmpass: error: standard output ")
        assert "nothing was written" not in result.stderr
    assert listing(tmp_path) == before
