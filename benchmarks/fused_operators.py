"""Whether one operator is faster on ONNX Runtime's CPU than the nodes that fusing makes it of.

    python benchmarks/fused_operators.py --rounds 100

Both sides are run with all of ONNX Runtime's own optimisations but for norms with a skip
connection, which it would fuse by itself. Sides alternate; of each, the least time counts. What is
slower here is in the table `slower` of the target's profile, and fusing for the target leaves it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import onnxruntime
from measure import table

SIZES = ((1, 896), (16, 896), (197, 768), (512, 2048))
"""Tokens and how wide each is."""
ERF = """d = Div(x, root) e = Erf(d) p = Add(e, one) q = Mul(x, p) y = Mul(q, half)"""
TANH = """c = Mul(x, x) d = Mul(c, x) e = Mul(d, small) f = Add(x, e) g = Mul(f, twice)
    h = Tanh(g) i = Add(h, one) j = Mul(x, i) y = Mul(j, half)"""
MEANS = """m = ReduceMean<axes=[-1], keepdims=1>(x) d = Sub(x, m) p = Mul(d, d)
    v = ReduceMean<axes=[-1], keepdims=1>(p) a = Add(v, small) s = Sqrt(a) r = Div(d, s)
    n = Mul(r, scale) y = Add(n, bias)"""
SQUARES = """p = Mul(x, x) m = ReduceMean<axes=[-1], keepdims=1>(p) a = Add(m, small) s = Sqrt(a)
    r = Div(x, s) y = Mul(r, scale)"""
SQUARES_18 = SQUARES.replace("axes=[-1], keepdims=1>(p)", "keepdims=1>(p, last)")
PAIRS: dict[str, tuple[int, str, str]] = {
    "com.microsoft.Gelu": (17, ERF, "y = com.microsoft.Gelu(x)"),
    "Gelu": (20, ERF, "y = Gelu(x)"),
    "com.microsoft.FastGelu": (17, TANH, "y = com.microsoft.FastGelu(x)"),
    "Gelu, tanh": (20, TANH, 'y = Gelu<approximate="tanh">(x)'),
    "com.microsoft.QuickGelu": (
        17,
        "a = Mul(x, twice) b = Sigmoid(a) y = Mul(x, b)",
        "y = com.microsoft.QuickGelu<alpha = 0.7978846>(x)",
    ),
    "Swish": (24, "b = Sigmoid(x) y = Mul(x, b)", "y = Swish(x)"),
    "LayerNormalization": (17, MEANS, "y = LayerNormalization<epsilon=0.044715>(x, scale, bias)"),
    "SimplifiedLayerNormalization": (
        17,
        SQUARES,
        "y = SimplifiedLayerNormalization<epsilon=0.044715>(x, scale)",
    ),
    "RMSNormalization": (23, SQUARES_18, "y = RMSNormalization<epsilon=0.044715>(x, scale)"),
    "com.microsoft.SkipLayerNormalization": (
        17,
        "t = Add(x, skip) y = LayerNormalization<epsilon=0.01>(t, scale, bias)",
        "y, m, v, t = com.microsoft.SkipLayerNormalization<epsilon=0.01>(x, skip, scale, bias)",
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": (
        17,
        "t = Add(x, skip) y = SimplifiedLayerNormalization<epsilon=0.01>(t, scale)",
        "y, m, v, t = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.01>(x, skip, scale)",
    ),
}
NUMBERS = {"root": 2**0.5, "one": 1.0, "half": 0.5, "small": 0.044715, "twice": 0.7978846}
SKIPS = ["SkipLayerNormFusion", "SkipLayerNormalizationFusion"]


def session(opset: int, body: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session of one side."""
    used = [f"float {name} = {{{number}}}" for name, number in NUMBERS.items() if name in body]
    used += ["int64[1] last = {-1}"] if "last" in body else []
    outputs = "float[1, n, h] y" + (", float[1, n, h] t" if "skip" in body else "")
    inputs = "float[1, n, h] x, float[1, n, h] skip, float[h] scale, float[h] bias"
    text = f"""<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>
        g ({inputs}) => ({outputs}) <{", ".join(used)}> {{ {body} }}"""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    model = onnx.parser.parse_model(text).SerializeToString()
    return onnxruntime.InferenceSession(model, options, disabled_optimizers=SKIPS)


def compared(name: str, threads: int, tokens: int, width: int, rounds: int) -> list[str]:
    """Return a row: how long each side took, the least of several, and their ratio."""
    opset, *bodies = PAIRS[name]
    sides = [session(opset, body, threads) for body in bodies]
    rng, rows = np.random.default_rng(0), (1, tokens, width)
    sizes = {"x": rows, "skip": rows, "scale": (width,), "bias": (width,)}
    feed = {key: rng.standard_normal(size, np.float32) for key, size in sizes.items()}
    results = [side.run(None, feed) for side in sides]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    least = [float("inf")] * 2
    for _ in range(rounds):
        for number, side in enumerate(sides):
            start = time.perf_counter()
            side.run(None, feed)
            least[number] = min(least[number], time.perf_counter() - start)
    apart, fused = least
    micros = [f"{1e6 * seconds:.0f}" for seconds in least]
    return [name, str(threads), f"{tokens} x {width}", *micros, f"{apart / fused:.2f}"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    head = ["operator", "threads", "tokens x width", "apart, us", "fused, us", "apart / fused"]
    cases = [(name, threads, *size) for name in PAIRS for threads in (1, 2) for size in SIZES]
    print(table([head, *(compared(*case, rounds) for case in cases)]))


if __name__ == "__main__":
    main()
