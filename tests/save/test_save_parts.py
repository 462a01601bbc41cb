"""The pieces that saving is made of: copying ranges, splicing protobufs, finding references."""

from __future__ import annotations

import errno
import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from save_models import names, references, write_chain

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import copying, save
from vlmpass.ir_tools.save.references import Folder, data_files_of
from vlmpass.ir_tools.save.splice import mark, spliced
from vlmpass.ir_tools.save.tasks import StagedFile, tasks_of


def copy(tmp_path, start: int, offset: int, count: int) -> bytes:
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(bytes(range(256)) * 40)
    target.write_bytes(b"\xff" * 12000)
    with source.open("rb") as a, target.open("r+b") as b:
        copying.copy_range(a.fileno(), start, b.fileno(), offset, count)
    return target.read_bytes()


def check_copy(tmp_path) -> None:
    data = bytes(range(256)) * 40
    for start, offset, count in ((0, 0, 10240), (5, 7, 9000), (10239, 0, 1), (100, 11000, 0)):
        expected = bytearray(b"\xff" * 12000)
        expected[offset : offset + count] = data[start : start + count]
        assert copy(tmp_path, start, offset, count) == bytes(expected)
    with pytest.raises(EOFError, match="60 bytes before the end"):
        copy(tmp_path, 10000, 0, 300)


def test_ranges_are_copied(tmp_path):
    check_copy(tmp_path)


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, 0])
@pytest.mark.parametrize("which", [1, 2])
def test_ranges_are_copied_where_the_kernel_will_not(tmp_path, monkeypatch, reason, which):
    def refuse(*_: int) -> int:
        if reason:
            raise OSError(reason, "no")
        return 0

    monkeypatch.setattr(copying, "_MOVERS", (*[refuse] * which, *copying._MOVERS[which:]))
    check_copy(tmp_path)


def test_an_error_that_is_none_of_these_is_raised(tmp_path, monkeypatch):
    def fail(*_: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(copying, "_MOVERS", (fail, *copying._MOVERS))
    with pytest.raises(OSError, match="full"):
        copy(tmp_path, 0, 0, 10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 300_000), max_size=6), st.integers(0, 3), st.binary(max_size=40))
def test_spliced_messages_equal_those_serialised_whole(sizes, depth, other):
    def graph(weights: list[bytes]) -> onnx.GraphProto:
        tensors = [
            TensorProto(name=f"w{i}", data_type=TensorProto.UINT8, dims=[1], raw_data=data)
            for i, data in enumerate([*weights, other])
        ]
        return helper.make_graph([], "g", [], [], initializer=tensors)

    def model(weights: list[bytes]) -> bytes:
        inner = graph(weights)
        for level in range(depth):
            node = helper.make_node("If", ["c"], ["y"], name=f"n{level}")
            node.attribute.append(helper.make_attribute("then_branch", inner))
            inner = graph(weights[:0])
            inner.node.extend([helper.make_node("Abs", ["a"], ["b"]), node])
        return helper.make_model(inner).SerializeToString()

    weights = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    pieces, total = spliced(model([mark(i) for i in range(len(sizes))]), sizes)
    whole = b"".join(piece if isinstance(piece, bytes) else weights[piece] for piece in pieces)
    assert whole == model(weights)
    assert total == len(whole)


@pytest.mark.parametrize("suffix", [".onnx", ".textproto", ".json", ".onnxtxt"])
@pytest.mark.parametrize("name", ["w.data", "sub/w.data", "ü ñ.data", 'a "b" c.data', "x" * 200])
def test_references_are_found_in_every_form(tmp_path, suffix, name):
    path = write_chain(tmp_path / "in.onnx", data=name)
    out = tmp_path / f"out{suffix}"
    save(load(path), out)
    assert data_files_of(out) == {tmp_path / name}


def test_references_are_found_in_large_files_wherever_they_lie(tmp_path, monkeypatch):
    path = write_chain(tmp_path / "in.onnx", data="w.data")
    for size in range(4000, 4200, 7):
        monkeypatch.setattr("vlmpass.ir_tools.save.references._CHUNK_BYTES", size)
        monkeypatch.setattr("vlmpass.ir_tools.save.references._OVERLAP_BYTES", 64)
        model = onnx.load(path, load_external_data=False)
        model.doc_string = "x" * 4000
        proto = model.SerializeToString()
        (tmp_path / "m.onnx").write_bytes(proto)
        assert data_files_of(tmp_path / "m.onnx") == {tmp_path / "w.data"}


def test_backslashes_may_separate_folders(tmp_path):
    path = write_chain(tmp_path / "m.onnx", data="sub/w.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "sub\\w.data"
    path.write_bytes(model.SerializeToString())
    assert tmp_path / "sub" / "w.data" in data_files_of(path)
    save(load(path), tmp_path / "out.onnx")
    assert references(tmp_path / "out.onnx")["w0"][0] == "sub/w.data"


def test_what_lies_outside_is_nobodys_to_remove(tmp_path):
    (tmp_path / "o").mkdir()
    path = write_chain(tmp_path / "o" / "m.onnx", data="w.data")
    model = onnx.load(path, load_external_data=False)
    for tensor, location in zip(
        model.graph.initializer, ["../w", "/etc/passwd", "./w.data", "sub/../w.data"], strict=True
    ):
        tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    assert Folder(path).replaced == {tmp_path / "o" / "w.data"}


def test_neighbouring_ranges_are_copied_in_one_go(tmp_path):
    tensors = {f"w{i}": np.ones((256, 256), np.float32) for i in range(5)}
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="g"), ir_version=10)
    for name, array in tensors.items():
        tensor = ir.tensor(array, name=name)
        model.graph.register_initializer(ir.Value(name=name, const_value=tensor))
    save(model, tmp_path / "a.onnx")

    seen = []

    def watch(files: list[StagedFile]):
        tasks = tasks_of(files)
        seen.extend(content for task in tasks for content in task.contents)
        return tasks

    (tmp_path / "o").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmpass.ir_tools.save.fill.tasks_of", watch)
        save(load(tmp_path / "a.onnx"), tmp_path / "o" / "b.onnx")
    assert len(seen) == 1
    assert seen[0][1].source.length == 5 * 256 * 256 * 4


def test_an_initializer_without_data_is_refused(tmp_path):
    model = load(write_chain(tmp_path / "in.onnx"))
    model.graph.initializers["w1"].const_value = None
    with pytest.raises(SaveError, match="initializer w1 has no data"):
        save(model, tmp_path / "m.onnx")
    assert names(tmp_path) == ["in.onnx", "in.onnx.data"]


def test_a_value_without_a_name_is_refused(tmp_path):
    model = load(write_chain(tmp_path / "in.onnx"))
    next(iter(model.graph)).outputs[0].name = None
    with pytest.raises(SaveError, match="cannot be written as a protobuf"):
        save(model, tmp_path / "m.onnx")
    assert names(tmp_path) == ["in.onnx", "in.onnx.data"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    save(load(write_chain(tmp_path / "in.onnx")), tmp_path / "m.onnx", weights="copy")
    (tmp_path / "plain").write_bytes(b"")
    expected = (tmp_path / "plain").stat().st_mode
    for name in ("m.onnx", "m.onnx.data"):
        assert os.stat(tmp_path / name).st_mode == expected
