"""Causal attention of grouped heads below opset 23, in many spellings, one thing changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CHANGES", "Drawn", "drawn"]

CHANGES = (
    "nothing", "nothing", "nothing", "one further", "no past", "swapped", "padding too",
    "a second mask", "whole heads repeated", "values behind", "probabilities given out",
    "other softmax axis", "wider values", "odd heads", "several sequences", "window of two sides",
    "shallow",
)  # fmt: skip
"""What a careless author might have changed; nothing must be as it is."""


@dataclass(frozen=True)
class Drawn:
    """A model in ONNX's text form, and what to run it with.

    Attributes:
        text: The model; sizes may be names.
        sizes: What sizes are, by name.
        shapes: Of its inputs.
        change: What is changed in it.
    """

    text: str
    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    change: str

    def feed(self, seed: int) -> dict[str, np.ndarray]:
        """Return random inputs."""
        rng = np.random.default_rng(seed)
        made = {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}
        return {
            name: array > 0 if name == "pad" else array.astype(np.float32)
            for name, array in made.items()
        }


def _compared(rng: np.random.Generator, further: int) -> str:
    """Queries see keys up to their own place, in one of four ways."""
    queries = f"q1 = Constant<value=int64 {{{further}}}>() qx = Add(qp, q1) "
    form = rng.integers(4)
    if form == 0:
        return queries + "c0 = LessOrEqual(kp, qx)"
    if form == 1:
        return queries + "c0 = GreaterOrEqual(qx, kp)"
    if form == 2:
        return queries + "c1 = Greater(kp, qx) c0 = Not(c1)"
    return queries + "qy = Add(qx, one) c0 = Less(kp, qy)"


def _condition(rng: np.random.Generator, change: str, window: int) -> str:
    text = _compared(rng, int(change == "one further"))
    if not window:
        text += " c2 = Identity(c0)"
    elif rng.random() < 0.5:
        text += f""" wide = Constant<value=int64 {{{window}}}>() w0 = Sub(qp, wide)
            w1 = Greater(kp, w0) c2 = And(c0, w1)"""
    else:
        text += f""" wide = Constant<value=int64 {{{window}}}>() w0 = Sub(qp, wide)
            w1 = LessOrEqual(kp, w0) w2 = Not(c0) w3 = Or(w1, w2) c2 = Not(w3)"""
    if change == "window of two sides":
        text += """ far = Constant<value=int64 {1}>() f0 = Add(qp, far) f1 = Less(kp, f0)
            f2 = Sub(qp, far) f3 = Greater(kp, f2) f4 = And(f1, f3) c3 = Or(f4, c2)"""
        return text
    return text + (" c3 = And(c2, pad)" if change == "padding too" else " c3 = Identity(c2)")


def _masked(rng: np.random.Generator, change: str) -> str:
    low = -3.0 if change == "shallow" else float(rng.choice([-3.4e38, -1e9, -np.inf]))
    text = f"low = Constant<value = float {{{low}}}>() "
    ends = "low, " if change == "swapped" else ""
    if rng.random() < 0.5:
        text += f"m = Where(c3, {ends}nul{'' if ends else ', low'}) z = Add(p3, m)"
    else:
        text += f"z = Where(c3, {ends}p3{'' if ends else ', low'})"
    return text


def _repeated(change: str, x: str, past: bool, times: int) -> str:
    whole = f"{x}1" if past else x
    if change == "whole heads repeated":
        return f"{x}r = Concat<axis=1>({', '.join([whole] * times)})"
    return f"{x}u = Unsqueeze({whole}, two) {x}e = Expand({x}u, e) {x}r = Reshape({x}e, f{x})"


def _cache(change: str, past: bool) -> str:
    if not past:
        return ""
    pair = "(v, pv)" if change == "values behind" else "(pv, v)"
    return f"k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=-2>{pair}"


def _named(rng: np.random.Generator, name: str, sizes: dict[str, int]) -> str:
    """A size as the model says it: by name, or as the number it is."""
    return name if rng.random() < 0.5 else str(sizes[name])


def drawn(rng: np.random.Generator, change: str, times: int = 2) -> Drawn:
    """Draw a model that spells attention out.

    Args:
        rng: Draws.
        change: What is changed in it, of `CHANGES`.
        times: How many heads of queries look at one of keys.
    """
    past = bool(rng.random() < 0.75)
    sizes = {
        "b": int(rng.choice([1, 1, 2])), "s": int(rng.choice([1, 2, 5])),
        "p": int(rng.integers(0, 4)) if past else 0,
    }  # fmt: skip
    if change == "several sequences":
        sizes |= {"b": 2, "s": 4, "p": 3 if past else 0}
    elif not past:
        sizes["s"] += 1
    elif sizes["b"] > 1:
        sizes["s"] = 1
    b, s, p = (_named(rng, name, sizes) for name in "bsp")
    p = p if sizes["p"] else "p"
    if past and change != "several sequences":
        b, s = ("1", s) if sizes["b"] == 1 else (b, "1")
    heads = int(rng.integers(1, 3))
    depth = 4 if change == "odd heads" else int(rng.choice([8, 16]))
    width = 2 * depth if change == "wider values" else depth
    window = int(rng.choice([0, 0, 1, 2, 3, 7]))
    spelled = {
        "q": (b, heads * times, s, depth), "k": (b, heads, s, depth), "v": (b, heads, s, width),
    }  # fmt: skip
    if past:
        spelled |= {"pk": (b, heads, p, depth), "pv": (b, heads, p, width)}
    shapes = {
        name: tuple(sizes.get(str(each), each) for each in shape) for name, shape in spelled.items()
    }
    inputs = [f"float[{','.join(map(str, x))}] {name}" for name, x in spelled.items()]
    if change == "padding too":
        shapes["pad"] = (sizes["b"], 1, 1, sizes["s"] + sizes["p"])
        inputs.append(f"bool[{b},1,1,all] pad")
    shapes = {name: tuple(int(each) for each in shape) for name, shape in shapes.items()}
    if change == "a second mask":
        shapes["more"] = (1, 1, sizes["s"], sizes["s"] + sizes["p"])
        inputs.append(f"float[1,1,{s},all] more")
    axis = "<axis=2>" if change == "other softmax axis" else ""
    whole = "PL, S" if past else "S, zero"
    before = "zero" if change == "no past" or not past else "PL"
    outputs = "float[i,j,k,l] y"
    outputs += ", float[m,n,o,t] k1, float[m,n,o,t] v1" if past else ""
    outputs += ", float[i,j,k,t] r" if change == "probabilities given out" else ""
    scaled = "p1 = Mul(p0, sc)" if rng.random() < 0.5 else "p1 = Div(p0, sc)"
    capped = "p2 = Div(p1, cap) pt = Tanh(p2) p3 = Mul(pt, cap)"
    text = f"""<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
    g({", ".join(inputs)}) => ({outputs}) {{
    {_cache(change, past)}
    zero = Constant<value=int64 {{0}}>() one = Constant<value=int64 {{1}}>()
    two = Constant<value_ints=[2]>() nul = Constant<value_float=0.0>()
    cap = Constant<value_float=3.0>() sc = Constant<value_float=0.5>()
    at = Constant<value=int64 {{2}}>() sq = Shape(q) S = Gather(sq, at)
    {"sp = Shape(pk) PL = Gather(sp, at)" if past else ""} T = Add({whole})
    kn = Range(zero, T, one) qn = Range(zero, S, one) qm = Add(qn, {before})
    a0 = Constant<value_ints=[0,1,2]>() a1 = Constant<value_ints=[0,1,3]>()
    kp = Unsqueeze(kn, a0) qp = Unsqueeze(qm, a1)
    e = Constant<value_ints=[1,1,{times},1,1]>()
    fk = Constant<value_ints=[0,{heads * times},-1,{depth}]>()
    fv = Constant<value_ints=[0,{heads * times},-1,{width}]>()
    {_repeated(change, "k", past, times)} {_repeated(change, "v", past, times)}
    kt = Transpose<perm=[0,1,3,2]>(kr) p0 = MatMul(q, kt) {scaled}
    {capped if rng.random() < 0.4 else "p3 = Identity(p1)"}
    {_condition(rng, change, window)} {_masked(rng, change)}
    {"z2 = Add(z, more)" if change == "a second mask" else "z2 = Identity(z)"}
    r = Softmax{axis}(z2) y = MatMul(r, vr) }}"""
    return Drawn(text, sizes, shapes, change)
