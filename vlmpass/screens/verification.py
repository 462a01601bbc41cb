"""A comparison of two models on screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.screens.text import Fitting, count, grid, seconds, unbroken

if TYPE_CHECKING:
    from vlmpass.ir_tools.run import OutputDifference, Trial, Verification

__all__ = ["numbers_line", "rounded_line", "verification_screen"]

_OUTPUTS = 40
_DETAILED = 3
_LEAST = 80
"""Columns that a line for each output takes, whatever its name is."""


def numbers_line(found: Verification, *, exact: bool = True) -> Text:
    """Return the verdict in one line.

    Args:
        found: The comparison.
        exact: Whether equality bit for bit says something: what ran is what will.
    """
    usual = (_dims(trial) for trial in found.trials if not trial.hard)
    trials = " and ".join(filter(None, usual))
    outputs = len(found.outputs)
    of = f"{count(outputs)} output{'s' if outputs != 1 else ''}"
    at = f" at {trials}" if trials else ""
    if not found.ok:
        return Text(f"{of} compared{at}: not equal", style="red")
    how = "" if found.expected_ran == "ONNX Runtime" else f" (source run by {found.expected_ran})"
    if found.max_rel == 0 and exact:
        return Text.assemble((f"{of} equal bit for bit", "green"), f"{at}{how}")
    bound = max(output.tolerance for output in found.outputs)
    error = f", relative error {found.max_rel:.1e} ≤ {_limit(bound)}"
    return Text.assemble((f"{of} equal", "green"), f"{at}{error}{how}")


def rounded_line(found: Verification) -> Text:
    """Return the verdict of a comparison in which every value was rounded to half precision."""
    rounding = found.actual_ran.partition(", ")[2]
    bound = max(output.tolerance for output in found.outputs)
    return Text(f"{rounding}: relative error {found.max_rel:.1e} ≤ {_limit(bound)}")


def _limit(limit: float) -> str:
    from vlmpass.ir_tools.run.compare import limit_text  # loaded by whoever compared

    return limit_text(limit)


def _dims(trial: Trial) -> str:
    sizes = " ".join(f"{name}={size}" for name, size in trial.dims.items())
    return ", ".join(filter(None, (sizes, trial.hard)))


def verification_screen(found: Verification, expected: str, actual: str) -> RenderableType:
    """Return everything a comparison found.

    Args:
        found: The result.
        expected: What to call the reference.
        actual: What to call the other.
    """
    width = max(len(expected), len(actual))
    parts: list[RenderableType] = [
        unbroken("reference  ", (expected.ljust(width), "bold"), "  ", (found.expected_ran, "dim")),
        unbroken("judged     ", (actual.ljust(width), "bold"), "  ", (found.actual_ran, "dim")),
    ]
    for number, trial in enumerate(found.trials, 1):
        parts.append(Text(f"inputs {number}   {_dims(trial) or 'as given'}"))
    if found.seed is not None:
        parts.append(Text(f"seed       {found.seed}"))
    parts += ["", _table(found.outputs)]
    parts += [line for each in _worst(found.outputs) for line in ("", _details(each))]
    remarks = grid("", "", whole=(0,), gap=3)
    for finding in found.findings:
        remarks.line("finding", Text(finding, style="red"))
    for note in found.notes:
        remarks.line("note", Text(note, style="yellow"))
    if remarks.row_count:
        parts += ["", remarks]
    wrong = sum(not output.ok for output in found.outputs)
    verdict = Text("equal within the tolerance", style="bold green")
    if not found.ok:
        verdict = Text(f"not equal: {wrong} of {len(found.outputs)} outputs", style="bold red")
        if found.findings:
            verdict = Text("not equal", style="bold red")
    return Group(*parts, "", Text.assemble(verdict, f", {seconds(found.seconds)}"))


def _table(outputs: tuple[OutputDifference, ...]) -> RenderableType:
    if not outputs:
        return Text("no outputs were compared", style="dim")
    shown = sorted(outputs, key=lambda output: output.ok)[:_OUTPUTS]
    order = {output.name: index for index, output in enumerate(outputs)}
    shown.sort(key=lambda output: order[output.name])
    more = len(outputs) - len(shown)
    return Fitting(_lines(shown, more), _blocks(shown, more), _LEAST)


def _lines(shown: Sequence[OutputDifference], more: int) -> RenderableType:
    """Return outputs one below the other."""
    heads = ("output", "type", "max abs", "max rel", "allowed", "cosine", "")
    table = grid(*heads, right=(2, 3, 4, 5))
    for output in shown:
        table.line(
            Text(output.name, style="" if output.ok else "red"),
            Text(_type(output)),
            _error(output.max_abs),
            _error(output.max_rel),
            _allowed(output),
            f"{output.cosine:.6f}",
            _verdict(output),
        )
    if more:
        table.line(_others(more))
    return table


def _blocks(shown: Sequence[OutputDifference], more: int) -> RenderableType:
    """Return what is told of each output in lines of its own."""
    parts: list[RenderableType] = []
    for output in shown:
        told = grid("", "", whole=(0,))
        told.line("output", Text(output.name, style="" if output.ok else "red"))
        told.line("type", Text(_type(output)))
        errors = f"{_error(output.max_abs)} absolute, {_error(output.max_rel)} relative at most"
        told.line("error", Text(errors))
        told.line("allowed", Text(_allowed(output)))
        told.line("cosine", f"{output.cosine:.6f}")
        told.line("verdict", _verdict(output))
        parts += [told, ""]
    return Group(*parts, _others(more)) if more else Group(*parts[:-1])


def _others(more: int) -> Text:
    return Text(f"and {more} more, all equal", style="dim")


def _type(output: OutputDifference) -> str:
    same = output.expected == output.actual
    return output.expected if same else f"{output.expected} → {output.actual}"


def _allowed(output: OutputDifference) -> str:
    return _limit(output.tolerance) if output.tolerance else "exact"


def _verdict(output: OutputDifference) -> Text:
    return Text(_flags(output) or "ok", style="green" if output.ok else "red")


def _worst(outputs: tuple[OutputDifference, ...]) -> list[OutputDifference]:
    """Return the outputs that are told more of: some that differ, or the least equal one."""
    wrong = [each for each in outputs if not each.ok] or sorted(outputs, key=lambda o: -o.max_rel)[
        :1
    ]
    return [each for each in wrong if each.max_abs][:_DETAILED]


def _details(output: OutputDifference) -> RenderableType:
    """Return how the errors of one output are spread."""
    told = grid("", "", whole=(0,))
    told.line("errors of", Text(output.name))
    told.line("mean", f"{output.mean_abs:.1e} absolute, {output.mean_rel:.1e} relative")
    shares = zip(("50", "90", "99", "99.9"), output.quantiles, strict=True)
    told.line("relative", ", ".join(f"{error:.1e} for {share} %" for share, error in shares))
    if output.ulps is not None:
        told.line("steps", f"{count(output.ulps)} of the type at most")
    if output.snr is not None:
        told.line("signal", f"{output.snr:.1f} dB above the error")
    return told


def _error(number: float) -> str:
    return f"{number:.1e}" if number else "0"


def _flags(output: OutputDifference) -> str:
    flags = [output.reason] if output.reason else []
    odd = (("NaN", output.nan), ("infinite", output.inf), ("denormal", output.denormal))
    for what, numbers in odd:
        if numbers[0] == numbers[1] > 0:
            flags.append(f"{numbers[0]} {what} in both")
        elif any(numbers):
            flags.append(f"{numbers[0]} → {numbers[1]} {what}")
    for what, held in (("all zero", output.all_zero), ("constant", output.constant)):
        if any(held):
            flags.append(f"{what} in {'both' if all(held) else 'one'}")
    return ", ".join(flags)
