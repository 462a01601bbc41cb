"""move-transposes: fewer Transposes, the same values, on graphs written out and random ones."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import check, difference, parse, random_inputs, run

from vlmpass.ir_tools.graph.limit import LIMIT, Changes
from vlmpass.ir_tools.graph.mincut import SINK, SOURCE, Nets
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes import parse as parse_pipeline
from vlmpass.passes.move_transposes import MoveTransposes

from .graphs import examine
from .planted import PLANTS, Plant

TO, BACK = "Transpose<perm=[0,2,3,1]>", "Transpose<perm=[0,3,1,2]>"
X = "float[2,3,4,5] x"


def moved(head: str, body: str, opset: int = 20) -> tuple[ir.Model, Counter[str]]:
    """Return a model after the pass, and its operators; its outputs are compared."""
    model = parse(f"g {head} {{ {body} }}", opset)
    feed = random_inputs(model)
    expected = run(model, feed)
    MoveTransposes().run(model)
    check(model)
    assert difference(expected, run(model, feed)) == ""
    assert not MoveTransposes().run(model)
    return model, Counter(node.op_type for node in all_nodes(model))


# (name, inputs and outputs, nodes, Transposes left)
CASES = {
    "through one operator": (
        f"({X}) => (float[2,3,4,5] y)",
        f"a = {TO}(x) b = Relu(a) y = {BACK}(b)",
        0,
    ),
    "two into one": (
        f"({X}) => (float[2,5,3,4] y)",
        f"a = {TO}(x) b = Relu(a) y = Transpose<perm=[0,2,3,1]>(b)",
        1,
    ),
    "two operands": (
        f"({X}, float[2,3,4,5] z) => (float[2,4,5,3] y)",
        f"a = {TO}(x) b = {TO}(z) c = Concat<axis=-1>(a, b) d = Relu(c) y = Add(a, b) w = Neg(d)",
        1,
    ),
    "Split and Concat": (
        f"({X}) => (float[2,3,4,5] y)",
        f"a = {TO}(x) p, q = Split<axis=2, num_outputs=2>(a) r = Sigmoid(q)"
        f" c = Concat<axis=2>(p, r) y = {BACK}(c)",
        0,
    ),
    "a residual stream, with several users": (
        f"({X}) => (float[2,3,4,5] y)",
        f"""a = {TO}(x) n = Softmax(a) b = {BACK}(n) s = Add(x, b)
            c = {TO}(s) m = Softmax(c) d = {BACK}(m) t = Add(s, d) u = {TO}(t) y = {BACK}(u)""",
        0,
    ),
    "a mean that keeps its axes": (
        f"({X}) => (float[2,3,4,5] y)",
        f"""a = {TO}(x) k = Constant<value_ints=[1,2]>() m = ReduceMean(a, k) s = Sub(a, m)
            y = {BACK}(s)""",
        0,
    ),
    "a mean that does not": (
        f"({X}) => (float[2,3] y)",
        f"a = {TO}(x) k = Constant<value_ints=[1,2]>() y = ReduceMean<keepdims=0>(a, k)",
        0,
    ),
    "a vector for the last axis": (
        f"({X}) => (float[2,3,4,5] y)",
        f"a = {TO}(x) k = Constant<value_floats=[1.0,2.0,3.0]>() b = Mul(a, k) y = {BACK}(b)",
        0,
    ),
    "an output on the way": (
        f"({X}) => (float[2,3,4,5] y, float[2,4,5,3] b)",
        f"a = {TO}(x) b = Relu(a) y = {BACK}(b)",
        1,
    ),
    "no gain": (
        f"({X}, float[2,4,5,3] z) => (float[2,4,5,3] y)",
        f"a = {TO}(x) b = Relu(a) y = Add(b, z)",
        1,
    ),
    "what works in one order alone": (
        f"({X}) => (float[2,3,4,5] y)",
        f"""a = {TO}(x) k = Constant<value_floats=[1.0,2.0,3.0]>()
            b = LayerNormalization(a, k) y = {BACK}(b)""",
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_transposes_left(name: str) -> None:
    head, body, left = CASES[name]
    assert moved(head, body)[1]["Transpose"] == left


def test_pairs_of_a_convnext_stage_with_several_blocks() -> None:
    """Each block goes to channels last and back, and its sum is used by the next one twice."""
    block = """{o}c = Conv<pads=[1,1,1,1]>({i}, w) {o}l = {TO}({o}c)
               {o}n = LayerNormalization({o}l, g) {o}b = {BACK}({o}n) {o} = Add({i}, {o}b) """
    body = "".join(
        block.format(i=one, o=two, TO=TO, BACK=BACK)
        for one, two in itertools.pairwise(("s", "p", "q", "r"))
    )
    body = f"""g = Constant<value_floats=[1.0,2.0,3.0]>() f = {TO}(x) e = LayerNormalization(f, g)
               s = {BACK}(e) {body} h = {TO}(r) k = LayerNormalization(h, g) y = {BACK}(k)"""
    head = f"({X}, float[3,3,3,3] w) => (float[2,3,4,5] y)"
    # One before each Conv and one after it, and the two at the ends: 10 before.
    assert moved(head, body)[1]["Transpose"] == 8


def test_names_of_outputs_and_attribution() -> None:
    (text,) = (str(each) for each in parse_pipeline("move-transposes"))
    assert text == "move-transposes"
    model, _ = moved(*CASES["an output on the way"][:2])
    assert [value.name for value in model.graph.outputs] == ["y", "b"]


def test_a_limit_stops_it() -> None:
    model = parse(f"g {CASES['through one operator'][0]} {{ {CASES['through one operator'][1]} }}")
    token = LIMIT.set(Changes(0))
    try:
        assert not MoveTransposes().run(model)
    finally:
        LIMIT.reset(token)
    assert MoveTransposes().run(model)


def steps(blocks: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many nets are made for a residual stream of so many blocks."""
    made = itertools.count()
    add = Nets.add
    with monkeypatch.context() as patch:
        patch.setattr(Nets, "add", lambda nets, pins: (next(made), add(nets, pins))[1])
        body = "".join(
            f"a{i} = {TO}(x{i}) b{i} = Relu(a{i}) c{i} = {BACK}(b{i}) x{i + 1} = Add(x{i}, c{i}) "
            for i in range(blocks)
        )
        model = parse(f"g (float[2,3,4,5] x0) => (float[2,3,4,5] x{blocks}) {{ {body} }}")
        MoveTransposes().run(model)
    assert not any(node.op_type == "Transpose" for node in model.graph)
    return next(made)


def test_work_grows_as_the_graph_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(40, monkeypatch) <= 4.5 * steps(10, monkeypatch)


@pytest.mark.parametrize("seed", range(3))
def test_the_cheapest_split_is_found(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        pins = list(range(rng.randint(1, 6)))
        places = [*pins, SOURCE, SINK]
        nets = [rng.sample(places, rng.randint(1, 3)) for _ in range(rng.randint(1, 9))]
        found = Nets()
        for net in nets:
            found.add(net)
        sides = [
            {SOURCE, *(pin for pin, there in zip(pins, bits, strict=True) if there)}
            for bits in itertools.product([False, True], repeat=len(pins))
        ]
        best = min(
            (sum(0 < len(side & set(n)) < len(n) for n in nets), len(side)) for side in sides
        )
        cut, side = found.split()
        assert (cut, len(side.intersection(places))) == best


SAMPLE = 60


def test_random_graphs_keep_their_values() -> None:
    saved = [examine(seed)[1] for seed in range(SAMPLE)]
    assert sum(map(bool, saved)) >= SAMPLE // 2


@pytest.mark.parametrize("plant", PLANTS.values(), ids=[name.replace(" ", "-") for name in PLANTS])
def test_planted_defects_are_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(_wrong(seed) for seed in range(150))


def _wrong(seed: int) -> bool:
    try:
        examine(seed)
    except Exception:  # noqa: BLE001 - whatever a defect leads to
        return True
    return False


def test_a_scalar_constant_is_used_as_it_is() -> None:
    model, operators = moved(
        f"({X}) => (float[2,3,4,5] y)",
        f"a = {TO}(x) k = Constant<value_float=2.0>() b = Mul(a, k) y = {BACK}(b)",
    )
    assert operators["Transpose"] == 0
    (product,) = [node for node in model.graph if node.op_type == "Mul"]
    assert product.inputs[1] is not None
    assert product.inputs[1].name == "k"


def test_bits_are_the_same_but_for_sums() -> None:
    head, body = CASES["Split and Concat"][:2]
    model = parse(f"g {head} {{ {body} }}")
    feed = random_inputs(model)
    (expected,) = run(model, feed)
    MoveTransposes().run(model)
    np.testing.assert_array_equal(run(model, feed)[0], expected)
