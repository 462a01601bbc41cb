"""Nothing outside of the model's folder is read, however a location or a link says it."""

import os

import onnx_ir as ir
import pytest
from load_external import DATA, read, refused
from load_models import ARRAY, save, with_external

from vlmpass.ir_tools.load import load


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        ("w.bin", "w.bin"),
        ("./w.bin", "w.bin"),
        ("sub/deep/w.bin", "sub/deep/w.bin"),
        ("sub//./deep/w.bin", "sub/deep/w.bin"),
        ("sub\\deep\\w.bin", "sub/deep/w.bin"),
        ("a b\u00e9.bin", "a b\u00e9.bin"),
        ("..w.bin", "..w.bin"),
    ],
)
def test_good_locations(folder, location, becomes):
    (folder / becomes).parent.mkdir(parents=True, exist_ok=True)
    (folder / becomes).write_bytes(DATA)
    loaded = load(save(with_external(location), folder))
    weight = loaded.graph.initializers["w"].const_value
    assert weight.location == becomes
    assert (weight.numpy() == ARRAY).all()


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("../secret.bin", "leads up"),
        ("sub/../../secret.bin", "leads up"),
        ("sub/../w.bin", "leads up"),
        ("..\\secret.bin", "leads up"),
        ("sub\\..\\..\\secret.bin", "leads up"),
        ("/etc/passwd", "is absolute"),
        ("\\etc\\passwd", "is absolute"),
        ("\\\\host\\share\\w.bin", "is absolute"),
        ("//host/share", "is absolute"),
        ("C:\\w.bin", "is absolute"),
        ("c:w.bin", "is absolute"),
        ("w.bin\0.txt", "has a NUL"),
        (".", "names no file"),
        ("./", "names no file"),
        ("", "names no file"),
        ("..", "leads up"),
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_bad_locations(folder, monkeypatch, location, why, bare):
    save(with_external(location), folder)
    if bare:
        monkeypatch.chdir(folder)
    text = refused("m.onnx" if bare else folder / "m.onnx", why)
    assert "initializer w" in text


def test_bare_names_and_other_ways_to_say_a_path(folder, monkeypatch):
    save(with_external(), folder)
    monkeypatch.chdir(folder)
    weight = load("m.onnx").graph.initializers["w"].const_value
    assert weight.base_dir == str(folder)
    monkeypatch.chdir(folder.parent)
    assert (weight.numpy() == ARRAY).all()
    assert (read("model/m.onnx") == ARRAY).all()
    assert (read("model/../model/./m.onnx") == ARRAY).all()
    assert (load(b"model/m.onnx".decode()).graph.name) == "g"


def test_links_that_stay(folder, link):
    (folder / "real").mkdir()
    (folder / "real" / "data").write_bytes(DATA)
    link(folder / "l.bin", "real/data")
    assert (read(save(with_external("l.bin"), folder)) == ARRAY).all()
    link(folder / "dir", "real")
    assert (read(save(with_external("dir/data"), folder)) == ARRAY).all()
    link(folder.parent / "elsewhere", folder)
    assert (read(folder.parent / "elsewhere" / "m.onnx") == ARRAY).all()


def test_links_that_leave(folder, link):
    path = save(with_external("l.bin"), folder)
    link(folder / "l.bin", folder.parent / "secret.bin")
    refused(path, r"a link to .*secret\.bin outside of the model's folder; copy that file into")
    (folder / "l.bin").unlink()
    link(folder / "l.bin", "m2.bin")
    link(folder / "m2.bin", "../secret.bin")
    refused(path, "outside of the model's folder")
    link(folder / "up", "..")
    refused(save(with_external("up/secret.bin"), folder), "outside of the model's folder")
    link(folder / "round", "round")
    refused(save(with_external("round"), folder), "round, which fails")
    link(folder / "gone", "nothing")
    refused(save(with_external("gone"), folder), "gone, which is missing")


@pytest.fixture
def cache(tmp_path, link):
    """A Hugging Face cache: every file of a revision is a link into blobs/."""
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / "rev"
    (snapshot / "onnx").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "aaa").write_bytes(with_external("m.onnx_data").SerializeToString())
    (repository / "blobs" / "bbb").write_bytes(DATA)
    link(snapshot / "m.onnx", "../../blobs/aaa")
    link(snapshot / "m.onnx_data", "../../blobs/bbb")
    link(snapshot / "onnx" / "m.onnx", "../../../blobs/aaa")
    link(snapshot / "onnx" / "m.onnx_data", "../../../blobs/bbb")
    return repository


def test_hugging_face_cache(cache, tmp_path, link, monkeypatch):
    snapshot = cache / "snapshots" / "rev"
    assert (read(snapshot / "m.onnx") == ARRAY).all()
    assert (read(snapshot / "onnx" / "m.onnx") == ARRAY).all()
    weight = load(snapshot / "m.onnx").graph.initializers["w"].const_value
    assert weight.location == "m.onnx_data"
    assert weight.base_dir == str(snapshot)
    assert weight.file_range().path == os.path.realpath(cache / "blobs" / "bbb")
    monkeypatch.chdir(snapshot)
    assert (read("m.onnx") == ARRAY).all()
    link(tmp_path / "short", snapshot)
    assert (read(tmp_path / "short" / "m.onnx") == ARRAY).all()
    # a model loaded by onnx_ir, whose tensors know the folder only
    loaded = load(ir.load(snapshot / "onnx" / "m.onnx"))
    assert (loaded.graph.initializers["w"].const_value.numpy() == ARRAY).all()


def test_hugging_face_cache_keeps_to_its_repository(cache, tmp_path, link):
    snapshot = cache / "snapshots" / "rev"
    (tmp_path / "hub" / "other").mkdir()
    (tmp_path / "hub" / "other" / "x").write_bytes(DATA)
    (snapshot / "m.onnx_data").unlink()
    link(snapshot / "m.onnx_data", "../../../other/x")
    refused(snapshot / "m.onnx", "outside of the model's folder")
    (cache / "refs").write_bytes(DATA)
    (snapshot / "m.onnx_data").unlink()
    link(snapshot / "m.onnx_data", "../../refs")
    refused(snapshot / "m.onnx", "outside of the model's folder")


def test_a_blobs_folder_that_is_a_link_is_none(tmp_path, link):
    snapshot = tmp_path / "snapshots" / "rev"
    snapshot.mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "w").write_bytes(DATA)
    link(tmp_path / "blobs", "away")
    link(snapshot / "w.bin", "../../blobs/w")
    refused(save(with_external(), snapshot), "outside of the model's folder")
