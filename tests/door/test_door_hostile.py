"""Folders in which something is in the way of every verb that writes: nothing of it is lost."""

import os
import random
import shutil
import stat
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from door_tools import mlp_model

import vlmpass

KEEPS_IDENTITY = "grep -q Identity {}"
VERBS = {
    "convert": ("convert", "m.onnx", "{}", "--simplify", "--no-verify"),
    "extract": ("extract", "m.onnx", "{}", "--outputs", "r"),
    "compose": ("compose", "parts", "{}"),
    "reduce": ("reduce", "m.onnx", "{}", "--check", "test ! -e {}"),
    "split": ("split", "m.onnx", "{}", "--budget", "3KB"),
    "share": ("split", "m.onnx", "{}", "--budget", "3KB", "--share"),
    "keep": ("split", "m.onnx", "{}", "--budget", "3KB", "--weights", "keep"),
    "bisect": ("bisect", "m.onnx", "{}", "--passes", "simplify", "--check", KEEPS_IDENTITY),
}
FOLDERS = ("split", "share", "keep", "bisect")
NAMES = {
    "split": ("01-part1.onnx", "02-part2.onnx", "02-part2.onnx.data", "manifest.json"),
    "share": ("01-part1.onnx", "weights.onnx", "weights.onnx.data", "manifest.json"),
    "keep": ("01-part1.onnx", "02-part2.onnx", "manifest.json", "weights.onnx"),
    "bisect": ("reproducer.onnx", "reproducer.onnx.data", "inputs.npz"),
}


def source_model(folder):
    """A model with weights in a file of their own, and an Identity in it."""
    model = vlmpass.load(mlp_model(folder, "made.onnx"))
    graph = model.graph
    same = ir.node("Identity", [graph[1].outputs[0]])
    same.outputs[0].name = "s"
    graph.insert_after(graph[1], same)
    graph[3].replace_input_with(0, same.outputs[0])
    ir.save(model, folder / "m.onnx", external_data="m.bin", size_threshold_bytes=0)
    for name in ("made.onnx", "made.onnx.data"):
        (folder / name).unlink()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    source_model(folder)
    vlmpass.split(folder / "m.onnx", folder / "parts", budget="3KB")
    return folder


def state(folder):
    """All that lies below a folder: files with their content, links with where they lead."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            kind = os.lstat(path).st_mode
            what = stat.S_IFMT(kind)
            if stat.S_ISLNK(kind):
                what = os.readlink(path)
            elif stat.S_ISREG(kind):
                what = Path(path).read_bytes()
            found[os.path.relpath(path, folder)] = what
    return found


def put(rng, path):
    """Put something where a path leads; return what."""
    kind = rng.choice(
        (
            *("text", "model", "npz", "empty", "folder", "dangling", "pipe", "second name"),
            *("to a file", "to a folder", "to the source"),
        )
    )
    top = path.parent
    while not (top / "m.onnx").exists():
        top = top.parent
    if kind == "text":
        path.write_text("mine")
    elif kind == "model":
        shutil.copy(top / "parts" / "01-part1.onnx", path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, mine=np.arange(3))
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    elif kind == "second name":
        os.link(top / "m.bin", path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {"to a file": "mine.txt", "to a folder": "parts", "to the source": "m.onnx"}
        path.symlink_to(top / targets.get(kind, "nowhere"))
    return kind


def output(rng, verb, folder):
    """Choose where a verb is to write, and put things in its way."""
    if verb not in FOLDERS:
        name = rng.choice(["out.onnx", "m.onnx", "m.bin", "parts/01-part1.onnx", "parts/x.onnx"])
        name = rng.choice([name, "out.onnx", "nowhere/out.onnx", "mine.txt/out.onnx", "mine.txt"])
        path = folder / name
        if path.parent.is_dir() and not os.path.lexists(path) and rng.random() < 0.8:
            put(rng, path)
        return name
    name = rng.choice(["out", "out", ".", "parts", "a/b/out", "mine.txt", "mine.txt/x", "gone"])
    if name == "gone":
        (folder / "gone").symlink_to(folder / "nowhere")
    elif name == "out" and rng.random() < 0.8:
        (folder / "out").mkdir()
        shutil.copy(folder / "m.onnx", folder / "out" / "mine.onnx")
        shutil.copy(folder / "m.bin", folder / "out" / "m.bin")
    for inside in NAMES[verb]:
        path = folder / name / inside
        if path.parent.is_dir() and not os.path.lexists(path) and rng.random() < 0.2:
            put(rng, path)
    return name


def words_of(rng, verb, folder):
    words = [each if "{}" not in each or " " in each else None for each in VERBS[verb]]
    place = output(rng, verb, folder)
    words = [place if word is None else word for word in words]
    if rng.random() < 0.1:
        words = [str(folder / "parts" / "01-part1.onnx") if w == "m.onnx" else w for w in words]
    return words + ["--force"] * (rng.random() < 0.4), place


def written(verb, place):
    """Say of a path below the folder whether a verb may replace it, by force or as a model."""
    if verb in FOLDERS:
        inside = {os.path.normpath(os.path.join(place, name)) for name in NAMES[verb]}
        return lambda path: path in inside or path.startswith(os.path.join(place, "0"))
    data = {"m.onnx": "m.bin"}.get(place, f"{place}.data")  # goes with a model that is replaced
    return lambda path: path in (os.path.normpath(place), data)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_in_the_way_stays(door, made, tmp_path, monkeypatch, verb, seed):
    rng = random.Random(f"{verb} {seed}")
    for trial in range(8):
        folder = tmp_path / str(trial)
        shutil.copytree(made, folder)
        (folder / "mine.txt").write_text("mine")
        monkeypatch.chdir(folder)
        words, place = words_of(rng, verb, folder)
        before = state(folder)
        code, out, err = door(*words)
        after = state(folder)
        told = f"{words} {code} {out} {err}"
        assert code in ((0, 1) if verb == "bisect" else (0,)) or (code, out) == (2, ""), told
        assert "defect" not in err, told
        assert not [path for path in after if ".vlmpass-" in path], told
        if code == 2:
            assert after == before, told
        own = written(verb, place)
        split_again = verb in FOLDERS and f"{place}/manifest.json" in before
        for path, content in before.items():
            if after.get(path) != content:
                assert own(path), f"{path}: {told}"
                in_place = verb == "convert" and path in ("m.onnx", "parts/01-part1.onnx")
                assert path not in words[1:2] or in_place, f"{path}: {told}"
                forced = "--force" in words or split_again or verb not in FOLDERS
                assert forced, f"{path}: {told}"
                assert path != "m.bin" or verb in ("convert", "compose"), told
                assert "--force" in words or content != b"mine", told
        if code == 0 and verb not in FOLDERS:
            vlmpass.load(folder / place)
        if code == 0 and verb in ("split", "share", "keep"):
            vlmpass.compose(folder / place, folder / "whole.onnx")
            assert vlmpass.diff(folder / words[1], folder / "whole.onnx").ok, told


def test_fewer_parts_leave_none_of_those_before(door, tmp_path, monkeypatch):
    source_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    for share in ((), ("--share",), ()):
        assert door("split", "m.onnx", "parts", "--budget", "1KB", *share)[0] == 0
        many = state(tmp_path / "parts")
        assert door("split", "m.onnx", "parts", "--budget", "1MB", *share)[0] == 0
        few = state(tmp_path / "parts")
        assert len(few) < len(many)
        assert not [name for name in few if name.startswith("02-")]
        assert ("weights.onnx" in few) == bool(share)


def test_a_reproducer_is_of_one_run(door, tmp_path, monkeypatch):
    source_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ("bisect", "m.onnx", "found", "--passes", "simplify", "--check", KEEPS_IDENTITY)
    assert door(*words)[0] == 1
    before = state(tmp_path)
    assert "found/reproducer.onnx" in before
    code, _, err = door(*words)
    assert code == 2
    assert "--force replaces it" in err
    (tmp_path / "found" / "inputs.npz").write_bytes(b"of a run before")
    assert door(*words, "--force")[0] == 1
    assert state(tmp_path) == before  # a check has no inputs
    assert door("bisect", "m.onnx", "found", "--passes", "infer", "--force")[0] == 0
    assert state(tmp_path / "found") == {}
    again = ("bisect", "found/reproducer.onnx", "found", "--passes", "infer", "--force")
    shutil.copy("m.onnx", "found/reproducer.onnx")
    shutil.copy("m.bin", "found/m.bin")
    before = state(tmp_path)
    code, _, err = door(*again)
    assert (code, state(tmp_path)) == (2, before)
    assert "which stays as it is" in err


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("at", range(3))
def test_parts_of_before_are_back_where_the_new_ones_fail(tmp_path, monkeypatch, share, at):
    """Whatever of the commits fails, the folder is as it was."""
    from vlmpass.ir_tools.errors import SaveError
    from vlmpass.ir_tools.save.saving import Draft
    from vlmpass.replacing import Replacement

    source_model(tmp_path)
    source, parts = tmp_path / "m.onnx", tmp_path / "parts"
    vlmpass.split(source, parts, budget="1KB", share=share)
    before = state(tmp_path)
    real, done = Draft.commit, []

    def commit(self):
        if len(done) == at:
            raise SaveError("the disk is full")
        done.append(self)
        return real(self)

    def put(self, prepared, final):
        raise SaveError("the disk is full")

    monkeypatch.setattr(Draft, "commit", commit)
    monkeypatch.setattr(Replacement, "put", put)
    for budget in ("3KB", "1KB"):
        done.clear()
        with pytest.raises(SaveError, match="full"):
            vlmpass.split(source, parts, budget=budget, share=share)
        assert state(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_told(door, tmp_path, monkeypatch):
    source_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "mine.txt").write_text("mine")
    before = state(tmp_path)
    for place in ("gone", "gone/x", "mine.txt", "mine.txt/x", "/proc/none/x", "x" * 300):
        for verb in FOLDERS:
            words = [place if each == "{}" else each for each in VERBS[verb]]
            code, out, err = door(*words)
            assert (code, out) == (2, ""), words
            assert "error: " in err
            assert len(err.splitlines()) == 1
            assert state(tmp_path) == before


def killed_at(number, function):
    """Run a function in a child that dies before its n-th rename; say whether it got there."""
    child = os.fork()
    if not child:
        left = [number]

        def dying(real):
            def renamed(*args):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return real(*args)

            return renamed

        Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
        os.rename, os.replace = dying(os.rename), dying(os.replace)
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("share", [False, True])
def test_a_kill_leaves_no_manifest_that_lies(tmp_path, share):
    source_model(tmp_path)
    source, parts = tmp_path / "m.onnx", tmp_path / "parts"
    vlmpass.split(source, parts, budget="1KB")
    before = state(tmp_path)

    def again():
        vlmpass.split(source, parts, budget="3KB", share=share)

    number = 0
    while killed_at(number, again):
        after = state(tmp_path)
        assert {path: after[path] for path in ("m.onnx", "m.bin")} == {
            path: before[path] for path in ("m.onnx", "m.bin")
        }
        if (parts / "manifest.json").exists():
            vlmpass.compose(parts, tmp_path / "whole.onnx")
            assert vlmpass.diff(source, tmp_path / "whole.onnx").ok, number
        vlmpass.split(source, parts, budget="1KB", share=share, force=True)
        assert not [path for path in state(parts) if ".vlmpass-" in path], number
        shutil.rmtree(parts)
        vlmpass.split(source, parts, budget="1KB")
        number += 1
    assert number >= 5
