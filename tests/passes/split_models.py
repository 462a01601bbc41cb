"""Models with weights above a limit, and what must hold after they are split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.graph.walk import all_nodes, tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.passes.split_tensor import SplitTensor

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

RNG = np.random.default_rng(0)


def model_of(nodes, inputs, outputs, initializers, *, opset=17, functions=()) -> onnx.ModelProto:
    """Make a model; inputs are name -> (type, shape), outputs name -> type."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in inputs.items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        initializer=[
            each if isinstance(each, TensorProto) else numpy_helper.from_array(each, name)
            for name, each in initializers.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=functions, ir_version=8 if opset < 21 else 10
    )


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def inferred(proto: onnx.ModelProto) -> ir.Model:
    """Load a model with the types and shapes of its values, as a pipeline has them."""
    return load(onnx.shape_inference.infer_shapes(proto, data_prop=False))


def split(proto, feeds, limit) -> tuple[ir.Model, Counter[str]]:
    """Split, compare every output bit for bit, and count the operators left."""
    model = inferred(proto)
    names = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    assert SplitTensor(limit=limit).run(model)
    assert all(
        slot.tensor.nbytes <= limit
        for slot in tensor_slots(model)
        if slot.tensor.dtype != ir.DataType.STRING
    )
    check(model)
    assert names == [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    for expected, actual in zip(run(proto, feeds), run(ir.to_proto(model), feeds), strict=True):
        assert expected.dtype == actual.dtype
        assert expected.shape == actual.shape
        assert expected.tobytes() == actual.tobytes()
    assert not SplitTensor(limit=limit).run(model)
    return model, Counter(node.op_type for node in all_nodes(model))


def matrix(*shape: int, dtype=np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


V, D = 103, 24

BYTES = V * D * 4

ALL_INDICES = np.array([0, 1, V - 1, -1, -V, 50, 51, 52, -51, -52, -53, 34, 35, 68, 69, -34, -35])
