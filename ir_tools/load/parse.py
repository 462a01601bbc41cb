"""From a file to a ModelProto, with one clear line for whatever is wrong with the file."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from vlmpass.ir_tools.errors import CheckError, ModelError
from vlmpass.ir_tools.load.inline import without_payloads
from vlmpass.ir_tools.load.lost import refuse_undecodable
from vlmpass.ir_tools.proto.wire import WireError
from vlmpass.ir_tools.system.paths import NOT_ONNX
from vlmpass.ir_tools.weights.files import Stamp
from vlmpass.ir_tools.worker.bounded import parse_text

__all__ = ["Parsed", "parse_file"]

_INLINE_FILE_BYTES = 8 << 20  # below this a model is parsed whole
_INLINE_TENSOR_BYTES = 64 << 10


@dataclass(frozen=True)
class Parsed:
    """A model as parsed.

    Attributes:
        proto: Without the payloads of large inline tensors.
        inline_location: What those tensors have as their location.
        path: The file, absolute and without links; "" if there is none.
        stamp: Its state; None if there is no file.
    """

    proto: onnx.ModelProto
    inline_location: str = ""
    path: str = ""
    stamp: Stamp | None = None


def parse_file(path: Path) -> Parsed:
    """Parse a model file in the format that its suffix says; protobuf for an unknown suffix.

    Raises:
        ModelError: It is not there, not readable, or not a model.
    """
    try:
        parser = _PARSERS.get(path.suffix.lower(), _parse_protobuf)
        return parser(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _parse_protobuf(path: Path) -> Parsed:
    key = f"inline-{secrets.token_hex(8)}"
    with path.open("rb") as file, _mapped(file.fileno()) as data:
        stamp = Stamp.of(os.fstat(file.fileno()))
        large = stamp.size >= _INLINE_FILE_BYTES
        try:
            threshold = _INLINE_TENSOR_BYTES if large else stamp.size + 1
            serialized = without_payloads(data, threshold, key)
        except WireError as error:
            raise _not_a_model(path, data[:256], error) from error
    try:
        proto = onnx.load_model_from_string(serialized)
    except Exception as error:  # protobuf's DecodeError, which has no typed home
        raise _not_a_model(path, serialized[:256], _reason(serialized) or error) from error
    refuse_undecodable(proto, serialized)
    return Parsed(proto, key, os.path.realpath(path), stamp)


@contextlib.contextmanager
def _mapped(descriptor: int) -> Iterator[mmap.mmap]:
    with contextlib.closing(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) as data:
        yield data


def _reason(serialized: bytes) -> WireError | None:
    """Say what protobuf does not: where the bytes are wrong, or that they nest too deep."""
    try:
        without_payloads(serialized, 0, "")
    except WireError as error:
        return error
    return None


def _not_a_model(path: Path, head: bytes, error: Exception) -> ModelError:
    if isinstance(error, WireError) and error.too_deep:
        return ModelError(
            f"{path} has subgraphs in subgraphs, more than 30 deep, which protobuf does not read",
            remedy="export it with fewer nested Ifs, Loops and Scans",
        )
    if isinstance(error, WireError) and error.cut_short and head[:1] == b"\x08":
        return ModelError(
            f"{path} is cut short: {error}", remedy="export, copy or download it again"
        )
    what = NOT_ONNX.get(path.suffix.lower(), "is not an ONNX file")
    reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
    return ModelError(f"{path} {what} ({reason})", remedy="name the .onnx file")


def _text_parser(name: str, parse: Callable[[str], onnx.ModelProto]) -> Callable[[Path], Parsed]:
    def parser(path: Path) -> Parsed:
        data = path.read_bytes()
        try:
            return Parsed(parse(data.decode("utf-8")), path=os.path.realpath(path))
        except CheckError:
            raise
        except Exception as error:  # the three parsers share no class of errors
            text = str(error).removeprefix("b'").rstrip("'").replace("\\n", "\n")
            reason = " ".join(text.split())[:200]
            raise ModelError(f"{path} is not an ONNX model in {name}: {reason}") from error

    return parser


_TEXTPROTO = _text_parser(
    "protobuf's text format", partial(onnx.load_model_from_string, format="textproto")
)
_JSON = _text_parser("JSON", partial(onnx.load_model_from_string, format="json"))
_ONNX_TEXT = _text_parser("ONNX text", lambda text: onnx.load_model_from_string(parse_text(text)))
_PARSERS: dict[str, Callable[[Path], Parsed]] = {
    **dict.fromkeys((".textproto", ".txtpb", ".prototxt", ".pbtxt"), _TEXTPROTO),
    **dict.fromkeys((".json", ".onnxjson"), _JSON),
    **dict.fromkeys((".onnxtxt", ".onnxtext"), _ONNX_TEXT),
}
