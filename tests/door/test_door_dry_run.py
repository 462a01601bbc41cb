"""`convert --dry-run` and `Pipeline.plan`: what would be done, said; nothing done."""

import json

import pytest
from door_tools import demo_model, listing, mlp_model

import vlmpass
from vlmpass.ir_tools.errors import Refused, SaveError

ASKED = {
    "types": {"dtype": "float32", "opset": 18},
    "target": {"target": "ort-cpu", "opset": 18},
    "only the opset": {"opset": 18},
    "rounded": {"quantize": "int8", "opset": 18, "dtype": "float32"},
}
WRITING = {
    "default": {},
    "shards": {"shard_size": "200KB"},
    "inline": {"layout": "inline"},
    "safetensors": {"layout": "safetensors", "weights": "copy"},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("writing", WRITING.values(), ids=WRITING)
def test_what_is_planned_is_what_is_done(tmp_path, asked, writing):
    path, pipeline = demo_model(tmp_path), vlmpass.Pipeline(**asked)
    before = listing(tmp_path)
    planned = pipeline.plan(path, tmp_path / "out.onnx", **writing)
    assert listing(tmp_path) == before
    done = pipeline.convert(path, tmp_path / "out.onnx", **writing, verify=False)
    assert planned.saved.files == done.saved.files
    assert planned.saved.nbytes == done.saved.nbytes
    assert planned.after == done.after
    assert planned.pipeline == done.pipeline
    assert (planned.planned, done.planned) == (True, False)
    assert planned.model.graph.num_nodes() == done.model.graph.num_nodes()


def test_files_that_would_go_are_listed_and_stay(tmp_path):
    path, out = mlp_model(tmp_path), tmp_path / "out.onnx"
    vlmpass.Pipeline(opset=18).convert(path, out, shard_size="8KB")
    there = listing(tmp_path)
    planned = vlmpass.Pipeline(opset=18).plan(path, out, layout="inline")
    assert listing(tmp_path) == there
    done = vlmpass.Pipeline(opset=18).convert(path, out, layout="inline")
    assert planned.saved.removed == done.saved.removed != ()


def test_the_command_says_what_would_be_done(door, tmp_path):
    path = demo_model(tmp_path)
    before = listing(tmp_path)
    code, out, err = door("convert", path, "--dtype", "float32", "--dry-run")
    assert (code, err, listing(tmp_path)) == (0, "", before)
    assert "to write" in out
    assert "nothing: a dry run;" in out
    assert "not compared: not asked for" in out
    code, out, _ = door("convert", path, "--dtype", "float32", "--dry-run", "--verify", "--json")
    told = json.loads(out)
    assert (code, told["planned"], listing(tmp_path)) == (0, True, before)
    assert all(each["ok"] for each in told["checked"]["numbers"]["outputs"])


def test_what_would_be_refused_is(door, tmp_path):
    path, out = demo_model(tmp_path), tmp_path / "out.onnx"
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(Refused):
        vlmpass.Pipeline(passes="convert-opset{to=7}").plan(path, out)
    with pytest.raises(SaveError, match="exists and is not an ONNX model"):
        vlmpass.Pipeline(opset=18).plan(path, foreign)
    code, _, err = door("convert", path, "-", "--opset", "18", "--dry-run")
    assert (code, "nothing for standard output" in err) == (2, True)
    assert listing(tmp_path) == before
