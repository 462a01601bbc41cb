"""Products by parts of a matrix: the same sums in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from split_models import (
    FLOAT,
    matrix,
    model_of,
    split,
)


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
