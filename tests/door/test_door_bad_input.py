"""Bad input: one clear line, exit code 2, nothing written."""

import os
import sys
from pathlib import Path

import onnx
import pytest
from door_tools import child, demo_model, listing, mlp_model

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import SaveError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def refused(door, folder, *arguments, lines=1):
    """Run, and return the one line on standard error."""
    before = listing(folder.parent)
    code, out, err = door(*arguments)
    assert code == 2, err
    assert out == ""
    assert err.startswith("vlmpass: error: ")
    assert len(err.splitlines()) == lines, err
    assert "Traceback" not in err
    assert listing(folder.parent) == before
    return err


def edit(path, change):
    """Change the protobuf of a model file."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def external(model, key, value):
    """Set a key of the first tensor's external data."""
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value


def test_not_an_onnx_file(door, folder):
    path = folder / "notes.onnx"
    path.write_text("just some notes\n" * 10)
    assert "notes.onnx is not an ONNX file" in refused(door, folder, "convert", path, "--opset", 18)


def test_an_empty_file(door, folder):
    path = folder / "empty.onnx"
    path.touch()
    assert "empty.onnx is empty" in refused(door, folder, "convert", path, "--opset", 18)


def test_no_file(door, folder):
    mlp_model(folder, "model.onnx")
    err = refused(door, folder, "convert", folder / "modle.onnx", "--opset", 18)
    assert "modle.onnx does not exist" in err


def test_truncated_protobuf(door, folder):
    path = demo_model(folder)
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut short" in refused(door, folder, "convert", path, "--opset", 18)


def test_missing_data(door, folder):
    path = mlp_model(folder)
    (folder / "mlp.onnx.data").unlink()
    assert "mlp.onnx.data" in refused(door, folder, "convert", path, "--opset", 18)


def test_truncated_data(door, folder):
    path = mlp_model(folder)
    data = folder / "mlp.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    assert "mlp.onnx.data" in refused(door, folder, "convert", path, "--opset", 18)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("length", "16", "initializer a"), ("offset", "9000000", "onnx.data")],
)
def test_wrong_length_and_offset(door, folder, key, value, says):
    path = edit(mlp_model(folder), lambda model: external(model, key, value))
    assert says in refused(door, folder, "convert", path, "--opset", 18)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
def test_a_location_outside_of_the_folder(door, folder, location):
    (folder.parent / "secret.bin").write_bytes(bytes(1 << 16))
    path = edit(mlp_model(folder), lambda model: external(model, "location", location))
    err = refused(door, folder, "convert", path, "--opset", 18)
    assert location in err


def test_a_location_outside_when_the_model_is_named_without_a_folder(door, folder, monkeypatch):
    (folder.parent / "secret.bin").write_bytes(bytes(1 << 16))
    edit(mlp_model(folder), lambda model: external(model, "location", "../secret.bin"))
    monkeypatch.chdir(folder)
    assert "../secret.bin" in refused(door, folder, "convert", "mlp.onnx", "--opset", 18)


def test_an_unknown_pass_is_pointed_at(door, folder):
    path = mlp_model(folder)
    err = refused(door, folder, "convert", path, "--passes", "infer,convert-opst{to=18}", lines=3)
    assert err.splitlines() == [
        "vlmpass: error: no pass named 'convert-opst'; did you mean 'convert-opset'?",
        "  infer,convert-opst{to=18}",
        "        ^^^^^^^^^^^^",
    ]


def test_an_unknown_option_of_a_pass_is_pointed_at(door, folder):
    path = mlp_model(folder)
    err = refused(door, folder, "convert", path, "--passes", "convert-opset{too=18}", lines=3)
    assert "did you mean 'to'?" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--opset", "99"), "opset 99 is out of range; choose one from 7 to "),
        (("--opset", "6"), "opset 6 is out of range"),
        (("--opset", "new"), "'new' is no opset"),
        (("--dtype", "flaot32"), "'flaot32'; did you mean 'float32'?"),
        (("--target", "ort-cup"), "'ort-cup'; did you mean 'ort-cpu'?"),
        (("--target", "ort-cpu", "--opset", "27"), "ort-cpu reads opset 26 at most, not 27"),
        (("--opset", "18", "--layout", "hff"), "'hff'; did you mean 'hf'?"),
        (("--opset", "18", "--weights", "kopy"), "'kopy'; did you mean 'copy'?"),
        (("--opset", "18", "--shard-size", "2XB"), "'2XB' is not a size"),
        (("--opset", "18", "--jobs", "0"), "jobs"),
        (("--opset", "18", "--jobs", "two"), "invalid value for '--jobs'"),
        (("--opst", "18"), "no option --opst; did you mean --opset?"),
        (("--opset",), "'--opset' requires an argument"),
        (("--dump", "--force"), "'--dump' requires an argument, and --force is an option; write"),
        (("--passes", "infer", "--opset", "18"), "passes say everything"),
        (("--passes", "infer", "--simplify"), "passes say everything"),
        (("--opset", "18", "--keep-io"), "keep-io is about a change of types"),
        (("--dtype", "float32", "--calibrate", "random"), "calibration is for half precision"),
        (("--dtype", "float16", "--calibrate", "no such.npz"), "no file of inputs 'no such.npz'"),
        (("--fuse", "stndard"), "'stndard'; did you mean 'standard'?"),
        (("--quant", "nbits"), "no form of a quantised layer 'nbits'"),
        (("--simplify", "--limit", "-1"), "invalid value for '--limit'"),
        (("--simplify", "--dump", __file__), "is no folder; name one"),
        ((), "nothing is asked for; give --opset"),
    ],
)
def test_wrong_requests(door, folder, arguments, says):
    path = mlp_model(folder)
    assert says in refused(door, folder, "convert", path, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("convrt", "x.onnx"), "no such command 'convrt'; did you mean 'convert'?"),
        (("convert",), "missing argument 'IN'"),
        (("convert", "a", "b", "c"), "unexpected extra argument"),
        (("passes", "infr"), "there is no pass 'infr'; did you mean 'infer'?"),
        (("rules", "no-such-rule-at-all"), "no rule named 'no-such-rule-at-all'"),
        (("rules", "explain", "x"), "rules explain NAME MODEL"),
        (("inspect", "nowhere.onnx"), "nowhere.onnx does not exist"),
        (("check", "nowhere.onnx"), "nowhere.onnx does not exist"),
        (("verify", "nowhere.onnx", "nowhere.onnx"), "nowhere.onnx does not exist"),
        (("--verson",), "did you mean --version?"),
    ],
)
def test_wrong_commands(door, folder, arguments, says):
    assert says in refused(door, folder, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect", "--at", "m=3"), "no dynamic dimension 'm'; it has n"),
        (("inspect", "--at", "n"), "--at takes NAME=SIZE, not 'n'; write --at batch=1"),
        (("inspect", "--depth", "-1"), "invalid value for '--depth'"),
        (("verify", "mlp.onnx", "--seed", "-1"), "invalid value for '--seed'"),
        (("verify", "mlp.onnx", "--tolerance", "-1"), "invalid value for '--tolerance'"),
        (("verify", "mlp.onnx", "--inputs", "no.npz"), "no file of inputs 'no.npz'"),
    ],
)
def test_wrong_questions(door, folder, monkeypatch, arguments, says):
    mlp_model(folder)
    monkeypatch.chdir(folder)
    assert says in refused(door, folder, arguments[0], "mlp.onnx", *arguments[1:])


def test_an_output_folder_that_does_not_exist(door, folder):
    path = mlp_model(folder)
    err = refused(door, folder, "convert", path, folder / "no" / "out.onnx", "--opset", 18)
    assert "does not exist" in err


def test_an_output_that_is_a_folder(door, folder):
    path = mlp_model(folder)
    assert "is a folder" in refused(door, folder, "convert", path, folder, "--opset", 18)


def test_something_that_is_no_model_is_not_replaced_without_force(door, folder):
    path = mlp_model(folder)
    notes = folder / "notes.onnx"
    notes.write_text("mine")
    err = refused(door, folder, "convert", path, notes, "--opset", 18)
    assert "notes.onnx exists and is not an ONNX model; --force replaces it" in err
    assert door("convert", path, notes, "--opset", 18, "--force", "--no-verify")[0] == 0
    assert door("check", notes)[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody may write into")
def test_an_unwritable_folder(door, folder):
    path = mlp_model(folder)
    out = folder / "locked"
    out.mkdir(mode=0o555)
    if os.geteuid() == 0:  # root may write into any folder but those that are no real ones
        out = Path("/proc")
    err = refused(door, folder, "convert", path, out / "o.onnx", "--opset", 18)
    assert str(out) in err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file size limits")
def test_a_full_disk(folder):
    import resource

    path = mlp_model(folder)
    before = listing(folder)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = child(
        "convert", path, folder / "out.onnx", "--opset", 18, "--no-verify", "--weights", "copy",
        preexec_fn=small_files,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stdout == ""
    assert "vlmpass: error: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert listing(folder) == before


@pytest.mark.parametrize("layout", ["single", "inline"])
def test_a_limit_of_files_that_a_layout_has_not_is_refused(door, tmp_path, layout):
    path, out = mlp_model(tmp_path), tmp_path / "o.onnx"
    asked = ("convert", path, out, "--simplify", "--layout", layout, "--no-verify")
    code, _, err = door(*asked, "--shard-size", "500MB")
    assert code == 2
    assert f"layout {layout} has all weights in one file" in err
    assert "leave --shard-size out" in err
    assert not out.exists()
    assert door(*asked)[0] == 0
    with pytest.raises(SaveError, match=f"layout {layout}"):
        Pipeline(simplify=True).convert(path, tmp_path / "p.onnx", layout=layout, shard_size=9**9)
