"""Which data files of the source are referred to, and which are copied."""

from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from save_models import (
    BYTES,
    chain,
    compute,
    contents,
    external,
    model_of,
    names,
    references,
    weights,
    within,
    write_chain,
    write_inline,
)

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import as_weight, scale


def change(model: ir.Model, name: str, factor: float = 2.0) -> None:
    value = model.graph.initializers[name]
    value.const_value = scale(as_weight(value.const_value), np.array(factor, np.float32))


def how(report) -> dict[str, str]:
    return {file.name: file.how for file in report.files}


def test_unchanged_data_in_the_output_folder_are_kept(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    before = contents(tmp_path)
    report = save(load(source), tmp_path / "out.onnx")
    assert how(report) == {"out.onnx": "written", "big.onnx.data": "kept"}
    assert report.nbytes == (tmp_path / "out.onnx").stat().st_size
    assert {**contents(tmp_path), **before} == contents(tmp_path)
    np.testing.assert_array_equal(compute(tmp_path / "out.onnx"), compute(source))


def test_data_below_the_output_folder_are_kept(tmp_path):
    write_chain(tmp_path / "big.onnx", data="sub/deeper/w.bin")
    report = save(load(tmp_path / "big.onnx"), tmp_path / "out.onnx")
    assert how(report)["sub/deeper/w.bin"] == "kept"
    assert references(tmp_path / "out.onnx")["w1"] == ("sub/deeper/w.bin", BYTES, BYTES)
    compute(tmp_path / "out.onnx")


def test_only_what_changed_goes_into_a_new_file(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    model = load(source)
    change(model, "w2")
    report = save(model, tmp_path / "out.onnx")
    assert how(report) == {
        "out.onnx": "written",
        "big.onnx.data": "kept",
        "out.onnx.data": "written",
    }
    assert (tmp_path / "out.onnx.data").stat().st_size == BYTES
    np.testing.assert_array_equal(compute(tmp_path / "out.onnx"), 2 * compute(source))


def test_data_elsewhere_are_copied(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").mkdir()
    source = write_chain(tmp_path / "in" / "big.onnx")
    report = save(load(source), tmp_path / "in" / "out" / "m.onnx")
    assert how(report) == {"m.onnx": "written", "m.onnx.data": "copied"}


def test_copy_copies_always(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    report = save(load(source), tmp_path / "out.onnx", weights="copy")
    assert how(report) == {"out.onnx": "written", "out.onnx.data": "copied"}
    shutil.move(tmp_path / "big.onnx.data", tmp_path / "gone")
    compute(tmp_path / "out.onnx")


def test_a_file_above_the_limit_is_not_kept(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    report = save(load(source), tmp_path / "out.onnx", shard_size=3 * BYTES)
    assert set(how(report).values()) == {"written", "copied"}
    assert all(file.nbytes <= 3 * BYTES for file in report.files)
    with pytest.raises(
        SaveError, match=r"big.onnx.data cannot be kept: it is larger than 12\.3 kB"
    ):
        save(load(source), tmp_path / "o.onnx", shard_size=3 * BYTES, weights="keep")


def test_keep_refuses_what_lies_elsewhere(tmp_path):
    (tmp_path / "out").mkdir()
    source = write_chain(tmp_path / "big.onnx")
    with pytest.raises(SaveError, match=r"cannot be kept: it lies outside the output's folder"):
        save(load(source), tmp_path / "out" / "m.onnx", weights="keep")
    assert names(tmp_path / "out") == []


def test_keep_writes_what_changed(tmp_path):
    model = load(write_chain(tmp_path / "big.onnx"))
    change(model, "w0")
    assert how(save(model, tmp_path / "out.onnx", weights="keep"))["out.onnx.data"] == "written"


def test_keep_has_nothing_to_say_about_weights_inside_the_source(tmp_path):
    source = write_inline(tmp_path / "in.onnx")
    report = save(load(source), tmp_path / "out.onnx", weights="keep")
    assert how(report)["out.onnx.data"] in ("written", "copied")


def test_a_large_model_file_is_no_data_file(tmp_path):
    model = model_of(chain(1), [])
    array = np.ones((1700, 1700), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, "w0"))
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    for weights_ in ("auto", "keep"):
        report = save(load(tmp_path / "in.onnx"), tmp_path / "out.onnx", weights=weights_)
        assert {loc for loc, _, _ in references(tmp_path / "out.onnx").values()} == {
            "out.onnx.data"
        }
        assert how(report)["out.onnx.data"] == "copied"
    # In place, the model file is replaced by one without the weights.
    save(load(tmp_path / "in.onnx"), tmp_path / "in.onnx")
    assert (tmp_path / "in.onnx").stat().st_size < 1000
    assert onnx.load(tmp_path / "in.onnx").graph.initializer[0].raw_data == array.tobytes()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_not_kept_because_other_tools_refuse_them(tmp_path, link):
    (tmp_path / "o").mkdir()
    source = write_chain(tmp_path / "o" / "big.onnx")
    shutil.move(tmp_path / "o" / "big.onnx.data", tmp_path / "blob")
    link(tmp_path / "blob", tmp_path / "o" / "big.onnx.data")
    if link is os.symlink:
        # As in the cache of Hugging Face, the model file is a link beside its data too.
        shutil.move(source, tmp_path / "model")
        source.symlink_to(tmp_path / "model")
    report = save(load(source), tmp_path / "o" / "out.onnx")
    assert how(report)["out.onnx.data"] == "copied"
    with pytest.raises(SaveError, match="cannot be kept"):
        save(load(source), tmp_path / "o" / "out2.onnx", weights="keep")


def test_in_place_the_files_stay_and_only_the_model_is_written(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    before, result = contents(tmp_path), compute(source)
    model = load(source)
    model.graph.name = "renamed"
    report = save(model, source)
    assert how(report) == {"big.onnx": "written", "big.onnx.data": "kept"}
    assert contents(tmp_path)["big.onnx.data"] == before["big.onnx.data"]
    assert names(tmp_path) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(compute(source), result)


def test_in_place_a_new_file_gets_another_name_than_the_kept_one(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    result = compute(source)
    model = load(source)
    change(model, "w1")
    report = save(model, source)
    assert how(report) == {
        "big.onnx": "written",
        "big.onnx.data": "kept",
        "big.1.onnx.data": "written",
    }
    np.testing.assert_array_equal(compute(source), 2 * result)


def test_in_place_a_file_that_is_mostly_unused_goes_away(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    result = compute(source)
    model = load(source)
    for name in ("w0", "w1", "w2"):
        change(model, name)
    report = save(model, source)
    assert how(report) == {"big.onnx": "written", "big.onnx.data": "written"}
    assert names(tmp_path) == ["big.onnx", "big.onnx.data"]
    np.testing.assert_array_equal(compute(source), 8 * result)
    # Beside it, the same file costs nothing and is kept.
    again = load(source)
    for name in ("w0", "w1", "w2"):
        change(again, name)
    assert how(save(again, tmp_path / "o.onnx"))["big.onnx.data"] == "kept"


@pytest.mark.parametrize(
    ("layout", "kept"), [("hf", False), ("single", True), ("safetensors", False)]
)
def test_other_layouts_keep_only_files_that_have_their_names(tmp_path, layout, kept):
    source = write_chain(tmp_path / "big.onnx")
    report = save(load(source), tmp_path / "out.onnx", layout=layout)
    assert ("kept" in how(report).values()) == kept
    if not kept:
        with pytest.raises(SaveError, match="the data files cannot be kept"):
            save(load(source), tmp_path / "o.onnx", layout=layout, weights="keep")


@pytest.mark.parametrize("layout", ["hf", "safetensors", "single", "default"])
def test_in_place_each_layout_keeps_its_own_files(tmp_path, layout):
    source = write_chain(tmp_path / "big.onnx")
    (tmp_path / "o").mkdir()
    out = tmp_path / "o" / "m.onnx"
    limit = within(layout, 2 * BYTES + 4096)
    save(load(source), out, layout=layout, shard_size=limit)
    before = contents(tmp_path / "o")
    report = save(load(out), out, layout=layout, shard_size=limit, weights="keep")
    assert set(how(report).values()) == {"written", "kept"}
    assert contents(tmp_path / "o") == before


@pytest.mark.parametrize("layout", ["hf", "single", "safetensors"])
def test_layouts_with_names_of_their_own_do_not_mix_old_and_new(tmp_path, layout):
    out = tmp_path / "m.onnx"
    save(load(write_chain(tmp_path / "big.onnx")), out, layout=layout)
    result = compute(out)
    model = load(out)
    change(model, "w3")
    with pytest.raises(SaveError, match="does not mix"):
        save(model, out, layout=layout, weights="keep")
    report = save(model, out, layout=layout)
    assert "kept" not in how(report).values()
    np.testing.assert_array_equal(compute(out), 2 * result)


def test_checksums_stay_with_kept_files_only(tmp_path):
    array = weights(1)[0]
    (tmp_path / "d").write_bytes(array.tobytes())
    tensor = external("w0", array, "d", 0)
    tensor.external_data.add(key="checksum", value="abc")
    (tmp_path / "in.onnx").write_bytes(model_of(chain(1), [tensor]).SerializeToString())
    for mode, expected in (("keep", "abc"), ("copy", None)):
        save(load(tmp_path / "in.onnx"), tmp_path / "out.onnx", weights=mode)
        (back,) = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
        assert {e.key: e.value for e in back.external_data}.get("checksum") == expected


def test_a_kept_file_that_changes_meanwhile_is_noticed(tmp_path):
    model = load(write_chain(tmp_path / "big.onnx"))

    def meddle(done: int, total: int) -> None:
        (tmp_path / "big.onnx.data").write_bytes(b"x" * 4 * BYTES)

    change(model, "w0")
    with pytest.raises(SaveError, match=r"big\.onnx\.data was changed by someone else"):
        save(model, tmp_path / "out.onnx", progress=meddle)
    assert names(tmp_path) == ["big.onnx", "big.onnx.data"]


def test_a_source_that_changed_since_it_was_loaded_is_refused(tmp_path):
    for mode in ("keep", "copy"):
        source = write_chain(tmp_path / "big.onnx")
        model = load(source)
        (tmp_path / "big.onnx.data").write_bytes(b"x" * 4 * BYTES)
        with pytest.raises(SaveError, match="has changed since the model was loaded; load it anew"):
            save(model, tmp_path / "out.onnx", weights=mode)
    (tmp_path / "big.onnx.data").unlink()
    with pytest.raises(SaveError, match="is gone"):
        save(model, tmp_path / "out.onnx")


def test_a_model_saved_over_its_source_is_refused_afterwards_not_read_wrong(tmp_path):
    source = write_chain(tmp_path / "big.onnx")
    model = load(source)
    changed = load(source)
    for name in list(changed.graph.initializers):
        change(changed, name, 3.0)
    save(changed, source)
    with pytest.raises(SaveError, match="has changed"):
        save(model, tmp_path / "other.onnx")
