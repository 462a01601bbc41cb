"""Random graphs of shape chains, constants and branches through the passes in any order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.passes.simplifying import run, simplify
from vlmpass.passes.control.dead_branches import DeadBranches
from vlmpass.passes.cse import CommonSubexpressions
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.shape_arithmetic.shape_arithmetic import ShapeArithmetic

PASSES = (Fold(), ShapeArithmetic(), CommonSubexpressions(), DeadBranches())
SIZES = ((2, 3), (1, 1), (0, 2), (3, 0), (1, 4))


class Builder:
    """Adds nodes to a graph; values are names."""

    def __init__(self, draw: Callable[[st.SearchStrategy], object], prefix: str = "v") -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.prefix = prefix
        self.known = ["x"]

    def name(self) -> str:
        return f"{self.prefix}{len(self.nodes)}"

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def const(self, values: object, dtype: type = np.int64) -> str:
        tensor = numpy_helper.from_array(np.array(values, dtype))
        if self.draw(st.booleans()):
            return self.node("Constant", value=tensor)
        tensor.name = f"{self.prefix}_w{len(self.inits)}"
        self.inits.append(tensor)
        return tensor.name

    def integer(self, low: int = 0, high: int = 3) -> int:
        return int(self.draw(st.integers(low, high)))  # type: ignore[call-overload]

    def old(self) -> str:
        """Return any of the rank-3 values made so far."""
        return self.known[self.integer(0, len(self.known) - 1)]

    def size(self, value: str, axis: int) -> str:
        """Return one size as a vector, spelt one way or another."""
        shape = self.node("Shape", value)
        spelling = self.integer(0, 3)
        if spelling == 0:
            return self.node("Gather", shape, self.const([axis]))
        if spelling == 1:
            scalar = self.node("Gather", shape, self.const(axis))
            return self.node("Unsqueeze", scalar, self.const([0]))
        if spelling == 2:
            return self.node("Slice", shape, self.const([axis]), self.const([axis + 1]))
        return self.node("Shape", value, start=axis, end=axis + 1)

    def number(self) -> str:
        """Return a float scalar computed from constants."""
        start = self.const(float(self.integer(1, 5)), np.float32)
        for _ in range(self.integer(0, 3)):
            kind = self.integer(0, 4)
            if kind == 0:
                start = self.node("Mul", start, self.const(0.5, np.float32))
            elif kind == 1:
                whole = self.node("Cast", start, to=TensorProto.INT64)
                start = self.node("Cast", whole, to=TensorProto.FLOAT)
            elif kind == 2:
                flag = self.node("Greater", start, self.const(1.5, np.float32))
                start = self.node("Where", flag, start, self.const(3.0, np.float32))
            elif kind == 3:
                span = self.node("Range", self.const(0), self.const(4), self.const(1))
                total = self.node("ReduceSum", span, keepdims=0)
                start = self.node("Cast", total, to=TensorProto.FLOAT)
            else:
                start = self.node("Sqrt", start)
        return start

    def step(self, x: str) -> str:
        """Return a new rank-3 value made of one."""
        steps = [
            lambda: self.node("Neg", x),
            lambda: self.node("Add", x, self.number()),
            lambda: self.node("Add", x, x),
            lambda: self.node(
                "Transpose", self.node("Transpose", x, perm=[1, 0, 2]), perm=[1, 0, 2]
            ),
            lambda: self.reshape_back(x),
            lambda: self.node("Expand", x, self.node("Shape", self.old())),
            lambda: self.node("Reshape", x, self.target(x)),
            lambda: self.slice(x),
            lambda: self.node("Concat", x, x, axis=self.integer(0, 2)),
            lambda: self.node("Add", x, self.old()),
            lambda: self.ones(x),
            lambda: self.node(
                "Squeeze", self.node("Unsqueeze", x, self.const([1])), self.const([1])
            ),
        ]
        if self.prefix == "v":
            steps.append(lambda: self.branch(x))
        return steps[self.integer(0, len(steps) - 1)]()

    def target(self, x: str) -> str:
        parts = [self.size(x, 0), self.size(x, 1), self.const([-1])]
        if self.integer(0, 1):
            parts[2] = self.size(x, 2)
        return self.node("Concat", *parts, axis=0)

    def reshape_back(self, x: str) -> str:
        rows = self.node("Mul", self.size(x, 0), self.size(x, 1))
        flat = self.node("Concat", rows, self.size(x, 2), axis=0)
        return self.node("Reshape", self.node("Reshape", x, flat), self.target(x))

    def slice(self, x: str) -> str:
        end = self.size(x, 1)
        if self.integer(0, 1):
            end = self.node("Div", self.node("Add", end, self.const([1])), self.const([2]))
        start = self.const([self.integer(0, 1)])
        return self.node("Slice", x, start, end, self.const([1]))

    def ones(self, x: str) -> str:
        shape = self.node("Shape", x)
        one = numpy_helper.from_array(np.ones(1, np.float32))
        return self.node("Mul", x, self.node("ConstantOfShape", shape, value=one))

    def branch(self, x: str) -> str:
        kind = self.integer(0, 2)
        if kind == 0:
            flag = self.const(bool(self.integer(0, 1)), np.bool_)
        elif kind == 1:
            last = self.node("Gather", self.node("Shape", x), self.const(2))
            flag = self.node("Equal", last, self.const(4))
        else:
            flag = "flag"
        graphs = []
        for side in "ab":
            inner = Builder(self.draw, f"{self.name()}_{side}")
            inner.known = list(self.known)
            y = inner.step(inner.step(x))
            y = inner.node("Identity", y)
            out = helper.make_tensor_value_info(y, TensorProto.FLOAT, [None] * 3)
            graphs.append(helper.make_graph(inner.nodes, f"{y}_g", [], [out], inner.inits))
        return self.node("If", flag, then_branch=graphs[0], else_branch=graphs[1])


@st.composite
def models(draw) -> onnx.ModelProto:
    builder = Builder(draw)
    for _ in range(draw(st.integers(1, 7))):
        builder.known.append(builder.step(builder.old()))
    last = builder.known[-1]
    outputs = dict.fromkeys([builder.node("Neg", last), builder.old()])
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3)
        for name in outputs
        if name != "x"
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", 4]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(builder.nodes, "g", inputs, infos, builder.inits)
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [
        {"x": rng.standard_normal((a, b, 4)).astype(np.float32), "flag": np.array(flag)}
        for (a, b), flag in zip(SIZES, (True, False, True, False, True), strict=True)
    ]


@pytest.mark.slow
@given(models(), st.permutations(PASSES))
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_order_of_passes_keeps_the_results(proto, passes) -> None:
    usable = []
    for feed in feeds():
        try:
            run(proto, feed)
        except Exception as error:  # the runtime's errors have no common class
            if "onnxruntime" not in type(error).__module__:
                raise
            continue
        usable.append(feed)
    # A branch that no input gets through may be ill-typed, which only simplifying brings to light.
    assume({bool(feed["flag"]) for feed in usable} == {True, False})
    simplify(proto, [*passes, *passes], *usable, exact=False)
