"""GroupQueryAttention parts rows and turns them itself where that is the same, and nowhere else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import RUNTIME_ERRORS, difference, parse, run

from vlmpass.passes.pipeline.text import parse as pipeline
from vlmpass.rewriter_rules.fuse.attention import grouped_rotary, inside

CHANGES = (
    "nothing", "nothing", "nothing", "other angles for keys", "other pairs for keys",
    "keys are turned from the second place", "parts in another order", "a gap between parts",
    "keys given out", "keys alone turned", "small heads",
)  # fmt: skip
TURNED = {"nothing", "parts in another order", "a gap between parts"}
PACKED = {"nothing"}


def _rotated(x: str, neighbours: bool, cos: str, sin: str, half: int) -> str:
    """Turn [batch, heads, length, size], by pairs of halves or of neighbours."""
    if not neighbours:
        cut = f"""{x}1, {x}2 = Split<axis=-1>({x}h, halves) {x}n = Neg({x}2)
            {x}o = Concat<axis=-1>({x}n, {x}1)"""
        angles = f"{x}c = Concat<axis=-1>({cos}, {cos}) {x}s = Concat<axis=-1>({sin}, {sin})"
    else:
        cut = f"""{x}1 = Slice({x}h, at0, far, last, step) {x}2 = Slice({x}h, at1, far, last, step)
            {x}n = Neg({x}2) {x}nu = Unsqueeze({x}n, last) {x}1u = Unsqueeze({x}1, last)
            {x}q = Concat<axis=-1>({x}nu, {x}1u) {x}o = Reshape({x}q, whole_{x})"""
        angles = f"""{x}cu = Unsqueeze({cos}, last) {x}ce = Expand({x}cu, twice)
            {x}c = Reshape({x}ce, flat) {x}su = Unsqueeze({sin}, last) {x}se = Expand({x}su, twice)
            {x}s = Reshape({x}se, flat)"""
    return f"""{cut} {angles} {x}a = Mul({x}h, {x}c) {x}b = Mul({x}o, {x}s)
        {x}r = Add({x}a, {x}b) """


class Drawn:
    """Attention over a prompt whose queries, keys and values one product makes."""

    def __init__(self, rng: np.random.Generator, change: str) -> None:
        self.change = change
        self.groups, self.times = int(rng.integers(1, 3)), 2
        self.size = 8 if change == "small heads" else int(rng.choice([16, 32]))
        self.batch, self.length = int(rng.integers(1, 3)), int(rng.integers(2, 5))
        self.neighbours, self.masked = (bool(rng.random() < 0.5) for _ in range(2))
        self.heads = self.groups * self.times
        extra = self.size if change == "a gap between parts" else 0
        self.width = (self.heads + 2 * self.groups) * self.size + extra

    @property
    def model(self) -> ir.Model:
        heads, groups, size, change = self.heads, self.groups, self.size, self.change
        half, wide, narrow = size // 2, heads * size, groups * size
        sizes, names = [wide, narrow, narrow], ["q", "k", "v"]
        if change == "parts in another order":
            sizes, names = [narrow, wide, narrow], ["k", "q", "v"]
        if change == "a gap between parts":
            sizes, names = [wide, size, narrow, narrow], ["q", "gap", "k", "v"]
        text = f"""{", ".join(f"{each}0" for each in names)} = Split<axis=-1>(x, parts) """
        for name in "qkv":
            text += f"""{name}t = Reshape({name}0, by_{name})
                {name}h = Transpose<perm=[0,2,1,3]>({name}t) """
        keys = ("cos2", "sin2") if change == "other angles for keys" else ("cos", "sin")
        if change == "keys are turned from the second place":
            keys = ("cos_on", "sin_on")
            text += "cos_on = Add(cos, cos2) sin_on = Add(sin, sin2) "
        other = self.neighbours != (change == "other pairs for keys")
        if change == "keys alone turned":
            text += "qr = Identity(qh) "
        else:
            text += _rotated("q", self.neighbours, "cos", "sin", half)
        text += _rotated("k", other, *keys, half)
        sums = "z = Add(p, m)" if self.masked else "z = Where(seen, p, low)"
        outputs = f", float[b,{groups},s,{size}] kr" if change == "keys given out" else ""
        tables = ", ".join(f"float[1,1,s,{half}] {each}" for each in ("cos", "sin", "cos2", "sin2"))
        return parse(
            f"""<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
            g(float[b,s,{self.width}] x, {tables}, float[1,1,s,s] m) => (
            float[b,o,l,w] y{outputs}) {{ parts = Constant<value_ints={sizes}>()
            by_q = Constant<value_ints=[0,0,{heads},{size}]>()
            by_k = Constant<value_ints=[0,0,{groups},{size}]>() by_v = Identity(by_k)
            halves = Constant<value_ints=[{half},{half}]>()
            at0 = Constant<value_ints=[0]>() at1 = Constant<value_ints=[1]>()
            far = Constant<value_ints=[{size}]>() step = Constant<value_ints=[2]>()
            whole_q = Constant<value_ints=[0,{heads},-1,{size}]>()
            whole_k = Constant<value_ints=[0,{groups},-1,{size}]>()
            last = Constant<value_ints=[-1]>() twice = Constant<value_ints=[1,1,1,1,2]>()
            flat = Constant<value_ints=[1,1,-1,{size}]>() two = Constant<value_ints=[2]>()
            e = Constant<value_ints=[1,1,{self.times},1,1]>() low = Constant<value_float=-1e9>()
            f = Constant<value_ints=[0,{heads},-1,{size}]>() sc = Constant<value_float=0.25>()
            zero = Constant<value=int64 {{0}}>() one = Constant<value=int64 {{1}}>()
            sx = Shape(x) S = Gather(sx, one) n = Range(zero, S, one)
            one_axis = Constant<value_ints=[1]>() rows = Unsqueeze(n, one_axis)
            seen = LessOrEqual(n, rows) {text}
            ku = Unsqueeze(kr, two) ke = Expand(ku, e) kk = Reshape(ke, f)
            vu = Unsqueeze(vh, two) ve = Expand(vu, e) vv = Reshape(ve, f)
            kx = Transpose<perm=[0,1,3,2]>(kk) d = MatMul(qr, kx) p = Mul(d, sc) {sums}
            r = Softmax(z) y = MatMul(r, vv) }}"""
        )

    def feed(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shapes = dict.fromkeys(("cos", "sin", "cos2", "sin2"), (1, 1, self.length, self.size // 2))
        shapes |= {
            "x": (self.batch, self.length, self.width),
            "m": (1, 1, self.length, self.length),
        }
        return {name: rng.standard_normal(x).astype(np.float32) for name, x in shapes.items()}


def tried(number: int, change: str) -> tuple[bool, bool, str]:
    """Return whether rows are turned and parted by the operator, and what is wrong then."""
    rng = np.random.default_rng([7, number])
    case = Drawn(rng, change)
    before, feed = case.model, case.feed(rng)
    after = ir.serde.from_proto(ir.to_proto(before))
    for each in pipeline("infer,simplify,fuse{emit=ort}"):
        each.run(after)
    own = [node for node in after.graph if node.op_type == "GroupQueryAttention"]
    assert len(own) == 1, change
    turned = bool(own[0].attributes.get_int("do_rotary", 0))
    return turned, own[0].inputs[1] is None, difference(run(before, feed), run(after, feed))


def everything() -> tuple[set[str], set[str]]:
    """Return in which cases rows are turned, and parted; all of them are right."""
    turned, parted = Counter[str](), Counter[str]()
    for number, change in enumerate(CHANGES * 3):
        *did, wrong = tried(number, change)
        assert not wrong, f"{change}, {number}: {wrong}"
        turned[change] += did[0]
        parted[change] += did[1]
    return set(+turned), set(+parted)


def test_what_is_the_same_is_done_inside() -> None:
    assert everything() == (TURNED, PACKED)


@pytest.mark.parametrize(
    ("module", "part", "fault"),
    [
        (grouped_rotary, "_alike", lambda *given: True),
        (grouped_rotary, "MULTIPLE", 8),
        (grouped_rotary, "int_of", lambda node, name, other: 0),
        (grouped_rotary, "packed", lambda rows: inside.packed([rows[0], rows[2], rows[1]])),
    ],
)
def test_planted_faults_are_seen(
    module: object, part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, fault)
    with pytest.raises((AssertionError, *RUNTIME_ERRORS)):
        everything()
