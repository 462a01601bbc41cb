"""Graphs as text with constants of any type, and what they compute before and after."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from vlmpass.passes.convert_opset import ConvertOpset

from .opset_cases import attempts, differs


def build(text: str, opset: int, **constants: tuple[object, ir.DataType]) -> ir.Model:
    """Parse a graph and give it initializers of any element type."""
    model = ir.from_onnx_text(
        f'<ir_version: 13, opset_import: ["" : {opset}, "another" : 1]>\n{text}'
    )
    for name, (values, dtype) in constants.items():
        tensor = ir.Tensor(np.asarray(values).astype(dtype.numpy()), dtype=dtype, name=name)
        uses = [
            (node, index)
            for node in model.graph
            for index, value in enumerate(node.inputs)
            if value is not None and value.name == name
        ]
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=tensor.shape)
        value.const_value = tensor
        model.graph.initializers[name] = value
        for node, index in uses:
            node.replace_input_with(index, value)
    return model


def assert_same_after(model: ir.Model, to: int, *feeds: np.ndarray) -> ir.Model:
    """Convert and hold the outputs against those of the source, exactly."""
    before = ir.to_proto(model)
    onnx.checker.check_model(before, full_check=True)
    names = [value.name for value in model.graph.inputs]
    expected = ReferenceEvaluator(before).run(None, dict(zip(names, feeds, strict=True)))
    ConvertOpset(to=to).run(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    tried = list(attempts(after, feeds))
    results = [each for each in tried if not isinstance(each, Exception)]
    assert results, tried
    for result in results:
        for one, other in zip(expected, result, strict=True):
            assert differs(one, other, 1e-6, 1e-6, values=True) == ""
    return model
