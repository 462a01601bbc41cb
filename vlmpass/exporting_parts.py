"""A model that was exported, written apart by modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from vlmpass.ir_tools.errors import ArgumentError, VerifyError
from vlmpass.ir_tools.run.allowance import UNBOUNDED
from vlmpass.ir_tools.run.loading import Loader
from vlmpass.ir_tools.system.arguments import word, wrong
from vlmpass.parts import write_scopes
from vlmpass.pipeline import Pipeline

if TYPE_CHECKING:
    from vlmpass.report import Report

__all__ = ["modules_of", "written_apart"]


def modules_of(given: object) -> dict[str, str]:
    """Return modules by the names of parts, as they were given.

    Raises:
        ArgumentError: They are something else.
    """
    if not isinstance(given, Mapping):
        raise wrong("parts", given, "modules by the names of the parts")
    found: dict[str, str] = {}
    for name, module in given.items():
        known = word("a name of parts", name), word("a module of parts", module)
        found[known[0] or ""] = known[1] or ""
    if not found or not all((*found, *found.values())):
        raise ArgumentError("parts names nothing", remedy='write {"vision": "model.vpm"}')
    return found


def written_apart(
    pipeline: Pipeline,
    model: ir.Model,
    folder: Path,
    modules: Mapping[str, str],
    force: bool,
    judge: Callable[[ir.Model], None],
) -> Report:
    """Convert a model as a whole, so that its parts fit, and write them into a folder.

    Args:
        pipeline: Makes the result.
        model: As it was exported.
        folder: Made where it does not exist.
        modules: By the names of the parts.
        force: Whether what is no part of a split before may be replaced.
        judge: Called with what the parts make before the first takes its place.

    Raises:
        VlmpassError: It cannot be done right; nothing was written.
    """
    report = pipeline.run(model, verify=None)

    def judged(whole: ir.Model, parts: Mapping[str, ir.Model]) -> None:
        if report.checked.loaded.ok:
            _hold_loads(parts)
        judge(whole)

    split = write_scopes(report.model, folder, modules, force, judged)
    told = (f"part {each.name}: {each.saved.path}, {each.nodes} nodes" for each in split.parts)
    return replace(report, result=None, split=split, notes=(*report.notes, *told))


def _hold_loads(parts: Mapping[str, ir.Model]) -> None:
    """Hold each part to what the whole does: ONNX Runtime loads it.

    Raises:
        VerifyError: It does not.
    """
    with Loader(UNBOUNDED) as loader:
        for name, part in parts.items():
            error = loader.why_not(part)
            if error is not None:
                raise VerifyError(
                    f"ONNX Runtime loads the whole and not the part {name}: {error.reason}",
                    remedy="name modules that have what belongs together in one",
                )
