"""The forms a model file has on disk, chosen by its suffix."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import onnx.serialization
import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.proto.proto_tensors import model_tensors

__all__ = ["PROTOBUF_LIMIT", "is_text", "parsed", "refuse_too_large", "serialised"]

PROTOBUF_LIMIT = (1 << 31) - 1
"""The most bytes a protobuf message may have."""


def _form_of(path: Path) -> str:
    return onnx.serialization.registry.get_format_from_file_extension(path.suffix) or "protobuf"


def is_text(path: Path) -> bool:
    """Return whether a model file of this name is text."""
    return _form_of(path) != "protobuf"


def parsed(data: bytes, path: Path) -> onnx.ModelProto:
    """Return the model in the bytes of a model file.

    Raises:
        SaveError: They are not what a model file of that name holds.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx calls its text form experimental
            return onnx.load_model_from_string(data, format=_form_of(path))
    except Exception as error:  # the parsers share no class of errors
        raise SaveError(f"{path.name} cannot be read back: {error}") from error


def _strip(message: Any, dropped: Collection[str]) -> None:
    """Clear the strings that are set and empty, and the dropped fields, all the way down."""
    for descriptor, value in message.ListFields():
        if descriptor.name in dropped or value == "":
            message.ClearField(descriptor.name)
        elif hasattr(value, "ListFields"):
            _strip(value, dropped)
        elif not isinstance(value, (str, bytes, int, float)):
            for item in value:
                if hasattr(item, "ListFields"):
                    _strip(item, dropped)


def _canonical(model: onnx.ModelProto, dropped: Collection[str] = ()) -> bytes:
    """Return bytes that are the same for models that differ in their encoding only."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in model_tensors(copy):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.string_data:
            continue
        data = ir.serde.TensorProtoTensor(tensor).tobytes()
        for descriptor, _ in tensor.ListFields():
            if descriptor.name.endswith("_data"):
                tensor.ClearField(descriptor.name)
        tensor.raw_data = data
    _strip(copy, dropped)
    return bytes(copy.SerializeToString(deterministic=True))


def refuse_too_large(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model above the protobuf limit, which cannot be serialised.

    Raises:
        SaveError: It is.
    """
    size = model.ByteSize()
    if size > PROTOBUF_LIMIT:
        raise SaveError(
            f"{path.name} would take {size} bytes, more than the {PROTOBUF_LIMIT} that a protobuf "
            "can have",
            remedy="choose a layout with data files",
        )


def serialised(model: onnx.ModelProto, path: Path) -> tuple[bytes, str | None]:
    """Return the bytes of a model file, and what its form does not hold, if anything.

    Args:
        model: Small enough to be held twice.
        path: The suffix says which form is wanted: ``.textproto``, ``.json`` and ``.onnxtxt`` are
            text, everything else is binary. Only ``.onnxtxt`` has no place for some things that no
            result depends on.

    Raises:
        SaveError: It is above the protobuf limit, or the form would change what it computes.
    """
    refuse_too_large(model, path)
    if not is_text(path):
        return bytes(model.SerializeToString(deterministic=True)), None
    data: bytes = onnx.serialization.registry.get(_form_of(path)).serialize_proto(model)
    for dropped in ((), ("doc_string", "metadata_props")):
        with suppress(SaveError):
            if _canonical(parsed(data, path), dropped) == _canonical(model, dropped):
                return data, f"{path.suffix} holds no {' or '.join(dropped)}" if dropped else None
    raise SaveError(
        f"the {path.suffix} form cannot hold this model",
        remedy="write .textproto, which can",
    )
