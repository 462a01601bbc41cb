"""Tables looked up in parts: rows of every type, quantised ones included."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from split_models import (
    ALL_INDICES,
    BYTES,
    FLOAT,
    INT64,
    RNG,
    D,
    V,
    inferred,
    matrix,
    model_of,
    run,
    split,
)

from vlmpass.passes.split_tensor import SplitTensor


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
