"""Random small models, converted with and without a target: what is written loads.

As a script it takes as many models as are asked for; a nightly run takes 5 000:

    python -m tests.fuzz.target_models --count 5000 [--seed N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VlmpassError

KINDS = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
         "double": np.float64}  # fmt: skip
_FRESH = """
import sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
for path in sys.argv[1:]:
    try:
        onnxruntime.InferenceSession(path)
        print(1, flush=True)
    except Exception:
        print(0, flush=True)
"""
_UNARY = ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Sqrt", "Softplus", "Elu", "Abs", "Floor",
          "Identity", "Sin", "Softmax", "HardSigmoid", "LeakyRelu")  # fmt: skip
_SINCE = {"Erf": 9, "Where": 9, "LayerNormalization": 17, "Gelu": 20, "Mish": 18, "HardSwish": 14,
          "Round": 11, "CumSum": 11}  # fmt: skip
_WIDTH = 96


@dataclass(frozen=True)
class Case:
    """A model and what is asked for."""

    model: onnx.ModelProto
    asked: dict[str, object]
    verify: bool | None

    def __str__(self) -> str:
        nodes = " ".join(node.op_type for node in self.model.graph.node)
        return f"opset {self.model.opset_import[0].version}: {nodes}; {self.asked} {self.verify}"


def _number(kind: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(KINDS[kind]))


class _Writer:
    """A chain of nodes over [2, 96], each of one type, now and then cast to another."""

    def __init__(self, rng: np.random.Generator, opset: int) -> None:
        self.rng, self.opset = rng, opset
        self.kind = str(rng.choice(list(KINDS), p=[0.5, 0.25, 0.1, 0.15]))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [made], f"n{made}", **attributes))
        return made

    def weight(self, *shape: int, dtype: type | None = None) -> str:
        array = self.rng.standard_normal(shape) / 8
        name = f"w{len(self.weights)}"
        made = array.astype(dtype or KINDS[self.kind])
        self.weights.append(numpy_helper.from_array(made, name))
        return name

    def step(self, x: str) -> str:
        choice = self.rng.integers(8)
        op_type = str(self.rng.choice([*_UNARY, *_SINCE]))
        if choice < 2 or _SINCE.get(op_type, 0) > self.opset:
            return self.add("MatMul", x, self.weight(_WIDTH, _WIDTH))
        if choice == 2:
            self.kind = str(self.rng.choice(list(KINDS)))
            return self.add("Cast", x, to=_number(self.kind))
        if choice == 3:
            return self.add(str(self.rng.choice(["Add", "Mul", "Div"])), x, self.weight(_WIDTH))
        if choice == 4:
            return self.image(x)
        return self.one(op_type, x)

    def image(self, x: str) -> str:
        shape = self.constant([2, 6, 4, 4])
        y = self.add("Reshape", x, shape)
        y = self.add("Conv", y, self.weight(6, 6, 3, 3), pads=[1, 1, 1, 1])
        if self.rng.random() < 0.5:
            y = self.add(str(self.rng.choice(["MaxPool", "AveragePool"])), y, kernel_shape=[1, 1])
        return self.add("Reshape", y, self.constant([2, _WIDTH]))

    def constant(self, numbers: list[int]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    def one(self, op_type: str, x: str) -> str:
        if op_type == "Where":
            return self.add("Where", self.add("Less", x, self.weight(_WIDTH)), x, x)
        if op_type == "LayerNormalization":
            return self.add(op_type, x, self.weight(_WIDTH))
        if op_type == "CumSum":
            return self.add(op_type, x, self.constant([1]))
        return self.add(op_type, x)


def draw(rng: np.random.Generator) -> Case:
    """Return a random model that onnx holds for valid, and a request."""
    while True:
        opset = int(rng.integers(9, 24))
        writer = _Writer(rng, opset)
        first = writer.kind
        last = "x"
        for _ in range(rng.integers(2, 7)):
            last = writer.step(last)
        ends = [
            helper.make_tensor_value_info(name, _number(kind), [2, _WIDTH])
            for name, kind in (("x", first), (last, writer.kind))
        ]
        graph = helper.make_graph(writer.nodes, "g", ends[:1], ends[1:], writer.weights)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, ir_version=10, opset_imports=opsets)
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception:  # noqa: BLE001 - whatever onnx finds, this is no valid source
            continue
        return Case(model, _asked(rng), None if rng.random() < 0.5 else False)


def _asked(rng: np.random.Generator) -> dict[str, object]:
    asked: dict[str, object] = {}
    if rng.random() < 0.7:
        asked["opset"] = int(rng.integers(9, 27))
    if rng.random() < 0.4:
        asked["dtype"] = str(rng.choice(["float32", "float16", "bfloat16"]))
    if rng.random() < 0.6:
        asked["target"] = "ort-cpu"
    if rng.random() < 0.3 or not asked:
        asked["simplify"] = True
    return asked


def loads(*paths: Path) -> list[bool]:
    """Say which files a default session loads, each tried in one fresh process."""
    found: list[bool] = []
    for path in paths:
        done = subprocess.run(
            [sys.executable, "-c", _FRESH, str(path)], capture_output=True, text=True, check=False
        )
        found.append(done.stdout.strip() == "1")
    return found


def violation(case: Case, pipeline: Pipeline | None = None) -> str | None:
    """Return what is wrong with what came of a request; None if nothing is.

    Args:
        case: The model and the request.
        pipeline: Does something else than what is asked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.onnx"), Path(folder, "out", "m.onnx")
        out.parent.mkdir()
        onnx.save(case.model, source)
        try:
            made = pipeline or Pipeline(**case.asked)
            report = made.convert(source, out, verify=case.verify)
        except VlmpassError:
            return "refused, and written" if list(out.parent.iterdir()) else None
        if "target" in case.asked:
            return None if loads(out)[0] else "written for a target that does not load it"
        if case.verify is False:
            return None
        was, now = loads(source, out)
        if now != report.checked.loaded.ok:
            return f"loads: {now}, said: {report.checked.loaded}"
        if was and not now and case.asked.get("dtype") != "bfloat16":
            return "the source loads, the result does not"
    return None


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield random cases."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield draw(rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    for number, case in enumerate(cases(options.count, options.seed)):
        found = violation(case)
        if found is not None:
            wrong += 1
            print(f"{number}: {found}: {case}", flush=True)
    print(f"{options.count} models, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
