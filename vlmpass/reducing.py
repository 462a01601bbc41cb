"""The smallest model that a command still fails on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import onnx_ir as ir

from vlmpass.convert_options import Writing
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.parts.outside_check import outside_check
from vlmpass.ir_tools.parts.reduction import Reducer
from vlmpass.ir_tools.proto.onnx_text import model_text
from vlmpass.ir_tools.save import SaveReport, save
from vlmpass.ir_tools.system.arguments import flag, seconds, word, wrong
from vlmpass.ir_tools.system.paths import output_file
from vlmpass.options import helped
from vlmpass.replacing import Sources, refuse_foreign

__all__ = ["ReduceReport", "reduce"]


_Fails: TypeAlias = Callable[[ir.Model], bool]


@dataclass(frozen=True)
class ReduceReport:
    """What is left of a model that fails.

    Attributes:
        nodes: How many nodes were left after each step, by its name.
        tried: How many models were tried.
        replaced: Weights that are ones now: their values do not matter.
        sizes: Sizes of dimensions that are smaller now, old and new.
        text: What is left, as ONNX text; data by their digests.
        told: How the command failed last, as in ``ends with code 1``; empty for a function.
        saved: What was written.
    """

    nodes: dict[str, int]
    tried: int
    replaced: tuple[str, ...]
    sizes: dict[str, int]
    text: str
    told: str
    saved: SaveReport


@helped(Writing)
def reduce(
    source: Source,
    path: str | os.PathLike[str],
    *,
    check: str | _Fails,
    says: str = "",
    check_time: float | None = None,
    force: bool = False,
) -> ReduceReport:
    """Write the smallest part of a model on which a check still fails.

    Nodes, then outputs, sizes of dimensions and weights are left out or replaced for as long as the
    check fails as it did first, and what is left is a valid model if the source is.

    Args:
        source: A path, or anything that `load` takes; it stays as it is.
        path: Of the result.
        check: A command with ``{}`` where the path of a model goes, which fails by its exit code;
            or a function that says whether a model fails.
        says: What a command's output must have in it, too, for it to count.
        check_time: Seconds that a command may take, by default 600; one that takes longer is ended,
            and fails unless something must be said.
        force: See `ConvertOptions`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: The command is none.
        VerifyError: The check does not fail on the source, or cannot be run.
        SaveError: The source, or what is no model, is in the way.
    """
    target = output_file(path)
    Sources(source).refuse(target)
    refuse_foreign(target, flag("force", force))
    said, time = word("says", says) or "", seconds("check_time", check_time)
    outside = None if callable(check) else outside_check(_command(check), time, said)
    fails = outside.fails if outside is not None else cast(_Fails, check)
    found = Reducer(load(source), fails).run()
    saved = save(found.model, path)
    text, told = model_text(found.model), "" if outside is None else outside.told
    return ReduceReport(found.nodes, found.tried, found.replaced, found.sizes, text, told, saved)


def _command(given: object) -> str:
    if not isinstance(given, str):
        raise wrong("check", given, "a command or a function of a model")
    return given
