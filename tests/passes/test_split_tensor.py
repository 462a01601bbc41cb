"""Weights above the limit become parts in the graph: every result the same bits."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.walk import all_nodes, tensor_slots
from vlmpass.ir_tools.weights import as_weight
from vlmpass.passes import OptionError, parse
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


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("shape", [(17,), (1, 17), (17, 1, 1), ()])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_gather_of_rows(parts, shape, kind):
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"], name="embed")],
        {"i": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)},
        {"y": FLOAT},
        {"w": matrix(V, D)},
    )
    limit = -(-BYTES // parts) + D * 4
    limit += limit // 7
    for indices in [ALL_INDICES] if shape else ALL_INDICES:
        feeds = {"i": np.asarray(indices, kind).reshape(shape)}
        model, ops = split(proto, feeds, limit)
        assert ops["Gather"] == len(model.graph.initializers) - _small(model) >= 2
        assert ops["Concat"] == 0
        assert [value.name for value in model.graph.outputs] == ["y"]


def _small(model: ir.Model) -> int:
    return sum(value.const_value.size < D for value in model.graph.initializers.values())


@pytest.mark.parametrize("index", [V, V + 40, -V - 1, -V - 40])
def test_an_index_out_of_range_still_fails(index):
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": (INT64, (1,))}, {"y": FLOAT},
        {"w": matrix(V, D)},
    )  # fmt: skip
    model = inferred(proto)
    SplitTensor(limit=BYTES // 2).run(model)
    for each in (proto, ir.to_proto(model)):
        with pytest.raises(Exception, match="indices element out of data bounds"):
            run(each, {"i": np.array([index])})


@pytest.mark.parametrize("axis", [1, -1, -2])
@pytest.mark.parametrize("rank", [2, 3])
def test_gather_along_any_axis(axis, rank):
    shape = (5, 40, 36)[3 - rank :]
    extent = shape[axis]
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"], axis=axis)],
        {"i": (INT64, ("a", "b"))},
        {"y": FLOAT},
        {"w": matrix(*shape)},
    )
    indices = RNG.integers(-extent, extent, (4, 9))
    _, ops = split(proto, {"i": indices}, matrix(*shape).nbytes // 2)
    assert ops["Gather"] == 3
    assert ops["Concat"] == 0


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 18, 21])
def test_gather_at_every_opset(opset):
    for inputs in ((INT64, (3, 5)), (INT64, ("n", "m"))):
        proto = model_of(
            [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": inputs}, {"y": FLOAT},
            {"w": matrix(V, D)}, opset=opset,
        )  # fmt: skip
        _, ops = split(proto, {"i": RNG.integers(0, V, (3, 5))}, BYTES // 2)
        assert (ops["Concat"] == 0) == (opset >= 9)


@pytest.mark.parametrize(
    "dtype",
    ["FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL", "UINT32", "INT16", "UINT16"],
)
def test_gather_of_every_type_the_runtime_has(dtype):
    kind = getattr(TensorProto, dtype)
    array = RNG.integers(0, 100, (V, D)).astype(helper.tensor_dtype_to_np_dtype(kind))
    proto = model_of(
        [helper.make_node("Gather", ["w", "i"], ["y"])], {"i": (INT64, ("n",))}, {"y": kind},
        {"w": array},
    )  # fmt: skip
    _, ops = split(proto, {"i": ALL_INDICES}, array.nbytes // 2)
    assert (ops["Concat"] == 1) == (dtype == "UINT32")


def test_gather_of_bfloat16_needs_no_kernel_that_was_not_needed_before():
    array = matrix(V, D, dtype=ml_dtypes.bfloat16)
    tensor = numpy_helper.from_array(array, "w")
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=FLOAT),
    ]
    proto = model_of(nodes, {"i": (INT64, ("n",))}, {"y": FLOAT}, {"w": tensor})
    _, ops = split(proto, {"i": ALL_INDICES}, array.nbytes // 2)
    assert ops["Gather"] == 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    k=st.integers(1, 300), n=st.integers(2, 300), m=st.integers(1, 20), parts=st.integers(2, 4),
    data=st.data(),
)  # fmt: skip
def test_matmul_by_columns(k, n, m, parts, data):
    dtype = data.draw(st.sampled_from([np.float32, np.float16, np.int32]))
    w, x = (10 * matrix(k, n)).astype(dtype), (10 * matrix(m, k)).astype(dtype)
    limit = max(w.nbytes // parts, w.nbytes // n + 1) * 8 // 7 + 8
    if limit >= w.nbytes:
        return
    kind = helper.np_dtype_to_tensor_dtype(w.dtype)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")
    _, ops = split(
        model_of([node], {"x": (kind, ("m", k))}, {"y": kind}, {"w": w}), {"x": x}, limit
    )
    assert ops["MatMul"] >= 2
    assert ops["Concat"] == 1


@pytest.mark.parametrize(
    ("left", "shape", "dtype"),
    [(True, (40, 30), np.float32), (False, (2, 30, 40), np.float32), (False, (30, 40), np.float64)],
)
def test_products_whose_sums_depend_on_their_size_get_the_weight_whole(left, shape, dtype):
    w, x = matrix(*shape, dtype=dtype), matrix(30, 30, dtype=dtype)
    node = helper.make_node("MatMul", ["w", "x"] if left else ["x", "w"], ["y"])
    kind = helper.np_dtype_to_tensor_dtype(w.dtype)
    proto = model_of([node], {"x": (kind, (30, 30))}, {"y": kind}, {"w": w})
    _, ops = split(proto, {"x": x}, w.nbytes // 2)
    assert ops == {"Concat": 1, "MatMul": 1}


def test_matmul_of_realistic_odd_sizes():
    x, w = matrix(3, 257), matrix(257, 1001)
    proto = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, ("n", 257))}, {"y": FLOAT},
        {"w": w},
    )  # fmt: skip
    for limit in (w.nbytes - 1, w.nbytes // 2, w.nbytes // 5):
        split(proto, {"x": x}, limit)


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_matmul_with_a_vector(opset):
    w = matrix(30, 50)
    proto = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, (30,))}, {"y": FLOAT},
        {"w": w}, opset=opset,
    )  # fmt: skip
    _, ops = split(proto, {"x": matrix(30)}, w.nbytes // 2)
    assert ops["MatMul"] == 3


def test_matmul_by_a_large_vector_gets_it_whole():
    w = matrix(4000)
    proto = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, (2, 4000))}, {"y": FLOAT},
        {"w": w},
    )  # fmt: skip
    _, ops = split(proto, {"x": matrix(2, 4000)}, 5000)
    assert ops == {"Concat": 1, "MatMul": 1}


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (50,), (1, 50), (3, 50), (3, 1), (1,), (), "input"])
def test_gemm_by_columns(transposed, bias):
    x, w = matrix(3, 20), matrix(50, 20) if transposed else matrix(20, 50)
    initializers, inputs, names = {"w": w}, {"x": (FLOAT, ("m", 20))}, ["x", "w"]
    feeds = {"x": x}
    if bias is not None:
        names.append("c")
        c = matrix(*((3, 50) if bias == "input" else bias))
        if bias == "input":
            inputs["c"], feeds["c"] = (FLOAT, (3, 50)), c
        else:
            initializers["c"] = c
    node = helper.make_node("Gemm", names, ["y"], transB=transposed, alpha=0.3, beta=1.7)
    proto = model_of([node], inputs, {"y": FLOAT}, initializers)
    model, ops = split(proto, feeds, w.nbytes // 2)
    assert ops["Gemm"] == 3
    assert ops["Concat"] == 1
    assert ops["Slice"] == (3 if bias == "input" else 0)
    assert ("c" in model.graph.initializers) == (bias not in (None, "input") and bias[-1:] != (50,))


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_the_weight_on_the_left_gets_it_whole(transposed):
    w, x = matrix(20, 50) if transposed else matrix(50, 20), matrix(20, 4)
    node = helper.make_node("Gemm", ["w", "x"], ["y"], transA=transposed)
    proto = model_of([node], {"x": (FLOAT, (20, 4))}, {"y": FLOAT}, {"w": w})
    _, ops = split(proto, {"x": x}, w.nbytes // 2)
    assert ops == {"Concat": 1, "Gemm": 1}


def test_gemm_whose_bias_may_be_anything_gets_the_weight_whole():
    w = matrix(20, 50)
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"])
    proto = model_of(
        [node], {"x": (FLOAT, (3, 20)), "c": (FLOAT, ("p", "q"))}, {"y": FLOAT}, {"w": w}
    )
    for c in (matrix(3, 50), matrix(1, 1)):
        _, ops = split(proto, {"x": matrix(3, 20), "c": c}, w.nbytes // 2)
        assert ops == {"Concat": 1, "Gemm": 1}


def test_gemm_with_a_large_bias_gets_it_whole():
    proto = model_of(
        [helper.make_node("Gemm", ["x", "b", "w"], ["y"])], {"x": (FLOAT, (60, 2))}, {"y": FLOAT},
        {"w": matrix(60, 50), "b": matrix(2, 50)},
    )  # fmt: skip
    _, ops = split(proto, {"x": matrix(60, 2)}, 4000)
    assert ops == {"Concat": 1, "Gemm": 1}


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


QUANTISED = {
    "per tensor": ((), None, {}),
    "per row": ((V,), (V,), {"axis": 0}),
    "per column": ((D,), (D,), {"axis": 1}),
    "blocks of rows": ((8, D), (8, D), {"axis": 0, "block_size": 13}),
    "blocks of columns": ((V, 2), (V, 2), {"axis": 1, "block_size": 12}),
}


@pytest.mark.parametrize("dtype", ["UINT8", "INT4", "UINT4"])
@pytest.mark.parametrize("case", QUANTISED)
def test_quantised_tables(case, dtype):
    rows = 104 if case == "blocks of rows" else V
    shape, zero_shape, attributes = QUANTISED[case]
    low, high = (-8, 8) if dtype == "INT4" else (0, 16)
    kind = getattr(TensorProto, dtype)

    def quantised(name: str, *dims: int) -> TensorProto:
        return helper.make_tensor(name, kind, dims, RNG.integers(low, high, dims).reshape(-1))

    initializers = {"w": quantised("w", rows, D), "s": np.abs(matrix(*shape)) + 0.1}
    names = ["w", "s"]
    if zero_shape is not None:
        initializers["z"] = quantised("z", *zero_shape)
        names.append("z")
    nodes = [
        helper.make_node("DequantizeLinear", names, ["d"], **attributes),
        helper.make_node("Gather", ["d", "i"], ["y"]),
    ]
    proto = model_of(nodes, {"i": (INT64, ("n",))}, {"y": FLOAT}, initializers, opset=21)
    nbytes = rows * D // (1 if dtype == "UINT8" else 2)
    limit = max(nbytes * 3 // 4, 4 * int(np.prod(shape)))
    model, ops = split(proto, {"i": ALL_INDICES}, limit)
    assert len(model.graph.initializers) < 30
    assert ops["DequantizeLinear"] == ops["Gather"] >= 2
    assert ops["Concat"] == 0


def test_packed_elements_are_cut_at_whole_bytes():
    odd = helper.make_tensor("w", TensorProto.INT4, (51, 7), RNG.integers(-8, 8, 357))
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=FLOAT),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    proto = model_of(nodes, {"x": (FLOAT, (1,))}, {"y": FLOAT}, {"w": odd}, opset=21)
    model, ops = split(proto, {"x": matrix(1)}, 70)
    assert (ops["Cast"], ops["Concat"], ops["Relu"]) == (4, 1, 1)
    shapes = [tuple(v.shape.numpy()) for v in model.graph.initializers.values()]
    assert all(shape[0] % 2 == 0 for shape in shapes[:-1])


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
