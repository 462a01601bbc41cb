"""Scaled dot-product attention and rotary embedding, said as patterns, also on real exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest

from rewrite.support import check, difference, refuses, rewrites, run
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.rewrite import P, Pattern, Replacement, Rule, Tape, apply_rules, refuse, rule
from vlmpass.passes.pipeline.text import parse
from vlmpass.presets import SIMPLIFY

V = ir.Value
EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"


# ------------------------------------------------------------------------------------ attention
def repeated(x: str, name: str) -> Pattern:
    """Match heads as they are, or each of them several times in a row, as grouped queries need."""
    wide = P.Expand(P.Unsqueeze(x, axes=2), P.any)
    return P.Reshape(wide, P.any).named(name) | P(x)


Q = P.maybe.Mul("q", "q_scale")
# The last two axes change places, maybe in one step with the move of the heads to the front.
K = P.Transpose(repeated("k", "wide_k"), perm=(0, 1, 3, 2)) | P.Transpose("k", perm=(0, 2, 3, 1))
TURNED = K.named("turned")
KEYS = P.maybe.Mul(TURNED, "k_scale")
PRODUCT = P.MatMul(Q, KEYS)
SCORES = P.Mul(PRODUCT, "factor") | P.Div(PRODUCT, "divisor") | PRODUCT
MASKED = P.Add(SCORES, "mask") | SCORES
WEIGHTS = P.maybe.Cast(P.Softmax(P.maybe.Cast(MASKED, to="wide"), axis=-1), to="narrow")


def heads(x: V) -> int | None:
    found = x.shape[1] if x.shape is not None and len(x.shape) == 4 else None
    return found if isinstance(found, int) else None


@rule(P.MatMul(WEIGHTS, repeated("v", "wide_v")), opset=(23, None))
def attention(
    op: Tape,
    q: V,
    k: V,
    v: V,
    turned: V,
    wide_k: V | None,
    wide_v: V | None,
    mask: V | None,
    q_scale: float | None,
    k_scale: float | None,
    factor: float | None,
    divisor: float | None,
    wide: ir.DataType | None,
    narrow: ir.DataType | None,
) -> Replacement:
    """Softmax(q @ k.T * scale + mask) @ v -> Attention(q, k, v, mask)."""
    if narrow not in (None, q.dtype):
        return refuse("the weights come out as {}", narrow)
    for values in (wide_k, wide_v):
        if values is not None and heads(values) != heads(q):
            return refuse("{} is not known to have the heads of {}", values, q)
    if (wide_k is None) != (wide_v is None):
        return refuse("only one of {} and {} is repeated", k, v)
    node = turned.producer()
    assert node is not None
    if node.attributes.get_ints("perm")[1] == 2:
        k = op.Transpose(k, perm=[0, 2, 1, 3])
    total = (q_scale or 1.0) * (k_scale or 1.0) * (factor or 1.0) / (divisor or 1.0)
    return op.Attention(q, k, v, mask, scale=total, softmax_precision=wide)


HEAD = "g (float[2,4,n,8] q, float[2,4,n,8] k, float[2,4,n,8] v{}) => (float[2,4,n,8] y)"
SPELLINGS = {
    "legacy": """t = Transpose<perm=[0,1,3,2]>(k) p = MatMul(q, t) s = Div(p, root8)
        m = Add(s, mask) w = Softmax<axis=-1>(m) y = MatMul(w, v)""",
    "dynamo": """t = Transpose<perm=[0,1,3,2]>(k) a = Mul(q, root4) b = Mul(t, root4)
        p = MatMul(a, b) m = Add(mask, p) w = Softmax<axis=-1>(m) y = MatMul(w, v)""",
    "factor": """t = Transpose<perm=[0,1,3,2]>(k) p = MatMul(q, t) s = Mul(p, third)
        m = Add(s, mask) c = Cast<to=1>(m) w = Softmax(c) e = Cast<to=1>(w) y = MatMul(e, v)""",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("masked", [True, False])
def test_attention(spelling: str, masked: bool) -> None:
    body = SPELLINGS[spelling]
    if not masked:
        scores = "p" if spelling == "dynamo" else "s"
        body = body.replace("m = Add(s, mask)", "").replace("m = Add(mask, p)", "")
        body = body.replace("(m)", f"({scores})")
    constants = """root8 = Constant<value_float=2.828427>()
        root4 = Constant<value_float=0.5946036>()
        third = Constant<value_float=0.3333333>()"""
    head = HEAD.format(", float[n,n] mask" if masked else "")
    model = rewrites(attention, f"{head} {{ {constants} {body} }}", opset=23)
    assert [node.op_type for node in model.graph if node.op_type != "Constant"] == ["Attention"]


def test_attention_over_another_axis_is_refused() -> None:
    text = f"""{HEAD.format("")} {{ t = Transpose<perm=[0,1,3,2]>(k) p = MatMul(q, t)
        w = Softmax<axis=2>(p) y = MatMul(w, v) }}"""
    refuses(attention, text, because="expected axis=-1, found 2", opset=23)


# ------------------------------------------------------------------------------ rotary embedding
def half(x: Pattern, number: int) -> Pattern:
    """Match the first or the second half of the last axis, cut by a Slice or by a Split."""
    places = {"starts": f"start{number}", "ends": f"end{number}", "axes": -1}
    cut = P.Slice(x, **places) | P.Slice(x, **places, steps=1)
    return cut | P.Split(x, axis=-1, num_outputs=2, _outputs=2)[number]


X = P("x")
ROTATED = P.Concat(P.Neg(half(X, 1)), half(X, 0), axis=-1)
# Both halves of the table are the same angles, which is what makes it a rotation.
ANGLES = P.Concat("angles", "angles", axis=-1)
BOTH = P.Unsqueeze(ANGLES.shared, axes=1).shared
COS, SIN = (
    P.Unsqueeze(f(ANGLES.shared).shared, axes=1).shared | f(BOTH).shared for f in (P.Cos, P.Sin)
)


@rule(P.Add(P.Mul(X, COS), P.Mul(ROTATED, SIN)), opset=(23, None))
def rotary(
    op: Tape,
    x: V,
    angles: V,
    start0: int | None,
    end0: int | None,
    start1: int | None,
    end1: int | None,
) -> Replacement:
    """x * cos + rotate_half(x) * sin -> RotaryEmbedding(x, cos(angles), sin(angles))."""
    size = x.shape[-1] if x.shape is not None else None
    if not isinstance(size, int):
        return refuse("the size of a head of {} is not known", x)
    middle = size // 2
    if start0 not in (None, 0) or end0 not in (None, middle) or start1 not in (None, middle):
        return refuse("cut at {} and {}, not in the middle, {}", end0, start1, middle)
    return op.RotaryEmbedding(x, op.Cos(angles), op.Sin(angles), interleaved=0)


ROPE = """g (float[2,4,n,8] x, float[2,4,n,8] k, float[2,n,4] f)
    => (float[2,4,n,8] y, float[2,4,n,8] z) {{
    zero = Constant<value_ints=[0]>() four = Constant<value_ints=[{cut}]>()
    end = Constant<value_ints=[9223372036854775807]>() last = Constant<value_ints=[3]>()
    one = Constant<value_ints=[1]>() {angles}
    cos = Cos(e) sin = Sin(e) c = Unsqueeze(cos, one) s = Unsqueeze(sin, one) {halves}
    m = Neg(b) r = Concat<axis=-1>(m, a) p = Mul(x, c) q = Mul(r, s) y = Add(q, p)
    a2, b2 = Split<axis=-1, num_outputs=2>(k)
    m2 = Neg(b2) r2 = Concat<axis=-1>(m2, a2) p2 = Mul(k, c) q2 = Mul(r2, s) z = Add(p2, q2) }}"""
SAME = "e = Concat<axis=-1>(f, f)"
SLICES = "a = Slice(x, zero, four, last) b = Slice(x, four, end, last)"


@pytest.mark.parametrize("halves", [SLICES, "a, b = Split<axis=-1, num_outputs=2>(x)"])
def test_rotary_embedding(halves: str) -> None:
    model = rewrites(rotary, ROPE.format(cut=4, halves=halves, angles=SAME), opset=23)
    kinds = [node.op_type for node in model.graph if node.op_type != "Constant"]
    assert kinds.count("RotaryEmbedding") == 2
    assert not {"Neg", "Concat", "Unsqueeze", "Mul", "Add"} & set(kinds)


def test_rotary_embedding_of_other_parts_of_the_head_is_refused() -> None:
    text = ROPE.format(cut=2, halves=SLICES, angles=SAME)
    refuses(rotary, _one_head(text), because="not in the middle, 4", opset=23)
    swapped = "b = Slice(x, zero, four, last) a = Slice(x, four, end, last)"
    text = ROPE.format(cut=4, halves=swapped, angles=SAME)
    refuses(rotary, _one_head(text), because="not in the middle, 4", opset=23)


def test_angles_of_two_dimensions_are_refused() -> None:
    text = ROPE.format(cut=4, halves=SLICES, angles="g2 = Neg(f) e = Concat<axis=-1>(f, g2)")
    refuses(rotary, text, because="angles is 'f' elsewhere, but 'g2' here", opset=23)


def _one_head(text: str) -> str:
    start = text.index("    a2, b2")
    return text[:start] + "z = Identity(k) }"


# ---------------------------------------------------------------------------------- real exports
@pytest.mark.parametrize(
    ("sort", "pattern", "operator", "count"),
    [
        ("decoder.float32", attention, "Attention", 2),
        ("decoder.float32", rotary, "RotaryEmbedding", 4),
        ("vision.float32", attention, "Attention", 3),
        ("text.float32", attention, "Attention", 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("exporter", ["ts13", "ts14", "ts17", "dyn18"])
def test_on_models_of_both_exporters(
    sort: str, pattern: Rule, operator: str, count: int, exporter: str
) -> None:
    path = EXPORTS / f"{sort}.{exporter}.onnx"
    model, original = load(path), load(path)
    for each in parse(f"{SIMPLIFY},convert-opset{{to=23}}"):
        each.run(model)
    assert apply_rules(model, pattern)
    check(model)
    assert [node.op_type for node in model.graph].count(operator) == count
    arrays = np.load(EXPORTS / f"{sort}.npz")
    feed = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    # ONNX Runtime's kernel takes no mask that is one row for all queries.
    actual = by_reference(model, feed) if sort.startswith("text") else run(model, feed)
    assert difference(run(original, feed), actual) == ""


def by_reference(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, feed))
