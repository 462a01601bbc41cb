"""Random pieces of models on which float16 goes wrong where it is let in carelessly.

Each piece is drawn from a seed: how it is spelt, its sizes, its inputs. What a conversion makes of
it is evaluated by onnx's reference evaluator, which computes every operator in numpy's float16 and
shares nothing with how we judge.

    python tests/dtype/half_pieces.py [--count N] [--first SEED]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from dtype_tools import parse, run
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as state

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.run import compare_arrays
from vlmpass.passes.dtype.mixed_precision import MixedPrecision

Feeds = dict[str, np.ndarray]
RUNTIME_ERRORS = (state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
TOLERANCE = 5e-2


@dataclass
class Piece:
    """A model in ONNX text, with inputs; `measured` if only measuring shows its islands."""

    text: str
    feeds: Feeds
    measured: bool = False
    by_runtime: bool = False


PIECES: dict[str, Callable[[np.random.Generator], Piece]] = {}


def piece(function: Callable[[np.random.Generator], Piece]) -> Callable[..., Piece]:
    PIECES[function.__name__] = function
    return function


def pick(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def floats(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Standard normal numbers that float16 holds."""
    return (rng.standard_normal(shape) * scale).astype(np.float16).astype(np.float32)


def numbers(array: np.ndarray) -> str:
    return "{" + ", ".join(f"{float(each):.9g}" for each in np.asarray(array).reshape(-1)) + "}"


@piece
def rotary(rng: np.random.Generator) -> Piece:
    """Queries turned by angles of late positions."""
    half = int(rng.integers(2, 6))
    length = int(rng.integers(2, 6))
    table = numbers(10000.0 ** -(np.arange(half) / half))
    start = int(rng.integers(3000, 30000))
    turn = pick(rng, "Cos", "Sin", "Tan") if half < 4 else pick(rng, "Cos", "Sin")
    given, position = {
        "ids": (f"int64[{length}] p", "c = Cast<to=1>(p) t = Unsqueeze(c, one)"),
        "range": ("int64 n", """s = Cast<to=1>(n) e = Add(s, span) c = Range(s, e, step)
            t = Unsqueeze(c, one)"""),
        "times": (f"int64[{length}] p", """c = Cast<to=1>(p) d = Mul(c, step) m = Sub(d, zero)
            t = Unsqueeze(m, one)"""),
    }[pick(rng, "ids", "range", "times")]  # fmt: skip
    angle = pick(
        rng,
        "a = MatMul(t, f)",
        "a = Mul(t, f)",
        'a = Einsum<equation="ij,jk->ik">(t, f)',
        "a = MatMul(t, f) ",
    )
    text = f"""g ({given}, float[{length},{half}] q) => (float[{length},{half}] y) <
        float[1,{half}] f = {table}, int64[1] one = {{1}}, float span = {{{length}}},
        float step = {{1}}, float zero = {{0}}> {{
        {position} {angle} k = {turn}(a) b = Tanh(k) y = Mul(q, b) }}"""
    feeds = {"q": floats(rng, length, half)}
    if "p" in given.split():
        feeds["p"] = np.arange(start, start + length)
    else:
        feeds["n"] = np.array(start)
    return Piece(text, feeds)


@piece
def masked(rng: np.random.Generator) -> Piece:
    """Attention scores under a mask, a row of it masked throughout."""
    n = int(rng.integers(3, 9))
    low = pick(rng, "-10000", "-65504", "-3.4028235e38", "-1e9", "-30000")
    mask = pick(rng, "w = Where(m, zero, low)", "h = Cast<to=1>(m) v = Sub(one, h) w = Mul(v, low)")
    text = f"""g (float[2,{n}] s, bool[2,{n}] m, float[{n},4] v0) => (float[2,4] y) <
        float zero = {{0}}, float one = {{1}}, float low = {{{low}}}> {{
        {mask} u = Mul(s, one) a = Add(u, w) p = Softmax<axis=-1>(a) y = MatMul(p, v0) }}"""
    mask_values = rng.random((2, n)) < 0.6
    mask_values[1] = True
    mask_values[0] = False
    return Piece(
        text, {"s": floats(rng, 2, n, scale=3), "m": mask_values, "v0": floats(rng, n, 4, scale=2)}
    )


@piece
def masked_where(rng: np.random.Generator) -> Piece:
    """A mask that stands for scores, which no softmax island holds."""
    n = int(rng.integers(3, 9))
    low = pick(rng, "-3.4028235e38", "-1e10")
    text = f"""g (float[2,{n}] s, bool[2,{n}] m) => (float[2,{n}] y) <float low = {{{low}}}> {{
        t = Tanh(s) b = Where(m, t, low) y = Softmax<axis=-1>(b) }}"""
    mask_values = rng.random((2, n)) < 0.6
    mask_values[0] = False
    return Piece(text, {"s": floats(rng, 2, n), "m": mask_values})


@piece
def norm(rng: np.random.Generator) -> Piece:
    """A normalisation of large or of small activations."""
    n = int(rng.integers(16, 64))
    scale = float(rng.choice([600.0, 2000.0]))
    square = pick(rng, "q = Mul(x, x)", "q = Pow(x, two)")
    root = pick(rng, "r = Sqrt(e) z = Div(x, r)", "r = Sqrt(e) i = Reciprocal(r) z = Mul(x, i)")
    text = f"""g (float[3,{n}] x0) => (float[3,{n}] y) <float two = {{2}}, int64[1] last = {{-1}},
        float eps = {{0.00001}}, float one = {{1}}> {{
        x = Mul(x0, one) {square} m = ReduceMean(q, last) e = Add(m, eps) {root}
        y = Tanh(z) }}"""
    return Piece(text, {"x0": floats(rng, 3, n, scale=scale)})


@piece
def centred(rng: np.random.Generator) -> Piece:
    """A normalisation of differences from a mean far away."""
    n = int(rng.integers(64, 200))
    text = f"""g (float[3,{n}] x0) => (float[3,{n}] y) <int64[1] last = {{-1}}, float one = {{1}},
        float eps = {{0.00001}}, float[{n}] w = {numbers(floats(rng, n))}> {{
        x = Mul(x0, one) m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d)
        v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) z = Div(d, r) y = Mul(z, w) }}"""
    x = floats(rng, 3, n, scale=400) + np.float32(2000)
    return Piece(text, {"x0": x.astype(np.float16).astype(np.float32)})


@piece
def tiny(rng: np.random.Generator) -> Piece:
    """A divisor guarded by a number that float16 does not have."""
    eps = pick(rng, "1e-8", "1e-9", "1e-12")
    guard = pick(rng, "e = Add(a, eps)", "e = Max(a, eps)", "e = Clip(a, eps)")
    over = pick(rng, "d = Div(x0, e)", "r = Reciprocal(e) d = Mul(x0, r)")
    shape = pick(rng, "", "f = Expand(e, four) ")
    if shape:
        over = over.replace("(e)", "(f)").replace(", e)", ", f)")
    text = f"""g (float[4] x0) => (float[4] y) <float eps = {{{eps}}}, int64[1] four = {{4}}> {{
        a = Abs(x0) {guard} {shape} {over} y = Tanh(d) }}"""
    x = floats(rng, 4)
    x[0] = 0
    return Piece(text, {"x0": x})


@piece
def residual(rng: np.random.Generator) -> Piece:
    """A stream that grows beyond the range and is scaled down again."""
    n = int(rng.integers(4, 12))
    gain, back = float(rng.integers(40, 90)), 2e-6
    text = f"""g (float[2,{n}] x0) => (float[2,{n}] y) <float k = {{{gain}}}, float b = {{{back}}}>
        {{ a = Mul(x0, k) c = Add(a, a) d = Mul(c, k) e = Add(d, c) f = Mul(e, b) y = Tanh(f) }}"""
    return Piece(text, {"x0": floats(rng, 2, n, scale=30)}, measured=True)


_REDUCED: dict[str, tuple[float, str]] = {
    "ReduceSum": (150.0, "y = Div(r, size)"),
    "ReduceSumSquare": (40.0, "s = Sqrt(r) y = Div(s, size)"),
    "ReduceL2": (3000.0, "y = Div(r, size)"),
    "ReduceL1": (400.0, "y = Div(r, size)"),
    "ReduceLogSumExp": (6.0, "y = Tanh(r)"),
    "CumSum": (150.0, "y = Div(r, size)"),
}


def reduction(operator: str) -> Callable[[np.random.Generator], Piece]:
    def make(rng: np.random.Generator) -> Piece:
        n = int(rng.integers(600, 1200))
        scale, end = _REDUCED[operator]
        call = "CumSum(x, axis)" if operator == "CumSum" else f"{operator}(x, last)"
        shape = f"2,{n}" if operator == "CumSum" else "2,1"
        text = f"""g (float[2,{n}] x0) => (float[{shape}] y) <int64[1] last = {{-1}},
            int64 axis = {{1}}, float one = {{1}}, float size = {{{n}}}> {{
            x = Mul(x0, one) r = {call} {end} }}"""
        x = np.abs(floats(rng, 2, n, scale=scale))
        feeds = {"x0": np.minimum(x, 8) if "Exp" in operator else x}
        return Piece(text, feeds)

    return make


for _operator in _REDUCED:
    PIECES[_operator] = reduction(_operator)


@piece
def spans(rng: np.random.Generator) -> Piece:
    """An exponential that a logarithm undoes, a power that a root does."""
    inner, outer = {
        "exp": ("e = Exp(x)", "f = Log(e)"),
        "pow": ("p = Mul(x, x) q = Pow(x, two) e = Add(q, p)", "f = Sqrt(e)"),
        "softplus": ("n = Neg(x) s = Neg(n) e = Exp(s)", "f = Log(e)"),
    }[pick(rng, "exp", "pow", "softplus")]
    scale = 300.0 if "Pow" in inner else 1.0
    text = f"""g (float[8] x0) => (float[8] y) <float two = {{2}}, float one = {{1}}> {{
        x = Mul(x0, one) {inner} {outer} y = Mul(f, one) }}"""
    x = np.abs(floats(rng, 8, scale=scale)) + (300 if scale > 1 else 12)
    feeds = {"x0": x.astype(np.float16).astype(np.float32)}
    return Piece(text, feeds, measured="Pow" in inner)


@piece
def inverse(rng: np.random.Generator) -> Piece:
    """A reciprocal of a small number, times one as small."""
    text = """g (float[8] x0) => (float[8] y) <float one = {1}, float k = {0.00001}> {
        x = Mul(x0, one) r = Reciprocal(x) s = Mul(r, k) y = Tanh(s) }"""
    x = (np.abs(floats(rng, 8)) + 1) * 1e-5
    return Piece(text, {"x0": x.astype(np.float16).astype(np.float32)})


@piece
def whole(rng: np.random.Generator) -> Piece:
    """Integers divided in floats, as sizes and positions are."""
    by = int(rng.integers(3, 9))
    text = f"""g (int64[6] i, float[6] q) => (float[6] y, int64[6] k) <float by = {{{by}}}> {{
        c = Cast<to=1>(i) d = Div(c, by) f = Floor(d) k = Cast<to=7>(f) y = Tanh(q) }}"""
    return Piece(text, {"i": rng.integers(20000, 60000, 6), "q": floats(rng, 6)})


@piece
def pooled(rng: np.random.Generator) -> Piece:
    """A mean over a large image."""
    n = int(rng.integers(20, 30))
    text = f"""g (float[1,2,{n},{n}] x0) => (float[1,2,1,1] y) <float one = {{1}}> {{
        x = Mul(x0, one) p = GlobalAveragePool(x) y = Mul(p, one) }}"""
    return Piece(text, {"x0": np.abs(floats(rng, 1, 2, n, n, scale=300))})


@piece
def scattered(rng: np.random.Generator) -> Piece:
    """Updates that are added up where they meet."""
    how = pick(rng, "add", "mul", "max", "min")
    text = f"""g (float[6] x, int64[3,1] i, float[3] u) => (float[6] y) {{
        t = Tanh(x) y = ScatterND<reduction="{how}">(t, i, u) }}"""
    feeds = {"x": floats(rng, 6), "i": rng.integers(0, 6, (3, 1)), "u": floats(rng, 3)}
    return Piece(text, feeds, by_runtime=True)


def fault(name: str, seed: int) -> str:
    """Convert a piece to float16; say what is wrong with the result, empty if nothing."""
    made = PIECES[name](np.random.default_rng(seed))
    model = parse(made.text)
    expected = run(model, made.feeds)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **made.feeds)
        file.flush()
        calibrate = file.name if made.measured else "none"
        try:
            MixedPrecision(keep_io=True, calibrate=calibrate).run(model)
        except VlmpassError as error:
            return f"refused: {error}"
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    if made.by_runtime:
        try:
            got = run(model, made.feeds)
        except RUNTIME_ERRORS as error:
            return f"not run: {error}"
    else:
        with np.errstate(all="ignore"):
            outputs = ReferenceEvaluator(proto).run(None, made.feeds)
        got = dict(zip([o.name for o in proto.graph.output], outputs, strict=True))
    for output, array in expected.items():
        found = compare_arrays(output, array, got[output], tolerance=TOLERANCE)
        if not found.ok:
            return f"{output}: {found.reason}, {found.max_rel:.1e}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    names, findings = list(PIECES), 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        name = names[seed % len(names)]
        if why := fault(name, seed):
            findings += 1
            print(f"{name} {seed}: {why}", flush=True)
    print(f"{arguments.count} models, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
