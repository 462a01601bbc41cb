"""Calls of PyTorch's operators as exporters leave them, with what each is in PyTorch.

A case is an operator, its inputs in order, attributes, the type of its result, and an expression
that `make_references.py` evaluates with torch; what that gives lies in references_operators.npz.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        name: Of the case.
        operator: Of PyTorch.
        inputs: Arrays that are fed, `(array,)` for constants, None for what is left out.
        torch: The expression; inputs are a, b, c and so on.
        attributes: As ONNX text.
        kind: The element type of the result.
    """

    name: str
    operator: str
    inputs: tuple[object, ...]
    torch: str
    attributes: str = ""
    kind: str = "float"
    names: str = field(default="abcdefgh", repr=False)


_RNG = np.random.default_rng(3)
_SIZES = {1: (5,), 2: (5, 6), 3: (5, 6, 4)}


def _floats(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


def _fixed(value: object, kind: type = np.int64) -> tuple[np.ndarray]:
    return (np.array(value, kind),)


def _resizes() -> Iterator[Case]:
    """Yield all resizes, up, down, to one element and by factors."""
    modes = {"upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_trilinear3d": 3}
    modes |= {"upsample_bicubic2d": 2}
    for name, count in modes.items():
        mode = name.removeprefix("upsample_").rstrip("123d")
        for number, size in enumerate(((7, 9, 3)[:count], (3, 1, 8)[:count], (10, 12, 8)[:count])):
            corners = number != 2
            how = f"size={size}, mode='{mode}', align_corners={corners}"
            inputs = (_floats(1, 2, *_SIZES[count]), _fixed(size), _fixed(corners, bool))
            yield Case(f"{name} {size}", name, inputs, f"F.interpolate(a.double(), {how}).float()")
        factors = (2.0, 1.5, 0.5)[:count]
        inputs = (
            _floats(1, 2, *_SIZES[count]),
            None,
            _fixed(False, bool),
            _fixed(factors, np.float32),
        )
        how = f"scale_factor={factors}, mode='{mode}', align_corners=False"
        yield Case(f"{name} by factors", name, inputs, f"F.interpolate(a.double(), {how}).float()")
    for count in (1, 2, 3):
        for name, mode in ((f"upsample_nearest{count}d", "nearest"),
                           (f"_upsample_nearest_exact{count}d", "nearest-exact")):  # fmt: skip
            for size in ((7, 9, 3)[:count], (3, 1, 8)[:count]):
                inputs = (_floats(2, 2, *_SIZES[count]), _fixed(size))
                how = f"F.interpolate(a, size={size}, mode='{mode}')"
                yield Case(f"{name} {size}", name, inputs, how)


def _places() -> Iterator[Case]:
    line = np.array([-1, 0, 0, 0.5, 2], np.float32)
    x = np.array([[-2, -1, 0], [0.5, 1, np.nan], [np.inf, -np.inf, 2]], np.float32)
    for right in (False, True):
        flags = (_fixed(False, bool), _fixed(right, bool))
        call = f"torch.bucketize(a, b, right={right})"
        yield Case(f"bucketize {right}", "bucketize", (x, line, *flags), call, kind="int64")
        given = f"out_int32=1, right={int(right)}"
        call = f"torch.bucketize(a, b, right={right}, out_int32=True)"
        yield Case(f"bucketize 32 {right}", "bucketize", (x, line), call, given, "int32")
        call = f"torch.searchsorted(a, b, right={right})"
        yield Case(f"searchsorted {right}", "searchsorted", (line, x, *flags), call, kind="int64")


def _scattered() -> Iterator[Case]:
    x, source = _floats(2, 3, 4), _floats(24)
    for shape in ((2, 3, 4), (3, 4), (2, 3, 1)):
        mask = _RNG.random(shape) < 0.5
        call = "torch.masked_scatter(a, b, c)"
        yield Case(f"masked_scatter {shape}", "masked_scatter", (x, mask, source), call)
        number = (x, mask, _fixed(0.5, np.float32), _fixed(False, bool))
        if shape[-1] != 1 and len(shape) == 3:
            call = "torch.index_put(a, (b,), torch.tensor(0.5))"
            yield Case("index_put a number", "index_put", number, call)
    mask = np.array([[True, False, True], [False, True, True]])
    inputs = (x, mask, _floats(4, 4), _fixed(False, bool))
    yield Case("index_put rows", "index_put", inputs, "torch.index_put(a, (b,), c)")
    i, j, values = np.array([[1, 0]]), np.array([[0], [-1]]), _floats(2, 2, 4)
    call = "torch.index_put(a, (b, c), d)"
    yield Case("index_put places", "index_put", (x, i, j, values, _fixed(False, bool)), call)
    call = "torch.index_put(a, (b,), c)"
    inputs = (x, np.array([1]), _floats(1, 3, 4))
    yield Case("index_put_ rows", "index_put_", inputs, call, "accumulate=0")
    yield Case("index rows", "index", (x, np.array([[1, 0, -1]])), "a[b]")
    yield Case("index columns", "index", (x, None, np.array([2, 0])), "a[:, c]")
    yield Case("index both", "index", (x, i, j), "a[b, c]")


def _repeated() -> Iterator[Case]:
    x = _floats(2, 3, 4)
    for axis in (None, 0, -1):
        for count in (0, 3):
            dim = None if axis is None else _fixed(axis)
            call = f"torch.repeat_interleave(a, {count}, dim={axis})"
            inputs = (x, _fixed(count), dim)
            yield Case(f"repeat {axis} {count}", "repeat_interleave", inputs, call)
        repeats = _RNG.integers(0, 4, 24 if axis is None else x.shape[axis])
        given = "" if axis is None else f"dim={axis}"
        call = f"torch.repeat_interleave(a, b, dim={axis})"
        yield Case(f"repeat {axis} each", "repeat_interleave", (x, repeats), call, given)
    places = (np.array([2, 0, 3]),)
    yield Case(
        "repeat places", "repeat_interleave", places, "torch.repeat_interleave(a)", "", "int64"
    )


def _attended() -> Iterator[Case]:
    name, call = "scaled_dot_product_attention", "F.scaled_dot_product_attention(a, b, c{})"
    q, k, v = _floats(2, 3, 4, 8), _floats(2, 3, 5, 8), _floats(2, 3, 5, 6)
    floats = _floats(2, 1, 4, 5)
    floats[:, :, 2] = -np.inf
    flags = _RNG.random((4, 5)) < 0.6
    flags[1] = False
    plain = (_fixed(0.0, np.float32), _fixed(False, bool))
    yield Case("attention", name, (q, k, v), call.format(""))
    yield Case("attention added", name, (q, k, v, floats), call.format(", d"))
    scaled = (q, k, v, flags, *plain, _fixed(0.3, np.float32))
    yield Case("attention masked", name, scaled, call.format(", d, scale=0.3"))
    causal = (q, k, v, None, plain[0], _fixed(True, bool))
    yield Case("attention causal", name, causal, call.format(", is_causal=True"))


CASES = {
    case.name: case
    for draw in (_resizes, _places, _scattered, _repeated, _attended)
    for case in draw()
}
