"""The budget of what rounding may cost, as it is asked for, and what is told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.system.listed import listed

if TYPE_CHECKING:
    from vlmpass.passes.sensitivity import Sensitivity

__all__ = ["Budget", "notes_of", "read_budget", "write_plot"]

_PLOT = "sensitivity.svg"
_TOLD = 6
"""Layers that are told with their errors."""


@dataclass(frozen=True)
class Budget:
    """What was asked for.

    Attributes:
        most: What outputs may be off, relative to their size.
        inputs: What it is measured with, as for `calibration_feeds`.
        plot: The folder that a plot goes to, if any.
    """

    most: float
    inputs: str = "random"
    plot: str = ""


def read_budget(text: str) -> Budget:
    """Return what ``budget=0.5%,inputs=FOLDER,plot=FOLDER`` says.

    Raises:
        PipelineError: It says something else.
    """
    said = dict.fromkeys(("budget", "inputs", "plot"), "")
    for word in text.split(","):
        name, sign, value = word.strip().partition("=")
        if name not in said or not sign or not value or said[name]:
            raise PipelineError(f"sensitivity: '{word}' means nothing", remedy=_REMEDY)
        said[name] = value
    number = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", said["budget"])
    if number is None or not 0 < float(number[1]) / (100 if number[2] else 1) < 1:
        raise PipelineError(
            f"sensitivity: the budget '{said['budget']}' is no share", remedy=_REMEDY
        )
    most = float(number[1]) / (100 if number[2] else 1)
    return Budget(most, said["inputs"] or "random", said["plot"])


_REMEDY = "write budget=0.5%, and inputs= a file or folder and plot= a folder where they are wanted"


def notes_of(found: Sensitivity) -> Iterator[str]:
    """Yield lines for a report: the error before and after, and the most sensitive layers."""
    stay = [each for each in found.layers if each.stays]
    yield (
        f"sensitivity: {len(stay)} of {len(found.layers)} products stay float, so that outputs are "
        f"{found.left:.2%} off and not {found.whole:.2%}, of {found.budget:.2%} at most"
    )
    most = sorted(found.layers, key=lambda each: -each.error)[:_TOLD]
    rows = (f"{e.name} {e.error:.2%}{' (stays float)' if e.stays else ''}" for e in most)
    yield f"sensitivity: alone, the most sensitive cost {listed(rows, _TOLD)}"


def write_plot(found: Sensitivity, folder: str, *sources: object) -> None:
    """Write what each layer costs as ``sensitivity.svg``.

    Args:
        found: What was measured.
        folder: Where to; it is made if it is not there.
        *sources: Files that are never replaced.

    Raises:
        SaveError: Something else is in the way.
    """
    from vlmpass.pages.plots import SVG_MARK, Point, plot, powers
    from vlmpass.pages.report_files import ReportFiles

    files = ReportFiles(SVG_MARK, Path(folder), (_PLOT,), False, *sources, made=True)
    axis = powers("error of outputs", [*(each.error for each in found.layers), found.budget])
    marks = [
        Point(
            at, each.error, "bad" if each.stays else "good", f"{at}: {each.name}, {each.error:.2%}"
        )
        for at, each in enumerate(found.layers)
    ]
    line = [(0, found.budget), (len(found.layers) - 1, found.budget)]
    drawn = plot(axis, len(marks), marks, name="error of each product alone", line=line)
    files.write({_PLOT: drawn.alone("what rounding each product costs", [*notes_of(found)][:1])})
