"""What an output is called if nobody says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError

__all__ = ["output_beside"]


def output_beside(source: Path, asked: Iterable[str | None]) -> Path:
    """Return a path beside a source that tells what was asked for: ``big.opset18.onnx``.

    Raises:
        SaveError: Nothing was asked for that a name could tell.
    """
    words = [word for word in asked if word]
    if not words:
        raise SaveError(
            "nothing is asked for",
            remedy="give --opset, --dtype, --simplify, --passes and the like, or OUT",
        )
    return source.with_name(".".join([source.stem, *words]) + source.suffix)
