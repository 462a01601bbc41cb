"""Random configurations of normalisations, activations and products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick


def _opset(rng: Dice) -> int:
    return int(pick(rng, *OPSETS))  # type: ignore[call-overload]


def _skip(rng: Dice, operator: str) -> Case:
    kind, tolerance = KINDS[str(pick(rng, "float32", "float32", "float16"))]
    batch, length, width = (int(rng.integers(1, 5)) for _ in range(3))
    width *= 4
    x = normal(rng, (batch, length, width), kind)
    skip = normal(rng, ((1 if chance(rng, 0.3) else batch), length, width), kind)
    axes = ["b" if skip.shape[0] == batch else "1", "s", str(width)]
    if chance(rng, 0.2):
        skip, axes = skip[0], ["s", str(width)]
    inputs: dict[str, Given | None] = {
        "x": Given(x, ["b", "s", str(width)]),
        "skip": Given(skip, axes),
        "gamma": Given(normal(rng, (width,), kind), constant=chance(rng)),
    }
    if operator == "SkipLayerNormalization":
        inputs["beta"] = Given(normal(rng, (width,), kind)) if chance(rng) else None
    inputs["bias"] = Given(normal(rng, (width,), kind)) if chance(rng) else None
    outputs: list[tuple[str, int, np.dtype]] = [("y", 3, kind)]
    if chance(rng):
        outputs += [("", 0, kind), ("", 0, kind), ("sum", 3, kind)]
    attributes = {"epsilon": float(pick(rng, 1e-5, 1e-12, 0.1))}
    return Case(operator, inputs, attributes, outputs, _opset(rng), tolerance, dynamic=chance(rng))


def skip_layer(rng: Dice) -> Case:
    """Draw a SkipLayerNormalization."""
    return _skip(rng, "SkipLayerNormalization")


def skip_simplified(rng: Dice) -> Case:
    """Draw a SkipSimplifiedLayerNormalization."""
    return _skip(rng, "SkipSimplifiedLayerNormalization")


def embed(rng: Dice) -> Case:
    """Draw an EmbedLayerNormalization."""
    kind, tolerance = KINDS["float32"]
    batch, length, width = int(rng.integers(1, 4)), int(rng.integers(1, 5)), 8
    words, places = int(rng.integers(2, 9)), length + int(rng.integers(0, 3))
    whole = {"b": batch, "s": length}

    def ids(top: int) -> Given:
        return Given(rng.integers(0, top, tuple(whole.values())).astype(np.int32), list(whole))

    segments = chance(rng)
    inputs: dict[str, Given | None] = {
        "ids": ids(words),
        "segments": ids(2) if segments else None,
        "words": Given(normal(rng, (words, width), kind), constant=chance(rng)),
        "places": Given(normal(rng, (places, width), kind)),
        "kinds": Given(normal(rng, (2, width), kind)) if segments else None,
        "gamma": Given(normal(rng, (width,), kind)),
        "beta": Given(normal(rng, (width,), kind)),
        "mask": None,
        "at": None,
    }
    attributes: dict[str, object] = {"epsilon": 1e-5} if chance(rng) else {}
    integer = np.dtype(np.int32)
    outputs = [("y", 3, kind), ("index", 1, integer)]
    if chance(rng):
        length_of = rng.integers(1, length + 1, batch)
        mask = np.arange(length)[None] < length_of[:, None]
        inputs["mask"] = Given(mask.astype(np.int32), ["b", "s"])
        attributes["mask_index_type"] = 1
    elif chance(rng):
        outputs[1] = ("", 0, integer)
    if chance(rng, 0.3):
        inputs["at"] = ids(places)
        if chance(rng):
            at = rng.integers(0, places, (1, length)).astype(np.int32)
            inputs["at"] = Given(at, ["1", "s"])
    if chance(rng):
        outputs.append(("sum", 3, kind))
    return Case(
        "EmbedLayerNormalization",
        inputs,
        attributes,
        outputs,
        _opset(rng),
        tolerance,
        dynamic=chance(rng),
    )


def _activation(rng: Dice, operator: str, *, biased: bool, names: tuple[str, ...]) -> Case:
    kind, tolerance = KINDS[str(pick(rng, *names))]
    batch, width = int(rng.integers(1, 5)), 4 * int(rng.integers(1, 4))
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, (batch, width), kind) * 2, ["b", str(width)])
    }
    attributes: dict[str, object] = {}
    if biased and (operator != "FastGelu" or chance(rng)):
        inputs["bias"] = Given(normal(rng, (width,), kind), constant=chance(rng))
    if operator == "QuickGelu" and chance(rng):
        attributes["alpha"] = float(pick(rng, 1.0, 0.5))
    outputs = [("y", 2, kind)]
    return Case(operator, inputs, attributes, outputs, _opset(rng), tolerance, dynamic=chance(rng))


def bias_gelu(rng: Dice) -> Case:
    """Draw a BiasGelu."""
    return _activation(rng, "BiasGelu", biased=True, names=("float32",))


def gelu(rng: Dice) -> Case:
    """Draw a Gelu of ONNX Runtime's own."""
    return _activation(rng, "Gelu", biased=False, names=("float32",))


def fast_gelu(rng: Dice) -> Case:
    """Draw a FastGelu."""
    return _activation(rng, "FastGelu", biased=True, names=("float32", "float16"))


def quick_gelu(rng: Dice) -> Case:
    """Draw a QuickGelu."""
    return _activation(rng, "QuickGelu", biased=False, names=("float32", "float16"))


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "SkipLayerNormalization": skip_layer,
    "SkipSimplifiedLayerNormalization": skip_simplified,
    "EmbedLayerNormalization": embed,
    "BiasGelu": bias_gelu,
    "Gelu": gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
}
