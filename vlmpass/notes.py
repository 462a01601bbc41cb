"""What a run warns of, kept for its report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir

from vlmpass.intent import Intent
from vlmpass.ir_tools.save import SaveReport
from vlmpass.passes import PassReport
from vlmpass.passes.pipeline.base import Pass

__all__ = ["losses", "unmatched", "warnings_kept"]

_LOGGER = logging.getLogger("vlmpass")
_NAMED = 5


class _Keeper(logging.Handler):
    """Takes the warnings of one thread down."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._notes.append(record.getMessage())


@contextmanager
def warnings_kept(notes: list[str]) -> Iterator[None]:
    """Add what vlmpass warns of meanwhile, in this thread, to a list.

    Args:
        notes: One line each; nothing of it goes to standard error any more, unless the program
            has logging handlers of its own.
    """
    keeper = _Keeper(notes)
    _LOGGER.addHandler(keeper)
    try:
        yield
    finally:
        _LOGGER.removeHandler(keeper)


def unmatched(ran: Sequence[tuple[ir.passes.PassBase, PassReport]], asked: Intent) -> list[str]:
    """Say what was asked for and found nothing to do, or cannot be tried here.

    Args:
        ran: Every pass that was run, with its report.
        asked: What was asked for; where that is not in it, every pass was asked for by name.
    """
    wanted = asked.wanted()
    found: dict[str, str] = {}
    done: set[str] = set()
    simplified = False
    for each, report in ran:
        simplified |= report.changed
        if not isinstance(each, Pass) or not each.nothing:
            continue
        if report.changed:
            done.add(each.name)
        elif not report.skipped and (wanted is None or each.name in wanted):
            found.setdefault(each.name, f"{report.text}: {each.nothing}")
    told = [text for name, text in found.items() if name not in done]
    if asked.widen_io and not any(map(_may_widen, (report for _, report in ran))):
        told.append("widen-io: the opset stays, so that inputs and outputs keep their types")
    if asked.simplify and not simplified:
        told.append("simplify: nothing to simplify")
    target = asked.profile
    if target is not None and asked.quant is None and "quant-linear{to=float}" in _done_texts(ran):
        told.append(
            f"{target.name} does not run what unpacks the weights of some layers:"
            " they are floats now, and take several times the space"
        )
    if target is not None and target.runtime is None and target.loader is None:
        told.append(f"{target.name}: what it says is kept to; nothing here loads results for it")
    return told


def losses(saved: SaveReport) -> list[str]:
    """Say which weights hold values that their new type cannot."""
    notes = [
        f"{tally.overflowed} values of {name} overflow in their new type"
        for name, tally in saved.tallies.items()
        if tally.overflowed
    ]
    tallies = saved.tallies.items()
    notes += _counted({n: t.underflowed for n, t in tallies}, "are too small and become 0")
    notes += _counted({n: t.subnormal for n, t in tallies}, "become subnormal, with fewer digits")
    return notes


def _counted(lost: Mapping[str, int], what: str) -> list[str]:
    some = {name: number for name, number in lost.items() if number}
    if not some:
        return []
    weights = f"{len(some)} weight{'s' if len(some) > 1 else ''}"
    # Nearly every weight of a large model may have some: those that lose most are named.
    worst = sorted(some, key=lambda name: -some[name])[:_NAMED]
    names = ", ".join(worst) + (", ..." if len(some) > _NAMED else "")
    return [f"{sum(some.values())} values of {weights} {what}: {names}"]


def _done_texts(ran: Sequence[tuple[ir.passes.PassBase, PassReport]]) -> set[str]:
    """Return the passes that changed something, as they are written."""
    return {report.text for _, report in ran if report.changed}


def _may_widen(report: PassReport) -> bool:
    return report.text.startswith("convert-opset") or "interface=wider" in report.text
