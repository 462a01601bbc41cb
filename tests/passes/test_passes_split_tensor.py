"""Weights above the limit become parts in the graph: every result the same bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from split_models import (
    ALL_INDICES,
    BYTES,
    FLOAT,
    INT64,
    D,
    V,
    matrix,
    model_of,
    run,
    split,
)

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import as_weight
from vlmpass.passes import OptionError, parse
from vlmpass.passes.split_tensor import SplitTensor


@pytest.mark.parametrize("head", ["Transpose", "Gemm", "Transpose-Cast"])
def test_tied_embedding_and_head_share_their_parts(head):
    """The lookup wants rows; the head, multiplying by the transpose, wants the same cut."""
    w = matrix(V, D, dtype=np.float16 if head == "Transpose-Cast" else np.float32)
    nodes = [helper.make_node("Gather", ["w", "i"], ["e"], name="embed")]
    if head == "Gemm":
        nodes.append(helper.make_node("Gemm", ["e", "w"], ["y"], name="head", transB=1))
    elif head == "Transpose":
        nodes += [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["e", "t"], ["y"], name="head"),
        ]
    else:
        nodes += [
            helper.make_node("Cast", ["e"], ["f"], to=FLOAT),
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("Cast", ["t"], ["c"], to=FLOAT),
            helper.make_node("MatMul", ["f", "c"], ["y"], name="head"),
        ]
    proto = model_of(nodes, {"i": (INT64, ("n",))}, {"y": FLOAT}, {"w": w})
    model, ops = split(proto, {"i": ALL_INDICES}, w.nbytes // 2)
    large = [v for v in model.graph.initializers.values() if v.const_value.nbytes > 1000]
    assert len(large) == 3
    assert sum(v.const_value.nbytes for v in large) == w.nbytes
    assert ops["Concat"] == 1  # of the head's results
    assert all(len(v.consumers()) == 2 for v in large)


def test_the_cut_that_most_users_want_wins_and_the_others_get_the_weight_whole():
    w = matrix(60, 48)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Gather", ["w", "i"], ["c"]),
        helper.make_node("Relu", ["w"], ["d"]),
    ]
    proto = model_of(
        nodes, {"x": (FLOAT, (2, 60)), "i": (INT64, (3,))},
        {"a": FLOAT, "b": FLOAT, "c": FLOAT, "d": FLOAT}, {"w": w},
    )  # fmt: skip
    model, ops = split(proto, {"x": matrix(2, 60), "i": np.array([0, -1, 59])}, w.nbytes // 2)
    assert (ops["MatMul"], ops["Gather"], ops["Relu"], ops["Concat"]) == (6, 1, 1, 3)
    whole = next(node for node in model.graph if node.op_type == "Gather").inputs[0]
    assert whole.producer().op_type == "Concat"


def test_what_has_no_form_in_parts_gets_the_weight_whole():
    w = matrix(8, 4, 3, 3)
    proto = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])], {"x": (FLOAT, (1, 4, 6, 6))}, {"y": FLOAT},
        {"w": w},
    )  # fmt: skip
    model, ops = split(proto, {"x": matrix(1, 4, 6, 6)}, w.nbytes // 3)
    assert ops == {"Concat": 1, "Conv": 1}
    assert "w" not in model.graph.initializers
    assert next(node for node in model.graph if node.op_type == "Concat").outputs[0].name == "w"


@pytest.mark.parametrize("as_constant", [True, False])
def test_a_weight_that_is_an_output_too(as_constant):
    w = matrix(V, D)
    nodes = [helper.make_node("Gather", ["w", "i"], ["y"])]
    if as_constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)))
    proto = model_of(
        nodes, {"i": (INT64, (2,))}, {"y": FLOAT, "w": FLOAT}, {} if as_constant else {"w": w}
    )
    _, ops = split(proto, {"i": np.array([3, -3])}, BYTES // 2)
    assert ops["Concat"] == 1
    assert ops["Constant"] == 0


def test_a_weight_that_nobody_uses_stays_available():
    proto = model_of(
        [helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOAT, (2,))}, {"y": FLOAT},
        {"w": matrix(V, D)},
    )  # fmt: skip
    model, ops = split(proto, {"x": matrix(2)}, BYTES // 2)
    assert ops == {"Concat": 1, "Neg": 1}
    assert {value.name for node in model.graph for value in node.outputs} >= {"w"}


def body(nodes, initializers=(), name="b") -> onnx.GraphProto:
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info("o", FLOAT, None)],
        initializer=[numpy_helper.from_array(array, key) for key, array in initializers],
    )  # fmt: skip


@pytest.mark.parametrize("place", ["outer", "inner", "constant"])
def test_in_a_branch(place):
    w = matrix(V, D)
    lookup = helper.make_node("Gather", ["w", "i"], ["o"])
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w))
    then = body(
        [constant, lookup] if place == "constant" else [lookup],
        [("w", w)] if place == "inner" else [],
    )
    other = body([helper.make_node("Gather", ["small", "i"], ["o"])], name="e")
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    initializers = {"small": matrix(V, D)[:, :1].repeat(D, 1)[:V]}
    initializers["small"] = initializers["small"][:, :1] * np.ones((1, 1), np.float32)
    if place == "outer":
        initializers["w"] = w
    proto = model_of(
        nodes, {"c": (TensorProto.BOOL, ()), "i": (INT64, (4,))}, {"y": FLOAT}, initializers
    )
    feeds = {"c": np.array(True), "i": np.array([0, -1, 50, -60])}
    _, ops = split(proto, feeds, BYTES // 2)
    assert ops["Gather"] == 4
    assert ops["Concat"] == 0


@pytest.mark.parametrize("uses", ["Gather", "MatMul", "Gemm"])
def test_in_a_function_where_nothing_has_a_type(uses):
    w = matrix(V, D) if uses == "Gather" else matrix(D, V)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w), name="k")
    use = {
        "Gather": helper.make_node("Gather", ["w", "a"], ["b"]),
        "MatMul": helper.make_node("MatMul", ["a", "w"], ["b"]),
        "Gemm": helper.make_node("Gemm", ["a", "w"], ["b"]),
    }[uses]
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [constant, use], [helper.make_opsetid("", 17)]
    )
    kind, shape = (INT64, (5,)) if uses == "Gather" else (FLOAT, (5, D))
    proto = model_of(
        [helper.make_node("F", ["x"], ["h"], domain="local"),
         helper.make_node("F", ["x"], ["g"], domain="local"),
         helper.make_node("Add", ["h", "g"], ["y"])],
        {"x": (kind, shape)}, {"y": FLOAT}, {}, functions=[function],
    )  # fmt: skip
    feed = np.array([0, -1, 50, -60, V - 1]) if uses == "Gather" else matrix(5, D)
    model, ops = split(proto, {"x": feed}, BYTES // 2)
    assert ops[uses] == 3
    (inside,) = model.functions.values()
    names = [node.name for node in inside]
    assert len(set(names)) == len(names)


def test_a_call_of_a_function_gets_the_weight_whole():
    w = matrix(V, D)
    function = helper.make_function(
        "local", "F", ["a", "i"], ["b"], [helper.make_node("Gather", ["a", "i"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = model_of(
        [helper.make_node("F", ["w", "i"], ["y"], domain="local")], {"i": (INT64, (2,))},
        {"y": FLOAT}, {"w": w}, functions=[function],
    )  # fmt: skip
    _, ops = split(proto, {"i": np.array([1, -1])}, BYTES // 2)
    assert ops == {"Concat": 1, "F": 1, "Gather": 1}


def test_one_axis_too_short_to_cut_leaves_the_other():
    w = matrix(1, 3000)
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": (INT64, (2,))}, {"y": FLOAT},
        {"w": w},
    )  # fmt: skip
    _, ops = split(proto, {"i": np.array([0, -1])}, 5000)
    assert ops == {"Concat": 1, "Gather": 1}


class TestRefusals:
    """All of them listed, and none of them half done."""

    def refused(self, proto: onnx.ModelProto, limit: int, match: str) -> None:
        model = load(proto)
        with pytest.raises(Refused, match=match):
            SplitTensor(limit=limit).run(model)

    def test_an_input_with_a_default(self):
        w = matrix(V, D)
        proto = model_of(
            [helper.make_node("Gather", ["w", "i"], ["y"])],
            {"i": (INT64, (2,)), "w": (FLOAT, (V, D))}, {"y": FLOAT}, {"w": w},
        )  # fmt: skip
        self.refused(proto, BYTES // 2, "initializer w: 9888 bytes that are an input of the graph")

    def test_an_attribute_that_is_no_constant(self):
        node = helper.make_node(
            "Odd", ["i"], ["y"], domain="local", name="odd",
            table=numpy_helper.from_array(matrix(V, D)),
        )  # fmt: skip
        proto = model_of([node], {"i": (INT64, (2,))}, {"y": FLOAT}, {})
        self.refused(proto, BYTES // 2, "attribute table of node odd.*cannot be split")

    def test_a_slice_above_the_limit(self):
        proto = model_of(
            [helper.make_node("Relu", ["w"], ["y"])], {}, {"y": FLOAT}, {"w": matrix(3, 3, 3)}
        )
        self.refused(proto, 30, r"of shape \[3, 3, 3\] cannot be cut into parts of 30 bytes")

    def test_a_type_that_concat_does_not_take(self):
        w = helper.make_tensor("w", TensorProto.INT4, (64, 64), np.zeros(4096, int))
        node = helper.make_node("Odd", ["w"], ["y"], domain="local", name="odd")
        proto = model_of([node], {}, {"y": FLOAT}, {"w": w}, opset=21)
        self.refused(proto, 1024, "Concat does not take INT4, and odd cannot use it in parts")


def test_parts_stay_ranges_of_the_source_file_and_files_stay_small(tmp_path):
    w = matrix(V, D)
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": (INT64, ("n",))}, {"y": FLOAT},
        {"w": w},
    )  # fmt: skip
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    save(load(proto), tmp_path / "in" / "m.onnx")
    model = load(tmp_path / "in" / "m.onnx")
    SplitTensor(limit=8192).run(model)
    parts = [as_weight(value.const_value) for value in model.graph.initializers.values()]
    assert sum(part.file_range() is not None for part in parts) == 2
    report = save(model, tmp_path / "out" / "m.onnx", shard_size=8192)
    assert len(report.files) == 3
    assert all(file.nbytes <= 8192 for file in report.files)
    assert [file.how for file in report.files] == ["written", "copied", "copied"]
    feeds = {"i": ALL_INDICES}
    session = ort.InferenceSession(tmp_path / "out" / "m.onnx")
    assert session.run(None, feeds)[0].tobytes() == run(proto, feeds)[0].tobytes()


def test_new_nodes_say_why_they_are_there():
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"], name="embed")], {"i": (INT64, (2,))},
        {"y": FLOAT}, {"w": matrix(V, D)},
    )  # fmt: skip
    model, _ = split(proto, {"i": np.array([1, 2])}, 6000)
    reasons = {node.metadata_props.get("vlmpass.reason") for node in model.graph}
    assert reasons == {"w takes 9888 bytes, more than 6000 bytes: in 2 parts along axis 0"}
    assert all(node.name and node.name.startswith("embed/") for node in model.graph)


def test_what_fits_is_left_alone():
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": (INT64, (2,))}, {"y": FLOAT},
        {"w": matrix(V, D)},
    )  # fmt: skip
    model = load(proto)
    before = ir.to_proto(model)
    assert not SplitTensor(limit=BYTES).run(model)
    assert not SplitTensor().run(model)
    assert ir.to_proto(model) == before


def test_its_text():
    assert str(SplitTensor()) == "split-tensor"
    (parsed,) = parse("split-tensor{limit=500MB}")
    assert parsed == SplitTensor(limit="500MB")
    assert parse(str(SplitTensor(limit=4096))) == (SplitTensor(limit=4096),)
    with pytest.raises(OptionError, match="'2G' is not a size"):
        SplitTensor(limit="2G")
