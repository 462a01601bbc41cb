"""Near-misses of attention and rotary embeddings: whatever is fused computes what was there.

Graphs are drawn in all spellings, and one thing in each is changed as a careless author might have
written it. A rule may refuse or follow; it may not be wrong. That the graphs would show it is held
by planting faults into the rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir import DataType, Value
from rewrite.support import difference, parse, run

from rules.attention_changes import CHANGES, Change, size_of
from rules.catalogue import HINTS
from rules.trials import draw, feed_of, trial
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.rewrite import Tape, apply_rules, rule_named
from vlmpass.rewriter_rules.fuse.attention import (
    angles,
    attention_core,
    attention_masks,
    causal,
    key_heads,
    past_inside,
    positions,
    rotary,
    runtime_forms,
    scores,
)
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size, last_part, scaled


def loosened(model: ir.Model, rng: np.random.Generator) -> None:
    """Forget sizes of inputs, or none: one is named as its equals are, on its own, or not at all.

    How many heads there are, and of which size, is known.
    """
    share = 0.4 if rng.random() < 0.5 else 0.0
    for value in model.graph.inputs:
        assert value.shape is not None
        sizes: list[int | str | None] = [size_of(size) for size in value.shape]
        for axis in {0, len(sizes) - 2} if len(sizes) > 1 else ():
            own = f"{value.name}_{axis}"
            if rng.random() < share:
                sizes[axis] = (f"s{sizes[axis]}", own, None)[rng.integers(3)]
        value.shape = ir.Shape(sizes)
    for node in model.graph:
        if node.op_type != "Constant":
            for output in node.outputs:
                output.shape = None


def tried(
    name: str, number: int, rng: np.random.Generator, change: Change | None
) -> tuple[bool, str | None]:
    """Return whether a graph, changed perhaps, is fused, and what is wrong with the result."""
    rule = rule_named(name)
    before = draw(rule, HINTS[name], rng, own=True)
    if change is not None and not change(before, rng):
        return False, None
    feed = feed_of(before, np.random.default_rng(number))
    loosened(before, rng)
    for node in before.graph:
        infer_node(node, before.opset_imports)
    after = ir.serde.from_proto(ir.to_proto(before))
    for node in after.graph:
        infer_node(node, after.opset_imports)
    below = before.opset_imports[""] < (rule.opset[0] or 0)
    welcome = rule.emits | (rule.or_emits if below or rng.random() < 0.5 else frozenset())
    if not apply_rules(after, rule, emits=welcome):
        return False, None
    return True, trial(before, after, number, feed=feed)


def near_misses(name: str, count: int, seed: int) -> dict[str, int]:
    """Draw graphs, change one thing in each, fuse and compare; return how many were fused."""
    rng = np.random.default_rng(seed)
    fired = {change.__name__: 0 for change in CHANGES[name]}
    for number, change in itertools.islice(enumerate(itertools.cycle(CHANGES[name])), count):
        done, found = tried(name, number, rng, change)
        assert not found, f"{name}, {change.__name__}, {number} of seed {seed}: {found}"
        fired[change.__name__] += done
    return fired


@pytest.mark.parametrize("name", CHANGES)
def test_near_misses_are_refused_or_followed(name: str) -> None:
    near_misses(name, 120, seed=14)


def test_what_still_is_attention_is_followed() -> None:
    fired = near_misses("attention", 250, seed=17)
    assert fired["branches_swapped"]
    assert fired["mask_reaches_further"]
    assert not fired["probabilities_are_a_result"]
    assert not fired["other_softmax_axis"]


def test_rows_of_a_mask_may_be_more_than_queries() -> None:
    """One query broadcasts with a mask of many rows, of which there may be as many as queries."""
    text = """<ir_version: 10, opset_import: ["": 23]> g(float[b,2,q,4] q, float[b,2,k,4] k,
        float[b,2,k,4] v, float[b,1,rows,k] m) => (float[x,y,z,w] out) {
        t = Transpose<perm=[0,1,3,2]>(k) p = MatMul(q, t) s = Add(p, m) r = Softmax(s)
        out = MatMul(r, v) }"""
    for opset, domains in ((23, ()), (21, ("com.microsoft",))):
        before = parse(text.replace('"": 23', f'"": {opset}'))
        after = ir.serde.from_proto(ir.to_proto(before))
        assert apply_rules(after, rule_named("attention"), emits=domains)
        for queries, rows in ((1, 5), (3, 1), (3, 3), (1, 1)):
            rng = np.random.default_rng(queries)
            sizes = {
                "q": (2, 2, queries, 4),
                "k": (2, 2, 4, 4),
                "v": (2, 2, 4, 4),
                "m": (2, 1, rows, 4),
            }
            feed = {
                name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()
            }
            assert not difference(run(before, feed), run(after, feed))


LENGTHS = """<ir_version: 10, opset_import: ["": 23]> g(float[b,s,8] x, float[b,s,8] o,
    float[b,1,1,n] m, bool[8] c, float[8,8] w, float[b,2,4,4] q) => (float[i,j,k,l] y) {
    four = Constant<value_ints=[0,-1,2,4]>() one = Constant<value_ints=[1]>()
    low = Constant<value_ints=[0]>() KEYS
    kr = Reshape(kp, four) vr = Reshape(vp, four) kt = Transpose<perm=[0,2,3,1]>(kr)
    v = Transpose<perm=[0,2,1,3]>(vr) p = MatMul(q, kt) s = Add(p, m) r = Softmax(s)
    y = MatMul(r, v) }"""
# how keys and values are made: of one value, alike but for weights and a bias; not so
ALIKE = """d = Identity(x) ka = Compress<axis=1>(d, c) kp = MatMul(ka, w)
    va = Compress<axis=1>(d, c) vp = MatMul(va, w)"""
UNLIKE = [
    ALIKE.replace("va = Compress<axis=1>(d, c)", "n = Not(c) va = Compress<axis=1>(d, n)"),
    ALIKE.replace("va = Compress<axis=1>(d, c)", "va = Compress<axis=1>(o, c)"),
    ALIKE.replace("va = Compress<axis=1>(d, c)", "va = Slice(d, low, one, one)"),
]


@pytest.mark.parametrize("keys", [ALIKE, *UNLIKE], ids=range(4))
def test_keys_are_as_many_as_values_that_are_computed_alike(keys: str) -> None:
    model = parse(LENGTHS.replace("KEYS", keys), 23)
    assert bool(apply_rules(model, rule_named("attention"))) == (keys == ALIKE)


def test_masks_and_caches_that_fit_are_followed() -> None:
    for name in ("causal-attention", "past-of-attention", "past-of-multi-head-attention"):
        assert near_misses(name, 150, seed=21)["as_it_is"] > 15


def test_a_mask_that_reads_the_length_of_what_is_joined_keeps_it() -> None:
    """The operator would otherwise need its own result."""
    model = parse(
        """<ir_version: 10, opset_import: ["": 23]> g(float[b,4,s,8] q, float[b,2,s,8] k,
        float[b,2,s,8] v, float[b,2,p,8] pk, float[b,2,p,8] pv)
        => (float[b,4,s,8] y, float[b,2,t,8] k1, float[b,2,t,8] v1) {
        k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=2>(pv, v)
        e = Constant<value_float=0.0>() n = Constant<value_ints=[1]>()
        o = Shape<start=2, end=3>(k1) p = Shape<start=2, end=3>(q)
        w = Concat<axis=0>(n, n, p, o) m = Expand(e, w) y = Attention(q, k1, v1, m) }""",
        23,
    )
    assert not apply_rules(model, rule_named("past-of-attention"))


def _always(*given: object, **more: object) -> bool:
    return True


def _any_heads(value: Value) -> Value | None:
    node = value.producer()
    while node is not None:
        value = node.inputs[0] or value
        if value.shape is not None and len(value.shape) == 4:
            return value
        node = value.producer()
    return None


def _unscaled(value: Value | None) -> tuple[Value, float] | None:
    found = scaled(value)
    return None if found is None else (found[0], 1.0)


def _summed(op: Tape, masks: Sequence[scores.Mask], dtype: DataType, floor: float) -> Value | None:
    """All masks added, whatever order they have."""
    whole: Value | None = None
    for mask in masks:
        value = mask.value
        if mask.filled is not None:
            ends = [op.const(0.0, dtype), mask.filled]
            value = op.Where(value, *(ends if mask.kept else reversed(ends)))
        whole = value if whole is None else op.Add(whole, value)
    return whole


def _at_least(op: Tape, mask: Value, dtype: DataType) -> Value:
    return op.Max(mask, op.const(attention_masks.lowest(dtype), dtype))


def _whole_places(value: Value | None, deep: int = 8) -> positions.Places | None:
    """Places that begin at 0 wherever they begin."""
    found = positions.places_of(value, deep)
    return None if found is None else positions.Places({}, found.count)


def _in_the_last_row(value: Value) -> tuple[Value, range]:
    """Elements of what is cut, counted as in the part of it that they are cut from."""
    found = last_part(value)
    if found is None:
        size = value.shape[-1] if value.shape else 0
        return value, range(size if isinstance(size, int) else 0)
    source, row = found
    return _in_the_last_row(source)[0], row


def _places_by_reshape(op: Tape, x: Value) -> Value:
    batch, length = axis_size(op, x, 0), axis_size(op, x, 2)
    count = op.Squeeze(op.Mul(batch, length))
    numbers = op.Range(op.const(np.int64(0)), count, op.const(np.int64(1)))
    return op.Reshape(numbers, op.Concat(batch, length, axis=0))


# name of the rule, module, what is replaced, by what
PLANTED: list[tuple[str, object, str, object]] = [
    ("attention", key_heads, "_repeated", lambda wide, shape: _any_heads(wide)),
    ("attention", attention_masks, "lowest", lambda dtype: float(dtype.min)),
    ("attention", attention_masks, "NARROW", ()),
    ("attention", attention_masks, "_not_a_sum", lambda masks, dtype: None),
    ("attention", attention_masks, "_as_many", _always),
    ("attention", attention_masks, "_fits", _always),
    ("attention", attention_core, "spread", lambda op, mask, parts, operands: mask),
    ("attention", attention_core, "combined", _summed),
    ("attention", attention_core, "without_lowest", _at_least),
    ("attention", attention_core, "without_lowest", lambda op, mask, dtype: mask),
    ("attention", attention_core, "without_nothing", lambda op, mask, dtype: mask),
    ("attention", scores, "scaled", _unscaled),
    ("attention", scores, "_is_scale", _always),
    ("rotary-of-halves", rotary, "doubled", _always),
    ("rotary-of-halves", rotary, "_are_pairs", _always),
    ("rotary-of-parts", rotary, "elements", _in_the_last_row),
    ("rotary-of-a-part-of-tokens", rotary, "_turns_heads", _always),
    ("rotary-of-halves", rotary, "_for_each_batch", lambda op, angles, x: angles),
    ("rotary-of-halves", runtime_forms, "_places", _places_by_reshape),
    ("rotary-of-neighbours", angles, "_doubles", _always),
    ("rotary-of-a-part", rotary, "_turns_heads", _always),
    ("causal-attention", causal, "unfit", lambda frontier, parts: None),
    ("causal-attention", causal, "_along", _always),
    ("causal-attention", causal, "COMPARED", {"LessOrEqual": 0, "Less": 0}),
    ("causal-attention", causal, "COMPARED", {"LessOrEqual": 1, "Less": 0}),
    ("causal-attention", causal, "TURNED", ("GreaterOrEqual", "Less")),
    ("causal-attention", causal, "_opposite", lambda frontier: frontier),
    ("causal-attention", causal, "FAR_BELOW", 0.0),
    ("causal-attention", causal, "places_of", _whole_places),
    ("causal-attention", causal, "exactly", lambda number: {}),
    ("past-of-attention", past_inside, "apart", lambda *given: None),
    ("past-of-multi-head-attention", past_inside, "apart", lambda *given: None),
]


@pytest.mark.parametrize(("name", "module", "part", "fault"), PLANTED)
def test_planted_faults_are_seen(
    name: str, module: object, part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, part, fault)
    rng = np.random.default_rng(3)
    for number in range(800):
        changes = CHANGES[name]
        change = changes[number // 2 % len(changes)] if number % 2 else None
        try:
            if tried(name, number, rng, change)[1]:
                return
        except Exception:  # noqa: BLE001  a fault may show in any way
            return
    raise AssertionError(f"nobody sees {part} of {name} planted")
