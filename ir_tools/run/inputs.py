"""Seeded inputs that a model accepts, made from nothing but the model."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.dim_roles import Role, words
from vlmpass.ir_tools.run.dims import LONG, SIZES, Dimensions
from vlmpass.ir_tools.run.input_usage import Use, trace_use
from vlmpass.ir_tools.run.values import Hard, Request, has_rows, make_values
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.system.paths import inputs_file
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Attempt", "InputPlan", "arrays_of", "generate_inputs", "held_to", "read_inputs"]

_DAMAGED = (
    OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""What numpy and zipfile raise of an archive that is damaged, or that they do not know."""


@dataclass(frozen=True)
class Attempt:
    """One set of inputs worth trying.

    Attributes:
        dims: Size by symbol of every dynamic dimension.
        padded: Whether masks hide some padding.
        hides: Whether masks of booleans say what is hidden instead of what is seen.
        inputs: The arrays by input name; a sequence is a list of arrays.
    """

    dims: Mapping[str, int]
    padded: bool
    hides: bool
    inputs: Feed


class InputPlan:
    """How to feed a model: which inputs, how each is used, which dimensions belong together.

    Args:
        model: Only graph structure, types and shapes are looked at; no weight is read.
        empties: Whether masks of rows hide one row throughout, and with minus infinity, at the last
            of the sizes, where the model accepts that and stays finite.

    Raises:
        VerifyError: If an input declares no rank, so that no shape can be made for it.
    """

    def __init__(self, model: ir.Model, *, empties: bool = False) -> None:
        self._empties = empties
        initializers = model.graph.initializers
        self._inputs = [value for value in model.graph.inputs if value.name not in initializers]
        for value in self._inputs:
            if value.shape is None:
                raise VerifyError(
                    f"input '{value.name}' declares no rank",
                    remedy="give values with --inputs file.npz",
                )
        self._uses: dict[str, Use] = {
            value.name or "": trace_use(model, value) for value in self._inputs
        }
        self.dimensions = Dimensions(self._inputs, self._uses, _squares(model))

    def attempts(
        self, size: int, seed: int = 0, pinned: Mapping[str, int] | None = None
    ) -> Iterator[Attempt]:
        """Yield input sets, the most plausible first, for the source model to accept or refuse.

        Args:
            size: Which of the two sizes of every dynamic dimension, 0 or 1.
            seed: Same seed, same arrays.
            pinned: Sizes by symbol that are given.

        Each assignment is tried with padding in the masks first, then without, and then with masks
        of booleans the other way round.
        """
        yield from self._attempts(size, seed, pinned, None)

    def hard(
        self, seed: int = 0, pinned: Mapping[str, int] | None = None
    ) -> Iterator[tuple[str, Iterator[Attempt]]]:
        """Yield what is hard on narrow types, each kind in words and with its input sets.

        Only what says something of this model is among them: long sequences where something is as
        long as one wants, masked rows where there are masks, large numbers where there are floats.

        Args:
            seed: Same seed, same arrays.
            pinned: Sizes by symbol that are given.
        """
        names = [value.name or "" for value in self._inputs]
        floats = any(v.dtype is not None and v.dtype.is_floating_point() for v in self._inputs)
        late = any(words(name) & {"position", "positions"} for name in names)
        asked = {
            Hard.LONG: late or self.dimensions.has_sequences,
            Hard.MASKED: bool(self._named_masks()),
            Hard.LARGE: floats,
        }
        for hard in (each for each, makes_sense in asked.items() if makes_sense):
            size = LONG if hard is Hard.LONG else 0
            yield hard.value, self._attempts(size, seed, pinned, hard)

    def sides(
        self, seed: int = 0, pinned: Mapping[str, int] | None = None
    ) -> Iterator[tuple[str, Iterator[Attempt]]]:
        """Yield other sides of plausible inputs, in words and with their input sets.

        A cache that is empty, where there may be one, and padding at the end, where there are masks
        of tokens.

        Args:
            seed: Same seed, same arrays.
            pinned: Sizes by symbol that are given.
        """
        past = [name for name in self.dimensions.caches if name not in (pinned or {})]
        if past:
            empty = {**dict.fromkeys(past, 0), **(pinned or {})}
            attempts = self._attempts(0, seed, empty, Hard.EMPTY)
            # Of padding at the start, nothing to see would be left, which says nothing.
            masked = bool(self._named_masks())
            yield Hard.EMPTY.value, (each for each in attempts if not (masked and each.padded))
        if any(value.shape is not None and len(value.shape) == 2 for value in self._named_masks()):
            padded = self._attempts(0, seed, pinned, Hard.RIGHT)
            yield Hard.RIGHT.value, (each for each in padded if each.padded)

    def _attempts(
        self, size: int, seed: int, pinned: Mapping[str, int] | None, hard: Hard | None
    ) -> Iterator[Attempt]:
        last = SIZES - 1 if self.dimensions.names else 0
        for sizes in self.dimensions.attempts(size, pinned):
            for padded, hides, empties in self._masks():
                if empties and (hard is not None or size != last):
                    continue
                inputs = self._fill(sizes, size, seed, padded, hides, empties, hard)
                if inputs is not None:
                    yield Attempt(sizes, padded, hides, inputs)

    def _named_masks(self) -> list[ir.Value]:
        return [value for value in self._inputs if "mask" in (value.name or "").lower()]

    def _masks(self) -> Iterator[tuple[bool, bool, bool]]:
        """Yield how masks are filled: whether they hide padding, whether True hides, empty rows."""
        masks = self._named_masks()
        if self._empties and any(map(has_rows, masks)):
            yield True, False, True
        yield True, False, False
        if masks:
            yield False, False, False
        if any(value.dtype is ir.DataType.BOOL for value in masks):
            yield True, True, False

    def _fill(
        self,
        sizes: Mapping[str, int],
        size: int,
        seed: int,
        padded: bool,
        hides: bool,
        empties: bool,
        hard: Hard | None,
    ) -> Feed | None:
        by_role = {
            role: length
            for role in Role
            if (length := self.dimensions.size_of(role, sizes)) is not None
        }
        feed: Feed = {}
        for index, value in enumerate(self._inputs):
            name = value.name or ""
            shape = self.dimensions.shape(name, sizes)
            if shape is None:
                return None
            use = self._uses[name]
            request = Request(value, use, shape, by_role, size, padded, hides, empties, hard)
            rng = np.random.default_rng((seed, size, index))
            if isinstance(value.type, ir.SequenceType):
                feed[name] = [make_values(request, rng), make_values(request, rng)]
            else:
                feed[name] = make_values(request, rng)
        return feed


def _squares(model: ir.Model) -> list[int]:
    """Return the sides of square position tables: [1, n, d] with n or n - 1 a square."""
    sides: list[int] = []
    for value in model.graph.initializers.values():
        shape = value.shape
        if shape is None or not 2 <= len(shape) <= 3 or not isinstance(shape[-2], int):
            continue
        if len(shape) == 3 and shape[0] != 1:
            continue
        for count in (shape[-2], shape[-2] - 1):
            side = math.isqrt(max(count, 0))
            if side >= 4 and side * side == count and side not in sides:
                sides.append(side)
    return sides[:6]


def generate_inputs(model: ir.Model, seed: int = 0, size: int = 0) -> Feed:
    """Return the most plausible inputs of a model, by input name.

    Token ids stay within the tables they index, positions within theirs, masks are ones with some
    padding on the left, caches, pixels and embeddings are standard normal.

    Args:
        model: Only structure, types and shapes are looked at.
        seed: Same seed, same arrays.
        size: 0 or 1: one of two sizes of every dynamic dimension.

    Raises:
        VerifyError: If an input declares no rank or no element type.
        ValueError: If size is neither 0 nor 1.
    """
    if not 0 <= size < SIZES:
        raise ValueError(f"size is 0 or 1, not {size}")
    attempt = next(InputPlan(model).attempts(size, seed), None)
    if attempt is None:
        raise VerifyError(
            "no shape follows from the declared dimensions", remedy="give values with --inputs"
        )
    return attempt.inputs


def read_inputs(path: str | os.PathLike[str], model: ir.Model) -> Feed:
    """Return the arrays of an ``.npz`` file as inputs of a model, cast to the declared dtypes.

    Raises:
        VerifyError: If the file cannot be read, lacks an input or has one that the model has not.
    """
    return held_to(arrays_of(path), model, os.fspath(path))


def held_to(arrays: Mapping[str, Array | list[Array] | None], model: ir.Model, what: str) -> Feed:
    """Return arrays as inputs of a model, cast to the declared dtypes.

    Args:
        arrays: By name; a list for a sequence, None for an optional value that is not there.
        model: Has the inputs.
        what: They are called so in messages.

    Raises:
        VerifyError: One is lacking, or is not an input.
    """
    initializers = model.graph.initializers
    wanted = {value.name or "": value for value in model.graph.inputs}
    required = [name for name in wanted if name not in initializers]
    missing = [name for name in required if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if missing or extra:
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has {listed(extra)}, which the model does not take"] if extra else []
        raise VerifyError(f"{what} {' and '.join(parts)}")
    return {name: _declared(arrays[name], wanted[name]) for name in arrays}


def _declared(given: Array | list[Array] | None, value: ir.Value) -> Array | list[Array] | None:
    if given is None:
        return None
    if isinstance(given, list):
        return [_as_declared(each, value) for each in given]
    return _as_declared(given, value)


def arrays_of(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by name.

    Raises:
        VerifyError: It cannot be read.
    """
    file = inputs_file(path)
    if not zipfile.is_zipfile(file):
        raise VerifyError(f"{file} is no .npz file", remedy="numpy.savez writes one")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _DAMAGED as error:
        what = str(error) or type(error).__name__
        raise VerifyError(f"cannot read inputs from {file}: {what}") from error
    if others := [name for name, each in arrays.items() if not isinstance(each, np.ndarray)]:
        raise VerifyError(
            f"{file} holds {listed(others)}, which is no array", remedy="numpy.savez writes them"
        )
    return arrays


def _as_declared(array: Array, value: ir.Value) -> Array:
    dtype = value.dtype
    if dtype is None or dtype is ir.DataType.STRING:
        return array
    try:
        # numpy stores bfloat16 and float8 as raw bytes of the same size.
        raw, wanted = array.dtype.kind == "V", dtype.numpy()
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in any cast
            made = array.view(wanted) if raw else array.astype(wanted, casting=_casting(array))
        if wanted.kind in "iu" and array.dtype.kind in "iuf" and not np.array_equal(array, made):
            raise ValueError("some numbers are none of that type")
        return made
    except (TypeError, ValueError) as error:
        raise VerifyError(
            f"the array '{value.name}' is {array.dtype}, and input '{value.name}' takes "
            f"{dtype.numpy().name}",
            remedy="give it in that type",
        ) from error


def _casting(array: Array) -> Literal["unsafe", "same_kind"]:
    """Return what a cast of an array may do; of complex numbers no part is left out."""
    return "same_kind" if array.dtype.kind == "c" else "unsafe"
