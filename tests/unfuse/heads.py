"""Random configurations of attention as ONNX Runtime has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given

Dice = np.random.Generator
OPSETS = (14, 15, 17, 18, 20, 21, 22, 23, 24)


def chance(rng: Dice, share: float = 0.5) -> bool:
    return bool(rng.random() < share)


def pick(rng: Dice, *options: object) -> object:
    return options[int(rng.integers(len(options)))]


def normal(rng: Dice, shape: tuple[int, ...], kind: np.dtype) -> Array:
    return rng.standard_normal(shape).astype(kind)


def masks(
    rng: Dice, batch: int, queries: int, total: int, *, placeholder: bool = False
) -> Given | None:
    """Return a mask of some rank: ends, starts and ends, cumulated lengths, or of 0 and 1."""
    kind = int(rng.integers(8 if placeholder else 7))
    ends = rng.integers(0, total + 1, batch).astype(np.int32)
    if kind == 0:
        return None
    if kind == 1:
        return Given(ends, ["b"])
    if kind == 2:
        starts = np.minimum(rng.integers(0, total + 1, batch), ends)
        return Given(np.concatenate([ends, starts]).astype(np.int32))
    if kind == 3:
        more = np.concatenate([ends, np.arange(batch + 1), np.cumsum([0, *ends])])
        return Given(more.astype(np.int32))
    if kind == 4:
        return Given(rng.integers(0, 2, (batch, queries, total)).astype(np.int32), ["b", "s", "t"])
    mask = rng.integers(0, 2, (batch, total)).astype(np.int32)
    if kind == 7:  # what is for one key, whatever there are, stands for nothing
        return Given(rng.integers(0, 2, (int(pick(rng, 1, batch)), 1)).astype(np.int32), ["m", "n"])
    if kind == 5:  # left padded, some rows wholly
        mask = (np.arange(total)[None] >= ends[:, None]).astype(np.int32)
    return Given(mask, ["b", "t"])


def tolerance(mask: Given | None, attributes: Mapping[str, object]) -> float:
    """Return how exact results are: scores lose bits beside what is added where all are masked."""
    added = abs(float(attributes.get("mask_filter_value", -1e4)))  # type: ignore[arg-type]
    return 2e-5 if mask is None else max(2e-5, added * 2e-7)


def multi_head(rng: Dice) -> Case:
    """Draw a MultiHeadAttention."""
    kind, _ = KINDS["float32"]
    batch, heads = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    size, last = 8 * int(rng.integers(1, 3)), 8 * int(rng.integers(1, 3))
    queries, new = (int(rng.integers(1, 6)) for _ in range(2))
    layout = str(pick(rng, "self", "cross", "cached", "self"))
    new = queries if layout == "self" else new
    causal = chance(rng, 0.4)
    past = int(rng.integers(0, 4)) if layout == "self" and chance(rng) else None
    last = size if past is not None else last
    total = new + (past or 0)
    width, wide = heads * size, heads * last
    length = "s" if layout == "self" else "l"
    kept = new if chance(rng, 0.25) else total
    inputs: dict[str, Given | None] = {
        "query": Given(normal(rng, (batch, queries, width), kind), ["b", "s", str(width)])
    }
    if layout == "cached":
        last, wide = size, width
        for name in ("key", "value"):
            inputs[name] = Given(
                normal(rng, (batch, heads, new, size), kind), ["b", str(heads), "l", str(size)]
            )
    else:
        for name, count in (("key", width), ("value", wide)):
            inputs[name] = Given(normal(rng, (batch, new, count), kind), ["b", length, str(count)])
    biased = layout != "cached" and chance(rng)
    bias = Given(normal(rng, (2 * width + wide,), kind), constant=chance(rng))
    inputs["bias"] = bias if biased else None
    mask = masks(rng, batch, queries, kept)
    if mask is not None and mask.array.shape == (2 * batch,):
        mask = None
    inputs["mask"] = mask
    dynamic = chance(rng) and (mask is None or bool(mask.axes))
    shape = (int(pick(rng, 1, batch)), int(pick(rng, 1, heads)), queries, total)
    inputs["extra"] = Given(normal(rng, shape, kind)) if chance(rng, 0.4) else None
    outputs: list[tuple[str, int, np.dtype]] = [("y", 3, kind)]
    if past is not None:
        for name in ("past_key", "past_value"):
            inputs[name] = Given(
                normal(rng, (batch, heads, past, size), kind), ["b", str(heads), "p", str(size)]
            )
    if past is not None or (layout == "self" and chance(rng, 0.3)):
        outputs += [("present_key", 4, kind), ("present_value", 4, kind)]
    if chance(rng, 0.15):
        outputs += [("", 0, kind)] * (3 - len(outputs)) + [("qk", 4, kind)]
    attributes: dict[str, object] = {"num_heads": heads}
    if causal:
        attributes["unidirectional"] = 1
    if chance(rng, 0.3):
        attributes["scale"] = float(pick(rng, 0.3, 1.0))
    if chance(rng, 0.3):
        attributes["mask_filter_value"] = float(pick(rng, -50.0, -2000.0))
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    exact = tolerance(mask, attributes)
    return Case(
        "MultiHeadAttention",
        inputs,
        attributes,
        outputs,
        opset,
        exact,
        dynamic=dynamic,
        may_stay=(causal and layout != "self") or kept != total,
    )


def decoder_masked(rng: Dice) -> Case:
    """Draw a DecoderMaskedMultiHeadAttention: one token and a buffer, or keys of an encoder."""
    kind, _ = KINDS["float32"]
    batch, heads, size = int(rng.integers(1, 3)), int(rng.integers(1, 4)), 8
    width, room = heads * size, int(rng.integers(1, 7))
    crossed, seen = chance(rng, 0.3), int(rng.integers(0, room))
    shape, axes = (batch, 1, width), ["b", "1", str(width)]
    inputs: dict[str, Given | None] = {"query": Given(normal(rng, shape, kind), axes)}
    total = room if crossed else seen + 1
    for name in ("key", "value"):
        x = normal(rng, shape, kind)
        if crossed:
            x, axes = normal(rng, (batch, heads, room, size), kind), ["b", str(heads), "l", "8"]
        inputs[name] = Given(x, axes)
    mask = rng.integers(0, 2, (batch, total)).astype(np.int32)
    inputs["mask"] = Given(mask, ["b", "t"]) if chance(rng) else None
    biased = not crossed and chance(rng)
    inputs["extra"] = Given(normal(rng, (1, heads, 1, total), kind)) if biased else None
    for name in ("past_key", "past_value"):
        x = normal(rng, (batch, heads, room, size), kind)
        inputs[name] = None if crossed else Given(x, ["b", str(heads), "p", str(size)])
    inputs["seen"] = None if crossed else Given(np.array([seen], np.int32))
    inputs |= {"beams": None, "indirection": None}
    inputs["bias"] = Given(normal(rng, (3 * width,), kind)) if chance(rng) else None
    attributes: dict[str, object] = {"num_heads": heads}
    outputs = [("y", 3, kind)]
    if not crossed:
        attributes["past_present_share_buffer"] = 1
        outputs += [("present_key", 4, kind), ("present_value", 4, kind)]
    if chance(rng, 0.3):
        attributes["scale"] = 0.7
    if chance(rng, 0.2):
        outputs += [("", 0, kind)] * (3 - len(outputs)) + [("qk", 4, kind)]
        attributes["output_qk"] = 1
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    return Case(
        "DecoderMaskedMultiHeadAttention",
        inputs,
        attributes,
        outputs,
        opset,
        tolerance(inputs["mask"], attributes),
        dynamic=chance(rng),
    )


def five_axes(rng: Dice) -> Case:
    """Draw a MultiHeadAttention that packs keys and values, or queries too, which CPUs do not run.

    It is compared with one whose parts are apart.
    """
    kind, exact = KINDS["float32"]
    batch, heads, size = int(rng.integers(1, 3)), int(rng.integers(1, 4)), 8
    queries, keys = (int(x) for x in rng.integers(1, 5, 2))
    whole = chance(rng)
    keys, width = (queries if whole else keys), heads * size
    parts = normal(rng, (3, batch, max(queries, keys), heads, size), kind)
    query, key, value = parts[0, :, :queries], parts[1, :, :keys], parts[2, :, :keys]
    flat = {"query": query, "key": key, "value": value}
    apart = {n: Given(x.reshape(*x.shape[:2], width)) for n, x in flat.items()}
    axes = ["b", "l", str(heads), "2", str(size)]
    inputs: dict[str, Given | None] = {
        "query": Given(apart["query"].array, ["b", "s", str(width)]),
        "key": Given(np.stack([key, value], 3), axes),
    }
    if whole:
        axes[3] = "3"
        inputs = {"query": Given(np.stack([query, key, value], 3), axes), "key": None}
    inputs |= {"value": None, "bias": None}
    mask = rng.integers(0, 2, (batch, keys)).astype(np.int32)
    mask[:, 0] = 1
    inputs["mask"] = Given(mask, ["b", "l"]) if chance(rng) else None
    outputs = [("y", 3, kind)]
    attributes: dict[str, object] = {"num_heads": heads}
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]

    def reference(case: Case) -> list[Array]:
        plain = {**apart, "bias": None, "mask": case.inputs["mask"]}
        return replace(case, inputs=plain, reference=None).expected()

    return Case(
        "MultiHeadAttention",
        inputs,
        attributes,
        outputs,
        opset,
        exact,
        dynamic=chance(rng),
        reference=reference,
    )


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "MultiHeadAttention": multi_head,
    "MultiHeadAttention in five axes": five_axes,
    "DecoderMaskedMultiHeadAttention": decoder_masked,
}
