"""A result held to what its target takes, by the answer that `vlmpass check` gives of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.convert_options import Writing
from vlmpass.ir_tools.errors import PipelineError, Refusal, Refused
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.targets import Profile
from vlmpass.ir_tools.targets.findings import Files
from vlmpass.ir_tools.weights import file_range
from vlmpass.passes import PassManager, parse
from vlmpass.passes.infer import Infer

__all__ = ["files_of", "fit", "hold", "most_bytes", "shaped"]


def fit(model: ir.Model, target: Profile) -> None:
    """Lower the ir_version to what a target reads, where nothing in the model needs a newer one.

    Raises:
        PipelineError: Something in the model needs a newer one, or it is at another opset than
            those that the target reads.
    """
    from vlmpass.rewriter_rules.opset.stamp import imported_opsets, needed_ir_version

    for opset in sorted(imported_opsets(model)):
        target.hold(opset)
    limit = target.ir_version
    needed = needed_ir_version(model)
    if needed > limit:
        raise PipelineError(
            f"the model needs ir_version {needed}, and {target.name} reads {limit} at most",
            remedy="convert the element types or features that need it",
        )
    model.ir_version = min(model.ir_version, limit)


def hold(model: ir.Model, target: Profile, files: Files | None = None) -> list[str]:
    """Hold a model to what a target is known to take, as `vlmpass check` does, whatever its size.

    Args:
        model: One whose values have types and shapes; it is not changed.
        target: What is to take it.
        files: The sizes of the files that it lies in, where it lies in some.

    Returns:
        What is to be said of what is not known, in one line each.

    Raises:
        Refused: The target does not take it; lists all that it does not.
    """
    from vlmpass.ir_tools.targets.findings import assess
    from vlmpass.passes.legalize.planning import LegalPlanner

    (found,) = assess(model, [target], files)
    about_all = [each for each in found.findings if not each.nodes]
    left = [Refusal("the model", each.reason, each.remedy) for each in about_all]
    left += LegalPlanner(model, target).left
    if left or not found.ok:
        raise Refused(f"--target {target.name}", left)
    if target.runtime is not None:  # which tells by loading it
        return []
    return [
        f"{target.name}: nothing is known of {len(each.nodes)} nodes ({each.operator}): "
        f"{each.reason}; {each.remedy}"
        for each in found.findings
    ]


def most_bytes(writing: Writing, target: Profile | None) -> int | None:
    """Return the most bytes of a file of a result; None in layouts that do not limit them."""
    if not writing.laid_out.limits_files:
        return None
    limit = None if target is None else target.file_size
    return writing.most_bytes if limit is None else min(writing.most_bytes, limit)


def shaped(model: ir.Model, ran: Sequence[ir.passes.PassBase]) -> ir.Model:
    """Return a model with the types and shapes of its values: itself, where `infer` ran last."""
    if ran and isinstance(ran[-1], Infer):
        return model
    found = clone(model)
    PassManager(parse("infer")).run(found, in_place=True)
    return found


def files_of(model: ir.Model, path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the sizes in bytes of the files of a model, its own first, as they lie on the disk."""
    ranges = [file_range(slot.tensor) for slot in tensor_slots(model)]
    data = {where.path for where in ranges if where is not None}
    data.discard(os.path.realpath(path))  # large inline weights lie in the model file itself
    return {os.path.basename(each): os.path.getsize(each) for each in (path, *sorted(data))}
