"""Random configurations of products with quantised weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick


def packed(numbers: Array, bits: int) -> Array:
    """Put numbers of few bits into bytes along the last axis, the lower bits first."""
    each = 8 // bits
    missing = -numbers.shape[-1] % each
    padded = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, missing)])
    parts = padded.reshape(*padded.shape[:-1], -1, each).astype(np.uint8)
    places = (np.arange(each) * bits).astype(np.uint8)
    return np.bitwise_or.reduce(parts << places, axis=-1).astype(np.uint8)


def matmul_nbits(rng: Dice) -> Case:
    """Draw a MatMulNBits."""
    name = str(pick(rng, "float32", "float32", "float16"))
    kind, tolerance = KINDS[name]
    bits, block = int(pick(rng, 4, 4, 8, 2)), int(pick(rng, 16, 32))
    outputs, inputs = int(rng.integers(1, 9)), int(pick(rng, 16, 32, 48, 64, 50, 7))
    blocks = -(-inputs // block)
    numbers = rng.integers(0, 1 << bits, (outputs, blocks, block))
    shape = [int(x) for x in rng.integers(1, 4, int(rng.integers(1, 3)))]
    given: dict[str, Given | None] = {
        "x": Given(normal(rng, (*shape, inputs), kind), [*"bs"[: len(shape)], str(inputs)]),
        "w": Given(packed(numbers, bits), constant=True),
        "scales": Given(normal(rng, (outputs, blocks), kind), constant=chance(rng)),
        "zeros": None,
        "groups": None,
        "bias": Given(normal(rng, (outputs,), kind)) if chance(rng) else None,
    }
    which = int(rng.integers(3))
    if which == 1:
        zeros = rng.integers(0, 1 << bits, (outputs, blocks))
        given["zeros"] = Given(packed(zeros, bits), constant=True)
    elif which == 2:
        given["zeros"] = Given(normal(rng, (outputs, blocks), kind) * 3, constant=chance(rng))
    attributes: dict[str, object] = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    if chance(rng, 0.2):
        attributes["accuracy_level"] = 1
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    outs = [("y", len(shape) + 1, kind)]
    return Case("MatMulNBits", given, attributes, outs, opset, tolerance, dynamic=chance(rng))


DRAWN: dict[str, Callable[[Dice], Case]] = {"MatMulNBits": matmul_nbits}
