"""Whole-process figures: wall seconds and peak memory of a command, as the system counts them."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Measured", "measure", "pairs", "table"]


@dataclass(frozen=True)
class Measured:
    """What one run of a command took.

    Attributes:
        seconds: Wall time, process start included.
        peak: Largest resident set in bytes.
        status: Exit status; the last lines of stderr are in `message` when it is not 0.
        message: Why it failed.
    """

    seconds: float
    peak: int
    status: int
    message: str = ""

    @property
    def peak_mb(self) -> float:
        """Peak memory in MB (10^6)."""
        return self.peak / 1e6


def measure(command: Sequence[str], *, timeout: float = 3600) -> Measured:
    """Run a command to its end and measure it."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    scale = 1 if sys.platform == "darwin" else 1024
    failed = child.returncode != 0 or seconds > timeout
    return Measured(
        seconds, usage.ru_maxrss * scale, child.returncode, errors[-500:] if failed else ""
    )


def pairs(
    ours: Sequence[str], other: Sequence[str], *, rounds: int, clean: Sequence[Path]
) -> tuple[list[Measured], list[Measured], float]:
    """Run two commands in turn and return both series and the median of the wall ratios.

    Args:
        ours: The command in the numerator.
        other: The command in the denominator.
        rounds: How many pairs are counted, after one that is not.
        clean: Folders emptied before every run, so that both write new files.
    """
    first: list[Measured] = []
    second: list[Measured] = []
    for round_ in range(rounds + 1):
        for command, series in ((other, second), (ours, first)):
            for folder in clean:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            figures = measure(command)
            if figures.status != 0:
                raise SystemExit(f"{' '.join(command)} failed: {figures.message}")
            if round_:
                series.append(figures)
    ratios = [a.seconds / b.seconds for a, b in zip(first, second, strict=True)]
    return first, second, statistics.median(ratios)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
