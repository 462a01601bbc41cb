"""Every rule where its pattern lies in a branch, in a function, or has values others use."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import check, difference, run

from rules.catalogue import HINTS, ROUNDING, RUNNING
from rules.places import in_branches, in_function, with_user
from rules.trials import feed_of, instances, trial
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import Rule, apply_rules, explain
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.rewrite.propose import Proposal, propose


def fired(rule: Rule) -> Iterator[tuple[ir.Model, dict[str, np.ndarray]]]:
    """Yield a few valid random graphs on which a rule fires, with inputs."""
    found = 0
    drawn = itertools.islice(instances(rule, HINTS.get(rule.name, {}), seed=7), 3000)
    for number, (before, after) in enumerate(drawn):
        rounding = ROUNDING.get(rule.name, 0.0)
        if before is not after and trial(before, after, number, rounding) == "":
            yield before, feed_of(before, np.random.default_rng(number))
            found += 1
        if found == 3:
            return
    raise AssertionError(f"{rule.name} fired on {found} graphs of 3000")


def apply(rule: Rule, model: ir.Model) -> bool:
    return bool(apply_rules(model, rule, emits=rule.emits | rule.or_emits, fast_math=True))


@pytest.mark.parametrize("rule", RUNNING, ids=str)
def test_fires_inside_an_if(rule: Rule) -> None:
    for before, feed in fired(rule):
        placed = in_branches(before)
        for condition in (True, False):
            feed["condition"] = np.asarray(condition)
            expected = run(placed, feed)
            model = ir.serde.from_proto(ir.to_proto(placed))
            assert apply(rule, model)
            assert difference(expected, run(model, feed), ROUNDING.get(rule.name, 0.0)) == ""


OUTSIDE = {
    "past-of-multi-head-attention",
    "present-of-grouped-query-attention",
    "rotary-of-grouped-query-attention",
}
"""Rules whose every result ONNX Runtime does not load in a function."""


@pytest.mark.parametrize("rule", RUNNING, ids=str)
def test_fires_inside_a_function(rule: Rule) -> None:
    for before, feed in fired(rule):
        model = in_function(before)
        if rule.name in OUTSIDE:
            assert not apply(rule, model)
            continue
        expected = run(model, feed) if loads(model) else []
        assert apply(rule, model), [str(attempt) for attempt in explain(rule, model)]
        if expected and loads(model):
            assert difference(expected, run(model, feed), ROUNDING.get(rule.name, 0.0)) == ""


def loads(model: ir.Model) -> bool:
    """Return whether ONNX Runtime survives a model: not its own operator in a function."""
    norms = ("Simplified", "Embed", "QEmbed")
    failing = {*(f"{each}LayerNormalization" for each in norms), "QLinearConcat"}
    return not failing & {node.op_type for node in all_nodes(model)}


def interior(rule: Rule, model: ir.Model) -> list[ir.Value]:
    """Return the values inside the first match of a rule."""
    names = Names.of(model)
    around = MatchContext(model.opset_imports, Constants())
    for node in model.graph:
        found = propose(rule, node, around, names, "probe")
        if isinstance(found, Proposal):
            found.tape.discard()
            roots = found.match.roots()
            inside = [each for each in found.match.matched() if each not in roots]
            return [output for each in inside for output in each.outputs]
    return []


@pytest.mark.parametrize("rule", RUNNING, ids=str)
def test_values_inside_that_others_use_are_kept(rule: Rule) -> None:
    for before, feed in itertools.islice(fired(rule), 2):
        for value in interior(rule, before):
            model = with_user(before, value)
            expected = run(model, feed)
            original = ir.serde.from_proto(ir.to_proto(model))
            tensors = [o for o in model.graph.outputs if not isinstance(o.type, ir.SequenceType)]
            for output, array in zip(tensors, expected, strict=False):
                if output.shape is None:  # it was an element of a sequence
                    output.shape = ir.Shape(array.shape)
            if apply(rule, model):
                check(model)
                assert difference(expected, run(model, feed), ROUNDING.get(rule.name, 0.0)) == ""
            else:
                reasons = [attempt.reason for attempt in explain(rule, original)]
                assert any("is also used by 'witness'" in reason for reason in reasons), reasons
