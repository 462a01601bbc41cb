"""Random configurations of what decoders are made of: rotary embedding and grouped attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick


def _caches(rng: Dice, length: int, half: int, kind: np.dtype) -> dict[str, Given | None]:
    angles = rng.uniform(-3, 3, (length, half))
    constant = chance(rng)
    return {
        "cos": Given(np.cos(angles).astype(kind), ["m", str(half)], constant),
        "sin": Given(np.sin(angles).astype(kind), ["m", str(half)], constant),
    }


def rotary(rng: Dice) -> Case:
    """Draw a RotaryEmbedding."""
    name = str(pick(rng, "float32", "float32", "float16"))
    kind, tolerance = KINDS[name]
    batch, heads, length = int(rng.integers(1, 3)), int(rng.integers(1, 4)), int(rng.integers(1, 6))
    size = 8 * int(rng.integers(1, 4))
    attributes: dict[str, object] = {}
    turning = size
    if chance(rng, 0.4):
        turning = int(pick(rng, *range(4, size + 1, 4)))
        attributes |= {"rotary_embedding_dim": turning, "num_heads": heads}
    elif chance(rng):
        attributes["num_heads"] = heads
    shape, axes = (batch, length, heads * size), ["b", "s", str(heads * size)]
    if chance(rng):
        shape, axes = (batch, heads, length, size), ["b", str(heads), "s", str(size)]
    if chance(rng):
        attributes["interleaved"] = 1
    if chance(rng, 0.2):
        attributes["scale"] = float(pick(rng, 1.0, 0.5))
    most = length + int(rng.integers(0, 5))
    if chance(rng, 0.2):
        attributes["is_packed_batching"] = 1
        most = max(1, length - 2) if not chance(rng) else most
    places = rng.integers(0, most, (batch, length))
    if chance(rng) and most >= length:
        places = rng.integers(0, most - length + 1, (1,))
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, shape, kind), axes),
        "p": Given(places.astype(np.int64), ["b", "s"] if places.ndim == 2 else ["1"]),
        **_caches(rng, most, turning // 2, kind),
    }
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    outputs = [("y", len(shape), kind)]
    return Case(
        "RotaryEmbedding", inputs, attributes, outputs, opset, tolerance, dynamic=chance(rng)
    )


def grouped(rng: Dice) -> Case:
    """Draw a GroupQueryAttention: a first prompt, a later one, one token, or one without a past."""
    name = str(pick(rng, "float32", "float32", "float32", "float16"))
    kind, tolerance = KINDS[name]
    stage = str(pick(rng, "prompt", "token", "later", "alone"))
    batch = 1 if stage == "later" else int(rng.integers(1, 4))
    keys = int(rng.integers(1, 3))
    heads, size = keys * int(rng.integers(1, 4)), 16 * int(rng.integers(1, 3))
    new = 1 if stage == "token" else int(rng.integers(1, 6))
    before = rng.integers(1, 6, batch) if stage in ("token", "later") else np.zeros(batch, np.int64)
    seen = before + new
    if stage == "prompt" and chance(rng):  # padded on the right
        seen = rng.integers(1, new + 1, batch)
        seen[0] = new
    total = int(seen.max()) if stage != "prompt" else new
    room = total - new if chance(rng) else total + int(rng.integers(0, 4))
    room = max(room, int(before.max()))
    packed = chance(rng, 0.3)
    width, narrow = heads * size, keys * size
    wide = width + 2 * narrow if packed else width
    inputs: dict[str, Given | None] = {
        "query": Given(normal(rng, (batch, new, wide), kind), ["b", "s", str(wide)])
    }
    for each in ("key", "value"):
        x = Given(normal(rng, (batch, new, narrow), kind), ["b", "s", str(narrow)])
        inputs[each] = None if packed else x
    for each in ("past_key", "past_value"):
        x = Given(normal(rng, (batch, keys, room, size), kind), ["b", str(keys), "p", str(size)])
        inputs[each] = None if stage == "alone" else x
    inputs["seqlens"] = Given((seen - 1).astype(np.int32), ["b"])
    inputs["total"] = Given(np.array(total, np.int32))
    attributes: dict[str, object] = {"num_heads": heads, "kv_num_heads": keys}
    present = max(total, room) if stage != "alone" else total
    if chance(rng):
        attributes["do_rotary"] = 1
        attributes["rotary_interleaved"] = int(chance(rng))
        half = 8 * int(rng.integers(1, size // 16 + 1))
        inputs |= _caches(rng, total + int(rng.integers(0, 3)), half, kind)
    else:
        inputs |= {"cos": None, "sin": None}
    inputs |= {"ids": None, "bias": None, "sink": None}
    if attributes.get("do_rotary") and chance(rng, 0.3):
        ids = before[:, None] + np.arange(new)
        inputs["ids"] = Given(ids.astype(np.int64), ["b", "s"])
    if chance(rng, 0.3):
        shape = (int(pick(rng, 1, batch)), int(pick(rng, 1, heads)), new, total)
        inputs["bias"] = Given(normal(rng, shape, kind))
    if chance(rng, 0.2):
        inputs["sink"] = Given(normal(rng, (heads,), kind))
    elif chance(rng, 0.2):
        attributes["smooth_softmax"] = 1
    if chance(rng, 0.3):
        attributes["local_window_size"] = int(rng.integers(1, 5))
    if chance(rng, 0.3):
        attributes["softcap"] = float(pick(rng, 1.0, 20.0))
    if chance(rng, 0.3):
        attributes["scale"] = 0.4
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    rows = np.arange(new)[None] < (seen - before)[:, None]
    filled = np.arange(present)[None] < seen[:, None]
    shape4 = (batch, keys, present, size)
    compared = {
        "y": np.broadcast_to(rows[:, :, None], (batch, new, width)),
        "pk": np.broadcast_to(filled[:, None, :, None], shape4),
        "pv": np.broadcast_to(filled[:, None, :, None], shape4),
    }
    outputs = [("y", 3, kind), ("pk", 4, kind), ("pv", 4, kind)]
    return Case(
        "GroupQueryAttention",
        inputs,
        attributes,
        outputs,
        opset,
        tolerance,
        dynamic=chance(rng),
        compared=compared,
    )


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "RotaryEmbedding": rotary,
    "GroupQueryAttention": grouped,
}
