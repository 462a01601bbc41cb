"""An output planned whole, and refused if it must be, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.collect import collect, name_of, source_of
from vlmpass.ir_tools.save.forms import PROTOBUF_LIMIT, is_text, serialised
from vlmpass.ir_tools.save.keep import choose_kept
from vlmpass.ir_tools.save.layout import Layout, Weights, data_names
from vlmpass.ir_tools.save.pack import Block, NewFile
from vlmpass.ir_tools.save.plan import Plan, check_sources, make_plan
from vlmpass.ir_tools.save.proto import Skeleton, make_skeleton
from vlmpass.ir_tools.save.references import Folder
from vlmpass.ir_tools.save.size import format_size
from vlmpass.ir_tools.save.splice import spliced
from vlmpass.ir_tools.save.write import check_space
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.locks import locked_folder
from vlmpass.ir_tools.system.memory import hand_back
from vlmpass.ir_tools.system.uninterruptible import shielded

__all__ = ["Output", "plan_output"]

_TEXT_WEIGHTS_LIMIT = 64 << 20


@dataclass(frozen=True)
class Output:
    """An output as planned, before anything is written.

    Attributes:
        path: The model file, absolute; a link there is replaced, not followed.
        layout: Of the output.
        limit: The most bytes of the model file.
        plan: Where the weights go.
        skeleton: The model file without large weights.
        whole: The model file itself, if large weights go into it.
        expected: What `names` returned when this was planned.
    """

    path: Path
    layout: Layout
    limit: int
    plan: Plan
    skeleton: Skeleton
    whole: NewFile | None = None
    expected: Sequence[str] = ()

    @property
    def nbytes(self) -> int:
        """The bytes of everything that is written in the temporary folder at once."""
        return self.plan.nbytes + (self.whole.nbytes if self.whole else 0)

    def names(self, owners: Folder) -> list[str]:
        """Return the names of all data files, the kept ones first, as the folder is now."""
        kept = [file.name for file in self.plan.kept]

        def taken(name: str) -> bool:
            path = self.path.parent / name
            if name in kept or path == self.path:
                return True
            return os.path.lexists(path) and not owners.owns(path)

        return [*kept, *data_names(self.layout, self.path, len(self.plan.new), taken)]

    def model_bytes(self, names: Sequence[str]) -> tuple[bytes, str | None]:
        """Return the bytes of the model file, given the names of the data files, and a note.

        Raises:
            SaveError: They would be more than a file may have.
        """
        data, note = serialised(self.skeleton.named(names), self.path)
        if len(data) > self.limit:
            raise SaveError(
                f"{self.path.name} would take {format_size(len(data))} without its weights, more "
                f"than the {format_size(self.limit)} that a file may have",
                remedy="raise --shard-size",
            )
        return data, note


def _refuse_overwriting_data(plan: Plan, output: Path) -> None:
    real = os.path.realpath(output)
    for part in plan.parts:
        if part.data_file == real:
            raise SaveError(
                f"{output} holds the data of {part.where}", remedy="choose another output"
            )


def _streamed(skeleton: Skeleton, data: bytes, output: Path) -> NewFile:
    """Return a model file with large weights in it, to be written like a data file."""
    pieces, total = spliced(data, [weight.nbytes for _, weight in skeleton.marked])
    if total > PROTOBUF_LIMIT:
        raise SaveError(
            f"{output.name} would take {format_size(total)} with its weights inside, more than the "
            f"{PROTOBUF_LIMIT} bytes that a protobuf can have",
            remedy="choose a layout with data files",
        )
    literals: list[tuple[int, bytes]] = []
    blocks: list[tuple[int, Block]] = []
    offset = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            literals.append((offset, piece))
            offset += len(piece)
            continue
        slot, weight = skeleton.marked[piece]
        source = source_of(weight)
        block = Block(slot.where, name_of(slot), weight.nbytes, weight, source, ())
        blocks.append((offset, block))
        offset += weight.nbytes
    return NewFile(total, tuple(blocks), tuple(literals))


def _refuse_large_text(plan: Plan, output: Path) -> None:
    total = sum(
        placed.slot.tensor.nbytes
        for placed in plan.tensors
        if placed.slot.tensor.dtype != ir.DataType.STRING
    )
    if total > _TEXT_WEIGHTS_LIMIT:
        raise SaveError(
            f"{output.name} would hold {format_size(total)} of weights as text",
            remedy="write .onnx, or choose a layout with data files",
        )


@without_collector
def plan_output(
    model: ir.Model, output: Path, layout: Layout, limit: int, weights: Weights
) -> Output:
    """Plan an output.

    Args:
        model: Unchanged when this returns.
        output: From `output_file`.
        layout: Of the output.
        limit: The shard limit in bytes.
        weights: What to do with data that is there already.

    Raises:
        SaveError: It cannot be written as asked; nothing was written.
    """
    tensors, parts = collect(model, layout)
    check_sources(parts)
    file_limit = limit if layout.limits_files else None
    kept = choose_kept(parts, weights, layout, file_limit, Folder(output))
    plan = make_plan(tensors, parts, kept, layout, file_limit)
    _refuse_overwriting_data(plan, output)
    inline = layout is Layout.INLINE
    if inline and is_text(output):
        _refuse_large_text(plan, output)
    marked = inline and not is_text(output)
    hand_back()  # what the passes left; a protobuf is made somewhere else
    skeleton = shielded(lambda: make_skeleton(model, plan, output, inline=marked))
    hand_back()
    model_limit = min(limit, PROTOBUF_LIMIT) if layout.limits_files else PROTOBUF_LIMIT
    result = Output(output, layout, model_limit, plan, skeleton)
    with locked_folder(output.parent):
        names = result.names(Folder(output))
    data, _ = result.model_bytes(names)
    whole = _streamed(skeleton, data, output) if skeleton.marked else None
    hand_back()
    result = replace(result, whole=whole, expected=names)
    check_space(output.parent, result.nbytes + (0 if whole else len(data)))
    return result
