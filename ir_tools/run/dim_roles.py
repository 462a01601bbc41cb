"""What a dimension of an input counts, read off its name, its input's name and its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

from vlmpass.ir_tools.run.input_usage import Use

__all__ = ["Place", "Role", "role_of", "words"]


class Role(Enum):
    """What a dimension counts."""

    BATCH = "batch"
    SEQUENCE = "sequence"
    PAST = "past"
    TOTAL = "total"
    HEIGHT = "height"
    WIDTH = "width"
    CHANNELS = "channels"
    PATCHES = "patches"
    OTHER = "other"


_BY_WORD: tuple[tuple[frozenset[str], Role], ...] = (
    (frozenset({"batch", "bs", "bsz"}), Role.BATCH),
    (frozenset({"total", "kv", "mask", "plus"}), Role.TOTAL),
    (frozenset({"past", "cache"}), Role.PAST),
    (frozenset({"height", "h"}), Role.HEIGHT),
    (frozenset({"width", "w"}), Role.WIDTH),
    (frozenset({"channels", "channel"}), Role.CHANNELS),
    (frozenset({"enc", "encoder", "encode", "image", "images", "crops", "frames"}), Role.OTHER),
    (frozenset({"patches", "patch"}), Role.PATCHES),
    (frozenset({"seq", "sequence", "seqlen", "tokens", "text"}), Role.SEQUENCE),
)
_CACHE_WORDS = frozenset({"past", "cache", "key", "kv"})


@dataclass(frozen=True)
class Place:
    """One axis of one input, and how the graph consumes that input."""

    value: ir.Value
    axis: int
    rank: int
    use: Use


def words(name: str) -> frozenset[str]:
    """Return the lower-case words of a name: ``past_key_values.0`` has past, key, values and 0."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word)


def role_of(name: str | None, places: Sequence[Place], *, has_past: bool) -> Role:
    """Return what a dimension counts.

    Args:
        name: Its symbol; None if it has none.
        places: Where it occurs; at least one.
        has_past: Whether the model takes a cache.
    """
    named = words(name or "")
    for keys, role in _BY_WORD:
        if named & keys:
            return role
    roles = [_role_of_place(place, has_past) for place in places]
    return next((role for role in roles if role is not Role.OTHER), Role.OTHER)


def _role_of_place(place: Place, has_past: bool) -> Role:
    named = words(place.value.name or "")
    dtype = place.value.dtype
    if named & _CACHE_WORDS and place.rank >= 3 and place.axis == place.rank - 2:
        return Role.PAST
    if place.use.stride is not None and place.rank >= 4 and place.axis >= place.rank - 3:
        return (Role.CHANNELS, Role.HEIGHT, Role.WIDTH)[place.axis - place.rank + 3]
    if place.axis == 0:
        return Role.BATCH
    if place.axis == 1 and place.rank == 2 and dtype is not None and not dtype.is_floating_point():
        return Role.TOTAL if has_past and "mask" in named else Role.SEQUENCE
    if place.axis == 1 and place.rank == 3:
        return Role.SEQUENCE
    return Role.OTHER
