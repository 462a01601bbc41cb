"""All rules together, in any order, on random graphs: same outputs, valid, and done once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rewrite.support import CONTRIB, canonical, check, difference, random_inputs, run

from rules.catalogue import FIRES, NO_KERNEL
from rules.graphs import RandomGraph
from vlmpass.ir_tools.rewrite import RuleSet, apply_rules
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.unfuse import UNFUSE

SETS = {"simplify": SIMPLIFY, "fuse": SIMPLIFY + FUSE, "unfuse": SIMPLIFY + UNFUSE}
MANY = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def cases_of(rules: RuleSet) -> list[str]:
    # What has no kernel here cannot be run before its rule fires; tests/unfuse draws it.
    running = [rule.name for rule in rules if rule.name not in NO_KERNEL]
    return [f"g {head} {{ {body} }}" for name in running for head, body, _ in FIRES[name]]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("emits", [(), ("com.microsoft",)], ids=["standard", "ort"])
@pytest.mark.slow
def test_random_graphs(name: str, emits: tuple[str, ...]) -> None:
    cases, fired = cases_of(SETS[name]), Counter[str]()

    @MANY
    @given(seed=st.integers(0, 2**32 - 1), shuffle=st.randoms(use_true_random=False))
    def holds(seed: int, shuffle: random.Random) -> None:
        # Opset 24 has all operators that the cases speak of.
        chosen = random.Random(seed).sample(cases, 12) if seed % 5 else []
        model = RandomGraph(seed, 10 + seed % 40, 24 if chosen else 18, chosen).model
        rules = list(SETS[name])
        shuffle.shuffle(rules)
        fired.update(same_and_done(model, RuleSet(tuple(rules)), emits, seed))

    holds()
    offered = {rule.name for rule in SETS[name] if rule.offered(24, emits, False)} - NO_KERNEL
    assert len(offered - set(fired)) <= len(offered) // 10, sorted(offered - set(fired))


def same_and_done(
    model: ir.Model, rules: RuleSet, emits: tuple[str, ...], seed: int
) -> dict[str, int]:
    """Apply rules, assert that they are right and at their end, and return which fired."""
    for output in list(model.graph.outputs):
        if isinstance(output.type, ir.SequenceType):  # its elements have no shape to declare
            model.graph.outputs.remove(output)
    original = ir.serde.from_proto(ir.to_proto(model))
    feed = random_inputs(model, seed)
    expected = run(original, feed)
    if hides_what_is_no_number(original, feed):
        return {}
    for output, array in zip(model.graph.outputs, expected, strict=True):
        output.shape = ir.Shape(array.shape) if output.shape is None else output.shape
    applied = apply_rules(model, rules, emits=emits)
    check(model)
    assert_same(original.graph.outputs, expected, run(model, feed))
    assert [value.name for value in model.graph.outputs] == [v.name for v in original.graph.outputs]
    after = canonical(model)
    assert not apply_rules(model, rules, emits=emits)
    assert canonical(model) == after
    return dict(applied.counts)


def hides_what_is_no_number(model: ir.Model, feed: dict[str, np.ndarray]) -> bool:
    """Whether a mask takes the place of scores that are NaN: the operator adds to them instead.

    docs/fusion.md says so; sums of what was drawn seldom get there.
    """
    wider = ir.serde.from_proto(ir.to_proto(model))
    tops = (node.inputs[0].producer() for node in wider.graph if node.op_type == "Softmax")
    masks = [node for node in tops if node is not None and node.op_type == "Where"]
    hidden = [value for node in masks for value in node.inputs[1:] if value is not None]
    inner = [value for value in hidden if value.producer() is not None and value.dtype is not None]
    wider.graph.outputs.extend(dict.fromkeys(inner))
    found = run(wider, feed)[len(model.graph.outputs) :] if inner else []
    return any(np.isnan(np.asarray(array, np.float64)).any() for array in found)


def assert_same(
    outputs: Sequence[ir.Value], expected: list[np.ndarray], actual: list[np.ndarray]
) -> None:
    """Assert that a graph computes what it did, to a step where a quantised tie may go both ways.

    ONNX Runtime's QLinear operators add the zero point and then round a tie to even, QuantizeLinear
    rounds first: 0.5 * -3 + 3 is 2 to one and 1 to the other. No other integer may be a step off.
    """
    for output, want, got in zip(outputs, expected, actual, strict=True):
        producer = output.producer()
        quantised = (
            producer is not None
            and producer.domain == CONTRIB
            and producer.op_type.startswith("QLinear")
        )
        assert difference([want], [got], 1.0 if quantised else 0.0) == "", output.name
