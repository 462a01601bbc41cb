"""Half precision: what rounding does is equal, what a fault does is not; and faults in float32.

A small transformer block, computed here in numpy, with each kind of fault planted.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from vlmpass.ir_tools.run import compare_arrays

_WIDTH, _LENGTH, _HEADS = 64, 24, 4
Array = np.ndarray
_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def _weights(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {
        **dict.fromkeys("qkvo", (_WIDTH, _WIDTH)),
        "up": (_WIDTH, 2 * _WIDTH), "down": (2 * _WIDTH, _WIDTH),
        "bias": (_WIDTH,), "scale": (_WIDTH,), "shift": (_WIDTH,),
    }  # fmt: skip
    made = {
        n: rng.standard_normal(s) / np.sqrt(s[0] if len(s) > 1 else 4) for n, s in shapes.items()
    }
    return {**made, "scale": 1 + made["scale"] / 4}


class Block:
    """Two layers of attention and a feed-forward, each value rounded to a type.

    Attributes:
        faults: The name of what is done wrongly; empty for nothing.
    """

    def __init__(self, dtype: type, fault: str = "") -> None:
        self._dtype, self._fault = dtype, fault

    def __call__(self, x: Array) -> Array:
        for layer in range(2):
            w = {n: self._round(a) for n, a in _weights(layer).items()}
            x = self._layer(self._round(x), self._broken(w) if layer == 0 else w, layer == 0)
        return (x * 1.01 if self._fault == "scaled output" else x).astype(self._dtype)

    def _round(self, x: Array) -> Array:
        return x.astype(self._dtype).astype(np.float64)

    def _broken(self, w: dict[str, Array]) -> dict[str, Array]:
        changes: dict[str, Callable[[], dict[str, Array]]] = {
            "swapped axes": lambda: {"q": w["q"].T},
            "swapped axes of the last product": lambda: {"o": w["o"].T},
            "row zeroed": lambda: {"up": np.where(np.arange(_WIDTH)[:, None] == 3, 0, w["up"])},
            "column zeroed": lambda: {"down": np.where(np.arange(_WIDTH) == 5, 0, w["down"])},
            "dropped bias": lambda: {"bias": 0 * w["bias"]},
            "bias twice": lambda: {"bias": 2 * w["bias"]},
            "bias rolled": lambda: {"bias": np.roll(w["bias"], 1)},
            "scale left out": lambda: {"scale": 1 + 0 * w["scale"]},
            "scale and shift swapped": lambda: {"scale": w["shift"], "shift": w["scale"]},
            "queries and keys swapped": lambda: {"q": w["k"], "k": w["q"]},
            "values and keys swapped": lambda: {"v": w["k"], "k": w["v"]},
            "weights of 4 bits": lambda: {"up": np.round(w["up"] * 28) / 28},
            "sign of a column": lambda: {"v": np.where(np.arange(_WIDTH) == 9, -w["v"], w["v"])},
            "rows rolled": lambda: {"down": np.roll(w["down"], 1, 0)},
        }
        return {**w, **changes.get(self._fault, dict)()}

    def _layer(self, x: Array, w: dict[str, Array], hit: bool) -> Array:
        fault, r = self._fault if hit else "", self._round
        h = self._norm(x, w, 1e-1 if fault == "wrong eps" else 1e-5, fault)
        q, k, v = (
            r(h @ w[n]).reshape(-1, _LENGTH, _HEADS, _WIDTH // _HEADS).swapaxes(1, 2) for n in "qkv"
        )
        root = np.sqrt(_WIDTH if fault == "root of the width" else _WIDTH // _HEADS)
        scores = r(q @ k.swapaxes(-1, -2) / root)
        mask = np.tril(np.ones((_LENGTH, _LENGTH)), 1 if fault == "mask off by one" else 0)
        scores = scores if fault == "no mask" else np.where(mask, scores, -1e4)
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        axis = -2 if fault == "softmax over the wrong axis" else -1
        mixed = r(r(odds / odds.sum(axis, keepdims=True)) @ v)
        mixed = mixed if fault == "heads not turned back" else mixed.swapaxes(1, 2)
        out = r(mixed.reshape(-1, _LENGTH, _WIDTH) @ w["o"])
        x = out if fault == "no residual" else r(x + out)
        u = r(x @ w["up"])
        power = 1.0 if fault == "approximate activation" else 1.702
        u = np.maximum(u, 0) if fault == "another activation" else r(u / (1 + np.exp(-power * u)))
        return r(x + r(u @ w["down"] + w["bias"]))

    def _norm(self, x: Array, w: dict[str, Array], eps: float, fault: str) -> Array:
        mean = 0 if fault == "mean not taken off" else x.mean(-1, keepdims=True)
        h = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
        return self._round(h * w["scale"] + w["shift"])


FAULTS = (
    "wrong eps", "swapped axes", "swapped axes of the last product", "row zeroed", "column zeroed",
    "dropped bias", "bias twice", "bias rolled", "scale left out", "scale and shift swapped",
    "queries and keys swapped", "values and keys swapped", "weights of 4 bits", "sign of a column",
    "rows rolled", "root of the width", "mask off by one", "no mask", "softmax over the wrong axis",
    "heads not turned back", "no residual", "another activation", "approximate activation",
    "mean not taken off", "scaled output",
)  # fmt: skip


def inputs(seed: int, scale: float = 1.0) -> Array:
    x = np.random.default_rng(seed).standard_normal((2, _LENGTH, _WIDTH)) * scale
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize("name", list(_TYPES))
def test_rounding_is_equal(name):
    for seed in range(20):
        x = inputs(seed, scale=float(2.0 ** (seed % 5 - 2)))
        expected = Block(np.float64)(x).astype(np.float32)
        assert compare_arrays("y", expected, Block(_TYPES[name])(x)).ok, seed


# A hundredth is two steps of bfloat16.
_PLANTED = [
    (name, fault)
    for name in _TYPES
    for fault in FAULTS
    if (name, fault) != ("bfloat16", FAULTS[-1])
]


@pytest.mark.parametrize(("name", "fault"), _PLANTED)
def test_a_planted_fault_is_not_equal(name, fault):
    x = inputs(0)
    expected = Block(np.float64)(x).astype(np.float32)
    assert not compare_arrays("y", expected, Block(_TYPES[name], fault)(x)).ok


def test_one_wrong_element_of_many_is_not_equal():
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    y = x.astype(np.float16)
    assert compare_arrays("y", x, y).ok
    y[12345] += np.float16(0.2)
    assert not compare_arrays("y", x, y).ok


def test_the_largest_of_many_errors_is_no_fault_and_a_factor_is():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1_000_000).astype(np.float32)
    noisy = x + rng.standard_normal(x.size).astype(np.float32) * 3e-3
    found = compare_arrays("y", x, noisy, at_least=1e-2)
    assert found.max_rel > 1e-2
    assert found.ok
    found = compare_arrays("y", x, x * np.float32(1.01), at_least=1e-2)
    assert found.max_rel < 1e-2
    assert not found.ok
    assert "norm of the error" in found.reason


def test_few_elements_are_held_as_before():
    x = np.array([1.0, 0.0, 0.0], np.float32)
    assert compare_arrays("y", x, x * np.float32(1.015), at_least=1e-2).ok
    assert not compare_arrays("y", x, x * np.float32(1.03), at_least=1e-2).ok
