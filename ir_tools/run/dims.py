"""Sizes for the dynamic dimensions of a model's inputs.

A dimension's role is read off its name, its input's name and its place; sizes that belong together
(past + new = total) are derived. What stays uncertain becomes a knob with several settings, which
are tried in order of plausibility until the model accepts one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.run.dim_roles import Place, Role, role_of, words
from vlmpass.ir_tools.run.input_usage import Use

__all__ = ["LONG", "SIZES", "Dimensions", "grid_rows", "is_grid"]

SIZES = 2
"""Every dynamic dimension is tried at this many sizes."""
LONG = SIZES
"""One size more, at which sequences and caches are long."""
_ATTEMPTS = 48
# Filters that follow one another take some hundred samples of sound before they give anything.
_SAMPLES = ((1600, 16000), (2080, 17600))
_COMMON_SQUARES = (224, 336, 384, 448, 518, 512, 640)
# Sizes of each, the last one long; what is prime to its neighbours shows up swapped axes.
_PLANNED = {
    Role.BATCH: (2, 1, 2),
    Role.SEQUENCE: (6, 9, 131),
    Role.PAST: (5, 3, 127),
    Role.PATCHES: (16, 24, 16),
    Role.CHANNELS: (3, 3, 3),
}


@dataclass
class _Symbol:
    name: str
    role: Role
    places: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class _Knob:
    """One uncertain choice: the settings are sizes by symbol, the most plausible first."""

    settings: Sequence[Mapping[str, int]]


class Dimensions:
    """The dynamic dimensions of a model's inputs.

    Args:
        inputs: The graph inputs that must be fed.
        uses: How the graph consumes each, by name.
        squares: Image sides that position tables in the model suggest, in patches.
    """

    def __init__(
        self, inputs: Sequence[ir.Value], uses: Mapping[str, Use], squares: Sequence[int] = ()
    ) -> None:
        self._squares = tuple(squares)
        self.shapes: dict[str, tuple[int | str, ...]] = {}
        places: dict[str, list[Place]] = {}
        for value in inputs:
            shape = value.shape if value.shape is not None else ir.Shape(())
            dims = [_key(value, axis, dim) for axis, dim in enumerate(shape)]
            self.shapes[value.name or ""] = tuple(dims)
            for axis, key in enumerate(dims):
                for name in _symbols_of(key):
                    place = Place(value, axis, len(dims), uses[value.name or ""])
                    places.setdefault(name, []).append(place)
        unnamed = {name for name in places if name.endswith("]")}
        has_past = any(
            role_of(None if name in unnamed else name, held, has_past=False) is Role.PAST
            for name, held in places.items()
        )
        self._symbols = [
            _Symbol(name, role_of(None if name in unnamed else name, held, has_past=has_past), held)
            for name, held in places.items()
        ]
        self._grid = next((value for value in inputs if is_grid(value)), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The symbols, in order of appearance; an unnamed one is ``input[axis]``."""
        return tuple(symbol.name for symbol in self._symbols)

    @property
    def has_sequences(self) -> bool:
        """Whether sequences may be as long as one wants."""
        return any(self._named(role) for role in (Role.SEQUENCE, Role.PAST, Role.TOTAL))

    @property
    def caches(self) -> list[str]:
        """The symbols that count what is in a cache."""
        return self._named(Role.PAST)

    def size_of(self, role: Role, sizes: Mapping[str, int]) -> int | None:
        """Return the size of the first dimension with a role; None if there is none."""
        for symbol in self._symbols:
            if symbol.role is role:
                return sizes[symbol.name]
        return None

    def shape(self, name: str, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
        """Return the shape of an input; None if a declared expression comes out negative."""
        dims = tuple(_evaluate(key, sizes) for key in self.shapes[name])
        return dims if all(dim >= 0 for dim in dims) else None

    def attempts(
        self, size: int, pinned: Mapping[str, int] | None = None
    ) -> Iterator[dict[str, int]]:
        """Yield assignments of sizes to symbols, the most plausible first.

        Args:
            size: Which of the sizes of every dimension: 0, 1 or `LONG`.
            pinned: Sizes that are given.
        """
        base = self._base(size)
        base.update({name: n for name, n in (pinned or {}).items() if name in self.caches})
        knobs = self._knobs(size, base)
        tried: set[tuple[int, ...]] = set()
        for setting in itertools.islice(_by_deviation([len(k.settings) for k in knobs]), 4000):
            sizes = dict(base)
            for knob, chosen in zip(knobs, setting, strict=True):
                sizes.update(knob.settings[chosen])
            self._fit_grid(sizes, size)
            sizes.update(pinned or {})
            key = tuple(sizes.values())
            if key in tried:
                continue
            tried.add(key)
            yield sizes
            if len(tried) >= _ATTEMPTS:
                return

    def _named(self, role: Role) -> list[str]:
        return [symbol.name for symbol in self._symbols if symbol.role is role]

    def _base(self, size: int) -> dict[str, int]:
        sizes: dict[str, int] = {}
        others = 0
        for symbol in self._symbols:
            if symbol.role in _PLANNED:
                sizes[symbol.name] = _PLANNED[symbol.role][size]
            else:
                sizes[symbol.name] = (7 + 4 * others, 4 + 6 * others)[size % SIZES]
                others += 1
            channels = next((p.use.channels for p in symbol.places if p.use.channels), None)
            if symbol.role is Role.CHANNELS and channels:
                sizes[symbol.name] = channels
        return sizes

    def _knobs(self, size: int, base: Mapping[str, int]) -> list[_Knob]:
        sequence, past = _PLANNED[Role.SEQUENCE][size], 0
        if self.caches:
            past = base[self.caches[0]]
        knobs = []
        if total := self._named(Role.TOTAL):
            totals = [past + sequence, sequence, past + 1, base[total[0]]]
            knobs.append(_Knob([dict.fromkeys(total, number) for number in totals]))
        if tokens := self._named(Role.SEQUENCE):
            # Decoders exported for one token at a time take no more.
            numbers = (sequence, 1, *(n for each in tokens for n in self._samples(each, size)))
            knobs.append(_Knob([dict.fromkeys(tokens, number) for number in numbers]))
        if sides := self._image_sides(size):
            height, width = self._named(Role.HEIGHT), self._named(Role.WIDTH)
            knobs.append(
                _Knob([dict.fromkeys(height, h) | dict.fromkeys(width, w) for h, w in sides])
            )
        if batch := self._named(Role.BATCH):
            knobs.append(_Knob([dict.fromkeys(batch, n) for n in (base[batch[0]], 1)]))
        loose = self._named(Role.OTHER) + self._named(Role.PATCHES) + self._named(Role.BATCH)[1:]
        for name in loose:
            values = [base[name], sequence, past + sequence, 1, 4 * (size % SIZES + 1), 16]
            values += self._samples(name, size)
            knobs.append(_Knob([{name: number} for number in values]))
        return knobs

    def _samples(self, name: str, size: int) -> tuple[int, ...]:
        """Return counts for what may be samples of sound: the last axis of floats, of 2 or 3."""
        places = next(each.places for each in self._symbols if each.name == name)
        heard = any(
            place.axis == place.rank - 1
            and place.rank in (2, 3)
            and place.value.dtype is not None
            and place.value.dtype.is_floating_point()
            for place in places
        )
        return _SAMPLES[size % SIZES] if heard else ()

    def _image_sides(self, size: int) -> list[tuple[int, int]]:
        """Return heights and widths: multiples of the patch first, then usual squares."""
        symbols = [s for s in self._symbols if s.role in (Role.HEIGHT, Role.WIDTH)]
        if not symbols:
            return []
        strides = [p.use.stride for s in symbols for p in s.places if p.use.stride is not None]
        patch_h, patch_w = strides[0] if strides and max(strides[0]) >= 4 else (32, 32)
        sides = [(8, 4), (4, 12)] if size != 1 else [(4, 12), (8, 4)]
        planned = [(h * patch_h, w * patch_w) for h, w in sides]
        tables = [(side * patch_h, side * patch_w) for side in self._squares]
        common = [(n, n) for n in _COMMON_SQUARES if n % patch_h == 0 and n % patch_w == 0]
        return [*planned[:1], *tables, *planned[1:], *common]

    def _fit_grid(self, sizes: dict[str, int], size: int) -> None:
        """Let the number of patches be what the image grid counts."""
        if self._grid is None:
            return
        rows = _evaluate(self.shapes[self._grid.name or ""][0], sizes)
        for symbol in self._symbols:
            ranks = {place.rank for place in symbol.places}
            dtypes = {place.value.dtype for place in symbol.places}
            floats = all(dtype is not None and dtype.is_floating_point() for dtype in dtypes)
            axes = {place.axis for place in symbol.places}
            loose = symbol.role in (Role.BATCH, Role.PATCHES, Role.OTHER)
            if loose and floats and ranks == {2} and axes == {0}:
                sizes[symbol.name] = sum(math.prod(row) for row in grid_rows(rows, size))


def is_grid(value: ir.Value) -> bool:
    """Tell whether an input holds (time, height, width) in patches, one row per image."""
    shape = value.shape
    named = "thw" in words(value.name or "")
    return named and shape is not None and len(shape) == 2 and shape[1] == 3


def grid_rows(count: int, size: int, patches: int | None = None) -> list[tuple[int, int, int]]:
    """Return patch grids, sides even so that 2 × 2 merging works.

    Args:
        count: Number of images.
        size: Which of the sizes.
        patches: Patches of all images together, if the model fixes them.
    """
    if patches is not None and count == 1:
        for side in range(math.isqrt(patches), 0, -1):
            if patches % side == 0 and (side % 2 == 0 or patches % 2):
                return [(1, side, patches // side)]
    return [(1, 4 + 2 * (index % 2), (6, 8)[size % SIZES]) for index in range(count)]


def _key(value: ir.Value, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return dim.value if dim.value is not None else f"{value.name}[{axis}]"


def _symbols_of(key: int | str) -> tuple[str, ...]:
    """Return the symbols of a declared dimension: ``past + seq`` has two."""
    if isinstance(key, int):
        return ()
    if re.fullmatch(r"[^\s+*/()]+", key):
        return (key,)
    try:
        return tuple(sorted(ir.SymbolicDim(key).free_symbols()))
    except ValueError:
        return (key,)


def _evaluate(key: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(key, int):
        return key
    if key in sizes:
        return sizes[key]
    value = ir.SymbolicDim(key).evaluate(dict(sizes))
    return value if isinstance(value, int) else -1


def _by_deviation(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield one index per knob, those closest to all zeros first."""
    for deviation in range(sum(length - 1 for length in lengths) + 1):
        yield from _summing_to(deviation, lengths)


def _summing_to(total: int, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if not lengths:
        if total == 0:
            yield ()
        return
    for first in range(min(total, lengths[0] - 1), -1, -1):
        for rest in _summing_to(total - first, lengths[1:]):
            yield first, *rest
