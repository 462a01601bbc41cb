"""Opsets 1 to 6, which no runtime reads any more: each change since, against numpy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset

from .opset_cases import attempts, convert, differs

A = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
TARGETS = (7, 10, 13, 21)


@dataclass(frozen=True)
class Legacy:
    """One node of an old opset and what it computes, by numpy."""

    name: str
    opset: int
    operator: str
    inputs: tuple[Any, ...]
    expected: Callable[..., Any]
    attributes: tuple[tuple[str, Any], ...] = ()
    fixed: tuple[int, ...] = ()
    lowest: int = 7

    def model(self, *, anonymous: bool = False) -> onnx.ModelProto:
        names = [f"x{i}" for i in range(len(self.inputs))]
        made = ["y", "y_h"] if self.operator == "GRU" else ["y"]
        node = helper.make_node(self.operator, names, made, "n", **dict(self.attributes))
        values = [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(x.dtype),
                [None] * x.ndim if anonymous else x.shape,
            )
            for name, x in zip(names, self.inputs, strict=True)
        ]
        kept = [
            onnx.numpy_helper.from_array(x, name)
            for i, (name, x) in enumerate(zip(names, self.inputs, strict=True))
            if i in self.fixed
        ]
        y = np.asarray(self.expected(*self.inputs))
        out = helper.make_tensor_value_info(
            "y", helper.np_dtype_to_tensor_dtype(y.dtype), [None] * y.ndim
        )
        free = [value for i, value in enumerate(values) if i not in self.fixed]
        graph = helper.make_graph([node], "g", free, [out], kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 4
        return model

    def feeds(self) -> list[Any]:
        return [x for i, x in enumerate(self.inputs) if i not in self.fixed]


def _spread(f: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a function whose second operand gets axes of size 1 at its end."""
    return lambda x, y: f(x, y.reshape(y.shape + (1,) * count))


def _elementwise() -> list[Legacy]:
    arithmetic = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    compare = {"Equal": np.equal, "Less": np.less, "Greater": np.greater}
    logic = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}
    found = []
    for operators, opset in ((arithmetic, 6), (arithmetic, 1), (compare, 1), (logic, 1)):
        for name, f in operators.items():
            x: Any = np.abs(A) + 1
            if name == "Equal":
                x = np.round(x).astype(np.int64)
            if operators is logic:
                x = x > 1.5
            for what, y, axis, count in (
                ("by a suffix", x[0, 0], None, 0),
                ("by a number", x[0, 0, 0, 0], None, 0),
                ("by one number", x[0, 0, 0, :1], 0, 3),
                ("in the middle", x[0, :, :, 0], 1, 1),
                ("at the front", x[:, 0, 0, 0], 0, 3),
                ("from the back", x[0, 0, :, 0], -2, 1),
                ("to the back", x[0, 0], -1, 0),
            )[:: 1 if name in ("Add", "Greater") else 4]:
                given = (("broadcast", 1), *((("axis", axis),) if axis is not None else ()))
                wanted = _spread(f, count)
                found.append(Legacy(f"{name}-{opset} {what}", opset, name, (x, y), wanted, given))
            found.append(Legacy(f"{name}-{opset} plainly", opset, name, (x, x[::-1]), f))
    return found


def _prelu(x: Any, s: Any) -> Any:
    return np.where(x < 0, x * s.reshape(-1, 1, 1), x)


def _norm(x: Any, p: float) -> Any:
    return (np.abs(x) ** p).sum(axis=(2, 3), keepdims=True) ** (1 / p)


def _pooled(x: Any, p: float) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(np.abs(x) ** p, (2, 2), (2, 3))
    return (windows.sum(axis=(4, 5)) ** (1 / p)).astype(x.dtype)


def _selu(x: Any) -> Any:
    return 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(x) - 1))


E = np.array([1e39, -1e39, 0.5])
N = (np.float32(3.0), np.float32(1.0))
CASES = [
    *_elementwise(),
    Legacy("Pow", 1, "Pow", (np.abs(A), A[0, :, 0, 0]), _spread(np.power, 2),
           (("broadcast", 1), ("axis", 1))),
    Legacy("Relu in place", 1, "Relu", (A,), lambda x: np.maximum(x, 0),
           (("consumed_inputs", [0]),)),
    Legacy("PRelu of channels", 6, "PRelu", (A, A[0, :, 0, 0]), _prelu),
    Legacy("PRelu in place", 1, "PRelu", (A, A[0, :, 0, 0]), _prelu,
           (("consumed_inputs", [0, 0]),)),
    Legacy("PRelu of one slope", 6, "PRelu", (A, A[0, 0, 0, :1]), _prelu),
    Legacy("Gemm", 6, "Gemm", (A[0, 0], A[0, 0].T.copy(), A[0, 0, :, 0]), lambda a, b, c: a @ b + c,
           (("broadcast", 1),)),
    Legacy("Selu", 1, "Selu", (A,), _selu),
    Legacy("Clip of double", 1, "Clip", (E,), lambda x: np.maximum(x, 0.0), (("min", 0.0),)),
    Legacy("Clip without bounds", 1, "Clip", (E,), lambda x: x),
    Legacy("Clip", 1, "Clip", (A,), lambda x: np.minimum(x, 0.5), (("max", 0.5),)),
    Legacy("Concat", 1, "Concat", (A, A), lambda *x: np.concatenate(x, axis=1)),
    Legacy("Cast", 1, "Cast", (A,), lambda x: x.astype(np.int32), (("to", "INT32"),)),
    Legacy("Cast by its old name", 1, "Cast", (A,), lambda x: x.astype(np.float64),
           (("to", "double"),)),
    Legacy("Split by an input", 1, "Split", (A, np.float32([2.0])), lambda x, s: x,
           (("axis", 0),), (1,)),
    Legacy("Split by a varying input", 1, "Split", (A, np.float32([2.0])), lambda x, s: x,
           lowest=11),
    Legacy("Tile", 1, "Tile", (A, *N), lambda x, n, a: np.tile(x, (1, 3, 1, 1)), (), (1, 2)),
    Legacy("Tile by what varies", 1, "Tile", (A, *N), lambda x, n, a: np.tile(x, (1, 3, 1, 1)),
           lowest=9),
    Legacy("LpPool", 1, "LpPool", (A,), lambda x: _pooled(x, 2), (("kernel_shape", [2, 2]),)),
    Legacy("LpPool of a broken power", 1, "LpPool", (A,), lambda x: _pooled(x, 2.5),
           (("kernel_shape", [2, 2]), ("p", 2.5))),
    Legacy("GlobalLpPool", 1, "GlobalLpPool", (A,), lambda x: _norm(x, 3), (("p", 3.0),)),
    Legacy("GlobalLpPool of a broken power", 1, "GlobalLpPool", (A,), lambda x: _norm(x, 1.5),
           (("p", 1.5),)),
    Legacy("Pad", 1, "Pad", (A[0, 0],), lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=2),
           (("paddings", [1, 0, 0, 2]), ("value", 2.0))),
    Legacy("Reshape", 1, "Reshape", (A,), lambda x: x.reshape(2, -1, 5), (("shape", [0, -1, 5]),)),
    Legacy("Upsample", 1, "Upsample", (A,), lambda x: x.repeat(2, 2).repeat(3, 3),
           (("height_scale", 2.0), ("width_scale", 3.0))),
    Legacy("Dropout", 1, "Dropout", (A,), lambda x: x, (("is_test", 1), ("ratio", 0.3))),
    Legacy("Dropout of nothing", 6, "Dropout", (A,), lambda x: x, (("ratio", 0.0),)),
    Legacy("Max", 1, "Max", (A, -A), np.maximum, (("consumed_inputs", [0, 0]),)),
    Legacy("GRU", 1, "GRU", (A[0], A[:1, 0, 0, :5].reshape(1, 1, 5).repeat(3, 1),
                             A[:1, 0, 0, :1].reshape(1, 1, 1).repeat(3, 1)),
           lambda x, w, r: _gru(x, w[0], r[0]), (("hidden_size", 1), ("output_sequence", 1))),
]  # fmt: skip


def _gru(x: Any, w: Any, r: Any) -> Any:
    h, found = np.zeros((x.shape[1], 1), np.float32), []
    for step in x:
        z, reset = (1 / (1 + np.exp(-(step @ w[i : i + 1].T + h @ r[i : i + 1].T))) for i in (0, 1))
        new = np.tanh(step @ w[2:3].T + (reset * h) @ r[2:3].T)
        h = (1 - z) * new + z * h
        found.append(h)
    return np.stack(found)[:, None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_computes_the_same_at_every_opset_that_runs(case):
    onnx.checker.check_model(case.model(), full_check=True)
    wanted = np.asarray(case.expected(*case.inputs))
    for target in (each for each in TARGETS if each >= case.lowest):
        converted = convert(case.model(anonymous=target % 2 == 1), target)
        onnx.checker.check_model(converted, full_check=True)
        found = [each for each in attempts(converted, case.feeds()) if isinstance(each, list)]
        assert found, target
        assert differs(wanted, found[0][0], 1e-5, 1e-6, values=True) == "", target


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("y = Dropout(x)", "at random"),
        ("y = Add(x, w)", "different shapes"),
        ("y = Add <broadcast = 1, axis = 3> (x, w)", "no room"),
        ('y = Cast <to = "NOTHING"> (x)', "no element type"),
        ("y = Cast <to = 1> (x)", "is of type STRING, not INT"),
        ("y = Reshape (x)", "no shape"),
        ("y = LpPool (x)", "no kernel_shape"),
    ],
)
def test_what_has_no_meaning_is_refused(node, reason):
    opset = 6 if "Dropout" in node else 1
    model = ir.from_onnx_text(
        f"""<ir_version: 4, opset_import: ["" : {opset}]>
        g (float[2,3,4,4] x, float[3,4] w) => (float[a,b,c,d] y) {{ {node} }}"""
    )
    with pytest.raises(Refused) as refused:
        ConvertOpset(to=13).run(model)
    assert reason in refused.value.refusals[0].reason


@pytest.mark.parametrize("to", ["lowest", "auto"])
def test_the_lowest_opset_may_be_below_7(to):
    model = ir.from_proto(CASES[0].model())
    ConvertOpset(to=to).run(model)
    assert model.opset_imports[""] == (6 if to == "lowest" else 21)
