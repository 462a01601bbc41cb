"""A prepared model file read back before it counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.proto.proto_tensors import model_tensors
from vlmpass.ir_tools.save.forms import parsed

__all__ = ["check_model_file", "check_references"]


def _expected_bytes(tensor: onnx.TensorProto) -> int:
    bits: int = ir.DataType(tensor.data_type).bitwidth * math.prod(tensor.dims)
    return -(-bits // 8)


def check_model_file(prepared: Path, output: Path, sizes: Mapping[str, int]) -> None:
    """Check that a model file can be parsed and that every reference in it fits its file.

    Args:
        prepared: The file.
        output: What it will be called.
        sizes: Bytes of every data file, by the name that references use.

    Raises:
        SaveError: A reference goes beyond its file or is not of the tensor's size.
    """
    check_references(parsed(prepared.read_bytes(), output), output, sizes)


def check_references(model: onnx.ModelProto, output: Path, sizes: Mapping[str, int]) -> None:
    """Check that every reference of a model fits its file.

    Args:
        model: As it was read back.
        output: What its file will be called.
        sizes: Bytes of every data file, by the name that references use.

    Raises:
        SaveError: A reference goes beyond its file or is not of the tensor's size.
    """
    for tensor in model_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        size = sizes.get(entries["location"], -1)
        offset, length = int(entries["offset"]), int(entries["length"])
        if length != _expected_bytes(tensor) or offset + length > size:
            raise SaveError(
                f"{output.name} read back refers to bytes {offset} to {offset + length} of "
                f"{entries['location']}, which has {size}, for tensor {tensor.name} of "
                f"{_expected_bytes(tensor)} bytes",
                remedy="report this as a defect of vlmpass",
            )
