"""Naming profiles: what the data files beside a model are called, and what they may hold."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Literal, cast, get_args

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.system.arguments import word

__all__ = [
    "Layout",
    "Weights",
    "data_names",
    "layout_of",
    "names_agree",
    "refuse_contradiction",
    "way_of",
]

Weights = Literal["auto", "keep", "copy"]
"""What happens to data files that need no change, see `save`."""


class Layout(enum.Enum):
    """How the data of a model is laid out in files.

    Attributes:
        DEFAULT: ``model.onnx.data``, or ``model-00001-of-00003.onnx.data`` and so on.
        HF: ``model.onnx_data``, ``model.onnx_data_1``, … as transformers.js and optimum want.
        SINGLE: ``model.onnx.data`` whatever its size.
        INLINE: No data file; everything lies in the model file.
        SAFETENSORS: ``model.safetensors``, or ``model-00001-of-00003.safetensors`` and so on.
    """

    DEFAULT = "default"
    HF = "hf"
    SINGLE = "single"
    INLINE = "inline"
    SAFETENSORS = "safetensors"

    @property
    def limits_files(self) -> bool:
        """Whether the shard limit holds; the other two were asked for by name."""
        return self not in (Layout.SINGLE, Layout.INLINE)


def layout_of(name: Layout | str) -> Layout:
    """Return the layout of a name.

    Raises:
        SaveError: There is no such layout.
    """
    if isinstance(name, Layout):
        return name
    try:
        return Layout(word("layout", name))
    except ValueError:
        known = [layout.value for layout in Layout]
        raise SaveError(f"there is no layout '{name}'", remedy=_choice(name, known)) from None


def way_of(name: str) -> Weights:
    """Return the way with data files that need no change, of a name.

    Raises:
        SaveError: There is no such way.
    """
    found = word("weights", name)
    if found not in get_args(Weights):
        raise SaveError(
            f"there is no way with weights '{name}'", remedy=_choice(name, get_args(Weights))
        )
    return cast(Weights, found)


def refuse_contradiction(layout: Layout, weights: Weights, *, limited: bool) -> None:
    """Refuse to keep data files beside a model that has everything in itself, or to limit it.

    Args:
        layout: Where weights are to lie.
        weights: What is to become of data files.
        limited: Whether a limit of every file was asked for.

    Raises:
        SaveError: What was asked for does not go together.
    """
    if limited and not layout.limits_files:
        raise SaveError(
            f"layout {layout.value} has all weights in one file, however large",
            remedy="leave --shard-size out, or use layout default",
        )
    if layout is Layout.INLINE and weights == "keep":
        raise SaveError(
            "layout inline keeps no data file beside the model",
            remedy="use --weights auto, or another layout",
        )


def _choice(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, 1, 0.6)
    return f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(known)}"


def _numbered(stem: str, suffix: str, number: int) -> list[str]:
    if number == 1:
        return [f"{stem}{suffix}"]
    return [f"{stem}-{i:05d}-of-{number:05d}{suffix}" for i in range(1, number + 1)]


def _candidates(layout: Layout, output: Path, number: int) -> Iterator[list[str]]:
    stem, suffix = output.stem, output.suffix
    if layout is Layout.HF:
        first = f"{output.name}_data"
        yield [first, *(f"{first}_{i}" for i in range(1, number))]
    elif layout is Layout.SAFETENSORS:
        yield _numbered(stem, ".safetensors", number)
    else:
        yield _numbered(stem, f"{suffix}.data", number)
        for generation in count(1):
            yield _numbered(f"{stem}.{generation}", f"{suffix}.data", number)


def data_names(
    layout: Layout, output: Path, number: int, taken: Callable[[str], bool]
) -> list[str]:
    """Return the names of the data files of an output.

    Args:
        layout: Where the names are prescribed, those or none will do; elsewhere a number is put
            into them until they are free.
        output: The model file.
        number: How many data files there are to write.
        taken: Whether a name belongs to something that must stay.

    Raises:
        SaveError: A prescribed name is taken.
    """
    if number == 0:
        return []
    blocked = ""
    for names in _candidates(layout, output, number):
        blocked = next((name for name in names if taken(name)), "")
        if not blocked:
            return names
    raise SaveError(
        f"{output.parent / blocked} is in the way: layout {layout.value} wants that name for data, "
        f"and the file there does not belong to {output.name} alone",
        remedy="move it away, choose another output, or choose layout default",
    )


def names_agree(layout: Layout, output: Path, names: list[str]) -> bool:
    """Return whether files that are already there may serve as the data files of an output.

    Args:
        layout: The layout asked for.
        output: The model file.
        names: Relative paths of the files, in any order; nothing else would be written.
    """
    if layout is Layout.DEFAULT or not names:
        return True
    if layout is Layout.SINGLE:
        return len(names) == 1
    if layout is Layout.INLINE:
        return False
    return sorted(names) == sorted(next(_candidates(layout, output, len(names))))
