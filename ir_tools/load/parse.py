"""From a file to a ModelProto, with one clear line for whatever is wrong with the file."""

from __future__ import annotations

import contextlib
import difflib
import mmap
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from vlmpass.ir_tools.errors import CheckError, ModelError
from vlmpass.ir_tools.load.inline import WireError, without_payloads
from vlmpass.ir_tools.load.lost import refuse_undecodable
from vlmpass.ir_tools.weights.files import Stamp
from vlmpass.ir_tools.worker.bounded import parse_text

__all__ = ["Parsed", "lfs_pointer", "parse_file"]

_INLINE_FILE_BYTES = 8 << 20  # below this a model is parsed whole
_INLINE_TENSOR_BYTES = 64 << 10
_LFS = b"version https://git-lfs.github.com/spec/"
_NOT_ONNX = {
    ".ort": "is in ONNX Runtime's own format",
    ".gguf": "is a GGUF file",
    ".pt": "is a PyTorch file",
    ".pth": "is a PyTorch file",
    ".safetensors": "holds tensors but no graph",
    ".onnx_data": "holds tensors but no graph",
    ".data": "holds tensors but no graph",
}


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
        status = path.stat()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist", remedy=_similar(path)) from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{str(path)!r} is no path: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{path} is a folder", remedy=_models_in(path))
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise ModelError(f"{path} is empty", remedy="export or download it again")
    try:
        parser = _PARSERS.get(path.suffix.lower(), _parse_protobuf)
        return parser(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def lfs_pointer(head: bytes) -> bool:
    """Whether a file that starts so is a Git LFS pointer instead of the data."""
    return head.startswith(_LFS)


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
    if lfs_pointer(head):
        return ModelError(f"{path} is a Git LFS pointer, not the model", remedy="run git lfs pull")
    if isinstance(error, WireError) and error.too_deep:
        return ModelError(
            f"{path} has subgraphs in subgraphs, more than 30 deep, which protobuf does not read",
            remedy="export it with fewer nested Ifs, Loops and Scans",
        )
    if isinstance(error, WireError) and error.cut_short and head[:1] == b"\x08":
        return ModelError(
            f"{path} is cut short: {error}", remedy="export, copy or download it again"
        )
    what = _NOT_ONNX.get(path.suffix.lower(), "is not an ONNX file")
    reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
    return ModelError(f"{path} {what} ({reason})", remedy="name the .onnx file")


def _text_parser(name: str, parse: Callable[[str], onnx.ModelProto]) -> Callable[[Path], Parsed]:
    def parser(path: Path) -> Parsed:
        data = path.read_bytes()
        if lfs_pointer(data):
            raise _not_a_model(path, data, ValueError())
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


def _models_in(folder: Path) -> str:
    with contextlib.suppress(OSError):
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".onnx")
        if names:
            return f"name a file in it: {', '.join(names[:4])}{', …' * (len(names) > 4)}"
    return "name the .onnx file"


def _similar(path: Path) -> str:
    with contextlib.suppress(OSError):
        # Of names with this suffix: else what is alike is the suffix.
        names = sorted(path.parent.iterdir())
        stems = [name.stem for name in names if name.suffix == path.suffix]
        close = difflib.get_close_matches(path.stem, stems, n=1)
        if close:
            return f"did you mean {close[0]}{path.suffix}?"
        if path.suffix == "" and path.with_suffix(".onnx") in names:
            return f"did you mean {path.name}.onnx?"
    return ""
