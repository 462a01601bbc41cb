"""The table is total: every step of every operator of the installed onnx is covered or refused."""

import itertools

import onnx
import pytest

from vlmpass.ir_tools.operators.schema import history, ir_version_of, operators, schema, since
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset
from vlmpass.rewriter_rules.opset import entries, entry, is_same, route
from vlmpass.rewriter_rules.opset.table import same_steps, steps_between, why_unspelled

# Retired at the higher version, so that nothing leads down from there.
RETIRED = {("Upsample", 10, 9), ("Scatter", 11, 9)}


def steps() -> list[tuple[str, int, int | None]]:
    found: list[tuple[str, int, int | None]] = []
    for operator in operators():
        versions = history(operator)
        for low, high in itertools.pairwise(versions):
            found.append((operator, low, high))
            if high > OLDEST_OPSET:
                found.append((operator, high, low))
        if versions[0] > OLDEST_OPSET:
            found.append((operator, versions[0], None))
    return [step for step in found if step not in RETIRED]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_every_step_is_covered(direction):
    missing = [
        step
        for step in steps()
        if (step[2] is not None and step[2] > step[1]) == (direction == "up")
        and not (entry(step) or is_same(step) or why_unspelled(step))
    ]
    assert missing == [], f"onnx {onnx.__version__} has steps that no adapter covers"


def test_nothing_is_covered_that_does_not_exist():
    known = set(steps())
    assert [step for step in [*entries(), *same_steps()] if step not in known] == []


def test_no_step_is_both_same_and_adapted():
    assert [step for step in entries() if is_same(step)] == []


@pytest.mark.parametrize("step", sorted(entries(), key=str), ids=str)
def test_every_adapter_says_its_formula(step):
    found = entries()[step]
    assert "->" in found.summary or " stays" in found.summary
    assert found.summary.endswith(".")


def test_same_steps_upwards_keep_every_attribute():
    for operator, source, target in same_steps():
        if target > source:
            old, new = schema(operator, source), schema(operator, target)
            assert set(old.attributes) <= set(new.attributes), (operator, source, target)
            for name in set(old.attributes) & set(new.attributes):
                before, after = old.defaults.get(name), new.defaults.get(name)
                assert (before and before.value) == (after and after.value), (operator, name)


def test_same_steps_have_room_for_what_the_other_version_has():
    for operator, source, target in same_steps():
        old, new = schema(operator, source), schema(operator, target)
        assert new.min_inputs <= old.min_inputs, (operator, source, target)
        assert new.max_inputs >= old.max_inputs, (operator, source, target)
        assert new.max_outputs >= old.max_outputs, (operator, source, target)
        assert new.required <= old.required, (operator, source, target)


def test_steps_lead_through_every_version():
    assert steps_between("Softmax", 1, 13) == [("Softmax", 1, 11), ("Softmax", 11, 13)]
    assert steps_between("Softmax", 13, 12) == [("Softmax", 13, 11)]
    assert steps_between("Gelu", 20, 17) == [("Gelu", 20, None)]
    assert steps_between("Add", 14, 18) == []


def test_a_route_knows_when_types_narrow():
    assert route("Add", 14, 13).narrows
    assert not route("Add", 13, 14).narrows
    assert route("Erf", 12, 13).narrows
    assert route("Gelu", 20, 13).version is None


def test_since_is_the_version_in_force():
    assert since("Softmax", 12) == 11
    assert since("Gelu", 19) is None
    assert since("Nothing", 19) is None


def test_ir_versions_follow_onnx():
    table = {}
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        table[opset] = min(table.get(opset, 99), ir_version)
    for opset in range(OLDEST_OPSET, newest_opset() + 1):
        assert ir_version_of(opset) == max(4, table[opset]), opset
