"""What the tests of element types share: models from text, exports with references, counting."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from vlmpass.ir_tools.graph.walk import all_nodes, all_values, tensor_slots
from vlmpass.ir_tools.types import solve

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"


def _bits(match: re.Match[str]) -> str:
    number = float(match[2])
    wide = np.float16(number) if match[1] == "h" else np.asarray(number, ml_dtypes.bfloat16)
    return str(int(wide.view(np.uint16)))


def parse(text: str, opset: int = 18, extra: str = "") -> ir.Model:
    """A model from ONNX text; h(2.5) and b(2.5) are float16 and bfloat16 numbers."""
    text, extra = (re.sub(r"\b([hb])\(([-+.e\d]+)\)", _bits, part) for part in (text, extra))
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1, "my": 1]>'
    return ir.from_onnx_text(f"{head}\n{text}\n{extra}")


def casts(model: ir.Model) -> int:
    return sum(node.op_type in ("Cast", "CastLike") for node in all_nodes(model))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def count(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(model))


def value(model: ir.Model, name: str) -> ir.Value:
    return next(v for v in all_values(model) if v.name == name)


def text_of(model: ir.Model, name: str) -> str | None:
    return solve(model).text_of(value(model, name))


def dtypes_left(model: ir.Model) -> set[ir.DataType]:
    """Every element type in weights, attributes, values and declarations of the stored model."""
    found = {slot.tensor.dtype for slot in tensor_slots(model)}
    typing = solve(model)
    found |= {v.dtype for v in all_values(model) if v.dtype is not None}
    found |= {d for v in all_values(model) if (d := typing.dtype(v)) is not None}
    for node in all_nodes(model):
        for name in ("to", "dtype", "output_dtype", "stash_type"):
            attribute = node.attributes.get(name)
            if attribute is not None and not attribute.is_ref():
                found.add(ir.DataType(attribute.as_int()))
    return found


def check(model: ir.Model) -> None:
    """The full type check of onnx, and the solver's."""
    assert [str(c) for c in solve(model).conflicts] == []
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def export(name: str) -> tuple[ir.Model, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A fixture with its float32 inputs and PyTorch's float32 outputs."""
    arrays = dict(np.load(EXPORTS / f"{'.'.join(name.split('.')[:2])}.npz"))
    brain = ml_dtypes.bfloat16

    def wide(array: np.ndarray) -> np.ndarray:
        if array.dtype == np.uint16:
            return array.view(brain).astype(np.float32)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    feeds = {key[3:]: wide(a) for key, a in arrays.items() if key.startswith("in:")}
    wanted = {key[6:]: a for key, a in arrays.items() if key.startswith("out32:")}
    return ir.load(EXPORTS / f"{name}.onnx"), feeds, wanted


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    wanted = np.asarray(wanted, np.float64)
    return float(np.abs(np.asarray(got, np.float64) - wanted).max() / np.abs(wanted).max())


def elementwise_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error relative to the element, or to a tenth of the root mean square if smaller."""
    wanted = np.asarray(wanted, np.float64)
    floor = np.sqrt(np.mean(wanted**2)) / 10
    return float((np.abs(got - wanted) / np.maximum(np.abs(wanted), floor)).max())


def numbers(array: np.ndarray) -> str:
    return "{" + ", ".join(f"{x:.6f}" for x in np.asarray(array).reshape(-1)) + "}"


WEIGHT = f"float[64] w = {numbers(np.linspace(0.5, 1.5, 64))}"
NORM = f"""g (float[2,64] x) => (float[2,64] y) <{WEIGHT}, float two = {{2}},
    float eps = {{0.00001}}, int64[1] axis = {{-1}}> {{
    m = ReduceMean(x, axis) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, axis)
    e = Add(v, eps) s = Sqrt(e) n = Div(d, s) y = Mul(n, w) }}"""
_RNG = np.random.default_rng(1)
RESIDUAL = f"""g (float[1,8] x) => (float[1,8] y)
    <float[8,8] A = {numbers(_RNG.standard_normal(64))},
     float[8,8] B = {numbers(_RNG.standard_normal(64))}, float[8] s = {numbers(np.ones(8))}> {{
    a = MatMul(x, A) h = Add(x, a) b = MatMul(h, B) k = Add(h, b)
    n = LayerNormalization(k, s) y = MatMul(n, A) }}"""


def large_input() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    x[0, 3] = 795  # its square is beyond float16
    return x
