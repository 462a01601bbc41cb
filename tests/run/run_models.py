"""Small models for the tests of running and comparing."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"


def text_model(body: str, opset: int = 17, ir_version: int = 8) -> ir.Model:
    """Parse a graph in ONNX text."""
    head = f'<ir_version: {ir_version}, opset_import: ["": {opset}, "com.microsoft": 1]>'
    return ir.from_onnx_text(head + body)


def saved(model: ir.Model, path: Path) -> Path:
    ir.save(model, path)
    return path


def with_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Model:
    """Give the graph input of that name a constant value."""
    value = next(each for each in model.graph.inputs if each.name == name)
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(array, name=name)
    value.type = ir.TensorType(value.const_value.dtype)
    value.shape = ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return model


def mlp(dtype: ir.DataType, *, scale: float = 1.0, seed: int = 0) -> ir.Model:
    """y = relu(x @ a) @ b with seeded weights of a type."""
    rng = np.random.default_rng(seed)
    kind = {"FLOAT": "float", "FLOAT16": "float16", "BFLOAT16": "bfloat16"}[dtype.name]
    model = text_model(
        f"""g ({kind}[n, 16] x, {kind}[16, 32] a, {kind}[32, 8] b) => ({kind}[n, 8] y) {{
            h = MatMul(x, a)
            r = Relu(h)
            y = MatMul(r, b)
        }}"""
    )
    for name, shape in (("a", (16, 32)), ("b", (32, 8))):
        # Rounded to bfloat16 first, so that the same seed means the same numbers in every type.
        array = (rng.standard_normal(shape) * 0.3).astype(ml_dtypes.bfloat16)
        array = array.astype(np.float32) * (scale if name == "b" else 1.0)
        with_initializer(model, name, array.astype(dtype.numpy()))
    return model
