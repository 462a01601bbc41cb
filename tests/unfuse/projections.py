"""Random configurations of attention that projects its input, and of packed tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
from unfuse.heads import OPSETS, Dice, chance, masks, normal, pick, tolerance


def _opset(rng: Dice) -> int:
    return int(pick(rng, *OPSETS))  # type: ignore[call-overload]


def attention(rng: Dice) -> Case:
    """Draw an Attention of ONNX Runtime's own."""
    kind, _ = KINDS["float32"]
    batch, heads, length = int(rng.integers(1, 3)), int(rng.integers(1, 4)), int(rng.integers(1, 6))
    width, size = int(rng.integers(1, 9)), 4 * int(rng.integers(1, 3))
    past = int(rng.integers(0, 4)) if chance(rng, 0.4) else None
    last = size if past is not None or chance(rng) else 4 * int(rng.integers(1, 4))
    sizes = [heads * size, heads * size, heads * last]
    total = length + (past or 0)
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, (batch, length, width), kind), ["b", "s", str(width)]),
        "w": Given(normal(rng, (width, sum(sizes)), kind) * 0.5, constant=chance(rng)),
        "bias": Given(normal(rng, (sum(sizes),), kind), constant=chance(rng)),
    }
    mask = masks(rng, batch, length, total, placeholder=True)
    inputs["mask"] = mask
    inputs["past"] = None
    if past is not None:
        axes = ["2", "b", str(heads), "p", str(size)]
        inputs["past"] = Given(normal(rng, (2, batch, heads, past, size), kind), axes)
    shape = (int(pick(rng, 1, batch)), int(pick(rng, 1, heads)), length, total)
    inputs["extra"] = Given(normal(rng, shape, kind)) if chance(rng, 0.4) else None
    attributes: dict[str, object] = {"num_heads": heads}
    if last != size:
        attributes["qkv_hidden_sizes"] = sizes
    if chance(rng, 0.4):
        attributes["unidirectional"] = 1
    if chance(rng, 0.3):
        attributes["scale"] = 0.3
    if chance(rng, 0.3):
        attributes["mask_filter_value"] = -50.0
    outputs = [("y", 3, kind)]
    if past is not None or (last == size and chance(rng, 0.3)):
        outputs.append(("present", 5, kind))
    dynamic = chance(rng) and (mask is None or bool(mask.axes))
    exact = tolerance(mask, attributes)
    return Case("Attention", inputs, attributes, outputs, _opset(rng), exact, dynamic=dynamic)


def quantised_attention(rng: Dice) -> Case:
    """Draw a QAttention."""
    kind, _ = KINDS["float32"]
    batch, heads, length = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(1, 5))
    width, size = int(rng.integers(1, 9)), 4 * int(rng.integers(1, 3))
    columns = 3 * heads * size
    weights = rng.integers(-100, 100, (width, columns)).astype(np.int8)
    past = int(rng.integers(0, 3)) if chance(rng, 0.3) else None
    per_column = chance(rng)
    scale = rng.uniform(0.001, 0.01, (columns if per_column else 1,)).astype(np.float32)
    numbers = rng.integers(0, 100, (batch, length, width)).astype(np.uint8)
    inputs: dict[str, Given | None] = {
        "x": Given(numbers, ["b", "s", str(width)]),
        "w": Given(weights, constant=True),
        "bias": Given(normal(rng, (columns,), kind)),
        "xs": Given(np.array(0.02, np.float32)),
        "ws": Given(scale if per_column else scale.reshape(())),
        "mask": masks(rng, batch, length, length + (past or 0), placeholder=True),
        "xz": Given(np.array(7, np.uint8)) if chance(rng) else None,
        "wz": Given(np.array(3, np.int8)) if chance(rng) else None,
        "past": None,
    }
    if past is not None:
        axes = ["2", "b", str(heads), "p", str(size)]
        inputs["past"] = Given(normal(rng, (2, batch, heads, past, size), kind), axes)
    attributes: dict[str, object] = {"num_heads": heads}
    if chance(rng, 0.4):
        attributes["unidirectional"] = 1
    outputs = [("y", 3, kind)]
    if past is not None:
        outputs.append(("present", 5, kind))
    mask = inputs["mask"]
    dynamic = chance(rng) and (mask is None or bool(mask.axes))
    exact = tolerance(mask, attributes)
    return Case("QAttention", inputs, attributes, outputs, _opset(rng), exact, dynamic=dynamic)


def _found(case: Case, parts: list[Array], bias: Array | None) -> list[Array]:
    """Return attention within each sequence of packed tokens, told apart by their sums."""
    sums, heads = case.inputs["sums"], int(case.attributes["num_heads"])  # type: ignore[call-overload]
    assert sums is not None
    rows = []
    ends = zip(sums.array[:-1], sums.array[1:], strict=True)
    for number, (start, end) in enumerate(ends):
        q, k, v = (x[start:end].reshape(end - start, heads, -1).transpose(1, 0, 2) for x in parts)
        scores = q @ k.transpose(0, 2, 1) * case.attributes.get("scale", q.shape[-1] ** -0.5)
        if bias is not None:
            scores = scores + bias[number % len(bias), :, : end - start, : end - start]
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        found = shares / shares.sum(-1, keepdims=True) @ v
        rows.append(found.transpose(1, 0, 2).reshape(end - start, -1))
    return [np.concatenate(rows).astype(np.float32)]


def _packing(rng: Dice) -> tuple[dict[str, Given | None], int, tuple[int, int]]:
    """Return token_offset and the sums of lengths; how many tokens there are; the padded sizes."""
    batch, length = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    ends = rng.integers(1, length + 1, batch)
    ends[0] = length
    places = np.arange(batch * length).reshape(batch, length)
    inside = np.arange(length)[None] < ends[:, None]
    offset = np.concatenate([places[inside], places[~inside]]).reshape(batch, length)
    sums = np.cumsum([0, *ends])
    found: dict[str, Given | None] = {
        "offset": Given(offset.astype(np.int32), ["b", "s"]),
        "sums": Given(sums.astype(np.int32), ["c"]),
    }
    return found, int(sums[-1]), (batch, length)


def _bias(rng: Dice, heads: int, batch: int, length: int) -> Given | None:
    shape = (int(pick(rng, 1, batch)), heads, length, length)
    return Given(normal(rng, shape, np.dtype(np.float32))) if chance(rng) else None


def packed_attention(rng: Dice) -> Case:
    """Draw a PackedAttention."""
    kind, exact = KINDS["float32"]
    packing, count, (batch, length) = _packing(rng)
    heads, size, width = int(rng.integers(1, 3)), 4, int(rng.integers(1, 6))
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, (count, width), kind), ["t", str(width)]),
        "w": Given(normal(rng, (width, 3 * heads * size), kind)),
        "bias": Given(normal(rng, (3 * heads * size,), kind)),
        **packing,
        "extra": _bias(rng, heads, batch, length),
    }

    def reference(case: Case) -> list[Array]:
        given = {name: x.array for name, x in case.inputs.items() if x is not None}
        parts = np.split(given["x"] @ given["w"] + given["bias"], 3, -1)
        return _found(case, parts, given.get("extra"))

    attributes: dict[str, object] = {"num_heads": heads}
    if chance(rng):
        attributes["scale"] = 0.3
    outputs = [("y", 2, kind)]
    return Case(
        "PackedAttention",
        inputs,
        attributes,
        outputs,
        _opset(rng),
        exact,
        dynamic=chance(rng),
        reference=reference,
    )


def packed_heads(rng: Dice) -> Case:
    """Draw a PackedMultiHeadAttention."""
    kind, exact = KINDS["float32"]
    packing, count, (batch, length) = _packing(rng)
    heads, width = int(rng.integers(1, 3)), 8
    inputs: dict[str, Given | None] = {
        name: Given(normal(rng, (count, width), kind), ["t", str(width)]) for name in "qkv"
    }
    inputs["bias"] = Given(normal(rng, (3 * width,), kind)) if chance(rng) else None
    inputs |= packing
    inputs["extra"] = _bias(rng, heads, batch, length)

    def reference(case: Case) -> list[Array]:
        given = {name: x.array for name, x in case.inputs.items() if x is not None}
        added = np.split(given.get("bias", np.zeros(3 * width, np.float32)), 3)
        parts = [given[name] + b for name, b in zip("qkv", added, strict=True)]
        return _found(case, parts, given.get("extra"))

    outputs = [("y", 2, kind)]
    return Case(
        "PackedMultiHeadAttention",
        inputs,
        {"num_heads": heads},
        outputs,
        _opset(rng),
        exact,
        dynamic=chance(rng),
        reference=reference,
    )


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "Attention": attention,
    "QAttention": quantised_attention,
    "PackedAttention": packed_attention,
    "PackedMultiHeadAttention": packed_heads,
}
