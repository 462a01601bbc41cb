"""GroupQueryAttention is made of what is proven to be it, and of nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import RUNTIME_ERRORS, difference, parse, run

from rules.grouped_decoders import CHANGES, Drawn, drawn
from vlmpass.ir_tools.rewrite import explain, rule_named
from vlmpass.passes.pipeline.text import parse as pipeline
from vlmpass.rewriter_rules.fuse.attention import attention_core, causal, grouped_queries
from vlmpass.rewriter_rules.fuse.attention.causal import Frontier, frontier_of_all
from vlmpass.rewriter_rules.fuse.attention.scores import Mask

OWN = "GroupQueryAttention"
STEPS = 16
STILL = {"nothing", "several sequences", "no past", "values behind"}
"""What may be the same: without anything of before, or where as much is joined either way."""
TOLD = {
    "one further", "no past", "swapped", "padding too", "a second mask", "window of two sides",
    "shallow",
}  # fmt: skip
"""What else is hidden than what comes later, which the operator is told."""


def _fused(model: ir.Model, text: str = "infer,simplify,fuse{emit=ort}") -> ir.Model:
    after = ir.serde.from_proto(ir.to_proto(model))
    for each in pipeline(text):
        each.run(after)
    return after


def _is_own(model: ir.Model) -> bool:
    return any(node.op_type == OWN for node in model.graph)


def _is_causal(model: ir.Model) -> bool:
    """Return whether the operator hides what comes later by itself, and is told nothing else."""
    return all(
        node.attributes.get_int("causal", 1) and len(node.inputs) < 10
        for node in model.graph
        if node.op_type == OWN
    )


def _tried(case: Drawn, seed: int) -> tuple[str, str]:
    """Return what a model becomes, if anything, and what is wrong with what it computes then."""
    before = parse(case.text, 17)
    after, feed = _fused(before), case.feed(seed)
    if not _is_own(after):
        return "", ""
    kind = "causal" if _is_causal(after) else "told"
    return kind, difference(run(before, feed), run(after, feed))


def test_what_is_proven_is_fused_and_computes_the_same() -> None:
    rng, fired, told = np.random.default_rng(5), Counter[str](), Counter[str]()
    for number, change in enumerate(CHANGES * 3):
        done, wrong = _tried(drawn(rng, change), number)
        assert not wrong, f"{change}, {number}: {wrong}"
        fired[change] += done == "causal"
        told[change] += done == "told"
    assert fired["nothing"] == 9
    assert {name for name, times in fired.items() if times} <= STILL
    assert {name for name, times in told.items() if times} == TOLD


def _alone(seed: int) -> Counter[str]:
    """Return in what as many heads of keys as of queries are said to be causal; all is right."""
    rng, fired = np.random.default_rng(seed), Counter[str]()
    for number, change in enumerate(CHANGES * 2):
        case = drawn(rng, change, times=1)
        while (
            "pk" in case.shapes or "Tanh" in case.text or ("w0" in case.text and rng.random() < 0.7)
        ):
            case = drawn(rng, change, times=1)
        before, feed = parse(case.text, 17), case.feed(number)
        after = _fused(before)
        own = [node for node in after.graph if node.op_type == "MultiHeadAttention"]
        wrong = difference(run(before, feed), run(after, feed)) if own else ""
        assert not wrong, f"{change}, {number}: {wrong}"
        fired[change] += any(node.attributes.get_int("unidirectional", 0) for node in own)
    return fired


def test_heads_without_groups_are_causal_by_themselves() -> None:
    fired = _alone(3)
    assert fired["nothing"]
    still = STILL | {"odd heads", "wider values", "whole heads repeated"}
    assert {name for name, times in fired.items() if times} <= still


@pytest.mark.parametrize("part", ["unfit", "frontier_of_all"])
def test_what_is_causal_by_itself_is_planted(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {"unfit": lambda *given: None, "frontier_of_all": _first_alone}[part]
    monkeypatch.setattr(attention_core, part, fault)
    with pytest.raises(AssertionError):
        _alone(3)


def test_the_operator_comes_back_to_standard_ones() -> None:
    rng = np.random.default_rng(11)
    for number in range(4):
        case = drawn(rng, "nothing")
        before, feed = parse(case.text, 17), case.feed(number)
        fused = _fused(before)
        back = _fused(fused, "unfuse")
        assert _is_own(fused)
        assert all(node.domain == "" for node in back.graph)
        assert not difference(run(before, feed), run(back, feed))


def test_sixteen_steps_after_a_prefill() -> None:
    """The cache of one call is what the next one is given, empty at first."""
    rng = np.random.default_rng(4)
    case = drawn(rng, "nothing")
    while "float[1," not in case.text or ",s," not in case.text or ",p," not in case.text:
        case = drawn(rng, "nothing")
    before = parse(case.text, 17)
    fused = _fused(before)
    assert _is_own(fused)
    shapes = {name: list(shape) for name, shape in case.shapes.items()}
    past = [np.zeros((*shapes[name][:2], 0, shapes[name][3]), np.float32) for name in ("pk", "pv")]
    for step in range(1 + STEPS):
        length = 1 if step else 7
        feed = {
            name: rng.standard_normal([*shapes[name][:2], length, shapes[name][3]])
            for name in ("q", "k", "v")
        }
        given = {name: array.astype(np.float32) for name, array in feed.items()}
        given |= dict(zip(("pk", "pv"), past, strict=True))
        wanted = run(before, given)
        assert not difference(wanted, run(fused, given))
        past = list(wanted[1:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("several sequences", "for one sequence alone"),
        ("values behind", "not known to be equally many"),
        ("odd heads", "a multiple of 8"),
        ("wider values", "of one size"),
    ],
)
def test_the_reason_is_told(change: str, reason: str) -> None:
    rng = np.random.default_rng(1)
    case = drawn(rng, change)
    while "pk" not in case.shapes:
        case = drawn(rng, change)
    model = _fused(parse(case.text, 17))
    found = [attempt.reason for attempt in explain(rule_named("attention"), model)]
    assert any(OWN in each and reason in each for each in found), found


def _beside(rng: np.random.Generator) -> tuple[str, dict[str, np.ndarray]]:
    """The operator as others write it, beside the joining of what it is given, and inputs."""
    batch, past = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    ends = rng.choice([past, past, int(rng.integers(past + 1))], batch).astype(np.int32)
    rotary = bool(rng.random() < 0.3)
    whole = np.array(max(ends) + 1, np.int32)
    given = ", ".join(map(str, ends))
    asked = rng.random() < 0.3
    lengths = "" if asked else f"n = Constant<value = int32[{batch}] {{{given}}}>()"
    shapes = {"q": (batch, 1, 64), "k": (batch, 2, 1, 16), "v": (batch, 2, 1, 16)}
    shapes |= dict.fromkeys(("pk", "pv"), (batch, 2, past, 16))
    shapes |= {"c": (8, 8), "s": (8, 8)} if rotary else {}
    inputs = [f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items()]
    inputs += [f"int32[{batch}] n"] if asked else []
    feed = {name: rng.standard_normal(size).astype(np.float32) for name, size in shapes.items()}
    feed |= {"n": ends} if asked else {}
    text = f"""g({", ".join(inputs)}) => (float[b,s,w] y, float[b,h,t,d] k1, float[b,h,t,d] v1) {{
    {lengths} t = Constant<value = int32 {{{whole}}}>() rows = Constant<value_ints=[0, 0, 32]>()
    kt = Transpose<perm=[0,2,1,3]>(k) kr = Reshape(kt, rows) vt = Transpose<perm=[0,2,1,3]>(v)
    vr = Reshape(vt, rows) k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=2>(pv, v)
    y, k2, v2 = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2{
        ", do_rotary=1" if rotary else ""
    }>(q, kr, vr, pk, pv, n, t{", c, s" if rotary else ""}) }}"""
    return text, feed


def test_what_others_tell_the_operator_is_looked_at() -> None:
    """Where keys are turned, or not all of them count, what comes out is not what is joined."""
    rng, joined = np.random.default_rng(3), 0
    for _ in range(16):
        text, feed = _beside(rng)
        before = parse(text, 17)
        after = _fused(before, "infer,fuse{emit=ort}")
        assert not difference(run(before, feed), run(after, feed)), text
        joined += not any(node.op_type == "Concat" for node in after.graph)
    assert joined


def test_what_others_tell_is_planted_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped_queries, "_counts_less", lambda core, key: None)
    with pytest.raises(AssertionError):
        test_what_others_tell_the_operator_is_looked_at()


def _first_alone(masks: Sequence[Mask]) -> Frontier | None:
    return frontier_of_all(masks[:1])


BOTH = causal._both


def _one_wider(one: Frontier, other: Frontier) -> Frontier | None:
    found = BOTH(one, other)
    return found and Frontier(
        found.offset, found.rows, found.columns, window=(found.window or 0) + 1
    )


PLANTED: list[tuple[str, object, str, object]] = [
    ("one further", grouped_queries, "unfit", lambda frontier, parts: None),
    ("no past", grouped_queries, "unfit", lambda frontier, parts: None),
    ("odd heads", grouped_queries, "untaken", lambda grouped: None),
    ("several sequences", grouped_queries, "_many_behind", lambda grouped: None),
    ("values behind", grouped_queries, "apart", lambda *given: None),
    ("a second mask", grouped_queries, "frontier_of_all", _first_alone),
    ("nothing", causal, "_both", _one_wider),
    ("swapped", causal, "_opposite", lambda frontier: frontier),
    ("shallow", causal, "FAR_BELOW", 0.0),
    ("nothing", grouped_queries, "axis_size", lambda op, value, axis: op.const([1])),
    ("padding too", grouped_queries, "_of_rank_4", lambda op, mask: None),
]


@pytest.mark.parametrize(("change", "module", "part", "fault"), PLANTED)
def test_planted_faults_are_seen(
    change: str, module: object, part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, fault)
    rng = np.random.default_rng(8)
    for number in range(40):
        try:
            if _tried(drawn(rng, change), number)[1]:
                return
        except RUNTIME_ERRORS:
            return
    raise AssertionError(f"nobody sees {part} planted")
