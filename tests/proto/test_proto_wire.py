"""The wire format: a message is read as protobuf reads it, and written likewise."""

import random

import onnx
import pytest
from google.protobuf.message import DecodeError

from vlmpass.ir_tools.proto.wire import WireError, bytes_head, fields, read_varint, to_varint


def drawn(draw: random.Random) -> onnx.TensorProto:
    """A tensor with fields of every kind of wire: numbers, floats, texts, messages."""
    tensor = onnx.TensorProto(name="x" * draw.randrange(300), data_type=draw.randrange(1 << 31))
    tensor.dims.extend(draw.randrange(-(1 << 62), 1 << 62) for _ in range(draw.randrange(4)))
    tensor.float_data.extend(draw.random() for _ in range(draw.randrange(40)))
    for number in range(draw.randrange(3)):
        tensor.external_data.add(key="location", value=str(number) * draw.randrange(200))
    tensor.raw_data = draw.randbytes(draw.randrange(500))
    return tensor


@pytest.mark.parametrize("seed", range(30))
def test_fields_lie_where_protobuf_finds_them(seed):
    draw = random.Random(seed)
    tensor = drawn(draw)
    data = tensor.SerializeToString()
    found = list(fields(data, 0, len(data)))
    assert [each.at for each in found] == [0, *(each.stop for each in found[:-1])]
    assert found[-1].stop == len(data)
    by_number = onnx.TensorProto.DESCRIPTOR.fields_by_number
    entries = [data[f.start : f.stop] for f in found if by_number[f.number].name == "external_data"]
    assert entries == [entry.SerializeToString() for entry in tensor.external_data]
    (raw,) = [f for f in found if by_number[f.number].name == "raw_data"]
    assert data[raw.start : raw.stop] == tensor.raw_data
    assert data[raw.at : raw.start] == bytes_head(raw.number, len(tensor.raw_data))


@pytest.mark.parametrize("seed", range(60))
def test_what_protobuf_does_not_read_is_refused(seed):
    draw = random.Random(seed)
    data = bytearray(drawn(draw).SerializeToString())
    if draw.random() < 0.5:
        del data[draw.randrange(len(data)) :]
    else:
        data[draw.randrange(len(data))] = draw.randrange(256)
    try:
        list(fields(bytes(data), 0, len(data)))
    except WireError:
        with pytest.raises(DecodeError):
            onnx.TensorProto.FromString(bytes(data))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, (1 << 32) - 1, 1 << 40, (1 << 63) - 1])
def test_a_number_is_read_as_it_is_written(number):
    data = to_varint(number)
    assert read_varint(data + b"\0", 0, len(data)) == (number, len(data))
    with pytest.raises(WireError):
        read_varint(data, 0, len(data) - 1)
