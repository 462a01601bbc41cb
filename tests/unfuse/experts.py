"""Random configurations of experts that tokens are sent to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick
from unfuse.quantised import packed

FLOAT = np.dtype(np.float32)
_ON_CPUS = ("relu", "gelu", "silu", "identity", "swiglu")


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_ALONE: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x),
    "identity": lambda x: x,
}


def _active(case: Case, first: Array, third: Array | None) -> Array:
    """Return what the documentation says of activations, which no kernel for CPUs has whole."""
    given = {"activation_alpha": 1.0, "activation_beta": 0.0, "swiglu_limit": np.inf}
    alpha, beta, limit = ({**given, **case.attributes}[name] for name in given)
    name, fusion = case.attributes["activation_type"], case.attributes.get("swiglu_fusion", 0)
    if name not in ("swiglu", "geglu"):
        found = _ALONE[str(name)](first)
        return found if third is None else found * third
    if third is not None:
        gate, up = first, third
    else:
        gate, up = (first[0::2], first[1::2]) if fusion == 1 else np.split(first, 2)
    if name == "geglu":
        return _gelu(gate) * up
    later = case.attributes.get("swiglu_limit_after_activation", 0)
    gate, up = (gate if later else np.minimum(gate, limit)), np.clip(up, -limit, limit)
    found = gate * _sigmoid(alpha * gate)
    return (np.minimum(found, limit) if later else found) * (up + beta)


def documented(case: Case) -> list[Array]:
    """Return what tokens find, one by one, at the experts that they are sent to."""
    given = {name: x.array for name, x in case.inputs.items() if x is not None}
    x, k = given["x"].reshape(-1, given["x"].shape[-1]), int(case.attributes["k"])  # type: ignore[call-overload]
    layers = [(given.get(f"w{i}"), given.get(f"b{i}")) for i in (1, 2, 3)]
    found = np.zeros(x.shape)
    for token, scores in enumerate(given["router"]):
        best = sorted(range(len(scores)), key=lambda each: (-scores[each], -each))[:k]
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        if case.attributes.get("normalize_routing_weights"):
            shares = shares / shares[best].sum()
        for expert in best:

            def applied(x: Array, index: int, expert: int = expert) -> Array | None:
                weight, bias = layers[index]
                if weight is None:
                    return None
                return weight[expert] @ x + (0 if bias is None else bias[expert])

            first = applied(x[token], 0)
            assert first is not None
            second = applied(_active(case, first, applied(x[token], 2)), 1)
            found[token] += shares[expert] * second
    return [found.reshape(given["x"].shape).astype(np.float32)]


def _tokens(rng: Dice, width: int, experts: int) -> dict[str, Given | None]:
    """Return tokens and what they are sent by, which may be alike for several experts."""
    shape = tuple(int(x) for x in rng.integers(1, 4, int(rng.integers(1, 3))))
    count = int(np.prod(shape))
    router = normal(rng, (count, experts), FLOAT)
    if chance(rng, 0.4):
        router = rng.integers(0, 3, (count, experts)).astype(np.float32)
    return {
        "x": Given(normal(rng, (*shape, width), FLOAT), [*"bs"[: len(shape)], str(width)]),
        "router": Given(router, ["t", str(experts)]),
    }


def _attributes(rng: Dice, name: str, experts: int) -> dict[str, object]:
    found: dict[str, object] = {"k": int(rng.integers(1, experts + 1)), "activation_type": name}
    found["normalize_routing_weights"] = int(chance(rng))
    if name == "swiglu" and chance(rng):
        found |= {"activation_alpha": 1.702, "activation_beta": 1.0}
    if name == "swiglu" and chance(rng):
        found["swiglu_limit"] = 0.7
    return found


def _case(
    rng: Dice,
    operator: str,
    inputs: dict[str, Given | None],
    attributes: dict[str, object],
    tolerance: float,
) -> Case:
    x = inputs["x"]
    assert x is not None
    outputs, opset = [("y", x.array.ndim, FLOAT)], int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    return Case(operator, inputs, attributes, outputs, opset, tolerance, dynamic=chance(rng))


def experts(rng: Dice) -> Case:
    """Draw a MoE, of which kernels for CPUs do not have all."""
    _, tolerance = KINDS["float32"]
    name = str(pick(rng, *_ON_CPUS, "swiglu", "geglu", "relu2"))
    count, width, inner = (int(x) for x in rng.integers(2, 6, 3))
    attributes = _attributes(rng, name, count)
    gated = name in ("swiglu", "geglu")
    fusion = int(pick(rng, 1, 1, 2, *([0] if name == "swiglu" else []))) if gated else 0
    third = fusion == 0 and (gated or chance(rng, 0.2))
    if gated:
        attributes["swiglu_fusion"] = fusion
    if name == "swiglu" and chance(rng, 0.2):
        attributes["swiglu_limit_after_activation"] = 1
    wide = inner * (2 if fusion else 1)
    inputs, constant = _tokens(rng, width, count), chance(rng)
    sizes = [(wide, width), (width, inner), *([(inner, width)] if third else [])]
    for index, size in enumerate(sizes):
        inputs[f"w{index + 1}"] = Given(normal(rng, (count, *size), FLOAT), constant=constant)
        bias = Given(normal(rng, (count, size[0]), FLOAT), constant=constant)
        inputs[f"b{index + 1}"] = bias if chance(rng) else None
    case = _case(rng, "MoE", inputs, attributes, tolerance)
    later = "swiglu_limit_after_activation" in attributes
    known = name in _ON_CPUS and not third and fusion != 2 and not later
    return case if known else replace(case, reference=documented)


def _scaled(rng: Dice, shape: tuple[int, int, int], bits: int, block: int) -> list[Array]:
    """Return a weight, packed, with scales and zero points: one for each row or each block."""
    blocks = shape[2] // block if block else 1
    numbers = rng.integers(0, 1 << bits, shape)
    scales = rng.uniform(0.01, 0.1, (*shape[:2], blocks)).astype(np.float32)
    zeros = rng.integers(0, 1 << bits, scales.shape)
    if not block:
        scales, zeros = scales[:, :, 0], zeros[:, :, 0]
    return [packed(numbers, bits), scales, packed(zeros, bits)]


def quantised_experts(rng: Dice) -> Case:
    """Draw a QMoE; kernels compute blocks of 8 bits with rounded tokens, which is not compared."""
    bits, block = int(pick(rng, 2, 4, 4, 8)), int(pick(rng, 0, 16, 32))
    block = 0 if bits == 8 else block
    name = str(pick(rng, *_ON_CPUS))
    count, (width, inner) = int(rng.integers(2, 5)), (32 * int(x) for x in rng.integers(1, 3, 2))
    attributes = _attributes(rng, name, count)
    attributes |= {"expert_weight_bits": bits, "weights_prepacked": 0}
    attributes["normalize_routing_weights"] = int(chance(rng, 0.7))
    if name == "swiglu":
        attributes["swiglu_fusion"] = 1
    if block:
        attributes["block_size"] = block
    inputs = _tokens(rng, width, count)
    sizes = [(inner * (2 if name == "swiglu" else 1), width), (width, inner)]
    zeros: dict[str, Given | None] = {}
    for index, size in enumerate(sizes, 1):
        weight, scales, zero = _scaled(rng, (count, *size), bits, block)
        inputs[f"w{index}"] = Given(weight, constant=True)
        inputs[f"s{index}"] = Given(scales, constant=chance(rng))
        bias = Given(normal(rng, (count, size[0]), FLOAT))
        inputs[f"b{index}"] = bias if chance(rng) else None
        zeros[f"z{index}"] = Given(zero, constant=True)
    inputs |= dict.fromkeys(("w3", "s3", "b3"))
    inputs |= zeros if chance(rng) else dict.fromkeys(zeros)
    inputs |= {"z3": None, "weights": None}
    if chance(rng, 0.3):
        router = inputs["router"]
        assert router is not None
        shares = normal(rng, router.array.shape, FLOAT)  # kernels leave out what is below zero
        inputs["weights"] = Given(shares, router.axes)
    plain = not attributes["normalize_routing_weights"] and inputs["weights"] is None
    exact = 1e-2 if bits == 2 and block else 1e-4  # some kernels of 2 bits round tokens too
    return replace(_case(rng, "QMoE", inputs, attributes, exact), may_stay=plain)


DRAWN: dict[str, Callable[[Dice], Case]] = {"MoE": experts, "QMoE": quantised_experts}
