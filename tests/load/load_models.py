"""Small models for the tests of loading."""

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def info(name, dtype=TensorProto.FLOAT, dims=("n", 4), doc="", **metadata):
    value = helper.make_tensor_value_info(name, dtype, list(dims))
    if doc:
        value.doc_string = doc
    add_metadata(value, metadata)
    return value


def add_metadata(proto, metadata):
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)


def model(nodes=None, initializers=None, outputs=None, inputs=None, functions=(), **fields):
    """x [n, 4] -> y = x + w, unless told otherwise."""
    if nodes is None:
        nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="add")]
    if initializers is None:
        initializers = [numpy_helper.from_array(ARRAY[0], "w")]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x")] if inputs is None else inputs,
        [info("y")] if outputs is None else outputs,
        initializer=initializers,
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my", 1)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=functions, **fields
    )


def external(name="w", location="w.bin", shape=(3, 4), dtype=TensorProto.FLOAT, **entries):
    tensor = TensorProto(name=name, data_type=dtype, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_external(location="w.bin", shape=(3, 4), **entries):
    return model(initializers=[external(location=location, shape=shape, **entries)])


def save(proto, folder, name="m.onnx"):
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def branches(tensor):
    """Two graphs for an If: one holds the tensor twice, the other uses the weight outside."""
    inner = onnx.GraphProto(name="then")
    inner.initializer.add().CopyFrom(tensor("in_subgraph"))
    inner.node.add().CopyFrom(helper.make_node("Constant", [], ["sc"], value=tensor("in_nested")))
    inner.node.add().CopyFrom(helper.make_node("Add", ["sc", "in_subgraph"], ["t"]))
    inner.output.add().CopyFrom(info("t", dims=(3, 4)))
    other = onnx.GraphProto(name="else")
    other.node.add().CopyFrom(helper.make_node("Identity", ["w"], ["e"]))
    other.output.add().CopyFrom(info("e", dims=(3, 4)))
    return inner, other


def everywhere(tensor):
    """A model with the tensor (renamed) as initializer, Constant, in a subgraph and a function.

    Args:
        tensor: A function of a name that returns a TensorProto of shape [3, 4].
    """
    inner, other = branches(tensor)
    function = helper.make_function(
        "my",
        "F",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["fc"], value=tensor("in_function")),
            helper.make_node("Add", ["a", "fc"], ["b"]),
        ],
        [helper.make_opsetid("", 21)],
        attribute_protos=[helper.make_attribute("default", tensor("in_default"))],
    )
    several = helper.make_node("Several", ["x"], ["z"], name="several", domain="my")
    several.attribute.add(
        name="all", type=AttributeProto.TENSORS, tensors=[tensor("in_list"), tensor("in_list_2")]
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor("in_constant"), name="constant"),
        helper.make_node("If", ["cond"], ["s"], then_branch=inner, else_branch=other),
        helper.make_node("F", ["s"], ["f"], domain="my"),
        several,
        helper.make_node("Add", ["f", "c"], ["y"]),
    ]
    return model(
        nodes,
        [tensor("w"), numpy_helper.from_array(np.array(True), "cond")],
        [info("y", dims=(3, 4)), info("z")],
        functions=[function],
    )


NAMES = [
    *("w", "in_constant", "in_subgraph", "in_nested", "in_list", "in_list_2"),
    *("in_function", "in_default"),
]
