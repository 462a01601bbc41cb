"""Random configurations of what decoders are made of: rotary embedding and grouped attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
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


def sectioned(rng: Dice) -> Case:
    """Draw a MRotaryEmbedding: a RotaryEmbedding whose angles are of three kinds of positions."""
    case = rotary(rng)
    x, cos = (case.inputs[name] for name in ("x", "cos"))
    assert x is not None
    assert cos is not None
    half = cos.array.shape[1]
    ends = np.sort(rng.integers(0, half + 1, 2))
    sizes = [int(ends[0]), int(ends[1] - ends[0]), int(half - ends[1])]
    layout = int(chance(rng))
    if layout:
        sizes[1:] = [min(size, (half - place + 2) // 3) for place, size in enumerate(sizes[1:], 1)]
        sizes[0] = half - sum(sizes[1:])
    length, width = x.array.shape[-2:]
    inputs = {**case.inputs, **_caches(rng, length + int(rng.integers(0, 5)), half, x.array.dtype)}
    positions = rng.integers(0, length, (3, x.array.shape[0], length)).astype(np.int64)
    inputs["p"] = Given(positions, ["3", "b", "s"])
    attributes = {"num_heads": width // (2 * half), **case.attributes}
    attributes |= {"mrope_section": sizes, "mrope_layout": layout}
    attributes.pop("is_packed_batching", None)
    return replace(case, operator="MRotaryEmbedding", inputs=inputs, attributes=attributes)


@dataclass(frozen=True)
class _Step:
    """Where tokens stand when a GroupQueryAttention runs.

    Attributes:
        stage: A first prompt, a later one, one token, one without a past, or a padded chunk.
        before: How many tokens each of the batch had.
        new: How many rows there are, padding included.
        seen: How many tokens each has then.
        total: What the operator is told of the longest.
        room: How long the cache is that comes in.
    """

    stage: str
    before: Array
    new: int
    seen: Array
    total: int
    room: int


def _step(rng: Dice) -> _Step:
    stage = str(pick(rng, "prompt", "token", "later", "alone", "chunk"))
    batch = 1 if stage == "later" else int(rng.integers(1, 4))
    new = 1 if stage == "token" else int(rng.integers(1, 6))
    low = {"token": 1, "later": 1, "chunk": 0}.get(stage)
    before = np.zeros(batch, np.int64) if low is None else rng.integers(low, 6, batch)
    seen = before + new
    if stage == "chunk":
        seen = before + np.where(before > 0, rng.integers(0, new + 1, batch), new)
    if stage in ("prompt", "alone") and chance(rng):  # padded on the right
        seen = rng.integers(1, new + 1, batch)
        seen[0] = new
    total = int(before.max()) + new
    room = total - new if chance(rng) else total + int(rng.integers(0, 4))
    return _Step(stage, before, new, seen, total, max(room, int(before.max())))


def _turning(
    rng: Dice, step: _Step, size: int, kind: np.dtype
) -> tuple[dict[str, Given | None], dict[str, object]]:
    """Return what queries and keys are turned by, if they are, and the attributes that say so."""
    if not chance(rng):
        return {"cos": None, "sin": None, "ids": None}, {}
    half = 8 * int(rng.integers(1, size // 16 + 1))
    inputs = _caches(rng, step.total + int(rng.integers(0, 3)), half, kind)
    ids = (step.before[:, None] + np.arange(step.new)).astype(np.int64)
    inputs["ids"] = Given(ids, ["b", "s"]) if chance(rng, 0.3) else None
    return inputs, {"do_rotary": 1, "rotary_interleaved": int(chance(rng))}


def _looking(rng: Dice, step: _Step) -> dict[str, object]:
    """Return attributes that say how queries look at keys."""
    found: dict[str, object] = {}
    if chance(rng, 0.2) and step.stage != "chunk":
        found["causal"] = 0
    elif chance(rng, 0.3):
        found["local_window_size"] = int(rng.integers(1, 5))
    if chance(rng, 0.3):
        found["softcap"] = float(pick(rng, 1.0, 20.0))
    if chance(rng, 0.3):
        found["scale"] = 0.4
    return found


def _stored(
    rng: Dice, step: _Step, shape: tuple[int, int, int, int], kind: np.dtype
) -> tuple[dict[str, Given], dict[str, object]]:
    """Return a cache, of floats or of integers with their scales, and attributes that say so."""
    heads, size = shape[1], shape[3]
    names, axes = ("past_key", "past_value"), ["b", str(heads), "p"]
    if step.stage == "alone":
        return {}, {}
    if chance(rng, 0.6):
        found = {each: Given(normal(rng, shape, kind), [*axes, str(size)]) for each in names}
        return found, {}
    bits, whole = (int(x) for x in (pick(rng, 4, 8), pick(rng, 0, 1)))
    held, low, high = (np.uint8, 0, 256) if bits == 4 else (np.int8, -128, 128)
    shape = (*shape[:3], size if bits == 8 else size // 2)
    found = {
        each: Given(rng.integers(low, high, shape).astype(held), [*axes, str(shape[3])])
        for each in names
    }
    step_size = 0.5 if bits == 4 else 0.03
    count = 1 if whole else heads * size
    for each in ("k_scale", "v_scale"):
        scale = (rng.random(count) + 0.5) * step_size
        lies = (1, heads, 1, size) if not whole and chance(rng) else (count,)
        found[each] = Given(scale.astype(np.float32).reshape(lies))
    kinds = dict.fromkeys(("k_quant_type", "v_quant_type"), ("PER_CHANNEL", "PER_TENSOR")[whole])
    return found, {**kinds, "kv_cache_bit_width": bits}


def _lies(cached: dict[str, Given], kind: np.dtype) -> np.dtype:
    return cached["past_key"].array.dtype if cached else kind


def grouped(rng: Dice) -> Case:
    """Draw a GroupQueryAttention."""
    kind, tolerance = KINDS[str(pick(rng, "float32", "float32", "float32", "float16"))]
    step, keys = _step(rng), int(rng.integers(1, 3))
    batch, new = len(step.before), step.new
    heads, size = keys * int(rng.integers(1, 4)), 16 * int(rng.integers(1, 3))
    packed = chance(rng, 0.3)
    width, narrow = heads * size, keys * size
    wide = width + 2 * narrow if packed else width
    inputs: dict[str, Given | None] = {
        "query": Given(normal(rng, (batch, new, wide), kind), ["b", "s", str(wide)])
    }
    for each in ("key", "value"):
        x = Given(normal(rng, (batch, new, narrow), kind), ["b", "s", str(narrow)])
        inputs[each] = None if packed else x
    cached, kept = _stored(rng, step, (batch, keys, step.room, size), kind)
    inputs |= {each: cached.get(each) for each in ("past_key", "past_value")}
    inputs["seqlens"] = Given((step.seen - 1).astype(np.int32), ["b"])
    inputs["total"] = Given(np.array(step.total, np.int32))
    attributes: dict[str, object] = {"num_heads": heads, "kv_num_heads": keys}
    turning, told = _turning(rng, step, size, kind)
    inputs |= {**turning, "bias": None, "sink": None}
    attributes |= told | kept
    if chance(rng, 0.3):
        shape = (int(pick(rng, 1, batch)), int(pick(rng, 1, heads)), new, step.total)
        inputs["bias"] = Given(normal(rng, shape, kind))
    if chance(rng, 0.2):
        inputs["sink"] = Given(normal(rng, (heads,), kind))
    elif chance(rng, 0.2):
        attributes["smooth_softmax"] = 1
    inputs |= {each: cached.get(each) for each in ("k_scale", "v_scale")}
    inputs |= {f"none{index}": None for index in range(14, 16)}
    counted = Given((step.seen - step.before).astype(np.int32), ["b"])
    inputs["counted"] = counted if step.stage == "chunk" else None
    present = step.total if step.stage == "alone" else max(step.total, step.room)
    rows = np.arange(new)[None] < (step.seen - step.before)[:, None]
    filled = (np.arange(present)[None] < step.seen[:, None])[:, None, :, None]
    held, within = _lies(cached, kind), int(attributes.get("kv_cache_bit_width", 8) == 4)  # type: ignore[call-overload]
    filled = np.broadcast_to(filled, (batch, keys, present, size >> within))
    return Case(
        "GroupQueryAttention",
        inputs,
        attributes | _looking(rng, step),
        [("y", 3, kind), ("pk", 4, held), ("pv", 4, held)],
        int(pick(rng, *OPSETS)),  # type: ignore[call-overload]
        tolerance,
        dynamic=chance(rng),
        compared={
            "y": np.broadcast_to(rows[:, :, None], (batch, new, width)),
            "pk": filled,
            "pv": filled,
        },
    )


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "RotaryEmbedding": rotary,
    "MRotaryEmbedding": sectioned,
    "GroupQueryAttention": grouped,
}
