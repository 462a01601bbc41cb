"""extract, split and compose on the command line."""

import json

import onnx
import onnx.parser
import pytest
from door_tools import child, demo_model, listing, mlp_model


def test_a_model_is_split_and_composed(door, tmp_path):
    source = demo_model(tmp_path)
    code, out, err = door("split", source, tmp_path / "parts", "--budget", "10KB")
    assert (code, err) == (0, "")
    assert "part1" in out
    assert str(tmp_path / "parts" / "manifest.json") in out
    code, out, err = door("compose", tmp_path / "parts", tmp_path / "whole.onnx", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["saved"]["path"] == str(tmp_path / "whole.onnx")
    assert door("verify", source, tmp_path / "whole.onnx")[0] == 0


def test_a_scope_is_extracted(door, tmp_path):
    source = demo_model(tmp_path)
    code, out, err = door("extract", source, tmp_path / "piece.onnx", "--scope", "layers.0")
    assert (code, err) == (0, "")
    assert "takes" in out
    assert "gives" in out
    code, out, _ = door("extract", source, tmp_path / "p.onnx", "--scope", "layers.0", "--json")
    assert code == 0
    assert set(json.loads(out)) >= {"inputs", "outputs", "nodes", "nbytes", "saved"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("extract", "mlp.onnx", "o.onnx"), "give --inputs, --outputs or --scope"),
        (("extract", "mlp.onnx", "o.onnx", "--outputs", "q"), "choose one of"),
        (("extract", "mlp.onnx", "o.onnx", "--outputs", "h,,r"), "has an empty name"),
        (("extract", "mlp.onnx", "-", "--outputs", "h"), "OUT takes no '-'"),
        (("split", "mlp.onnx", "parts"), "give one of them"),
        (("split", "mlp.onnx", "parts", "--budget", "x"), "'x'"),
        (("split", "mlp.onnx", "mlp.onnx", "--budget", "1KB"), "is no folder"),
        (("compose", "nowhere", "o.onnx"), "name a folder that vlmpass split made"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(door, tmp_path, monkeypatch, words, said):
    mlp_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    code, out, err = door(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert listing(tmp_path) == before


def test_the_screen_fits_a_narrow_pipe_of_any_encoding(tmp_path):
    source = demo_model(tmp_path)
    env = {"COLUMNS": "60", "PYTHONIOENCODING": "cp1252", "PATH": "/usr/bin:/bin"}
    done = child("split", source, "parts", "--layers", "1", cwd=tmp_path, env=env)
    if done.returncode == 2:  # one layer alone is none of several
        done = child("split", source, "parts", "--budget", "10KB", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 60 for line in done.stdout.splitlines())


def test_parts_of_what_is_not_valid_are_not_written(door, tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[3,2] y) {'
    model = onnx.parser.parse_model(text + " a = Relu(x) b = Transpose<perm=[0,0]>(a) y = Neg(b) }")
    onnx.save(model, tmp_path / "m.onnx")
    for words in (("extract", "o.onnx", "--outputs", "b"), ("split", "parts", "--budget", "1KB")):
        code, _, err = door(words[0], tmp_path / "m.onnx", tmp_path / words[1], *words[2:])
        assert code == 2
        assert "the source is not valid itself: " in err
        assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]
    assert door("extract", tmp_path / "m.onnx", tmp_path / "o.onnx", "--outputs", "a")[0] == 0
