"""Random configurations of normalisations, activations and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
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

    kinds = chance(rng, 0.7)
    segments = kinds and chance(rng, 0.7)
    inputs: dict[str, Given | None] = {
        "ids": ids(words),
        "segments": ids(2) if segments else None,
        "words": Given(normal(rng, (words, width), kind), constant=chance(rng)),
        "places": Given(normal(rng, (places, width), kind)),
        "kinds": Given(normal(rng, (2, width), kind)) if kinds else None,
        "gamma": Given(normal(rng, (width,), kind)),
        "beta": Given(normal(rng, (width,), kind)),
        "mask": None,
        "at": None,
    }
    attributes: dict[str, object] = {"epsilon": 1e-5} if chance(rng) else {}
    integer = np.dtype(np.int32)
    outputs = [("y", 3, kind), ("index", 1, integer)]
    if chance(rng):
        mask = rng.integers(-1, 3, (batch, length))
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


def _matmul(rng: Dice, operator: str) -> Case:
    kind, tolerance = KINDS["float32"]
    batch = [int(x) for x in rng.integers(1, 4, int(rng.integers(0, 3)))]
    rows, inner, columns = (int(x) for x in rng.integers(1, 5, 3))
    attributes: dict[str, object] = {}
    inputs: dict[str, Given | None] = {}
    for name, sizes in (("A", (rows, inner)), ("B", (inner, columns))):
        shape = [*sizes]
        if chance(rng, 0.4):
            attributes[f"trans{name}"] = 1
            shape.reverse()
        shape = [*batch, *shape]
        if operator == "FusedMatMul" and chance(rng, 0.3) and len(batch):
            attributes[f"transBatch{name}"] = 1
            shape.insert(0, shape.pop(-2))
        inputs[name] = Given(
            normal(rng, tuple(shape), kind), [f"{name}{i}" for i in range(len(shape))]
        )
    if chance(rng):
        attributes["alpha"] = 0.5
    outputs = [("y", len(batch) + 2, kind)]
    return Case(operator, inputs, attributes, outputs, _opset(rng), tolerance, dynamic=chance(rng))


def fused_matmul(rng: Dice) -> Case:
    """Draw a FusedMatMul."""
    return _matmul(rng, "FusedMatMul")


def transpose_matmul(rng: Dice) -> Case:
    """Draw a TransposeMatMul."""
    return _matmul(rng, "TransposeMatMul")


_ACTIVE: dict[str, tuple[float, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": (0.2,),
    "HardSigmoid": (0.3, 0.4),
}


def fused_gemm(rng: Dice) -> Case:
    """Draw a FusedGemm."""
    kind, tolerance = KINDS["float32"]
    rows, inner, columns = (int(x) for x in rng.integers(1, 5, 3))
    turned = [chance(rng), chance(rng)]
    a, b = [rows, inner], [inner, columns]
    inputs: dict[str, Given | None] = {}
    for name, shape, swap in (("A", a, turned[0]), ("B", b, turned[1])):
        whole = tuple(shape[::-1] if swap else shape)
        inputs[name] = Given(normal(rng, whole, kind), [f"{name}0", f"{name}1"])
    c = Given(normal(rng, (columns,), kind), ["c"])
    inputs["C"] = c if chance(rng) else None
    name = str(pick(rng, *_ACTIVE))
    names = ("activation_alpha", "activation_beta")
    attributes: dict[str, object] = {
        "transA": int(turned[0]),
        "transB": int(turned[1]),
        "activation": name,
        **dict(zip(names, _ACTIVE[name], strict=False)),
    }
    if chance(rng):
        attributes |= {"alpha": 0.5, "beta": 2.0}
    outputs = [("y", 2, kind)]
    return Case(
        "FusedGemm", inputs, attributes, outputs, _opset(rng), tolerance, dynamic=chance(rng)
    )


def fused_conv(rng: Dice) -> Case:
    """Draw a FusedConv."""
    kind, tolerance = KINDS["float32"]
    batch, channels, size = (
        int(rng.integers(1, 3)),
        int(rng.integers(1, 3)),
        int(rng.integers(3, 6)),
    )
    out, window = 2 * int(rng.integers(1, 3)), int(rng.integers(1, 4))
    pad = window // 2
    inputs: dict[str, Given | None] = {
        "X": Given(
            normal(rng, (batch, channels, size, size), kind), ["b", str(channels), "h", "w"]
        ),
        "W": Given(normal(rng, (out, channels, window, window), kind), constant=chance(rng)),
        "B": Given(normal(rng, (out,), kind)) if chance(rng) else None,
        "Z": None,
    }
    made = size + 2 * pad - window + 1
    if chance(rng):
        inputs["Z"] = Given(normal(rng, (batch, out, made, made), kind))
    name = str(pick(rng, *_ACTIVE, "Clip", ""))
    attributes: dict[str, object] = {"kernel_shape": [window] * 2, "pads": [pad] * 4}
    if name:
        attributes["activation"] = name
        numbers = (-0.5, 1.5) if name == "Clip" else _ACTIVE[name]
        attributes |= {"activation_params": list(numbers)} if numbers else {}
    outputs = [("y", 4, kind)]
    return Case(
        "FusedConv", inputs, attributes, outputs, _opset(rng), tolerance, dynamic=chance(rng)
    )


def _given(case: Case) -> dict[str, Array]:
    return {name: each.array.astype(np.float64) for name, each in case.inputs.items() if each}


_ERF = np.vectorize(math.erf)


def _on_gpus(
    rng: Dice,
    operator: str,
    inputs: dict[str, Given | None],
    reference: Callable[[Case], list[Array]],
    *,
    attributes: Mapping[str, object] | None = None,
    ranks: Sequence[int] = (3,),
) -> Case:
    """Return a case that its documentation says the results of, in float64 and rounded then."""
    kind, tolerance = KINDS["float32"]
    outputs = [(f"y{index}", rank, kind) for index, rank in enumerate(ranks)]

    def rounded(case: Case) -> list[Array]:
        return [each.astype(np.float32) for each in reference(case)]

    return Case(
        operator,
        inputs,
        attributes or {},
        outputs,
        _opset(rng),
        tolerance,
        dynamic=chance(rng),
        reference=rounded,
    )


def bias_add(rng: Dice) -> Case:
    """Draw a BiasAdd."""
    kind, shape = np.dtype(np.float32), (2, int(rng.integers(1, 4)), 8)
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, shape, kind), ["b", "s", "8"]),
        "bias": Given(normal(rng, (8,), kind)),
        "skip": Given(normal(rng, shape, kind), ["b", "s", "8"]),
    }
    return _on_gpus(rng, "BiasAdd", inputs, lambda case: [sum(_given(case).values())])


def bias_split_gelu(rng: Dice) -> Case:
    """Draw a BiasSplitGelu."""
    kind, shape = np.dtype(np.float32), (2, int(rng.integers(1, 4)), 8)
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, shape, kind), ["b", "s", "8"]),
        "bias": Given(normal(rng, (8,), kind)),
    }

    def reference(case: Case) -> list[Array]:
        left, right = np.split(sum(_given(case).values()), 2, -1)
        return [left * right * 0.5 * (1 + _ERF(right / np.sqrt(2)))]

    return _on_gpus(rng, "BiasSplitGelu", inputs, reference)


def gemm_fast_gelu(rng: Dice) -> Case:
    """Draw a GemmFastGelu."""
    kind, shape = np.dtype(np.float32), (2, int(rng.integers(1, 4)), 8)
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, shape, kind), ["b", "s", "8"]),
        "w": Given(normal(rng, (8, 4), kind)),
        "bias": Given(normal(rng, (4,), kind)) if chance(rng) else None,
    }

    def reference(case: Case) -> list[Array]:
        given = _given(case)
        x = given["x"] @ given["w"] + given.get("bias", 0)
        return [0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))]

    return _on_gpus(rng, "GemmFastGelu", inputs, reference)


def _group_norm(rng: Dice, operator: str) -> Case:
    kind, groups = np.dtype(np.float32), int(rng.integers(1, 4))
    batch, channels = 2, 2 * groups
    high, wide = (int(x) for x in rng.integers(2, 5, 2))
    last = chance(rng, 0.7)
    shape, axes = (batch, high, wide, channels), ["b", "h", "w", str(channels)]
    if not last:
        shape, axes = (batch, channels, high, wide), ["b", str(channels), "h", "w"]
    inputs: dict[str, Given | None] = {
        "x": Given(normal(rng, shape, kind), axes),
        "gamma": Given(normal(rng, (channels,), kind)),
        "beta": Given(normal(rng, (channels,), kind)),
    }
    ranks = [4]
    if operator == "SkipGroupNorm":
        options = [(shape, axes), ((batch, 1, 1, channels), ["b", "1", "1", str(channels)])]
        options.append(((batch, channels), ["b", str(channels)]))
        size, names = options[int(rng.integers(3 if last else 1))]
        inputs["skip"] = Given(normal(rng, size, kind), names)
        biased = last and chance(rng)
        inputs["bias"] = Given(normal(rng, (channels,), kind)) if biased else None
        ranks += [4] * chance(rng)
    attributes = {"groups": groups, "activation": int(chance(rng)), "channels_last": int(last)}

    def reference(case: Case) -> list[Array]:
        given = _given(case)
        skip = given.get("skip", np.zeros(1))
        x = given["x"] + (skip[:, None, None] if skip.ndim == 2 else skip) + given.get("bias", 0)
        total = x.copy()
        x = x.transpose(0, 3, 1, 2) if last else x
        flat = x.reshape(batch, groups, -1)
        flat = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + 1e-5)
        x = flat.reshape(x.shape) * given["gamma"][:, None, None] + given["beta"][:, None, None]
        x = x / (1 + np.exp(-x)) if attributes["activation"] else x
        return [x.transpose(0, 2, 3, 1) if last else x, total][: len(ranks)]

    found = _on_gpus(rng, operator, inputs, reference, attributes=attributes, ranks=ranks)
    return replace(found, tolerance=2e-4)  # few elements may vary by little


def group_norm(rng: Dice) -> Case:
    """Draw a GroupNorm."""
    return _group_norm(rng, "GroupNorm")


def skip_group_norm(rng: Dice) -> Case:
    """Draw a SkipGroupNorm."""
    return _group_norm(rng, "SkipGroupNorm")


DRAWN: dict[str, Callable[[Dice], Case]] = {
    "SkipLayerNormalization": skip_layer,
    "SkipSimplifiedLayerNormalization": skip_simplified,
    "EmbedLayerNormalization": embed,
    "BiasGelu": bias_gelu,
    "Gelu": gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": transpose_matmul,
    "FusedGemm": fused_gemm,
    "FusedConv": fused_conv,
    "BiasAdd": bias_add,
    "BiasSplitGelu": bias_split_gelu,
    "GemmFastGelu": gemm_fast_gelu,
    "GroupNorm": group_norm,
    "SkipGroupNorm": skip_group_norm,
}
