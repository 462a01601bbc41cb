"""Random configurations of operators that look numbers of few bits up in tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick


def _opset(rng: Dice) -> int:
    return int(pick(rng, *OPSETS))  # type: ignore[call-overload]


def matmul_bnb4(rng: Dice) -> Case:
    """Draw a MatMulBnb4."""
    kind, tolerance = KINDS[str(pick(rng, "float32", "float32", "float16"))]
    block, outputs = int(pick(rng, 16, 32, 64)), int(rng.integers(1, 9))
    inputs = int(pick(rng, 16, 32, 48, 50, 7, 1))
    shape = [int(x) for x in rng.integers(1, 4, int(rng.integers(1, 3)))]
    size = inputs * outputs
    given: dict[str, Given | None] = {
        "x": Given(normal(rng, (*shape, inputs), kind), [*"bs"[: len(shape)], str(inputs)]),
        "w": Given(rng.integers(0, 256, -(-size // 2)).astype(np.uint8), constant=chance(rng)),
        "scales": Given(normal(rng, (-(-size // block),), kind), constant=chance(rng)),
    }
    attributes: dict[str, object] = {"K": inputs, "N": outputs, "block_size": block}
    attributes["quant_type"] = int(rng.integers(2))
    outs = [("y", len(shape) + 1, kind)]
    opset = _opset(rng)
    return Case("MatMulBnb4", given, attributes, outs, opset, tolerance, dynamic=chance(rng))


def q_embed(rng: Dice) -> Case:
    """Draw a QEmbedLayerNormalization."""
    batch, length, width = int(rng.integers(1, 4)), int(rng.integers(1, 5)), 8
    byte, real = np.dtype(str(pick(rng, "uint8", "int8"))), np.dtype(np.float32)
    segments, masked = chance(rng), chance(rng)
    low, high = np.iinfo(byte).min, np.iinfo(byte).max + 1

    def rows(*shape: int) -> Given:
        return Given(rng.integers(low, high, shape).astype(byte), constant=chance(rng))

    def ids(first: int, top: int) -> Given:
        return Given(rng.integers(first, top, (batch, length)).astype(np.int32), ["b", "s"])

    names = ("words", "places", "kinds", "gamma", "beta")
    sizes = ((5, width), (length + int(rng.integers(3)), width), (2, width), (width,), (width,))
    tables = {
        name: rows(*size) if name != "kinds" or segments else None
        for name, size in zip(names, sizes, strict=True)
    }
    given = {"ids": ids(0, 5), "segments": ids(0, 2) if segments else None, **tables}
    given["mask"] = ids(-1, 3) if masked else None
    for what, kind in (("scale", real), ("zero", byte)):
        for name in names:
            number = rng.random() / 50 if what == "scale" else rng.integers(low, high)
            made = Given(np.asarray(number, kind), constant=chance(rng))
            given[f"{name} {what}"] = made if tables[name] is not None else None
    outputs = [("y", 3, real), ("index", 1, np.dtype(np.int32))]
    return Case("QEmbedLayerNormalization", given, {"epsilon": 1e-5}, outputs, _opset(rng), 2e-4)


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "MatMulBnb4": matmul_bnb4,
    "QEmbedLayerNormalization": q_embed,
}
