"""Weights in the places of onnx_ir's own tensors."""

import io

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights import LazyWeight, StoredWeight, as_weight, cast, transpose
from vlmpass.ir_tools.weights.leaves import Held

D = ir.DataType
ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def weight(tmp_path):
    ARRAY.tofile(tmp_path / "w.bin")
    return StoredWeight(
        "w.bin", 0, 48, D.FLOAT, shape=ir.Shape([3, 4]), name="w", base_dir=tmp_path, checksum="ab"
    )


def test_protocols(weight):
    for one in (weight, cast(weight, D.FLOAT16)):
        assert isinstance(one, ir.TensorProtocol)
        assert (np.asarray(one) == ARRAY).all()
        assert np.array(one, dtype=np.int32).dtype == np.int32
        assert (np.from_dlpack(one) == ARRAY).all()
        assert "[3,4]" in repr(one)
        assert "w" in repr(one)
    assert isinstance(weight, ir.ExternalTensor)
    assert not isinstance(cast(weight, D.FLOAT16), ir.ExternalTensor)
    assert weight.checksum == "ab"


def test_serialized(weight):
    proto = ir.serde.serialize_tensor(weight)
    assert {e.key: e.value for e in proto.external_data} == {
        "location": "w.bin",
        "offset": "0",
        "length": "48",
    }
    lazy = cast(transpose(weight, [1, 0]), D.BFLOAT16)
    proto = ir.serde.serialize_tensor(lazy)
    assert proto.raw_data == ARRAY.T.astype(ml_dtypes.bfloat16).tobytes()
    assert (list(proto.dims), proto.data_type, proto.name) == ([4, 3], 16, "w")


def test_in_a_model(weight):
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: [ "" : 17]> g (float[3,4] x) => (float[3,4] y)'
        " <float[3,4] w> {"
        " c = Constant <value = float[1] {1.0}> () a = Add(x, c) y = Add(a, w) }"
    )
    w = next(v for node in model.graph for v in node.inputs if v.name == "w")
    w.const_value = cast(cast(weight, D.FLOAT16), D.FLOAT)
    model.graph.register_initializer(w)
    constant = next(iter(model.graph))
    constant.attributes["value"] = ir.AttrTensor("value", cast(weight, D.FLOAT))
    clone = model.clone()
    assert clone.graph.initializers["w"].const_value is w.const_value
    w.const_value = weight
    assert clone.graph.initializers["w"].const_value is not weight
    proto = ir.to_proto(clone)
    assert proto.graph.initializer[0].raw_data == ARRAY.tobytes()
    assert proto.graph.node[0].attribute[0].t.external_data[0].value == "w.bin"


def test_written_by_onnx_ir(weight, tmp_path):
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: [ "" : 17]> g (float[3,4] x) => (float[3,4] y)'
        " <float[3,4] w> { y = Add(x, w) }"
    )
    w = next(v for node in model.graph for v in node.inputs if v.name == "w")
    w.const_value = transpose(transpose(cast(weight, D.DOUBLE), [1, 0]), [1, 0])
    w.dtype = D.DOUBLE
    model.graph.register_initializer(w)
    (tmp_path / "out").mkdir()
    ir.save(model, tmp_path / "out" / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    again = onnx.load(tmp_path / "out" / "m.onnx")
    assert (onnx.numpy_helper.to_array(again.graph.initializer[0]) == ARRAY).all()


def test_invalidated_and_released(weight):
    weight.release()
    assert (weight.numpy() == ARRAY).all()
    weight.invalidate()
    with pytest.raises(ValueError, match="invalidated"):
        weight.numpy()


def test_tofile(weight):
    file = io.BytesIO(b"head")
    file.seek(4)
    cast(weight, D.FLOAT16).tofile(file)
    assert file.getvalue() == b"head" + ARRAY.astype(np.float16).tobytes()


class Evaluated:
    """Counts how often it is evaluated."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return ir.Tensor(ARRAY)


def tensors(tmp_path):
    ARRAY.tofile(tmp_path / "w.bin")
    proto = onnx.numpy_helper.from_array(ARRAY, "w")
    typed = onnx.helper.make_tensor("w", 1, [3, 4], ARRAY.reshape(-1).tolist())
    nibbles = ARRAY.astype(ml_dtypes.uint4)
    return {
        "Tensor": (ir.Tensor(ARRAY, name="w"), ARRAY),
        "bits": (ir.Tensor(np.ones((3, 4), np.uint16), dtype=D.BFLOAT16, name="w"), None),
        "TensorProtoTensor": (ir.TensorProtoTensor(proto), ARRAY),
        "typed": (ir.TensorProtoTensor(typed), ARRAY),
        "ExternalTensor": (
            ir.ExternalTensor(
                "w.bin", None, None, D.FLOAT, shape=ir.Shape([3, 4]), name="w", base_dir=tmp_path
            ),
            ARRAY,
        ),
        "PackedTensor": (
            ir.PackedTensor(
                np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA], np.uint8),
                D.UINT4,
                shape=ir.Shape([3, 4]),
                name="w",
            ),
            nibbles,
        ),
        "LazyTensor": (
            ir.LazyTensor(
                lambda: ir.Tensor(ARRAY), dtype=D.FLOAT, shape=ir.Shape([3, 4]), name="w"
            ),
            ARRAY,
        ),
        "transposed": (ir.Tensor(ARRAY.T, name="w"), ARRAY.T),
        "scalar": (ir.tensor(np.array(3.0, np.float32), name="w"), np.array(3.0, np.float32)),
        "read only": (ir.Tensor(np.broadcast_to(ARRAY[:1], (3, 4)), name="w"), None),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("Tensor", "bits", "TensorProtoTensor", "typed", "ExternalTensor", "PackedTensor"),
        *("LazyTensor", "transposed", "scalar", "read only"),
    ],
)
def test_any_tensor_is_a_weight(tmp_path, kind):
    tensor, expected = tensors(tmp_path)[kind]
    expected = tensor.numpy() if expected is None else expected
    weight = as_weight(tensor)
    assert weight.name == "w"
    assert weight.numpy().tobytes() == expected.tobytes()
    assert weight.tobytes() == tensor.tobytes()
    assert weight.nbytes == tensor.nbytes
    assert as_weight(weight) is weight
    assert isinstance(weight, StoredWeight) == (kind == "ExternalTensor")
    if expected.ndim == 2:
        part = weight.read(((1, 2), (0, 3)))
        assert part.tobytes() == expected[1:2, :3].tobytes()
        turned = transpose(weight, [1, 0])
        assert turned.numpy().tobytes() == expected.T.tobytes()


def test_a_lazy_tensor_is_evaluated_once_per_pass():
    evaluated = Evaluated()
    tensor = ir.LazyTensor(evaluated, dtype=D.FLOAT, shape=ir.Shape([3, 4]), name="w", cache=False)
    weight = transpose(cast(as_weight(tensor), D.FLOAT16), [1, 0])
    assert evaluated.count == 0
    assert b"".join(weight.chunks()) == ARRAY.T.astype(np.float16).tobytes()
    assert evaluated.count == 1


def test_a_tensor_that_is_not_what_it_says_is_refused():
    tensor = ir.LazyTensor(lambda: ir.Tensor(ARRAY), dtype=D.FLOAT, shape=ir.Shape([4]), name="w")
    with pytest.raises(ModelError, match=r"w says FLOAT\[4\] but evaluates to float32\[3, 4\]"):
        as_weight(tensor).numpy()


def test_moving_the_folder(tmp_path):
    ARRAY.tofile(tmp_path / "w.bin")
    weight = StoredWeight(
        "w.bin", 0, 48, D.FLOAT, shape=ir.Shape([3, 4]), name="w", base_dir=tmp_path
    )
    (tmp_path / "b").mkdir()
    (ARRAY + 1).tofile(tmp_path / "b" / "w.bin")
    weight.base_dir = tmp_path / "b"
    assert weight.path == str(tmp_path / "b" / "w.bin")
    assert (weight.numpy() == ARRAY + 1).all()
    assert weight.file_range().path == weight.path


def test_holding_is_by_identity():
    tensor = ir.Tensor(ARRAY)
    assert Held.of(tensor) == Held.of(tensor)
    assert Held.of(tensor) != Held.of(ir.Tensor(ARRAY))
    assert isinstance(as_weight(tensor), LazyWeight)
