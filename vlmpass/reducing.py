"""The smallest model that a command still fails on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.convert_options import Writing
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.parts.outside_check import OutsideCheck
from vlmpass.ir_tools.parts.reduction import Reducer
from vlmpass.ir_tools.proto.onnx_text import model_text
from vlmpass.ir_tools.save import SaveReport, save
from vlmpass.ir_tools.system.arguments import flag, word, wrong
from vlmpass.ir_tools.system.paths import output_file
from vlmpass.options import helped
from vlmpass.replacing import Sources, refuse_foreign

__all__ = ["ReduceReport", "reduce"]


@dataclass(frozen=True)
class ReduceReport:
    """What is left of a model that fails.

    Attributes:
        nodes: How many nodes were left after each step, by its name.
        tried: How many models were tried.
        replaced: Weights that are ones now: their values do not matter.
        sizes: Sizes of dimensions that are smaller now, old and new.
        text: What is left, as ONNX text; data by their digests.
        saved: What was written.
    """

    nodes: dict[str, int]
    tried: int
    replaced: tuple[str, ...]
    sizes: dict[str, int]
    text: str
    saved: SaveReport


@helped(Writing)
def reduce(
    source: Source,
    path: str | os.PathLike[str],
    *,
    check: str | Callable[[ir.Model], bool],
    says: str = "",
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
    said = word("says", says) or ""
    fails = check if callable(check) else OutsideCheck(_command(check), said).fails
    found = Reducer(load(source), fails).run()
    saved = save(found.model, path)
    text = model_text(found.model)
    return ReduceReport(found.nodes, found.tried, found.replaced, found.sizes, text, saved)


def _command(given: object) -> str:
    if not isinstance(given, str):
        raise wrong("check", given, "a command or a function of a model")
    return given
