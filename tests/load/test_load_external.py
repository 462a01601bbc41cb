"""External data: found wherever tensors can be, every range checked."""

import os
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from load_external import DATA, read, refused
from load_models import ARRAY, NAMES, everywhere, external, model, save, with_external
from onnx import TensorProto, helper

from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.weights import StoredWeight


def test_tensors_everywhere(folder):
    for index, name in enumerate(NAMES):
        (folder / f"{name}.bin").write_bytes((ARRAY + index).tobytes())
    proto = everywhere(lambda name: external(name, f"{name}.bin", offset=0, length=48))
    loaded = load(save(proto, folder))
    found = {slot.tensor.name: slot.tensor for slot in tensor_slots(loaded)}
    for index, name in enumerate(NAMES):
        weight = found[name]
        assert isinstance(weight, StoredWeight), name
        assert (weight.numpy() == ARRAY + index).all()
        assert weight.path == str(folder / f"{name}.bin")
    again = ir.to_proto(loaded)
    assert again.functions == proto.functions
    assert [again.graph.node[i] for i in (0, 2, 3)] == [proto.graph.node[i] for i in (0, 2, 3)]


def test_every_place_is_checked(folder):
    for bad in NAMES:
        files = dict.fromkeys(NAMES, "w.bin") | {bad: "no.bin"}
        proto = everywhere(lambda name, files=files: external(name, files[name]))
        refused(save(proto, folder), "no.bin, which is missing")


def test_hard_links_are_read(folder):
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    assert (read(save(with_external("hard.bin"), folder)) == ARRAY).all()


def test_no_regular_files(folder):
    (folder / "d").mkdir()
    refused(save(with_external("d"), folder), "d, which is no regular file")
    refused(save(with_external("w.bin/x"), folder), "Not a directory")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        refused(save(with_external("pipe"), folder), "no regular file")


def test_missing_files_and_what_they_may_be(folder):
    path = save(with_external("model.data"), folder)
    text = refused(path, "w has its data in model.data, which is missing in")
    assert "w.bin has the right size: rename it to model.data?" in text
    (folder / "w.bin").write_bytes(DATA + b"more")
    refused(path, r"has 48 bytes or more; is it w\.bin\?")
    (folder / "w.bin").unlink()
    refused(path, r"download or copy it there \(git lfs pull in a clone\)")


@pytest.mark.parametrize(
    ("entries", "pattern"),
    [
        ({"offset": 4}, r"bytes 4 to 52 of w\.bin, which has 48; the file is cut short or not"),
        ({"offset": 1 << 62}, "bytes 4611686018427387904 to"),
        ({"offset": 48}, "bytes 48 to 96"),
        ({"offset": -1}, "the offset of initializer w is '-1', not a number of bytes"),
        ({"offset": ""}, "the offset of initializer w is ''"),
        ({"offset": "0x10"}, "'0x10', not a number"),
        ({"offset": "1_0"}, "'1_0', not a number"),
        ({"offset": " 1"}, "' 1', not a number"),
        ({"offset": "\u0661"}, "not a number"),
        ({"offset": "1.0"}, "not a number"),
        ({"length": "x"}, "the length of initializer w is 'x'"),
        ({"length": 47}, r"w is FLOAT\[3, 4\], 48 bytes, but has 47 bytes of data"),
        ({"length": 49}, "48 bytes, but has 49 bytes of data"),
        ({"prepacked_0": "1|2"}, "prepacked_0 of its data, which cannot be kept; export it again"),
        ({"anything": "1"}, "anything of its data, which cannot be kept"),
    ],
)
def test_wrong_ranges(folder, entries, pattern):
    refused(save(with_external(**entries), folder), pattern)


def test_entries_twice(folder):
    proto = with_external()
    proto.graph.initializer[0].external_data.add(key="location", value="other.bin")
    refused(save(proto, folder), "states the location of its data twice")
    proto = with_external()
    proto.graph.initializer[0].ClearField("external_data")
    refused(save(proto, folder), "is external but names no file|names no file")


def test_good_ranges(folder):
    (folder / "w.bin").write_bytes(b"12345" + DATA + b"tail")
    for entries in ({"offset": 5}, {"offset": "5", "length": "48"}, {"offset": "005"}):
        assert (read(save(with_external(**entries), folder)) == ARRAY).all()
    refused(save(with_external(), folder), r"48 bytes, but takes the whole of w\.bin, 57 bytes")
    refused(save(with_external(offset=12), folder), "bytes 12 to 60 of w.bin, which has 57")


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.UINT2, TensorProto.FLOAT6E2M3])
def test_packed_types(folder, dtype):
    bits = ir.DataType(dtype).bitwidth
    need = -(-15 * bits // 8)
    (folder / "w.bin").write_bytes(bytes(range(need)))
    tensor = external(shape=(3, 5), dtype=dtype, length=need)
    weight = load(save(model(initializers=[tensor]), folder)).graph.initializers["w"].const_value
    assert weight.tobytes() == bytes(range(need))
    assert weight.numpy().shape == (3, 5)
    tensor = external(shape=(3, 5), dtype=dtype, length=15)
    refused(save(model(initializers=[tensor]), folder), f"{need} bytes, but has 15 bytes of data")


def test_empty_tensors(folder):
    (folder / "empty.bin").write_bytes(b"")
    proto = with_external("empty.bin", shape=(0, 4), offset=0, length=0)
    assert read(save(proto, folder)).shape == (0, 4)


def test_lfs_pointers(folder):
    (folder / "w.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(save(with_external(), folder), r"w\.bin, .* is a Git LFS pointer; run git lfs pull")


def test_checksums_are_kept(folder):
    first = external("w", checksum="aa", offset=0, length=48)
    second = external("v", checksum="bb", basepath="/tmp")
    third = external("u", offset=0)
    loaded = load(save(model(initializers=[first, second, third]), folder))
    sums = [loaded.graph.initializers[name].const_value.checksum for name in "wvu"]
    assert sums == ["aa", "bb", None]


def test_a_proto_is_relative_to_the_current_folder_unless_told(folder, monkeypatch):
    proto = with_external()
    assert (load(proto, base_dir=folder).graph.initializers["w"].const_value.numpy() == ARRAY).all()
    monkeypatch.chdir(folder)
    assert (read(proto) == ARRAY).all()
    refused(with_external("../secret.bin"), "leads up")
    monkeypatch.chdir(folder.parent)
    refused(proto, "which is missing")


def test_an_ir_model_is_settled_in_place_or_not_at_all(folder):
    proto = everywhere(lambda name: external(name, "w.bin"))
    path = save(proto, folder)
    loaded = ir.load(path)
    for slot in tensor_slots(loaded):
        if isinstance(slot.tensor, ir.ExternalTensor):
            slot.tensor.base_dir = folder  # onnx_ir forgets those in functions
    before = [slot.tensor for slot in tensor_slots(loaded)]
    assert load(loaded) is loaded
    weights = [slot.tensor for slot in tensor_slots(loaded)]
    assert sum(isinstance(tensor, StoredWeight) for tensor in weights) == len(NAMES)
    assert load(loaded) is loaded
    assert [slot.tensor for slot in tensor_slots(loaded)] == weights
    broken = ir.load(path)
    tensors = [slot.tensor for slot in tensor_slots(broken)]
    (folder / "w.bin").unlink()
    refused(broken, "which is missing")
    assert [slot.tensor for slot in tensor_slots(broken)] == tensors
    assert len(before) == len(weights)


def test_an_ir_model_from_the_current_folder(folder, monkeypatch):
    save(with_external("../secret.bin"), folder)
    monkeypatch.chdir(folder)
    refused(ir.load("m.onnx"), "leads up")


def test_strings_and_unknown_types(folder):
    tensor = external(dtype=TensorProto.STRING)
    refused(save(model(initializers=[tensor]), folder), "holds strings, which cannot lie in a data")
    tensor = external(dtype=99)
    refused(save(model(initializers=[tensor]), folder), "element type 99, which is unknown")


def test_tied_weights_stay_tied(folder):
    proto = model(
        [
            helper.make_node("Add", ["x", "w"], ["h"]),
            helper.make_node("Add", ["h", "v"], ["y"]),
        ],
        [external("w", offset=0), external("v", offset=0)],
    )
    loaded = load(save(proto, folder))
    w, v = (loaded.graph.initializers[name].const_value for name in "wv")
    assert w.expression == v.expression


def _many(folder, count, files):
    graph = onnx.GraphProto(name="g")
    proto = onnx.ModelProto(ir_version=8, graph=graph)
    proto.opset_import.add(domain="", version=17)
    last = "x"
    graph = proto.graph
    graph.input.add(name="x").type.tensor_type.elem_type = TensorProto.FLOAT
    for i in range(count):
        where = {"location": f"{i}.bin"} if files else {"location": "w.bin", "offset": 4 * i}
        graph.initializer.add().CopyFrom(external(f"w{i}", shape=(1,), length=4, **where))
        graph.node.add(op_type="Add", input=[last, f"w{i}"], output=[f"y{i}"])
        last = f"y{i}"
        if files:
            (folder / f"{i}.bin").write_bytes(np.float32(i).tobytes())
    if not files:
        np.arange(count, dtype=np.float32).tofile(folder / "w.bin")
    graph.output.add(name=last).type.tensor_type.elem_type = TensorProto.FLOAT
    save(proto, folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no setrlimit")
@pytest.mark.parametrize("files", [False, True])
def test_twenty_thousand_tensors_with_few_descriptors(tmp_path, peak_mb, files):
    _many(tmp_path, 20_000, files)
    peak_mb(
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        before = peak()
        from vlmpass.ir_tools.load import load
        weights = load("m.onnx").graph.initializers.values()
        assert len(weights) == 20_000
        for i, value in enumerate(weights):
            assert value.const_value.numpy() == i
        """
    )


def test_only_what_is_referred_to_is_opened(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "vlmpass.ir_tools.weights.files._open", lambda path: opened.append(path) or 1 / 0
    )
    path = save(with_external(), folder)
    load(path)
    assert opened == []  # loading looks at sizes only
    monkeypatch.undo()
    assert (read(path) == ARRAY).all()
