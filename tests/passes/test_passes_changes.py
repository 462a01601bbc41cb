"""What passes and rules do to numbers is declared where they are defined, and collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import pytest
from pass_models import RELU, AddRelu, Nothing, model

from vlmpass.ir_tools.rewrite import (
    EXACT,
    Effect,
    NumberChanges,
    P,
    Replacement,
    Tape,
    all_rules,
    apply_rules,
    changes,
    rule,
)
from vlmpass.ir_tools.run import verify
from vlmpass.passes import PassManager
from vlmpass.passes.instruments.instrument import Instrument
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.rewriter_rules.restore import RESTORE

BOTH = changes(Effect.RESTORES, Effect.ROUNDS_CONSTANTS, restored="a, b")
ROUNDED = changes(Effect.ROUNDS_CONSTANTS)


@dataclass(frozen=True)
class Rounds(Pass):
    """Round constants wherever there is something to do."""

    name = "rounds"
    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.ROUNDS_CONSTANTS})
    changed: bool = True

    def run(self, model: ir.Model) -> bool:
        return self.changed


@dataclass(frozen=True)
class Tells(Pass):
    """Tell what was done."""

    name = "tells"
    restored: str = ""

    def run(self, model: ir.Model) -> Done:
        return Done(True, changes(Effect.RESTORES, restored=self.restored))


class Listens(Instrument):
    def __init__(self) -> None:
        self.heard: list[NumberChanges] = []

    def altered(self, step, changes):
        self.heard.append(changes)


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ([], EXACT),
        ([Nothing(), AddRelu()], EXACT),
        ([Rounds()], ROUNDED),
        ([Rounds(changed=False)], EXACT),
        ([Rounds(), AddRelu()], ROUNDED),
        ([Tells("a"), Rounds(), Tells("a"), Tells("b")], BOTH),
    ],
)
def test_a_run_collects_what_fired(passes, expected):
    listens = Listens()
    found = PassManager(passes, [listens]).run(model(RELU)).changes
    assert found == expected
    assert len(listens.heard) == len(passes)


@rule(P.Neg(P.Neg("x")), effects=[Effect.ROUNDS_VALUES])
def not_quite(op: Tape, x: ir.Value) -> Replacement:
    """Neg(Neg(x)) -> Identity(x)."""
    return op.Identity(x)


def test_rules_that_fired_say_what_they_do():
    text = "g (float[2] x) => (float[2] y) { a = Neg(x)  y = Neg(a) }"
    header = '<ir_version: 8, opset_import: ["": 17]>'
    doubled = ir.from_onnx_text(f"{header} {text}")
    assert apply_rules(doubled, not_quite).changes == changes(Effect.ROUNDS_VALUES)
    assert apply_rules(doubled, not_quite).changes == EXACT


def test_only_rules_of_one_kind_restore_numbers():
    assert all(each.effects == {Effect.RESTORES} for each in RESTORE)
    restoring = {each.name for each in RESTORE}
    assert all(not each.effects for each in all_rules() if each.name not in restoring)


def test_rounded_constants_loosen_no_tolerance_that_is_kept_without_them():
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2] x) => (float[2] y) {
        a = Cast<to = TO>(x)  b = Add(a, a)  y = Cast<to = 1>(b) }"""
    half, wide = (ir.from_onnx_text(text.replace("TO", to)) for to in ("10", "1"))
    (output,) = verify(half, wide, changes=ROUNDED).outputs
    assert output.ok
    assert output.tolerance == verify(half, wide).outputs[0].tolerance
