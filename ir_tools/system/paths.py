"""Paths, judged before anything is opened and before anything is imported that takes time."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from pathlib import Path

from vlmpass.ir_tools.errors import ModelError, SaveError, VerifyError, VlmpassError

__all__ = [
    "NOT_ONNX",
    "folder_for",
    "inputs_file",
    "lfs_pointer",
    "model_file",
    "output_file",
    "path_text",
]

NOT_ONNX = {
    ".ort": "is in ONNX Runtime's own format",
    ".gguf": "is a GGUF file",
    ".pt": "is a PyTorch file",
    ".pth": "is a PyTorch file",
    ".safetensors": "holds tensors but no graph",
    ".onnx_data": "holds tensors but no graph",
    ".data": "holds tensors but no graph",
    ".npz": "holds arrays but no graph",
    ".npy": "holds an array but no graph",
}
"""What a file is whose suffix is none of a model's."""

_LFS = b"version https://git-lfs.github.com/spec/"
_SIGNATURES = (
    (0, b"PK\x03\x04", "is a zip archive, as PyTorch and numpy write them"),
    (0, b"\x93NUMPY", NOT_ONNX[".npy"]),
    (0, b"GGUF", NOT_ONNX[".gguf"]),
    (4, b"ORTM", NOT_ONNX[".ort"]),
)
_HEAD = 64
_NO_FILE = ("", os.curdir, os.pardir)  # what stands after the last slash of a folder
_NEAR = 0.75  # of two names, 1 where they are one; nope and notes are not near


def path_text(path: object, error: type[VlmpassError], what: str) -> str:
    """Return a path as text.

    Args:
        path: What was given for one: str or PathLike.
        error: Class of the error to raise.
        what: What it is the path of, for messages.

    Raises:
        VlmpassError: It is of another type, or holds a NUL.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise error(f"{what} is no path but a {type(path).__name__}", remedy="give a str or Path")
    if "\0" in text:
        raise error(f"{text!r} is no path: embedded null byte")
    return text


def model_file(path: str | os.PathLike[str]) -> Path:
    """Return a path that has a file which may be a model; what is in it is not looked at.

    Raises:
        ModelError: It is not there, cannot be read, is no file, empty, or of another kind.
    """
    given = Path(path_text(path, ModelError, "the model"))
    try:
        status = given.stat()
    except FileNotFoundError:
        raise ModelError(f"{given} does not exist", remedy=_similar(given)) from None
    except OSError as error:
        raise ModelError(f"{given}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{given} is a folder", remedy=_models_in(given))
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{given} is not a regular file")
    if status.st_size == 0:
        raise ModelError(f"{given} is empty", remedy="export or download it again")
    try:
        with given.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ModelError(f"{given} cannot be read: {error.strerror}") from error
    _refuse_others(given, head)
    return given


def lfs_pointer(head: bytes) -> bool:
    """Whether a file that starts so is a Git LFS pointer instead of the data."""
    return head.startswith(_LFS)


def _refuse_others(path: Path, head: bytes) -> None:
    """Refuse what is surely something else: a model may have any name."""
    if lfs_pointer(head):
        raise ModelError(f"{path} is a Git LFS pointer, not the model", remedy="run git lfs pull")
    for start, signature, what in _SIGNATURES:
        if head[start:].startswith(signature):
            raise ModelError(
                f"{path} {NOT_ONNX.get(path.suffix.lower(), what)}", remedy="name the .onnx file"
            )


def output_file(path: str | os.PathLike[str]) -> Path:
    """Return where a model file goes, absolute; a link there stays as it is.

    Raises:
        SaveError: It is a folder or written like one, as ``out/``, lies in none or in one that
            cannot be written, or is called as something else is.
    """
    text = path_text(path, SaveError, "the output")
    output = Path(os.path.abspath(text))
    try:
        if os.path.basename(text) in _NO_FILE or output.is_dir():
            inside = os.path.join(text, "model.onnx")
            raise SaveError(f"{text or '.'} is a folder", remedy=f"name a file in it: {inside}")
        there = output.parent.is_dir()
    except OSError as error:
        raise SaveError(f"{output}: {error.strerror}", remedy="choose another name") from error
    if not there:
        raise SaveError(f"the folder {output.parent} does not exist", remedy="create it first")
    if not os.access(output.parent, os.W_OK):
        raise SaveError(
            f"the folder {output.parent} cannot be written", remedy="choose another output folder"
        )
    if output.suffix.lower() in NOT_ONNX:
        raise SaveError(
            f"{output.name} would be a model in a file that is called as if it "
            + NOT_ONNX[output.suffix.lower()],
            remedy=f"name it {output.stem}.onnx",
        )
    return output


def inputs_file(path: str | os.PathLike[str]) -> str:
    """Return a path that has a file, which may hold inputs.

    Raises:
        VerifyError: It has none that can be read.
    """
    file = path_text(path, VerifyError, "the file of inputs")
    if not os.path.exists(file):
        raise VerifyError(f"there is no file of inputs '{file}'", remedy="give an .npz file")
    if not os.path.isfile(file):
        raise VerifyError(f"{file} is no file", remedy="give an .npz file")
    if not os.access(file, os.R_OK):
        raise VerifyError(f"{file} cannot be read: Permission denied")
    return file


def folder_for(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path that is a folder, or where one can be made.

    Args:
        path: As the user named it.
        what: Goes into it, as in ``to dump the graphs into``.

    Raises:
        SaveError: There is something else in its place, or on the way to it.
    """
    folder = Path(path_text(path, SaveError, "the folder"))
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    except OSError as error:
        raise SaveError(f"{folder}: {error.strerror}", remedy=f"name a folder {what}") from error
    if not there.is_dir():
        raise SaveError(f"{there} is no folder", remedy=f"name one {what}")
    if not os.access(there, os.W_OK):
        raise SaveError(f"{there} cannot be written", remedy=f"name another folder {what}")
    return folder


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
        close = difflib.get_close_matches(path.stem, stems, 1, _NEAR)
        if close:
            return f"did you mean {close[0]}{path.suffix}?"
        if path.suffix == "" and path.with_suffix(".onnx") in names:
            return f"did you mean {path.name}.onnx?"
    return ""
