"""What onnx_ir would drop, invent or choke on is refused by name."""

import copy
import math
import random
import re

import numpy as np
import onnx
import pytest
from load_models import ARRAY, info, model
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.tensors import TensorVet, is_plain


def relu(source="x", output="y", name="r"):
    return helper.make_node("Relu", [source], [output], name=name)


def sparse():
    values = numpy_helper.from_array(np.ones(1, np.float32), "sp")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    return helper.make_sparse_tensor(values, indices, [4])


def with_attribute(**fields):
    proto = model([relu()], [])
    proto.graph.node[0].attribute.add(name="a", **fields)
    return proto


def with_tensor(**fields):
    return model(initializers=[TensorProto(name="w", **fields)])


def branch(nodes, output, dims=("n", 4)):
    return helper.make_graph(nodes, "branch", [], [info(output, dims=dims)])


def with_branches(then, other):
    node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)
    return model([node], [numpy_helper.from_array(np.array(True), "c")])


def function(**fields):
    made = helper.make_function(
        "my", "F", ["a"], ["b"], [relu("a", "b")], [helper.make_opsetid("", 21)]
    )
    for field, value in fields.items():
        made.ClearField(field)
        getattr(made, field).extend(value)
    return made


def edited(edit):
    proto = model()
    edit(proto)
    return proto


def twice_f():
    proto = model(functions=[function()])
    proto.functions.append(proto.functions[0])
    return proto


MAP = onnx.ValueInfoProto(name="m")
MAP.type.map_type.key_type = TensorProto.INT64
OPAQUE = onnx.ValueInfoProto(name="m")
OPAQUE.type.opaque_type.name = "thing"
HOLLOW = onnx.ValueInfoProto(name="m")
HOLLOW.type.sequence_type.SetInParent()

CASES = {
    "sparse initializer": (
        edited(lambda m: m.graph.sparse_initializer.append(sparse())),
        "the graph has a sparse initializer, sp, .* store it as a dense one",
    ),
    "sparse attribute": (
        with_attribute(type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse()),
        r"attribute a of node r \(Relu\) is sparse",
    ),
    "sparse attributes": (
        with_attribute(type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse()]),
        r"attribute a of node r \(Relu\) is sparse",
    ),
    "training": (edited(lambda m: m.training_info.add()), "training_info, which cannot be kept"),
    "no graph": (edited(lambda m: m.ClearField("graph")), "has no graph"),
    "no ir version": (edited(lambda m: m.ClearField("ir_version")), "has no ir_version"),
    "no opset": (edited(lambda m: m.ClearField("opset_import")), "the model imports no opset"),
    "two opsets": (
        edited(lambda m: m.opset_import.add(domain="ai.onnx", version=13)),
        "imports opset 21 and 13 of domain ai.onnx",
    ),
    "function without opset": (model(functions=[function(opset_import=[])]), "my::F imports no"),
    "function twice": (twice_f(), "function my::F is defined twice"),
    "function input twice": (
        model(functions=[function(input=["a", "a"])]),
        "a is twice an input of function my::F",
    ),
    "function output": (
        model(functions=[function(output=["nowhere"])]),
        "output nowhere of function my::F is made by nothing",
    ),
    "function reads": (
        model(functions=[function(node=[relu("x", "b")])]),
        r"node r \(Relu\) reads x, which nothing defines",
    ),
    "reads nothing": (model([relu("nowhere")]), r"node r \(Relu\) reads nowhere, which nothing"),
    "reads nothing, no name": (
        model([relu("nowhere", name="")]),
        r"node of y \(Relu\) reads nowhere",
    ),
    "output from nowhere": (
        model(outputs=[info("nowhere")]),
        "output nowhere of the graph is made by nothing in it; export the model again",
    ),
    "output without name": (model(outputs=[info("")]), r"output \(no name\) of the graph"),
    "branch hands an outer value on": (
        with_branches(branch([], "x"), branch([relu(output="e")], "e")),
        r"output x of attribute then_branch of node if \(If\) is made .* put an Identity there",
    ),
    "branch reads nothing": (
        with_branches(branch([relu(output="t")], "t"), branch([relu("t", "e")], "e")),
        r"node r \(Relu\) reads t",
    ),
    "defined twice": (
        model([relu(), relu()]),
        r"node r \(Relu\) defines y, which the graph has already; give every value",
    ),
    "defines an input": (model([relu(), relu("y", "x")]), "defines x, which the graph has"),
    "defines an initializer": (model([relu(), relu("y", "w")]), "defines w, which the graph has"),
    "input twice": (model(inputs=[info("x"), info("x")]), "x is twice an input of the graph"),
    "initializer twice": (
        model(initializers=[numpy_helper.from_array(ARRAY[0], "w")] * 2),
        "w is twice an initializer of the graph",
    ),
    "initializer without name": (
        model([relu()], [numpy_helper.from_array(ARRAY[0])]),
        "an initializer of the graph has no name",
    ),
    "input without name": (model(inputs=[info("x"), info("")]), "an input of the graph has no na"),
    "attribute twice": (
        edited(lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * 2)),
        r"node add \(Add\) has attribute a twice",
    ),
    "attribute without type": (with_attribute(i=3), "attribute a of .* states no type; set its"),
    "attribute not text": (
        with_attribute(type=AttributeProto.STRINGS, strings=[b"\xff"]),
        "attribute a of .* is no valid ONNX: .*ff' is not UTF-8",
    ),
    "map": (model(inputs=[info("x"), MAP]), "value m is of a map type, which cannot be kept"),
    "opaque": (
        model(inputs=[info("x"), OPAQUE]),
        "value m is of an opaque type, which cannot be kept",
    ),
    "sequence of nothing": (
        model(inputs=[info("x"), HOLLOW]),
        "the element of value m has no type",
    ),
    "type attribute": (
        with_attribute(type=AttributeProto.TYPE_PROTO, tp=MAP.type),
        "attribute a of .* is of a map type",
    ),
    "unknown type": (with_tensor(data_type=77), "initializer w has element type 77, which is unk"),
    "no type": (with_tensor(), "initializer w has no element type"),
    "segment": (
        with_tensor(data_type=1, segment=TensorProto.Segment(begin=0, end=1)),
        "initializer w is a segment",
    ),
    "negative": (with_tensor(data_type=1, dims=[-1]), r"a negative extent in its shape \[-1\]"),
    "too few bytes": (
        with_tensor(data_type=1, dims=[4], raw_data=b"123"),
        r"w is FLOAT\[4\] and needs 16 bytes, but has 3; export it again",
    ),
    "too many bytes": (with_tensor(data_type=22, dims=[3], raw_data=b"123"), "needs 2 bytes, but"),
    "no bytes": (with_tensor(data_type=1, dims=[4]), "needs 16 bytes, but has 0"),
    "too few values": (
        with_tensor(data_type=1, dims=[4], float_data=[1.0]),
        "needs 4 values, but has 1",
    ),
    "too few packed": (
        with_tensor(data_type=22, dims=[3], int32_data=[1, 2, 3]),
        "needs 2 values, but has 3",
    ),
    "complex": (
        with_tensor(data_type=14, dims=[2], float_data=[1.0, 2.0]),
        "needs 4 values, but has 2",
    ),
    "strings": (with_tensor(data_type=8, dims=[2], string_data=[b"a"]), "needs 2 strings, but has"),
    "wrong field": (
        with_tensor(data_type=10, dims=[1], float_data=[1.0]),
        "w is FLOAT16 but has its data in float_data, not in int32_data",
    ),
    "two fields": (
        with_tensor(data_type=1, dims=[1], float_data=[1.0], raw_data=b"1234"),
        "w holds data in raw_data and in float_data",
    ),
    "tensor attribute": (
        with_attribute(type=AttributeProto.TENSOR, t=TensorProto(data_type=1, dims=[4])),
        r"attribute a of node r \(Relu\) is FLOAT\[4\] and needs 16 bytes",
    ),
    "tensors attribute": (
        with_attribute(type=AttributeProto.TENSORS, tensors=[TensorProto(data_type=1, dims=[4])]),
        r"attribute a of node r \(Relu\)\[0\] is FLOAT\[4\] and needs 16 bytes",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    proto, pattern = CASES[case]
    before = copy.deepcopy(proto)
    with pytest.raises(ModelError) as caught:
        load(proto)
    text = str(caught.value)
    assert re.search(pattern, text), text
    assert "\n" not in text
    assert proto == before


def test_shadowing_and_capture_are_fine():
    then = branch([relu("x", "t"), relu("t", "u")], "u")
    other = branch([relu("w", "t")], "t")
    then.node.append(helper.make_node("Identity", ["c"], ["unused"]))
    proto = with_branches(then, other)
    proto.graph.initializer.add().CopyFrom(numpy_helper.from_array(ARRAY, "w"))
    assert [node.op_type for node in load(proto).graph] == ["If"]


def test_empty_optional_inputs_and_outputs():
    nodes = [
        helper.make_node("Clip", ["x", "", "w"], ["h"]),
        helper.make_node("Dropout", ["h"], ["y", ""]),
    ]
    loaded = load(model(nodes, [numpy_helper.from_array(np.float32(1), "w")]))
    assert next(iter(loaded.graph)).inputs[1] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_corpus_of_operator_tests_loads():
    from onnx.backend.test.case.node import collect_testcases

    refused = set()
    for case in collect_testcases(None):
        try:
            load(case.model)
        except ModelError as error:
            refused.add(str(error))
    assert all("sparse" in text or "map" in text for text in refused), refused


@pytest.mark.parametrize("seed", range(300))
def test_the_quick_look_at_tensors_takes_what_the_thorough_one_takes(seed, monkeypatch):
    draw = random.Random(seed)
    tensor = TensorProto(name="w", data_type=draw.choice(range(-1, 30)))
    shapes = ([], [2], [3, 2], [1] * 64, [1] * 65, [0], [2, 0], [-1], [2, -1])
    tensor.dims.extend(draw.choice(shapes))
    width = draw.choice((1, 2, 4, 8, 16))
    tensor.raw_data = bytes(abs(math.prod(tensor.dims)) * width)
    if draw.random() < 0.3:
        getattr(tensor, draw.choice(("int32_data", "float_data"))).append(1)
    if draw.random() < 0.2:
        tensor.data_location = draw.choice((TensorProto.DEFAULT, TensorProto.EXTERNAL))
    if draw.random() < 0.2:
        tensor.external_data.add(key="location", value="w")
    found = is_plain(tensor)
    monkeypatch.setattr("vlmpass.ir_tools.load.tensors.is_plain", lambda tensor: False)
    if found:
        TensorVet().check(tensor, "w")
