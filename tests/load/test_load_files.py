"""Model files: formats, and one clear line for whatever is wrong with one."""

import os
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from load_external import refused
from load_models import ARRAY, NAMES, everywhere, model, save, with_external
from onnx import numpy_helper

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.inline import without_payloads
from vlmpass.ir_tools.proto.wire import WireError
from vlmpass.ir_tools.weights import LazyWeight, StoredWeight, cast, rows

SUFFIXES = [
    *(".onnx", ".pb", ".model", "", ".textproto", ".txtpb", ".prototxt", ".pbtxt"),
    *(".json", ".onnxjson", ".onnxtxt", ".onnxtext", ".ONNX", ".JSON"),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats_by_suffix(tmp_path, suffix):
    proto = model()
    onnx.save(proto, tmp_path / f"m{suffix.lower()}", format=None if suffix else "protobuf")
    path = tmp_path / f"m{suffix.lower()}"
    path.rename(tmp_path / f"m{suffix}")
    loaded = load(tmp_path / f"m{suffix}")
    assert [node.op_type for node in loaded.graph] == ["Add"]
    assert (loaded.graph.initializers["w"].const_value.numpy() == ARRAY[0]).all()
    assert load(str(tmp_path / f"m{suffix}")).graph.name == "g"


def test_text_formats_refer_to_data_too(tmp_path):
    (tmp_path / "w.bin").write_bytes(ARRAY.tobytes())
    for name in ("m.textproto", "m.json", "m.onnxtxt"):
        onnx.save(with_external(offset=0, length=48), tmp_path / name)
        weight = load(tmp_path / name).graph.initializers["w"].const_value
        assert isinstance(weight, StoredWeight)
        assert (weight.numpy() == ARRAY).all()


def test_not_there(tmp_path):
    save(model(), tmp_path, "model.onnx")
    refused(tmp_path / "modle.onnx", r"modle\.onnx does not exist; did you mean model\.onnx\?")
    refused(tmp_path / "nowhere" / "m.onnx", "does not exist$")
    refused(tmp_path, r"is a folder; name a file in it: model\.onnx$")
    refused(tmp_path / "model.onnx" / "m.onnx", "Not a directory")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"is a folder; name the \.onnx file")
    refused(str(tmp_path / "a\0b"), "NUL|null")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "is not a regular file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_no_permission(tmp_path):
    path = save(model(), tmp_path)
    path.chmod(0)
    refused(path, "Permission denied")


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", r"m\.onnx is empty"),
        (b"\0" * 100, "is not an ONNX file"),
        (b"hello world, this is no model", "is not an ONNX file"),
        (b"PK\x03\x04" + b"\0" * 60, "is a zip archive, as PyTorch and numpy write them"),
        (b"\x08\x0a", r"the model has no graph"),
        (b"\x3a\x00", r"the model has no ir_version"),
        (b"\x08\xff", "is cut short|is not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "Git LFS pointer.*git lfs pull"),
    ],
)
def test_not_a_model(tmp_path, data, pattern):
    (tmp_path / "m.onnx").write_bytes(data)
    refused(tmp_path / "m.onnx", pattern)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("m.ort", "ONNX Runtime's own format"),
        ("m.gguf", "GGUF"),
        ("m.pt", "PyTorch"),
        ("m.safetensors", "holds tensors but no graph"),
        ("m.onnx_data", "holds tensors but no graph"),
        ("m.textproto", "is not an ONNX model in protobuf's text format: "),
        ("m.json", "is not an ONNX model in JSON: "),
        ("m.onnxtxt", "is not an ONNX model in ONNX text: .*line: 1"),
    ],
)
def test_other_files(tmp_path, name, pattern):
    (tmp_path / name).write_bytes(b"\x1f\x00 no model, whatever it may be\n\n")
    refused(tmp_path / name, pattern)
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 5\n")
    refused(tmp_path / name, "Git LFS pointer")
    (tmp_path / name).write_bytes(b"\xff\xfe\xfd")
    refused(tmp_path / name, name)


def test_cut_short_anywhere(tmp_path):
    path = save(everywhere(lambda name: numpy_helper.from_array(ARRAY, name)), tmp_path)
    data = path.read_bytes()
    whole = 0
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        error = error_of(path)
        assert "\n" not in error
        whole += not error
    assert whole <= 2  # the last fields of the model may be missing: opset_import, functions
    path.write_bytes(data[: len(data) // 2])
    refused(path, r"is cut short: .*ends at byte \d+ of \d+; export, copy or download it again")


def error_of(path):
    try:
        load(path)
    except ModelError as error:
        return str(error)
    return ""


def test_garbage_never_passes(tmp_path):
    random = np.random.default_rng(3)
    data = save(model(), tmp_path).read_bytes()
    for _ in range(300):
        broken = bytearray(data)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            broken[at] = random.integers(256)
        (tmp_path / "broken.onnx").write_bytes(broken)
        # a changed name or number may still be a model
        assert "\n" not in error_of(tmp_path / "broken.onnx")


def test_a_newer_format_is_refused():
    proto = model()
    proto.ir_version = 99
    refused(proto, "IR version 99; the installed onnx reads up to .*; install a newer onnx")


def test_what_is_no_source():
    refused(7, "a int is not a model; give a path")
    refused(None, "a NoneType is not a model")


class Program:
    """What torch.onnx.export returns, as far as loading is concerned."""

    def __init__(self, inner):
        self.model = inner


def test_programs_and_models():
    inner = ir.from_proto(model())
    assert load(Program(inner)) is inner
    assert load(inner) is inner
    refused(Program(7), "a Program is not a model")
    inner.graph.initializers["w"].const_value = None
    refused(inner, "initializer w has no data")


@pytest.fixture
def leave_inline(monkeypatch):
    monkeypatch.setattr("vlmpass.ir_tools.load.parse._INLINE_FILE_BYTES", 0)
    monkeypatch.setattr("vlmpass.ir_tools.load.parse._INLINE_TENSOR_BYTES", 32)


@pytest.mark.usefixtures("leave_inline")
def test_inline_tensors_are_read_from_the_model_file(tmp_path):
    path = save(everywhere(lambda name: numpy_helper.from_array(ARRAY, name)), tmp_path)
    loaded = load(path)
    slots = {slot.tensor.name: slot.tensor for slot in tensor_slots(loaded)}
    assert set(slots) == {*NAMES, "cond"}
    for name in NAMES:
        weight = slots[name]
        assert type(weight) is LazyWeight, name
        assert (weight.numpy() == ARRAY).all()
        assert weight.file_range() is None  # no other model may refer to it
        assert rows(weight, 1, 2).file_range() is None
        assert (cast(weight, ir.DataType.FLOAT16).numpy() == ARRAY).all()
    proto = ir.to_proto(loaded)
    assert proto.graph.initializer[0].raw_data == ARRAY.tobytes()
    path.write_bytes(path.read_bytes() + b"\x32\x00")
    with pytest.raises(ModelError, match="has changed since the model was loaded"):
        slots["w"].numpy()


@pytest.mark.usefixtures("leave_inline")
def test_inline_tensors_of_the_wrong_size_are_refused(tmp_path):
    tensor = numpy_helper.from_array(ARRAY, "w")
    tensor.dims[0] = 4
    path = save(model(initializers=[tensor]), tmp_path)
    refused(path, r"initializer w is FLOAT\[4, 4\], 64 bytes, but has 48 bytes of data")


@pytest.mark.usefixtures("leave_inline")
def test_nobody_can_pretend_to_be_inline(tmp_path):
    proto = with_external(location="inline-0123456789abcdef", offset=0, length=48)
    refused(save(proto, tmp_path), "which is missing in")


def test_only_large_payloads_are_left_out():
    tensors = [numpy_helper.from_array(np.zeros(n, np.uint8), f"w{n}") for n in (10, 300, 20, 200)]
    data = model(initializers=tensors).SerializeToString()
    proto = onnx.ModelProto.FromString(without_payloads(data, 200, "key"))
    assert [len(t.raw_data) for t in proto.graph.initializer] == [10, 0, 20, 0]
    for index in (1, 3):
        entries = {e.key: e.value for e in proto.graph.initializer[index].external_data}
        start, length = int(entries["offset"]), int(entries["length"])
        assert entries["location"] == "key"
        assert data[start : start + length] == tensors[index].raw_data
    assert without_payloads(data, 301, "key") == data


@pytest.mark.parametrize("data", [b"\x00", b"\x0b\x0c", b"\x0a\x05abc", b"\x80" * 20, b"\x0d\x00"])
def test_wire_errors(data):
    with pytest.raises(WireError):
        without_payloads(data, 1, "key")


def test_nesting_is_bounded():
    data = b""
    for _ in range(120):
        attribute = b"\x32" + _length(data) + data  # g = 6
        node = b"\x2a" + _length(attribute) + attribute  # attribute = 5
        data = b"\x0a" + _length(node) + node  # node = 1
    data = b"\x3a" + _length(data) + data
    with pytest.raises(WireError, match="too deep"):
        without_payloads(data, 1, "key")


def _length(data):
    value, out = len(data), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
def test_memory_of_a_large_inline_model(tmp_path, peak_mb):
    payload = 1 << 28
    proto = model(initializers=[])
    proto.ClearField("graph")
    graph = model(initializers=[]).graph.SerializeToString()
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1 << 13, 1 << 13]).SerializeToString()
    tensor += b"\x4a" + _length(range(payload))  # raw_data = 9, a hole in the file
    field = b"\x2a" + _length(range(len(tensor) + payload)) + tensor  # initializer = 5
    with (tmp_path / "m.onnx").open("wb") as file:
        file.write(proto.SerializeToString())
        file.write(b"\x3a" + _length(range(len(graph) + len(field) + payload)) + graph + field)
        file.truncate(file.tell() + payload)
    grown = peak_mb(
        """
        from vlmpass.ir_tools.load import load
        before = peak()
        weight = load("m.onnx").graph.initializers["w"].const_value
        assert sum(len(chunk) for chunk in weight.chunks()) == 1 << 28
        """
    )
    assert grown < 64
