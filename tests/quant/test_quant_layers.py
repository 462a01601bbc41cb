"""quant-linear on exported layers of every format: one node each, the same weight to the bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from quant_tools import nbits_weight, run

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.load import load
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.infer import Infer
from vlmpass.passes.quant_linear import QuantLinear

LAYERS = Path(__file__).parent / "layers"
KINDS = {each["name"]: each for each in json.loads((LAYERS / "index.json").read_text())}
EXPORTS = [f"{name}.{export}" for name, kind in KINDS.items() for export in kind["exports"]]
AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


def unpacked(words: np.ndarray, bits: int) -> np.ndarray:
    """The numbers in the rows of an int32 matrix, the lowest bits first."""
    parts = words.view(np.uint32)[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)
    return (parts & ((1 << bits) - 1)).astype(np.int64).reshape(len(words), -1)


def decoded(name: str) -> np.ndarray:
    """The weight by the format's definition, without PyTorch or ONNX."""
    kind, arrays = KINDS[name], np.load(LAYERS / f"{name}.npz")
    bits, qweight = kind["bits"], arrays["qweight"]
    zeros, scales, groups = unpacked(arrays["qzeros"], bits), arrays["scales"], arrays["g_idx"]
    if kind["spelling"] == "awq":
        order = np.arange(kind["outputs"]).reshape(-1, 8)[:, AWQ_ORDER].reshape(-1)
        numbers, zeros = unpacked(qweight, bits)[:, order], zeros[:, order]
    else:
        numbers = unpacked(np.ascontiguousarray(qweight.T), bits).T
    zeros = zeros + kind["one_less"]
    return (numbers - zeros[groups]).astype(scales.dtype) * scales[groups]


def exported(export: str) -> tuple[ir.Model, np.ndarray, np.ndarray, np.ndarray]:
    """A model, its input, the weight it computes, and its output."""
    model = load(LAYERS / f"{export}.onnx")
    x = np.load(LAYERS / f"{export.split('.')[0]}.npz")["x"]
    wide = load(LAYERS / f"{export}.onnx")
    Infer().run(wide)
    wide.graph.outputs.append(next(n for n in wide.graph if n.op_type == "MatMul").inputs[1])
    result, weight = run(wide, {"x": x})
    return model, x, weight, result


def right(export: str) -> bool:
    """Whether the exporter kept the meaning.

    The older one divides where bits were shifted, the newer one divides through float32.
    """
    name, exporter = export.split(".")
    return exporter.startswith("dyn") != (KINDS[name]["spelling"] == "division")


def packed_bytes(name: str) -> int:
    arrays = np.load(LAYERS / f"{name}.npz")
    kept = ["qweight", "qzeros", "scales", "bias", *["g_idx"] * KINDS[name]["act_order"]]
    return sum(arrays[each].nbytes for each in kept)


@pytest.mark.parametrize("export", EXPORTS)
def test_quant_layers_are_one_matmul_nbits(export: str) -> None:
    model, x, weight, result = exported(export)
    kind = KINDS[export.split(".")[0]]
    if right(export):
        np.testing.assert_array_equal(weight, decoded(kind["name"]))
    assert QuantLinear().run(model)
    check(model)
    expected = ["Gather", "MatMulNBits"] if kind["act_order"] else ["MatMulNBits"]
    assert [node.op_type for node in model.graph] == expected
    node = model.graph[-1]
    assert node.attributes["bits"].as_int() == kind["bits"]
    order = model.graph[0].inputs[1].const_value.numpy() if kind["act_order"] else slice(None)
    np.testing.assert_array_equal(nbits_weight(node), weight[order])
    assert (node.inputs[3] is None) == kind["symmetric"]
    scale = np.abs(result).max()
    np.testing.assert_allclose(run(model, {"x": x})[0], result, rtol=2e-3, atol=2e-3 * scale)
    assert not QuantLinear().run(model)


@pytest.mark.parametrize("export", EXPORTS)
def test_quant_layers_are_one_dequantize_linear(export: str) -> None:
    model, x, weight, result = exported(export)
    kind = KINDS[export.split(".")[0]]
    needed = 25 if kind["bits"] == 2 else 21
    ConvertOpset(to=needed).run(model)
    model.ir_version = 13 if needed == 25 else 10
    assert QuantLinear(to="dequantize-linear").run(model)
    check(model)
    count = Counter(node.op_type for node in model.graph)
    gather = {"Gather": 1} if kind["act_order"] else {}
    assert count == {"DequantizeLinear": 1, "MatMul": 1, "Add": 1, **gather}
    node = next(each for each in model.graph if each.op_type == "DequantizeLinear")
    if kind["symmetric"]:
        assert (len(node.inputs), node.inputs[0].dtype) == (2, ir.DataType.INT4)
    model.graph.outputs.append(node.outputs[0])
    found, held = run(model, {"x": x})
    gathers = [each for each in model.graph if each.op_type == "Gather"]
    order = gathers[0].inputs[1].const_value.numpy() if gathers else slice(None)
    np.testing.assert_array_equal(held, weight[order])
    scale = np.abs(result).max()
    np.testing.assert_allclose(found, result, rtol=2e-3, atol=2e-3 * scale)


@pytest.mark.parametrize("export", EXPORTS)
def test_quant_layers_with_plain_weights(export: str) -> None:
    model, x, weight, result = exported(export)
    assert QuantLinear(to="float").run(model)
    check(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "Add"]
    np.testing.assert_array_equal(model.graph[0].inputs[1].const_value.numpy(), weight)
    scale = np.abs(result).max()
    np.testing.assert_allclose(run(model, {"x": x})[0], result, rtol=2e-3, atol=2e-3 * scale)


@pytest.mark.parametrize("to", ["matmul-nbits", "dequantize-linear"])
@pytest.mark.parametrize("export", [each for each in EXPORTS if right(each)])
def test_quant_layers_take_no_more_bytes_than_packed(export: str, to: str) -> None:
    name = export.split(".")[0]
    model = load(LAYERS / f"{export}.onnx")
    if to == "dequantize-linear":
        ConvertOpset(to=25 if KINDS[name]["bits"] == 2 else 21).run(model)
    QuantLinear(to=to).run(model)
    held = sum(each.const_value.nbytes for each in model.graph.initializers.values())
    assert held <= 1.1 * packed_bytes(name)
