"""All rules together, in any order, on random graphs: same outputs, valid, and done once."""

from __future__ import annotations

import random

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rewrite.support import canonical, check, difference, random_inputs, run

from rules.graphs import RandomGraph
from vlmpass.ir_tools.rewrite import RuleSet, apply_rules
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.unfuse import UNFUSE

SETS = {"simplify": SIMPLIFY, "fuse": SIMPLIFY + FUSE, "unfuse": SIMPLIFY + UNFUSE}
MANY = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("emits", [(), ("com.microsoft",)], ids=["standard", "ort"])
@pytest.mark.slow
@MANY
@given(seed=st.integers(0, 2**32 - 1), shuffle=st.randoms(use_true_random=False))
def test_random_graphs(
    name: str, emits: tuple[str, ...], seed: int, shuffle: random.Random
) -> None:
    size = 10 + seed % 40
    model = RandomGraph(seed, size, opset=18 if seed % 2 else 23).model
    original = ir.serde.from_proto(ir.to_proto(model))
    rules = list(SETS[name])
    shuffle.shuffle(rules)
    feed = random_inputs(model, seed)
    expected = run(original, feed)
    apply_rules(model, RuleSet(tuple(rules)), emits=emits)
    check(model)
    assert difference(expected, run(model, feed)) == ""
    assert [value.name for value in model.graph.outputs] == [v.name for v in original.graph.outputs]
    after = canonical(model)
    assert not apply_rules(model, RuleSet(tuple(rules)), emits=emits)
    assert canonical(model) == after
