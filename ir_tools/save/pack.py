"""Parts packed into data files: in order, aligned, none above the limit, overlaps kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.collect import Content, Part
from vlmpass.ir_tools.save.size import format_size
from vlmpass.ir_tools.weights import FileRange

__all__ = ["Block", "NewFile", "align", "blocks_of", "pack", "too_large"]

# Runtimes map tensors at page borders only: 4 KiB, or 64 KiB on Windows. Below a megabyte the gaps
# would cost more than reading does.
_ALIGNMENTS = ((1 << 20, 1 << 16), (1 << 16, 1 << 12), (0, 64))


@dataclass(frozen=True)
class Block(Content):
    """Bytes that are written in one piece.

    Attributes:
        members: Numbers of the parts in it, each with the offset at which it starts.
    """

    members: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NewFile:
    """A file to write.

    Attributes:
        nbytes: Its size.
        blocks: Weights, each with its offset, in order.
        literals: Other bytes, each with its offset; what is between is zero.
    """

    nbytes: int
    blocks: tuple[tuple[int, Block], ...]
    literals: tuple[tuple[int, bytes], ...] = ()


def align(offset: int, alignment: int) -> int:
    """Return the next multiple of `alignment` at or after an offset."""
    return -(-offset // alignment) * alignment


def _groups(parts: Mapping[int, Part]) -> Iterator[list[int]]:
    """Yield the parts that lie in files, those that overlap together, as their numbers."""
    stored = [(p.source, number) for number, p in parts.items() if p.source is not None]
    stored.sort(key=lambda item: (item[0].path, item[0].offset, -item[0].length))
    group: list[int] = []
    path, end = "", 0
    for source, number in stored:
        if group and source.path == path and source.offset < end:
            group.append(number)
            end = max(end, source.offset + source.length)
            continue
        if group:
            yield group
        group, path, end = [number], source.path, source.offset + source.length
    if group:
        yield group


def _block(parts: Mapping[int, Part], group: Sequence[int]) -> Block:
    first = parts[min(group)]
    source = first.source
    if source is None or len(group) == 1:
        members: tuple[tuple[int, int], ...] = ((group[0], 0),)
        return Block(first.where, first.name, first.nbytes, first.weight, source, members)
    ranges = [(number, range_) for number in group if (range_ := parts[number].source)]
    start = min(range_.offset for _, range_ in ranges)
    length = max(range_.offset + range_.length for _, range_ in ranges) - start
    members = tuple((number, range_.offset - start) for number, range_ in ranges)
    source = FileRange(source.path, start, length)
    return Block(first.where, first.name, length, first.weight, source, members)


def blocks_of(parts: Mapping[int, Part], limit: int | None, *, merge: bool) -> list[Block]:
    """Return the blocks that hold some parts, in the order of the parts.

    Args:
        parts: By number.
        limit: The most bytes a block may have, if there is a limit.
        merge: Whether parts whose ranges of a file overlap share a block, where it fits.
    """
    groups: list[list[int]] = [[n] for n, part in parts.items() if part.source is None or not merge]
    blocks = [_block(parts, group) for group in groups]
    for group in _groups(parts) if merge else ():
        together = _block(parts, group)
        fits = limit is None or together.nbytes <= limit
        blocks += [together] if fits else [_block(parts, [number]) for number in group]
    return sorted(blocks, key=lambda block: min(number for number, _ in block.members))


def too_large(block: Block, limit: int) -> SaveError:
    """Return the error for a tensor that fits no file."""
    return SaveError(
        f"{block.where} takes {format_size(block.nbytes)}, more than the {format_size(limit)} that "
        "a file may have",
        remedy=f"split it in the graph with split-tensor{{limit={limit}}}, or raise --shard-size",
    )


def _alignment(nbytes: int) -> int:
    return next(alignment for above, alignment in _ALIGNMENTS if nbytes >= above)


def pack(blocks: Iterable[Block], limit: int | None) -> list[NewFile]:
    """Return the files that hold blocks in order, large ones where a runtime can map them.

    Raises:
        SaveError: A block alone is above the limit.
    """
    files: list[NewFile] = []
    placed: list[tuple[int, Block]] = []
    end = 0
    for block in blocks:
        if limit is not None and block.nbytes > limit:
            raise too_large(block, limit)
        offset = align(end, _alignment(block.nbytes))
        if limit is not None and offset + block.nbytes > limit:
            files.append(NewFile(end, tuple(placed)))
            placed, offset = [], 0
        placed.append((offset, block))
        end = offset + block.nbytes
    if placed:
        files.append(NewFile(end, tuple(placed)))
    return files
