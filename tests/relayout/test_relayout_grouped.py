"""Caches inside of GroupQueryAttention: what attention says stays, whatever lies behind."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import RUNTIME_ERRORS, parse, run

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.relayout import grouped_buffers
from vlmpass.passes.relayout.cache import Cache
from vlmpass.rewriter_rules.fuse.attention import grouped_caches

BUFFER = 11
LOWEST = float(np.finfo(np.float32).min)
MASKS = ("none", "causal", "bool", "float", "rows of nothing", "lowest rows", "by head")


class Drawn:
    """A decoder of one layer's attention, and what to run it with."""

    def __init__(self, seed: int, mask: str) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.kind, self.opset = mask, int(rng.choice([23, 24]))
        self.past = int(rng.integers(0, 5))
        self.batch, self.new = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        if self.past and self.batch > 1:
            self.new = 1
        self.groups, self.times = int(rng.integers(1, 3)), int(rng.choice([1, 2]))
        self.size = int(rng.choice([8, 16]))
        self.seen = bool(rng.random() < 0.3)
        self.cap, self.scale = float(rng.choice([0, 2])), float(rng.choice([0, 0.5]))

    @property
    def model(self) -> ir.Model:
        heads, groups, size = self.groups * self.times, self.groups, self.size
        kind = "bool" if self.kind == "bool" else "float"
        shape = "s,all" if self.kind != "by head" else f"b,{heads},s,all"
        masked = self.kind not in ("none", "causal")
        said = f", softcap={self.cap}" + (f", scale={self.scale}" if self.scale else "")
        return parse(f"""<ir_version: 10, opset_import: ["": {self.opset}]>
            g(float[b,{heads},s,{size}] q, float[b,{groups},s,{size}] k,
            float[b,{groups},s,{size}] v, float[b,{groups},p,{size}] pk,
            float[b,{groups},p,{size}] pv{f", {kind}[{shape}] m" if masked else ""})
            => (float[b,{heads},s,{size}] y, float[b,{groups},t,{size}] k1,
            float[b,{groups},t,{size}] v1, int64[4] sizes, int64[4] all, int64 n{
            f", float[b,{groups},p,{size}] z, float[b,{groups},t,{size}] w" if self.seen else ""
        }) {{
            y, k1, v1 = Attention<is_causal={int(self.kind == "causal")}{said}>
            (q, k, v, {"m" if masked else ""}, pk, pv) sizes = Shape(pk) all = Shape(k1)
            two = Constant<value=int64 {{2}}>() n = Gather(all, two)
            {"z = Neg(pv) w = Abs(v1)" if self.seen else ""} }}""")

    def feed(self) -> dict[str, np.ndarray]:
        """Return inputs of the source."""
        heads, groups = self.groups * self.times, self.groups
        lengths = {"q": (heads, self.new), "pk": (groups, self.past), "pv": (groups, self.past)}
        lengths |= {"k": (groups, self.new), "v": (groups, self.new)}
        found = {
            name: self.rng.standard_normal((self.batch, *pair, self.size)).astype(np.float32)
            for name, pair in lengths.items()
        }
        if self.kind not in ("none", "causal"):
            found["m"] = self._mask(heads)
        return found

    def _mask(self, heads: int) -> np.ndarray:
        shape: tuple[int, ...] = (self.new, self.past + self.new)
        mask = self.rng.standard_normal(
            (self.batch, heads, *shape) if "head" in self.kind else shape
        )
        if self.kind == "bool":
            return mask > 0.3
        if self.kind in ("rows of nothing", "lowest rows"):
            mask = np.where(mask > 0, 0, -np.inf if "nothing" in self.kind else LOWEST)
            mask[0] = mask.min() if (mask < 0).any() else 0
        return mask.astype(np.float32)


def buffered(feed: dict[str, np.ndarray], past: int) -> dict[str, np.ndarray]:
    """Return inputs with buffers in the place of caches, what does not count no number."""
    held = dict(feed)
    for name in ("pk", "pv"):
        behind = [(0, 0), (0, 0), (0, BUFFER - past), (0, 0)]
        held[name] = np.pad(feed[name], behind, constant_values=np.float32(7e8))
    return held | {"past_length": np.array([past])}


def wrong(case: Drawn) -> str:
    """Return what differs from what ONNX Runtime makes of the standard's operator."""
    model, feed = case.model, case.feed()
    wanted = run(model, feed)
    after = ir.serde.from_proto(ir.to_proto(model))
    assert Cache(form="gqa", length=BUFFER).run(after)
    assert {node.op_type for node in after.graph} & {"Attention"} == set()
    got = run(after, buffered(feed, case.past))
    total = case.past + case.new
    pairs = [
        (wanted[0], got[0]),
        *((one, two[:, :, :total]) for one, two in zip(wanted[1:3], got[1:3], strict=True)),
    ]
    if got[1].shape[2] != BUFFER or any(
        not np.array_equal(one, two) for one, two in zip(wanted[3:], got[3:], strict=True)
    ):
        return f"sizes {got[1].shape}, {got[3:]}"
    assert Cache(form="dynamic").run(after)
    pairs += [*zip(wanted[:3], run(after, feed), strict=False)]
    for one, two in pairs:
        if one.shape != two.shape or not np.allclose(
            one, two, rtol=1e-4, atol=1e-5, equal_nan=True
        ):
            return f"{case.kind}: {one.ravel()[:4]} became {two.ravel()[:4]}"
    return ""


def test_attention_says_the_same() -> None:
    seen: Counter[str] = Counter()
    for seed in range(42):
        kind = MASKS[seed % len(MASKS)]
        found = wrong(Drawn(seed, kind))
        assert not found, f"seed {seed}: {found}"
        seen[kind] += 1
    assert len(seen) == len(MASKS)


PLANTED: list[tuple[str, object, str, object]] = [
    ("lowest rows", grouped_caches, "_nothing_of_nothing", lambda op, found, bias: found),
    ("rows of nothing", grouped_caches, "_nothing_of_nothing", lambda op, found, bias: found),
    ("float", grouped_caches, "_added", lambda op, mask, grouped: op.Mul(mask, op.const(0.5))),
    ("causal", grouped_caches, "int_of", lambda node, name, other: min(other, 0)),
    ("none", grouped_caches, "int_of", lambda node, name, other: other + (name == "is_causal")),
    ("float", grouped_buffers, "_tell", lambda tape, node, counted: None),
    ("float", grouped_buffers, "_all", lambda tape, past, length: length),
]


@pytest.mark.parametrize(("kind", "module", "part", "fault"), PLANTED)
def test_planted_faults_are_seen(
    kind: str, module: object, part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, fault)
    for seed in range(30):
        try:
            if wrong(Drawn(seed, kind)):
                return
        except RUNTIME_ERRORS:
            return
    raise AssertionError(f"nobody sees {part} planted")


def _overfull(past: int) -> tuple[ir.Model, dict[str, np.ndarray]]:
    case = Drawn(3, "none")
    case.batch, case.past, case.new = 1, past, 2
    return case.model, buffered(case.feed(), case.past)


@pytest.mark.parametrize("past", [BUFFER - 1, BUFFER])
def test_more_than_a_buffer_holds_is_an_error(past: int) -> None:
    model, feed = _overfull(past)
    assert Cache(form="gqa", length=BUFFER).run(model)
    with pytest.raises(RUNTIME_ERRORS):
        run(model, feed)


def test_more_than_a_buffer_holds_is_an_error_by_what_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel itself takes a full buffer for a cache that grows, and gives a longer one."""
    monkeypatch.setattr(grouped_buffers, "_guard", lambda *given: None)
    model, feed = _overfull(BUFFER)
    assert Cache(form="gqa", length=BUFFER).run(model)
    assert run(model, feed)[1].shape[2] > BUFFER


def test_there_and_back_takes_what_it_took() -> None:
    model = Drawn(4, "float").model
    assert Cache(form="gqa", length=BUFFER).run(model)
    assert not Cache(form="gqa", length=BUFFER).run(model)
    assert "past_length" in [each.name for each in model.graph.inputs]
    assert Cache(form="dynamic").run(model)
    assert not Cache(form="dynamic").run(model)
    assert [each.name for each in model.graph.inputs] == ["q", "k", "v", "pk", "pv", "m"]
    assert [str(each.shape) for each in model.graph.outputs[1:3]] == ["[b,2,all_length,16]"] * 2


FOREIGN = 7
BESIDE = f"""<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]> g(
    float[b,2,{FOREIGN},8] ok, float[b,2,{FOREIGN},8] ov, float[b,1,16] x, int32[b] ends, int32 all,
    float[b,2,s,8] q, float[b,2,p,8] pk, float[b,2,p,8] pv) => (float[b,2,s,8] y,
    float[b,2,t,8] k1, float[b,2,t,8] v1, float[b,1,16] z, float[b,2,{FOREIGN},8] ok1,
    float[b,2,{FOREIGN},8] ov1, int64[4] sizes) {{ y, k1, v1 = Attention(q, q, q, , pk, pv)
    z, ok1, ov1 = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=2>
    (x, x, x, ok, ov, ends, all) sizes = Shape(pk) }}"""


def test_buffers_that_were_there_stay_as_they_are() -> None:
    model, rng = parse(BESIDE), np.random.default_rng(2)
    shapes = {"ok": (FOREIGN, 8), "ov": (FOREIGN, 8), "pk": (3, 8), "pv": (3, 8), "q": (2, 8)}
    feed = {name: rng.random((1, 2, *each), np.float32) for name, each in shapes.items()}
    feed |= {"x": rng.random((1, 1, 16), np.float32), "ends": np.array([4], np.int32)}
    feed["all"] = np.array(5, np.int32)
    wanted = run(model, feed)
    assert Cache(form="gqa", length=BUFFER).run(model)
    assert Cache(form="dynamic").run(model)
    assert all(map(np.array_equal, run(model, feed), wanted))
    own = [each for each in (*model.graph.inputs, *model.graph.outputs) if "o" in str(each.name)]
    assert {str(each.shape) for each in own} == {f"[b,2,{FOREIGN},8]"}


TEXT = """<ir_version: 10, opset_import: ["": 23]> g(float[b,2,s,SIZE] q, float[b,2,NEW,SIZE] k,
    float[b,2,NEW,SIZE] v, float[b,2,p,SIZE] pk, float[b,2,p,SIZE] pv, float[s,all] m) => (
    float[b,2,s,SIZE] y, float[b,2,t,SIZE] k1, float[b,2,t,SIZE] v1) { BODY }"""
BODY = "y, k1, v1 = Attention(q, k, v, m, pk, pv)"


@pytest.mark.parametrize(
    ("body", "size", "new", "reason"),
    [
        (BODY, "12", "s", "a multiple of 8"),
        (BODY, "8", "n", "not known to be equally many"),
        (BODY.replace("(q", "<is_causal=1>(q"), "8", "s", "has a mask and is causal, too"),
        (
            "k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=2>(pv, v) y = Attention(q, k1, v1, m)",
            "8", "s", "Concat takes it, no attention",
        ),
        (f"z = Neg(pv) {BODY.replace('pv', 'z')}", "8", "s", "'z' is no such input"),
        (f"{BODY.replace('v1', 'w')} v1 = Neg(w)", "8", "s", "'pv' is no such input"),
    ],
)  # fmt: skip
def test_what_the_operator_cannot_say_is_refused(
    body: str, size: str, new: str, reason: str
) -> None:
    model = parse(TEXT.replace("BODY", body).replace("SIZE", size).replace("NEW", new))
    with pytest.raises(Refused, match=reason):
        Cache(form="gqa", length=BUFFER).run(model)
    assert all(node.op_type != "GroupQueryAttention" for node in model.graph)
    assert [each.name for each in model.graph.inputs][-1] == "m"
