"""What is written loads; and what would not load is not written, whatever made it so."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from tests.fuzz import target_models
from tests.fuzz.target_models import Case
from vlmpass import Pipeline
from vlmpass.loadable import LoadAcceptance
from vlmpass.passes import Pass
from vlmpass.report import Loaded

COUNT = int(os.environ.get("VLMPASS_TARGET_MODELS", "24"))
_W = np.random.default_rng(0).standard_normal((96, 96)).astype(np.float32)
_IMAGE = np.random.default_rng(0).standard_normal((6, 6, 3, 3)).astype(np.float32)


def test_what_is_written_loads():
    found = {
        str(case): wrong
        for case in target_models.cases(COUNT, seed=0)
        if (wrong := target_models.violation(case)) is not None
    }
    assert not found


def model(text: str, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    """Return a model from x to y, both [2, 96] of float32."""
    head = f'<ir_version: 10, opset_import: ["": {opset}, "mine": 1, "com.microsoft": 1]>'
    made = parser.parse_model(f"{head} g (float[2, 96] x) => (float[2, 96] y) {{ {text} }}")
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return made


SOURCE = model("m = MatMul(x, w) y = Relu(m)", w=_W)
_TO_IMAGE = "i = Reshape(x, d)"
_BACK = "y = Reshape(j, e)"
_DIMS = {"d": np.array([2, 6, 4, 4], np.int64), "e": np.array([2, 96], np.int64)}


def image(node: str, **weights: np.ndarray) -> onnx.ModelProto:
    return model(f"{_TO_IMAGE} {node} {_BACK}", **_DIMS, **weights)


def through(kind: int, node: str, **options: int) -> onnx.ModelProto:
    text = f"a = Cast<to = {kind}>(x) {node} y = Cast<to = 1>(b)"
    return model(text, **options)


def branch(domain: str = "mine") -> onnx.ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Op", ["x"], ["t"], domain=domain)],
        "b", [], [helper.make_tensor_value_info("t", 1, [2, 96])],
    )  # fmt: skip
    made = model("c = Constant<value = bool {1}>() y = Identity(x)")
    choice = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    made.graph.node[1].CopyFrom(choice)
    return made


def blocked() -> onnx.ModelProto:
    made = through(10, "d = DequantizeLinear<axis = 0, block_size = 32, output_dtype = 10>(w, s)"
                       " b = MatMul(a, d)", opset=23)  # fmt: skip
    words = helper.make_tensor("w", TensorProto.UINT4, [96, 96], [3] * (96 * 96))
    scales = numpy_helper.from_array(np.full((3, 96), 0.1, np.float32), "s")
    made.graph.initializer.extend([words, scales])
    return made


PLANTED: dict[str, Callable[[], onnx.ModelProto]] = {
    "custom operator": lambda: model("y = mine.Op(x)"),
    "custom operator in a branch": branch,
    "operator that the runtime's domain has not": lambda: model("y = com.microsoft.Nope(x)"),
    "fused node with the wrong inputs": lambda: model("y = com.microsoft.FusedMatMul(x)"),
    "norm in the wrong domain": lambda: model(
        "y = com.microsoft.SimplifiedLayerNormalization(x, s)", s=_W[0]
    ),
    "bfloat16 product": lambda: model(
        "a = Cast<to = 16>(x) v = Cast<to = 16>(w) b = MatMul(a, v) y = Cast<to = 1>(b)", w=_W
    ),
    "bfloat16 sigmoid": lambda: through(16, "b = Sigmoid(a)"),
    "bfloat16 sum": lambda: through(16, "b = Add(a, a)"),
    "bfloat16 norm": lambda: through(16, "b = Softmax(a)"),
    "double Erf": lambda: through(11, "b = Erf(a)"),
    "double Gelu": lambda: through(11, "b = Gelu(a)", opset=20),
    "double Clip of opset 6": lambda: through(11, "b = Clip<max = 1.0>(a)", opset=10),
    "double Conv": lambda: model(
        f"{_TO_IMAGE} k = Cast<to = 11>(i) v = Cast<to = 11>(w) c = Conv<pads = [1, 1, 1, 1]>(k, v)"
        f" j = Cast<to = 1>(c) {_BACK}",
        **_DIMS,
        w=_IMAGE,
    ),
    "double HardSigmoid": lambda: through(11, "b = HardSigmoid(a)"),
    "int16 Relu": lambda: through(5, "b = Relu(a)"),
    "double ThresholdedRelu": lambda: through(11, "b = ThresholdedRelu(a)"),
    "double Selu": lambda: through(11, "b = Selu(a)"),
    "double Sinh": lambda: through(11, "b = Sinh(a)"),
    "double HardSwish": lambda: through(11, "b = HardSwish(a)"),
    "double Softsign": lambda: through(11, "b = Softsign(a)"),
    "bfloat16 Exp": lambda: through(16, "b = Exp(a)"),
    "bfloat16 Sqrt": lambda: through(16, "b = Sqrt(a)"),
    "bfloat16 Tanh": lambda: through(16, "b = Tanh(a)"),
    "4 bits with a scale of float32": blocked,
    "bfloat16 rounding": lambda: through(16, "b = Round(a)", opset=22),
}


class Mistake(Pass):
    """Puts another model in place of the one that it is given."""

    name = "mistake"

    def __init__(self, wrong: onnx.ModelProto) -> None:
        self._wrong = wrong

    def run(self, model: ir.Model) -> bool:
        wrong = ir.from_proto(self._wrong)
        model.graph = wrong.graph
        model.ir_version = wrong.ir_version
        return True


def pipeline(name: str, target: str | None) -> Pipeline:
    return Pipeline([Mistake(PLANTED[name]())], target=target)


@pytest.mark.parametrize("target", ["ort-cpu", None])
@pytest.mark.parametrize("name", list(PLANTED))
def test_what_does_not_load_is_not_written(name, target):
    asked = {"target": target} if target else {}
    case = Case(SOURCE, asked, None if target is None else False)
    assert target_models.violation(case, pipeline(name, target)) is None


@pytest.mark.parametrize("name", list(PLANTED))
def test_the_generator_finds_what_was_not_looked_at(name, monkeypatch):
    monkeypatch.setattr(LoadAcceptance, "accept", lambda self, result: Loaded(True))
    monkeypatch.setattr("vlmpass.running.hold", lambda *_: [])
    case = Case(SOURCE, {"target": "ort-cpu"}, False)
    found = target_models.violation(case, pipeline(name, "ort-cpu"))
    assert found == "written for a target that does not load it"
