"""Constants of a model, read only where they are small."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of, is_constant
from vlmpass.ir_tools.rewrite.decomposition import CONSTANT, INPUT

__all__ = ["SMALL_BYTES", "Constants", "reference_of"]

SMALL_BYTES = 1024


def reference_of(value: ir.Value) -> ir.Attr | None:
    """Return the reference by which a Constant, cast or not, takes a number from a call.

    Returns:
        The Constant's attribute; None for any value but such a one of a function.
    """
    node = value.producer()
    if node is not None and node.domain == "" and node.op_type in ("Cast", "CastLike"):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or (node.domain, node.op_type) != ("", "Constant"):
        return None
    return next((given for given in node.attributes.values() if given.is_ref()), None)


class Constants:
    """Reads constants once each, and large ones never."""

    def __init__(self) -> None:
        self._read: dict[ir.Value, np.ndarray | None] = {}
        self._told: dict[ir.Value, str | float] = {}

    def constant_key(self, value: ir.Value) -> str | float:
        """Return what a `Token` says of a value that no operator produces."""
        try:
            return self._told[value]
        except KeyError:
            found = self._told[value] = self._number(value) if is_constant(value) else INPUT
            return found

    def _number(self, value: ir.Value) -> str | float:
        """Return the number that a small constant is all over, if it is one."""
        array = self._note(value, constant_of(value))
        if array is None or array.size == 0 or array.dtype.kind not in "biufV":
            return CONSTANT
        if array.size == 1:
            return float(array.item())
        first = array.flat[0]
        same = first == array.flat[-1] and bool((array == first).all())
        return float(first) if same else CONSTANT

    def small(self, value: ir.Value) -> np.ndarray | None:
        """Return a constant of at most `SMALL_BYTES` bytes; None for anything else."""
        try:
            return self._read[value]
        except KeyError:
            return self._note(value, constant_of(value))

    def _note(self, value: ir.Value, tensor: ir.TensorProtocol | None) -> np.ndarray | None:
        array = self._read[value] = None if tensor is None else _small(tensor)
        return array


def _small(tensor: ir.TensorProtocol) -> np.ndarray | None:
    raw = tensor.raw if type(tensor) is ir.Tensor else None
    if isinstance(raw, np.ndarray):  # asked for its bytes, a tensor would multiply its sizes
        return raw if raw.nbytes <= SMALL_BYTES else None
    fits = tensor.dtype != ir.DataType.STRING and tensor.nbytes <= SMALL_BYTES
    return tensor.numpy() if fits else None
