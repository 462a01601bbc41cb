"""Replacing an output: what goes, what stays, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from save_models import (
    BYTES,
    compute,
    contents,
    names,
    references,
    within,
    write_chain,
    write_inline,
)
from save_scaled import scaled

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save

LIMIT = BYTES + 4096 + 100


@pytest.mark.parametrize("layout", ["default", "hf", "single", "inline", "safetensors"])
@pytest.mark.parametrize("before", ["default", "hf", "safetensors"])
def test_an_output_is_replaced_whole(source, tmp_path, before, layout):
    out = tmp_path / "o" / "m.onnx"
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    save(scaled(source), fresh / "m.onnx", layout=layout, shard_size=within(layout, 2 * LIMIT))
    save(load(source), out, layout=before, shard_size=LIMIT)
    (tmp_path / "o" / "notes.txt").write_text("mine")
    (tmp_path / "o" / "m-00009-of-00009.onnx.data").write_text("mine too")
    old = set(names(out.parent))
    report = save(scaled(source), out, layout=layout, shard_size=within(layout, 2 * LIMIT))
    after = contents(out.parent)
    assert after.pop("notes.txt") == b"mine"
    assert after.pop("m-00009-of-00009.onnx.data") == b"mine too"
    # A replaced output is the same as a fresh one, byte for byte and name for name.
    assert after == contents(fresh)
    mine = {"m.onnx", "notes.txt", "m-00009-of-00009.onnx.data"}
    assert set(report.removed) == old - set(after) - mine


def named(source, location):
    """A model file whose weight lies in a file of another name."""
    model = onnx.load(source, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    return model.SerializeToString()


ENTRY = {
    ".json": b'{"key": "location", "value": "%s"}',
    ".textproto": b'key: "location" value: "%s"',
    ".onnxtxt": b'"location": "%s"',
}
IMPOSSIBLE = (rb"a\u0000b", rb"\ud800", rb"\x", rb"\xff", b"\xff\xfe", rb"\0", b"", b"/", b"\0")
"""NUL, half a character, escapes of no text, bytes of none, nothing."""


@pytest.mark.parametrize("name", ["m.onnx", "other.onnx", *(f"other{each}" for each in ENTRY)])
def test_models_that_name_no_possible_file_are_no_hindrance(source, tmp_path, name):
    out = tmp_path / "new" / "m.onnx"
    out.parent.mkdir()
    for impossible in IMPOSSIBLE:
        entry = ENTRY.get(Path(name).suffix)
        data = named(source, "a\0b") if entry is None else entry % impossible
        (out.parent / name).write_bytes(data)
        save(load(source), out)
        np.testing.assert_array_equal(compute(out), compute(source))


@pytest.mark.parametrize("layout", ["default", "hf", "single", "safetensors"])
def test_saving_over_the_source_again_and_again(tmp_path, layout):
    path = write_chain(tmp_path / "m.onnx")
    expected = compute(path)
    for factor in (2.0, 0.25, 4.0, 2.0):
        save(scaled(path, factor), path, layout=layout, shard_size=within(layout, 2 * LIMIT))
        expected = expected * factor**4
        np.testing.assert_array_equal(compute(path), expected)
        onnx.load(path)
    limit = within(layout, 2 * LIMIT)
    save(load(path), tmp_path / "copy.onnx", layout=layout, shard_size=limit, weights="copy")
    mine = {name for name in names(tmp_path) if name.startswith("m")}
    assert len(mine) == len([name for name in names(tmp_path) if name.startswith("copy")])


def test_a_second_run_changes_nothing(source, tmp_path):
    out = tmp_path / "o" / "m.onnx"
    save(scaled(source), out, shard_size=LIMIT)
    before = contents(out.parent)
    save(scaled(source), out, shard_size=LIMIT)
    assert contents(out.parent) == before


def test_data_that_another_model_refers_to_stay(tmp_path):
    path = write_chain(tmp_path / "a.onnx", data="shared.data")
    shutil.copy(path, tmp_path / "b.onnx")
    other = compute(path)
    report = save(scaled(path), path)
    assert report.removed == ()
    assert names(tmp_path) == ["a.onnx", "a.onnx.data", "b.onnx", "shared.data"]
    np.testing.assert_array_equal(compute(tmp_path / "b.onnx"), other)
    # The last one to leave takes them along.
    assert save(scaled(tmp_path / "b.onnx"), tmp_path / "b.onnx").removed == ("shared.data",)


@pytest.mark.parametrize("suffix", [".onnx", ".textproto", ".json", ".onnxtxt", ".pb", ""])
def test_whatever_form_the_other_model_has(tmp_path, suffix):
    path = write_chain(tmp_path / "a.onnx", data="shåred.data")
    other = tmp_path / f"b{suffix}"
    if suffix in (".pb", ""):
        shutil.copy(path, other)
    else:
        save(load(path), other)
    save(scaled(path), path)
    assert "shåred.data" in names(tmp_path)


@pytest.mark.parametrize("place", ["above", "below"])
def test_other_models_above_and_below_count_too(tmp_path, place):
    folder = tmp_path / "o"
    folder.mkdir()
    data = "sub/w.data" if place == "below" else "w.data"
    path = write_chain(folder / "a.onnx", data=data)
    if place == "below":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = "w.data"
        (folder / "sub" / "b.onnx").write_bytes(model.SerializeToString())
    else:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = "o/w.data"
        (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
    save(scaled(path), path)
    assert (folder / data).exists()


def test_names_that_other_models_use_are_left_to_them(tmp_path):
    # b.onnx refers to the very name that a.onnx would give to its data.
    path = write_chain(tmp_path / "a.onnx", data="a.onnx.data")
    shutil.copy(path, tmp_path / "b.onnx")
    other = compute(path)
    save(scaled(path), path)
    assert names(tmp_path) == ["a.1.onnx.data", "a.onnx", "a.onnx.data", "b.onnx"]
    np.testing.assert_array_equal(compute(tmp_path / "b.onnx"), other)
    np.testing.assert_array_equal(compute(path), 16 * other)


def test_a_name_that_merely_ends_the_same_is_no_reference(tmp_path):
    write_chain(tmp_path / "big_m.onnx")
    path = write_chain(tmp_path / "m.onnx")
    save(scaled(path), path)
    assert names(tmp_path) == ["big_m.onnx", "big_m.onnx.data", "m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("layout", ["default", "single"])
def test_a_foreign_file_in_the_way_is_left_alone(source, tmp_path, layout):
    foreign = tmp_path / "o" / "m.onnx.data"
    foreign.write_bytes(b"foreign")
    out = tmp_path / "o" / "m.onnx"
    save(scaled(source), out, layout=layout)
    assert foreign.read_bytes() == b"foreign"
    assert names(out.parent) == ["m.1.onnx.data", "m.onnx", "m.onnx.data"]
    compute(out)


@pytest.mark.parametrize(
    ("layout", "name"), [("hf", "m.onnx_data"), ("safetensors", "m.safetensors")]
)
def test_a_foreign_file_under_a_prescribed_name_is_refused(source, tmp_path, layout, name):
    (tmp_path / "o" / name).write_bytes(b"foreign")
    with pytest.raises(SaveError, match=rf"{name} is in the way.*move it away"):
        save(scaled(source), tmp_path / "o" / "m.onnx", layout=layout)
    assert contents(tmp_path / "o") == {name: b"foreign"}


def test_a_foreign_file_at_the_very_output_is_replaced(source, tmp_path):
    out = tmp_path / "o" / "m.onnx"
    out.write_bytes(b"not a model")
    save(load(source), out)
    np.testing.assert_array_equal(compute(out), compute(source))


def test_the_source_is_never_replaced_by_data(tmp_path):
    path = write_chain(tmp_path / "m.onnx", data="w.onnx")
    before = contents(tmp_path)
    with pytest.raises(SaveError, match=r"w\.onnx holds the data of initializer w0"):
        save(load(path), tmp_path / "w.onnx")
    assert contents(tmp_path) == before


def test_the_source_beside_the_replaced_output_keeps_its_data(tmp_path):
    source = write_chain(tmp_path / "src.onnx", data="w.data")
    before = contents(tmp_path)
    save(load(source), tmp_path / "m.onnx")  # refers to w.data
    save(scaled(source), tmp_path / "m.onnx")
    assert {**contents(tmp_path), **before} == contents(tmp_path)
    assert references(tmp_path / "m.onnx")["w0"][0] == "m.onnx.data"


@pytest.mark.parametrize("layout", ["default", "hf"])
def test_links_of_a_cache_are_replaced_not_followed(tmp_path, layout):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path = write_chain(snapshot / "model.onnx", data="model.onnx_data")
    for name in ("model.onnx", "model.onnx_data"):
        shutil.move(snapshot / name, blobs / name[::-1])
        (snapshot / name).symlink_to(Path("../../blobs") / name[::-1])
    before, result = contents(blobs), compute(path)
    save(scaled(path), path, layout=layout)
    assert contents(blobs) == before
    assert not path.is_symlink()
    np.testing.assert_array_equal(compute(path), 16 * result)
    data = "model.onnx_data" if layout == "hf" else "model.onnx.data"
    assert names(snapshot) == sorted(["model.onnx", data])
    assert not (snapshot / data).is_symlink()


def test_a_relative_output_in_the_current_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "o")
    report = save(load(source), "m.onnx")
    assert report.path == str(tmp_path / "o" / "m.onnx")
    assert names(tmp_path / "o") == ["m.onnx", "m.onnx.data"]


def test_odd_names(source, tmp_path):
    for name in ("ü m.onnx", "a.b.c.onnx", "noend", "#1%.onnx", "x" * 120 + ".onnx"):
        folder = tmp_path / "odd"
        folder.mkdir()
        save(scaled(source), folder / name, shard_size=LIMIT)
        assert len(names(folder)) == 3
        np.testing.assert_array_equal(compute(folder / name), 16 * compute(source))
        save(load(folder / name), folder / name, weights="copy")
        assert len(names(folder)) == 2
        shutil.rmtree(folder)


class TestRefusals:
    """Each with one clear line, and nothing written."""

    def refused(self, source, out, match, **options):
        folder = out.parent
        before = contents(folder) if folder.is_dir() else None
        with pytest.raises(SaveError, match=match) as caught:
            save(load(source), out, **options)
        assert "\n" not in str(caught.value)
        assert (contents(folder) if folder.is_dir() else None) == before

    def test_output_is_a_folder(self, source, tmp_path):
        self.refused(source, tmp_path / "o", r"/o is a folder; name a file in it")

    def test_no_such_folder(self, source, tmp_path):
        self.refused(source, tmp_path / "p" / "m.onnx", r"/p does not exist; create it first")

    def test_one_tensor_above_the_limit(self, source, tmp_path):
        self.refused(
            source,
            tmp_path / "o" / "m.onnx",
            r"initializer w0 takes 4096 bytes, more than the 4095 .* split-tensor\{limit=4095\}",
            shard_size=BYTES - 1,
        )

    def test_safetensors_header_counts(self, source, tmp_path):
        self.refused(source, tmp_path / "o" / "m.onnx", r"more than", layout="safetensors",
                     shard_size=BYTES)  # fmt: skip

    def test_graph_above_the_limit(self, tmp_path):
        source = write_inline(tmp_path / "in.onnx", 1)
        model = load(source)
        model.doc_string = "x" * 5000
        with pytest.raises(SaveError, match=r"m\.onnx would take .* raise --shard-size"):
            save(model, tmp_path / "m.onnx", shard_size=BYTES)
        assert names(tmp_path) == ["in.onnx"]

    def test_inline_above_the_protobuf_limit(self, tmp_path):
        huge = ir.Value(name="w")
        path = tmp_path / "w.data"
        with path.open("wb") as file:
            file.truncate(2**31 + 8)
        huge.const_value = ir.ExternalTensor(
            "w.data", 0, 2**31 + 8, ir.DataType.UINT8, shape=ir.Shape([2**31 + 8]), name="w",
            base_dir=tmp_path,
        )  # fmt: skip
        graph = ir.Graph([], [], nodes=[], initializers=[huge], opset_imports={"": 17}, name="g")
        with pytest.raises(SaveError, match=r"with its weights inside, more than the 2147483647"):
            save(ir.Model(graph, ir_version=10), tmp_path / "m.onnx", layout="inline")
        assert names(tmp_path) == ["w.data"]

    def test_text_with_large_weights_inside(self, tmp_path):
        huge = ir.Value(name="w", const_value=ir.tensor(np.zeros(65 << 20, np.uint8), name="w"))
        graph = ir.Graph([], [], nodes=[], initializers=[huge], opset_imports={"": 17}, name="g")
        with pytest.raises(SaveError, match="weights as text"):
            save(ir.Model(graph, ir_version=10), tmp_path / "m.json", layout="inline")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("options", [{"weights": "link"}, {"jobs": 0}, {"shard_size": "2G"}])
    def test_options(self, source, tmp_path, options):
        self.refused(source, tmp_path / "o" / "m.onnx", r"; (choose|ask|write)", **options)

    @pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of POSIX")
    def test_unwritable_folder(self, source, tmp_path):
        script = (
            "import os, sys\n"
            "from vlmpass.ir_tools.load import load\n"
            "from vlmpass.ir_tools.save import save\n"
            "model = load(sys.argv[1])\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "try: save(model, sys.argv[2])\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        folder = tmp_path / "o"
        folder.chmod(0o555)
        for parent in [folder, *folder.parents][:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        out = subprocess.run(
            [sys.executable, "-c", script, str(source), str(folder / "m.onnx")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        folder.chmod(0o755)
        assert out.stdout.startswith(f"SaveError the folder {folder} cannot be written;")
        assert names(folder) == []
