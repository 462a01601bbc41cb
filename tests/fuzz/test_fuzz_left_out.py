"""A sample of nodes with optional inputs and outputs left out; planted defects that it finds."""

from __future__ import annotations

import random
import re

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.check import full
from vlmpass.ir_tools.graph import tape
from vlmpass.ir_tools.operators import schema as opsets
from vlmpass.ir_tools.types import demand
from vlmpass.ir_tools.types.solver import Solver
from vlmpass.passes import convert_opset, cse, inline_functions, trim_outputs
from vlmpass.rewriter_rules.opset import conversion as convert
from vlmpass.rewriter_rules.opset import expand

from .left_out import cases, judge, targets
from .places import PLACES
from .planted import Plant, both, idle_step, replaced, wrapped
from .recipes import RECIPES
from .trial import Trial

SEED = 2026
MODELS = 32
PARTS = 4


def to(*numbers: int) -> tuple[str, ...]:
    return tuple(f"infer,convert-opset{{to={each}}},infer" for each in numbers)


def in_order(
    old: object, tape: object, op_type: str, inputs: list[object], *given: object
) -> object:
    return old(tape, op_type, [each for each in inputs if each is not None], *given)


PLANTS = [
    Plant(
        "a left-out output stands for an equal node's",
        wrapped(cse, "replace_value", lambda old, gone, new, **_: old(gone, new)),
        "LSTM|GRU|RNN|MaxPool|Unique",
        ("cse",),
        count=80,
    ),
    Plant(
        "nodes with fewer outputs are equal",
        wrapped(cse._Work, "key", lambda old, *given: old(*given)[:3] + old(*given)[4:]),
        "LSTM|GRU|MaxPool|Dropout|Unique",
        ("cse",),
    ),
    Plant("later inputs move up", wrapped(tape.Tape, "node", in_order), "Clip|LSTM|GRU", to(8, 11)),
    Plant(
        "inputs left out at the end stay",
        replaced(convert_opset, "fit_inputs", lambda model, opset: False),
        "Pad|Squeeze",
        to(12, 17),
    ),
    Plant(
        "bodies are asked for without names of outputs",
        replaced(opsets, "_with_all_outputs", ir.serde.serialize_node),
        "SequenceMap",
        to(16),
    ),
    Plant(
        "constants of functions stay integers",
        replaced(convert, "spell_constants", lambda op, outputs, opset: list(outputs)),
        "Pad|ReduceSum|Squeeze|Slice",
        to(8),
    ),
    Plant(
        "names of expanded bodies are taken",
        replaced(expand, "_rename_inner", lambda attributes, op: None),
        "Trilu",
        to(9),
    ),
    Plant(
        "defaults of STFT as onnx has them",
        replaced(full, "_is_doubtful", lambda node: False),
        "STFT",
        ("infer",),
    ),
    Plant(
        "bodies have any type",
        both(
            replaced(demand, "ties", lambda node, scope: ()),
            replaced(Solver, "_admit_nested", lambda *given: None),
        ),
        "^If$",
        ("mixed-precision{to=bfloat16}",),
    ),
    Plant(
        "outputs of the graph are unused",
        replaced(trim_outputs, "is_used", lambda value: bool(value.uses())),
        "Dropout|LSTM|MaxPool|Attention",
        ("trim-outputs",),
    ),
    Plant(
        "a call's inputs move up",
        wrapped(
            inline_functions,
            "instantiate",
            lambda old, function, call: old(function, _moved_up(call)),
        ),
        "Clip|LSTM|Resize|Attention|NonMax",
        ("inline-functions",),
        count=80,
    ),
    *(
        Plant(f"{name} {low} stays at {high}", idle_step(name, low, high), f"^{name}$", to(at))
        for name, low, high, at in (
            ("Attention", 23, None, 22),
            ("BatchNormalization", 14, 9, 13),
            ("Clip", 11, 6, 10),
            ("DFT", 17, 20, 20),
            ("DFT", 20, 17, 19),
            ("DequantizeLinear", 13, 10, 12),
            ("Dropout", 12, 10, 11),
            ("Gemm", 11, 9, 10),
            ("MaxPool", 10, 8, 9),
            ("Pad", 18, 13, 17),
            ("ReduceL1", 18, 13, 17),
        )
    ),
]


def _moved_up(call: ir.Node) -> ir.Node:
    given = [value for value in call.inputs if value is not None]
    for index in range(len(call.inputs)):
        call.replace_input_with(index, given[index] if index < len(given) else None)
    return call


def test_every_operator_with_something_to_leave_out_has_a_recipe() -> None:
    assert {name for name, _, _ in targets()} <= RECIPES.keys()


def test_nodes_lie_in_every_place() -> None:
    clips = [each for each in targets() if each[0] == "Clip"]
    assert {case.place for case in cases(SEED, 40, clips)} == set(PLACES)


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_left_out_stays_out(part: int) -> None:
    chosen = random.Random(SEED).sample(targets(), MODELS)[part::PARTS]
    found = [each for case in cases(SEED, len(chosen), chosen) for each in judge(case)]
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_defect_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.apply(monkeypatch)
    chosen = [each for each in targets() if re.search(plant.only, each[0])]
    trials = (Trial(case.model, case.feeds) for case in cases(SEED, plant.count, chosen))
    found = (each for trial in trials for text in plant.texts for each in trial.through(text))
    try:
        assert next(found, None) is not None
    finally:
        convert.route.cache_clear()  # it remembers what an adapter was


def test_twenty_defects_are_planted() -> None:
    assert len(PLANTS) >= 20
