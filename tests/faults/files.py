"""Models of bytes and protobufs, for faults of files: made, written, read back, refused."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
LOCAL = helper.make_opsetid("local", 1)


def model(nodes=None, inits=(), opset=18, ir_version=10, functions=(), inputs=(X,), outputs=(Y,)):
    nodes = [helper.make_node("Relu", ["x"], ["y"])] if nodes is None else nodes
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(inits))
    imports = [helper.make_opsetid("", opset), LOCAL]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version, functions=functions
    )


def refused(proto, tmp_path, pattern):
    """Refused by load from a file and from a ModelProto, in one line."""
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    for source in (path, proto):
        with pytest.raises(ModelError, match=pattern) as caught:
            load(source)
        assert "\n" not in str(caught.value)


def with_bytes(proto, old, new):
    """Return the model with other bytes, as many, in place of a name in it."""
    data = proto.SerializeToString()
    assert old in data
    assert len(old) == len(new)
    return onnx.ModelProto.FromString(data.replace(old, new))


def save_and_read(proto, tmp_path):
    out = tmp_path / "out.onnx"
    save(load(proto), out)
    return onnx.load(out)
