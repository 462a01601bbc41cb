"""Scaled dot-product attention and rotary embedding, said as patterns."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rewrite.support import refuses, rewrites
from vlmpass.ir_tools.rewrite import P, Pattern, Replacement, Tape, refuse, rule

V = ir.Value

# ------------------------------------------------------------------------------------ attention
Q = P.maybe.Mul("q", "scale")
KEYS = P.maybe.Mul(P.Transpose("k", perm=(0, 1, 3, 2)), "scale")
PRODUCT = P.MatMul(Q, KEYS)
SCORES = P.Mul(PRODUCT, "factor") | P.Div(PRODUCT, "divisor") | PRODUCT
MASKED = P.Add(SCORES, "mask") | SCORES
WEIGHTS = P.maybe.Cast(P.Softmax(P.maybe.Cast(MASKED, to="wide"), axis=-1), to="narrow")


@rule(P.MatMul(WEIGHTS, "v"), opset=(23, None))
def attention(
    op: Tape,
    q: V,
    k: V,
    v: V,
    mask: V | None,
    scale: float | None,
    factor: float | None,
    divisor: float | None,
    wide: ir.DataType | None,
    narrow: ir.DataType | None,
) -> Replacement:
    """Softmax(q @ k.T * scale + mask) @ v -> Attention(q, k, v, mask)."""
    if narrow not in (None, q.dtype):
        return refuse("the weights come out as {}", narrow)
    total = (scale or 1.0) ** (2 if scale else 1) * (factor or 1.0) / (divisor or 1.0)
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
    cut = P.Slice(x, starts=f"start{number}", ends=f"end{number}", axes=-1)
    return cut | P.Split(x, axis=-1, num_outputs=2, _outputs=2)[number]


X = P("x")
ROTATED = P.Concat(P.Neg(half(X, 1)), half(X, 0), axis=-1)
# Both halves of the table are the same angles, which is what makes it a rotation.
ANGLES = P.Concat("angles", "angles", axis=-1)
COS, SIN = (P.Unsqueeze(f(ANGLES.shared).shared, axes=1).shared for f in (P.Cos, P.Sin))


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
