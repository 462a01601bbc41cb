"""Running quantised models, and reading back the weights that they hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime


def numbers(array: np.ndarray) -> str:
    """An array's elements as ONNX text has them."""
    return "{" + ", ".join(str(x) for x in np.asarray(array).reshape(-1)) + "}"


def pack(values: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """GPTQ's packing: 32 / bits numbers to an int32 along an axis, the lowest bits first."""
    each = 32 // bits
    parts = np.moveaxis(values.astype(np.uint64), axis, 0).reshape(-1, each, values.shape[1 - axis])
    shifts = (np.arange(each, dtype=np.uint64) * np.uint64(bits))[None, :, None]
    packed = (parts << shifts).sum(1).astype(np.uint32).view(np.int32)
    return np.ascontiguousarray(np.moveaxis(packed, 0, axis))


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model as it is: the optimiser would put a less exact kernel for some forms."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, feeds)


def nbits_weight(node: ir.Node) -> np.ndarray:
    """The weight [inputs, outputs] that a MatMulNBits holds, by the operator's definition."""
    rows, columns, bits, block = (
        node.attributes[name].as_int() for name in ("K", "N", "bits", "block_size")
    )
    shifts = np.arange(0, 8, bits, dtype=np.uint8)

    def spread(packed: np.ndarray) -> np.ndarray:
        parts = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
        return parts.reshape(columns, -1)

    numbers = spread(node.inputs[1].const_value.numpy()).astype(np.int64)
    scales = node.inputs[2].const_value.numpy()
    blocks = scales.shape[1]
    zeros = np.full((columns, blocks), 1 << (bits - 1))
    if node.inputs[3] is not None:
        zeros = node.inputs[3].const_value.numpy()
        if zeros.dtype == np.uint8:
            zeros = spread(zeros)[:, :blocks].astype(np.int64)
    whole = (numbers.reshape(columns, blocks, block) - zeros[..., None]).astype(scales.dtype)
    return (whole * scales[..., None]).reshape(columns, -1)[:, :rows].T
