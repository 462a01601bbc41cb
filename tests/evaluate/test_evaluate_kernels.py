"""Every kernel against ONNX Runtime: integers exactly, floats within 1 ulp."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from vlmpass.ir_tools.evaluate import can_evaluate, evaluate
from vlmpass.ir_tools.evaluate.arithmetic import KERNELS
from vlmpass.ir_tools.evaluate.moves import MOVES
from vlmpass.ir_tools.evaluate.reference import REFERENCE

ort.set_default_logger_severity(4)
RNG = np.random.default_rng(7)
F32, F64, F16 = np.float32, np.float64, np.float16
I64, I32, U8, B = np.int64, np.int32, np.uint8, np.bool_


def floats(*shape: int) -> Callable[[type], np.ndarray]:
    def make(dtype: type) -> np.ndarray:
        scale = RNG.choice([1e-3, 0.1, 1, 3, 60], size=shape)
        return (RNG.standard_normal(shape) * scale).astype(dtype)

    return make


def positive(*shape: int) -> Callable[[type], np.ndarray]:
    return lambda dtype: np.abs(floats(*shape)(dtype)) + np.asarray(1e-3, dtype)


def ints(low: int, high: int, *shape: int) -> Callable[[type], np.ndarray]:
    return lambda dtype: RNG.integers(low, high, shape).astype(dtype)


def const(values: object, dtype: type = I64) -> Callable[[type], np.ndarray]:
    return lambda _: np.array(values, dtype)


def nonzero(*shape: int) -> Callable[[type], np.ndarray]:
    def make(dtype: type) -> np.ndarray:
        return (RNG.integers(1, 9, shape) * RNG.choice([-1, 1], shape)).astype(dtype)

    return make


X, Y = floats(4, 33), floats(33)
N, M = ints(-50, 50, 4, 6), ints(-50, 50, 6)
SMALL = floats(2, 3, 4)
FLOATS, INTS = (F32, F64, F16), (I64, I32)
Case = tuple[str, Sequence[Callable[[type], np.ndarray] | None], dict[str, object], Sequence[type]]

CASES: list[Case] = [
    *[(op, (X, Y), {}, FLOATS) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")],
    *[(op, (N, M), {}, INTS) for op in ("Add", "Sub", "Mul", "Max", "Min")],
    ("Div", (N, nonzero(6)), {}, INTS),
    ("Div", (ints(0, 255, 4, 6), ints(1, 9, 6)), {}, (U8,)),
    ("Mod", (N, nonzero(6)), {}, INTS),
    ("Mod", (N, nonzero(6)), {"fmod": 1}, INTS),
    ("Mod", (X, Y), {"fmod": 1}, (F32, F64)),
    ("Pow", (positive(4, 33), Y), {}, (F32, F64)),
    ("Pow", (X, const(2.0, F32)), {}, (F32,)),
    ("Pow", (ints(-6, 6, 4, 6), ints(0, 5, 6)), {}, INTS),
    *[(op, (X,), {}, FLOATS) for op in ("Neg", "Abs", "Floor", "Ceil", "Round", "Sign", "Relu")],
    *[(op, (N,), {}, INTS) for op in ("Neg", "Abs", "Sign")],
    ("Sqrt", (positive(4, 33),), {}, FLOATS),
    ("Reciprocal", (positive(4, 33),), {}, FLOATS),
    ("Exp", (X,), {}, FLOATS),
    ("Erf", (X,), {}, (F32, F16)),
    ("Clip", (X, const(-1.0, F32), const(1.5, F32)), {}, (F32,)),
    ("Clip", (X, None, const(1.5, F32)), {}, (F32,)),
    ("Clip", (N, const(-3), const(9)), {}, (I64,)),
    *[
        (op, (ints(-2, 2, 4, 6), ints(-2, 2, 6)), {}, (F32, I64, I32))
        for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
    ],
    *[(op, (ints(0, 2, 4, 6), ints(0, 2, 6)), {}, (B,)) for op in ("And", "Or", "Xor")],
    ("Not", (ints(0, 2, 4, 6),), {}, (B,)),
    *[
        (op, (ints(0, 99, 4, 6), ints(0, 99, 6)), {}, (I64, I32, U8))
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ],
    ("BitwiseNot", (N,), {}, (I64, I32)),
    ("BitShift", (ints(0, 99, 4, 6), ints(0, 8, 6)), {"direction": "LEFT"}, (U8, np.uint64)),
    ("BitShift", (ints(0, 99, 4, 6), ints(0, 8, 6)), {"direction": "RIGHT"}, (U8, np.uint64)),
    ("IsNaN", (X,), {}, (F32,)),
    ("Range", (const(3), const(40), const(7)), {}, (I64,)),
    ("Range", (const(40), const(3), const(-7)), {}, (I64,)),
    ("Range", (const(5), const(3), const(1)), {}, (I64,)),
    ("Range", (const(0.0, F32), const(33.5, F32), const(1.0, F32)), {}, (F32,)),
    ("CumSum", (N, const(1)), {}, INTS),
    ("CumSum", (N, const(0)), {"exclusive": 1, "reverse": 1}, INTS),
    ("ReduceSum", (N, const([1])), {"keepdims": 0}, INTS),
    ("ReduceSum", (N,), {}, INTS),
    ("ReduceSum", (N,), {"noop_with_empty_axes": 1}, INTS),
    ("ReduceProd", (ints(1, 5, 4, 6), const([0])), {}, INTS),
    *[(op, (X, const([-1])), {}, (F32, F64)) for op in ("ReduceMax", "ReduceMin")],
    *[(op, (N,), {"keepdims": 0}, INTS) for op in ("ReduceMax", "ReduceMin")],
    *[(op, (ints(-3, 3, 4, 9),), {"axis": 1}, (F32, I64)) for op in ("ArgMax", "ArgMin")],
    ("ArgMax", (ints(-3, 3, 4, 9),), {"axis": -1, "keepdims": 0, "select_last_index": 1}, (F32,)),
    ("Identity", (X,), {}, (F32,)),
    ("Reshape", (SMALL, const([0, -1])), {}, (F32, I64)),
    ("Reshape", (floats(0, 3), const([3, 0])), {"allowzero": 1}, (F32,)),
    ("Flatten", (SMALL,), {"axis": -1}, (F32,)),
    ("Squeeze", (floats(1, 3, 1), const([-1])), {}, (F32,)),
    ("Squeeze", (floats(1, 3, 1),), {}, (F32,)),
    ("Unsqueeze", (SMALL, const([0, -1])), {}, (F32,)),
    ("Transpose", (SMALL,), {"perm": [2, 0, 1]}, (F32, I64)),
    ("Transpose", (SMALL,), {}, (F16,)),
    ("Concat", (SMALL, floats(2, 1, 4)), {"axis": 1}, (F32, I64)),
    ("Slice", (SMALL, const([1]), const([2**63 - 1]), const([-1]), const([2])), {}, (F32,)),
    ("Slice", (SMALL, const([-1]), const([-(2**63)]), const([2]), const([-1])), {}, (F32,)),
    ("Slice", (SMALL, const([9]), const([-9]), const([1]), const([-2])), {}, (F32,)),
    ("Slice", (SMALL, const([-9]), const([-1]), const([1])), {}, (F32,)),
    ("Slice", (SMALL, const([1, 0]), const([2, 2])), {}, (F32,)),
    ("Gather", (SMALL, const([[0, -1], [2, 1]])), {"axis": 1}, (F32, I64)),
    ("Gather", (SMALL, const(1)), {}, (F32,)),
    ("GatherElements", (floats(3, 4), const([[0, -1, 2, 1]])), {"axis": 0}, (F32,)),
    ("Expand", (floats(3, 1), const([2, 1, 4])), {}, (F32, I64)),
    ("Tile", (SMALL, const([1, 2, 3])), {}, (F32,)),
    ("Pad", (SMALL, const([0, 1, 0, 2, 0, 1])), {}, (F32, I64)),
    ("Pad", (SMALL, const([1, 2]), const(7.0, F32), const([-1])), {}, (F32,)),
    ("Where", (const([True, False, True, False], B), SMALL, floats(4)), {}, (F32,)),
    ("Shape", (SMALL,), {"start": -2}, (F32,)),
    ("Size", (SMALL,), {}, (F32,)),
    ("NonZero", (ints(0, 2, 4, 5),), {}, (F32, I64)),
    ("Trilu", (floats(4, 5), const(1)), {}, (F32, I64)),
    ("Trilu", (floats(4, 5),), {"upper": 0}, (F32,)),
    ("ConstantOfShape", (const([2, 0, 3]),), {}, (F32,)),
    ("Cast", (X,), {"to": 10}, (F32, F64)),
    ("Cast", (X,), {"to": 7}, (F32, F16)),
    ("Cast", (N,), {"to": 1}, INTS),
    ("Cast", (ints(-500, 500, 9),), {"to": 3}, INTS),
    ("Cast", (ints(-1, 2, 9),), {"to": 9}, (I64, F32)),
    ("Cast", (ints(0, 2, 9),), {"to": 1}, (B,)),
    ("OneHot", (const([0, 2, -1]), const(4), const([5, 7])), {"axis": 0}, (I64,)),
    ("GatherND", (SMALL, const([[0, 1], [1, 2]])), {}, (F32,)),
    ("ScatterND", (floats(4, 3), const([[1], [3]]), floats(2, 3)), {}, (F32,)),
    ("ScatterElements", (floats(3, 3), const([[1, 0, 2]]), floats(1, 3)), {}, (F32,)),
    ("DepthToSpace", (floats(1, 8, 2, 3),), {"blocksize": 2}, (F32,)),
    ("DepthToSpace", (floats(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}, (F32,)),
    ("SpaceToDepth", (floats(1, 2, 4, 6),), {"blocksize": 2}, (F32,)),
    ("EyeLike", (floats(3, 4),), {"k": 1}, (F32,)),
    ("Compress", (floats(3, 4), const([True, False, True], B)), {"axis": 0}, (F32,)),
]
PARAMS = [
    pytest.param(op, inputs, attributes, dtype, id=f"{op}-{index}-{np.dtype(dtype)}")
    for index, (op, inputs, attributes, dtypes) in enumerate(CASES)
    for dtype in dtypes
]


def model_of(
    op: str, arrays: Sequence[np.ndarray | None], attributes: dict[str, object], outputs: int = 1
) -> onnx.ModelProto:
    names = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, arrays, strict=True)
        if array is not None
    ]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, outs, **attributes)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=y) for y in outs])
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def evaluated(model: onnx.ModelProto, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    graph = ir.from_proto(model).graph
    (node,) = graph
    assert can_evaluate(node)
    found = evaluate(node, list(arrays), {"": 18})
    assert found is not None
    return found


def ulps(a: np.ndarray, b: np.ndarray) -> int:
    assert (np.isfinite(a) == np.isfinite(b)).all()
    a, b = (np.where(np.isfinite(x), x, 0) for x in (a, b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0
    wide = np.abs(a.astype(np.longdouble) - b.astype(np.longdouble))
    step = np.maximum(np.spacing(np.abs(a)), np.spacing(np.abs(b))).astype(np.longdouble)
    return int(np.ceil((wide / step)[~same].max()))


@pytest.mark.parametrize(("op", "makers", "attributes", "dtype"), PARAMS)
def test_kernel_equals_the_runtime(op, makers, attributes, dtype) -> None:
    arrays = [None if make is None else make(dtype) for make in makers]
    model = model_of(op, arrays, attributes)
    session = ort.InferenceSession(model.SerializeToString())
    feeds = {f"x{i}": array for i, array in enumerate(arrays) if array is not None}
    (expected,) = session.run(None, feeds)
    (found,) = evaluated(model, arrays)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if found.dtype.kind == "f":
        assert ulps(found, expected) <= 1
    else:
        np.testing.assert_array_equal(found, expected)


def test_split_equals_the_runtime() -> None:
    data = floats(2, 7)(F32)
    model = model_of("Split", [data], {"axis": 1, "num_outputs": 3}, outputs=3)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x0": data})
    for found, wanted in zip(evaluated(model, [data]), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_every_kernel_is_compared() -> None:
    assert {op for op, *_ in CASES} | {"Split"} == {*KERNELS, *MOVES, *REFERENCE}


@pytest.mark.parametrize(
    ("op", "arrays", "attributes"),
    [
        ("Div", [np.array([1, 2]), np.array([0, 1])], {}),
        ("Mod", [np.array([1, 2]), np.array([0, 1])], {}),
        ("Max", [np.array([np.nan, 1], F32), np.array([0, 1], F32)], {}),
        ("Cast", [np.array([np.nan], F32)], {"to": 7}),
        ("Cast", [np.array([1e30], F32)], {"to": 6}),
        ("Gather", [np.arange(3), np.array([5])], {}),
        ("Reshape", [np.arange(6), np.array([4, 2])], {}),
        ("Sum", [np.ones(3, F32)] * 3, {}),
        ("CumSum", [np.ones(3, F32), np.array(0)], {}),
        ("ReduceSum", [np.ones(3, F32)], {}),
        ("Range", [np.array(0, F32), np.array(1, F32), np.array(0.1, F32)], {}),
        ("BitShift", [np.array([1], U8), np.array([9], U8)], {"direction": "LEFT"}),
        ("ScatterND", [np.zeros(3, F32), np.array([[1]]), np.ones(1, F32)], {"reduction": "add"}),
    ],
)
def test_what_is_undefined_or_inexact_is_left_alone(op, arrays, attributes) -> None:
    (node,) = ir.from_proto(model_of(op, arrays, attributes)).graph
    assert evaluate(node, arrays, {"": 18}) is None


@pytest.mark.parametrize("op", ["Sin", "Cos", "Log", "Tanh", "Softmax", "MatMul", "RandomNormal"])
def test_inexact_operators_are_not_evaluated(op) -> None:
    assert not can_evaluate(ir.Node("", op, [], num_outputs=1))


def test_bfloat16_rounds_after_the_node() -> None:
    dtype = ir.DataType.BFLOAT16.numpy()
    a, b = np.array([1.0, 3.0], dtype), np.array([0.0078125 / 2, 7.0], dtype)
    node = ir.Node("", "Div", [ir.Value(name="a"), ir.Value(name="b")], num_outputs=1)
    found = evaluate(node, [a, b], {"": 18})
    assert found is not None
    expected = (a.astype(F32) / b.astype(F32)).astype(dtype)
    assert found[0].dtype == dtype
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize(
    ("op", "flag"),
    [
        ("Reshape", "allowzero"), ("CumSum", "exclusive"), ("CumSum", "reverse"), ("Mod", "fmod"),
        ("ReduceMax", "keepdims"), ("ReduceSum", "keepdims"), ("ArgMax", "keepdims"),
        ("ReduceSum", "noop_with_empty_axes"), ("Cast", "saturate"),
        ("ArgMin", "select_last_index"), ("Trilu", "upper"),
    ],
)  # fmt: skip
def test_flags_are_0_or_1(op: str, flag: str) -> None:
    """ONNX Runtime keeps axes where keepdims is 1, the evaluator where it is not 0."""
    x = ir.Value(name="x")
    for number in (-1, 0, 1, 2):
        node = ir.Node("", op, [x], [ir.AttrInt64(flag, number)])
        assert can_evaluate(node) == (number in (0, 1)), (op, flag, number)
