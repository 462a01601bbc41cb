"""Values for one input: ids, masks, positions, caches, pixels, each by name, dtype and use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.allowance import default_memory
from vlmpass.ir_tools.run.dim_roles import Role, words
from vlmpass.ir_tools.run.dims import SIZES, grid_rows, is_grid
from vlmpass.ir_tools.run.input_usage import Use
from vlmpass.ir_tools.worker.transport import Array

__all__ = ["Hard", "Request", "has_rows", "make_values"]

# Additive masks in the wild hold -1e4, finfo.min or -inf; this one survives float16 sums.
_MASKED = -10000.0
_FAR = 5000
_DRAWN_BYTES = 8
"""What drawing takes for an element: doubles are drawn for every type."""
_LARGE = 8.0


class Hard(Enum):
    """What is hard on a narrow type, or another side of inputs that most runs leave out."""

    LONG = "long sequences"
    """Late positions, from 5 000 on."""

    MASKED = "rows that are masked throughout"
    LARGE = "large activations"
    """Eight times a standard normal."""

    EMPTY = "an empty cache"
    RIGHT = "padding at the end"


@dataclass(frozen=True)
class Request:
    """What one input is to be filled with.

    Attributes:
        value: The graph input.
        use: How the graph consumes it.
        shape: The shape to make.
        sizes: Sizes by role, as far as the model has such dimensions.
        size: Which of the sizes of every dimension this is: 0, 1 or `LONG`.
        padded: Whether masks hide some padding.
        hides: Whether masks of booleans say what is hidden, as PyTorch's attention has them.
        empties: Whether a mask of rows hides one throughout, and with minus infinity.
        hard: What is hard about it, if anything.
    """

    value: ir.Value
    use: Use
    shape: tuple[int, ...]
    sizes: Mapping[Role, int]
    size: int
    padded: bool
    hides: bool = False
    empties: bool = False
    hard: Hard | None = None

    @property
    def name(self) -> str:
        """The input's name."""
        return self.value.name or ""

    @property
    def past(self) -> int:
        """Length of the cache; 0 without one."""
        return self.sizes.get(Role.PAST, 0)


def make_values(request: Request, rng: np.random.Generator) -> Array:
    """Return an array of the input's dtype and the requested shape.

    Raises:
        VerifyError: If the dtype has no numpy counterpart that values can be drawn for, or there
            are more of them than memory takes.
    """
    dtype, count = request.value.dtype, math.prod(request.shape)
    if count * _DRAWN_BYTES > default_memory():
        raise VerifyError(
            f"input '{request.name}' has {count} elements, and values for that many are not made",
            remedy="give some with --inputs (calibrate=file.npz for half precision)",
        )
    if dtype is None or dtype is ir.DataType.UNDEFINED:
        raise VerifyError(
            f"input '{request.name}' declares no element type", remedy="give values with --inputs"
        )
    if dtype is ir.DataType.STRING:
        return np.full(request.shape, "abc", dtype=object)
    if dtype is ir.DataType.BOOL:
        return np.asarray(_bools(request, rng))  # numpy makes a scalar of no dimensions a number
    if dtype.is_integer():
        return np.asarray(_integers(request, rng), dtype.numpy())
    return np.asarray(_floats(request, rng), dtype.numpy())


def _visible(request: Request) -> npt.NDArray[np.bool_]:
    """Return what a padding mask lets through: all but one or two places at the left of odd rows.

    A single row is padded too where the cache leaves room, so that padding is always exercised.
    Where padding is to be at the end, it is that of even rows.
    """
    visible = np.ones(request.shape, np.bool_)
    length = request.shape[-1] if request.shape else 0
    hidden = min(2, length - 1)
    if request.padded and len(request.shape) == 2 and hidden > 0:
        if request.hard is Hard.RIGHT:
            visible[::2, -hidden:] = False
        elif request.shape[0] > 1:
            visible[1::2, :hidden] = False
        elif request.past > hidden:
            visible[:, :1] = False
    return visible


def has_rows(value: ir.Value) -> bool:
    """Return whether a mask of booleans or floating-point numbers has a row for each query."""
    kind, shape = value.dtype, value.shape
    numbers = kind is not None and (kind is ir.DataType.BOOL or kind.is_floating_point())
    return numbers and shape is not None and len(shape) >= 3


def _causal(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return what a causal mask over (…, queries, keys) lets through."""
    queries, keys = shape[-2:]
    lower = np.tril(np.ones((queries, keys), np.bool_), keys - queries)
    return np.array(np.broadcast_to(lower, shape))


def _mask(request: Request) -> npt.NDArray[np.bool_]:
    # Two axes of different length are queries and keys only from rank 3 on.
    mask = _causal(request.shape) if len(request.shape) >= 3 else _visible(request)
    if request.hard is Hard.MASKED and mask.ndim >= 2:
        mask[:1] = False
    if request.empties and has_rows(request.value):
        mask[:1, ..., :1, :] = False
    return mask


def _bools(request: Request, rng: np.random.Generator) -> Array:
    named = words(request.name)
    if "mask" in named:
        return _mask(request) ^ request.hides
    if named & {"cache", "branch"}:
        return np.full(request.shape, request.past > 0)
    return rng.random(request.shape) < 0.5


def _integers(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    named = words(request.name)
    for test, make in _INTEGERS:
        if test(request, named):
            return make(request, rng)
    return _indices(request, rng)


def _positions(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    length = request.shape[-1] if request.shape else 1
    first = request.past + (_FAR if request.hard is Hard.LONG else 0)
    row = np.arange(first, first + length)
    if request.use.bound is not None:
        row = np.minimum(row, request.use.bound - 1)
    return np.array(np.broadcast_to(row if request.shape else row[0], request.shape))


def _lengths(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    named = words(request.name)
    sequence = request.sizes.get(Role.SEQUENCE, 1)
    if "past" in named:
        number = request.past
    elif named & {"total", "kv", "k"}:
        # seqlens_k of GroupQueryAttention counts from zero.
        number = request.past + sequence - (1 if "k" in named else 0)
    else:
        number = sequence
    return np.full(request.shape, number)


def _grid(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    patches = request.sizes.get(Role.PATCHES) if request.shape[0] == 1 else None
    return np.array(grid_rows(request.shape[0], request.size, patches), np.int64).reshape(
        request.shape
    )


def _cumulative(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    last = request.sizes.get(Role.PATCHES, request.sizes.get(Role.SEQUENCE, 1))
    count = math.prod(request.shape)
    return (np.arange(count) * last // max(count - 1, 1)).reshape(request.shape)


def _sides(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.array(np.broadcast_to(np.array([4, (6, 8)[request.size % SIZES]]), request.shape))


def _counts(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.ones(request.shape, np.int64)


def _indices(request: Request, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return random ids below the table's length; an id the graph compares with occurs."""
    bound = request.use.bound
    named = words(request.name)
    if bound is None:
        bound = 100 if named & {"ids", "id", "token", "tokens", "input"} else 2
    drawn = rng.integers(0, bound, request.shape)
    special = [number for number in request.use.equal_to if 0 <= number < bound]
    if special and drawn.ndim and drawn.shape[-1] > 1:
        drawn[drawn == special[0]] = (special[0] + 1) % bound
        drawn[..., 1] = special[0]
    return drawn


_INTEGERS: tuple[
    tuple[
        Callable[[Request, frozenset[str]], bool],
        Callable[[Request, np.random.Generator], npt.NDArray[np.int64]],
    ],
    ...,
] = (
    (lambda r, named: "mask" in named, lambda r, rng: _mask(r).astype(np.int64)),
    (lambda r, named: is_grid(r.value), _grid),
    (lambda r, named: bool(named & {"position", "positions", "pos"}), _positions),
    (lambda r, named: "cu" in named, _cumulative),
    (lambda r, named: bool(named & {"length", "lengths", "seqlen", "seqlens", "len"}), _lengths),
    (lambda r, named: bool(named & {"size", "sizes", "shapes"}) and r.shape[-1:] == (2,), _sides),
    (lambda r, named: r.use.bound is not None, _indices),
    (lambda r, named: not r.shape or r.use.sizes, _counts),
)


def _floats(request: Request, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    named = words(request.name)
    if "mask" in named:
        visible = _mask(request)
        # `1 - mask` and `mask * x` want ones and zeros, `scores + mask` wants the offsets.
        if request.use.reaches("Add") and not request.use.reaches("Sub", "Mul"):
            return np.where(visible, 0.0, -math.inf if request.empties else _MASKED)
        return visible.astype(np.float64)
    if "size" in named:
        return np.full(request.shape, 64.0)
    if named & {"scale", "temperature", "alpha", "threshold"}:
        return rng.uniform(0.5, 1.0, request.shape)
    return rng.standard_normal(request.shape) * (_LARGE if request.hard is Hard.LARGE else 1.0)
