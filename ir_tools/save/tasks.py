"""What there is to put into files, in pieces that threads can work on at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmpass.ir_tools.save.pack import Block, NewFile
from vlmpass.ir_tools.weights import FileRange
from vlmpass.ir_tools.weights.leaves import Stored

__all__ = ["StagedFile", "Task", "stamp_of", "tasks_of"]

_TASK_BYTES = 16 << 20  # small tensors are done together, large ones alone


@dataclass(frozen=True)
class StagedFile:
    """A file to write.

    Attributes:
        path: Where it is prepared.
        name: What it will be called, for messages.
        content: What goes into it.
    """

    path: Path
    name: str
    content: NewFile


@dataclass(frozen=True)
class Task:
    """Work for one thread: what to put into a file, literal bytes or blocks, each at its offset."""

    file: StagedFile
    contents: Sequence[tuple[int, bytes | Block]]


def _join(first: Block, second: Block) -> Block | None:
    """Return two blocks as one if their bytes follow each other in a file."""
    left, right = first.source, second.source
    if left is None or right is None or left.path != right.path:
        return None
    if left.offset + left.length != right.offset or stamp_of(first) != stamp_of(second):
        return None
    source = FileRange(left.path, left.offset, left.length + right.length)
    return replace(first, nbytes=source.length, source=source)


def stamp_of(block: Block) -> object:
    """Return the state that the file of a block must be in."""
    expression = block.weight.expression
    return expression.stamp if isinstance(expression, Stored) else None


def _coalesced(blocks: Iterable[tuple[int, Block]]) -> list[tuple[int, Block]]:
    """Join blocks that follow each other both where they lie and where they go."""
    joined: list[tuple[int, Block]] = []
    for offset, block in blocks:
        if joined and joined[-1][0] + joined[-1][1].nbytes == offset:
            both = _join(joined[-1][1], block)
            if both is not None:
                joined[-1] = joined[-1][0], both
                continue
        joined.append((offset, block))
    return joined


def _nbytes(content: bytes | Block) -> int:
    return len(content) if isinstance(content, bytes) else content.nbytes


def tasks_of(files: Sequence[StagedFile]) -> list[Task]:
    """Return what there is to do, file after file and in the order of offsets."""
    tasks: list[Task] = []
    for file in files:
        contents: list[tuple[int, bytes | Block]] = [*file.content.literals]
        contents += _coalesced(file.content.blocks)
        some: list[tuple[int, bytes | Block]] = []
        size = 0
        for offset, content in sorted(contents, key=lambda item: item[0]):
            some.append((offset, content))
            size += _nbytes(content)
            if size >= _TASK_BYTES:
                tasks.append(Task(file, some))
                some, size = [], 0
        if some:
            tasks.append(Task(file, some))
    return tasks
