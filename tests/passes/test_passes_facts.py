"""What is proven of a model between passes: kept while it holds, and no longer."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import onnx_ir as ir
import pytest
from pass_models import model, operators

from vlmpass.passes import PassManager, parse
from vlmpass.passes.pipeline.base import Pass

SHAPES = """g (float[2,n] x) => (float[?] y) {
    ["shape"] s = Shape(x)  ["first"] y = Cast<to = 1>(s) }"""


@dataclass(frozen=True)
class Fix(Pass):
    """Make the input's second size 3, which is more than any value that stays may come to hold."""

    name = "fix"

    def run(self, model: ir.Model) -> bool:
        shape = model.graph.inputs[0].shape
        if shape == [2, 3]:
            return False
        model.graph.inputs[0].shape = ir.Shape([2, 3])
        return True


def test_facts_are_kept_from_pass_to_pass_and_dropped_when_values_change() -> None:
    wanted = model(SHAPES)
    PassManager(parse("fold,shape-arithmetic,dead-branches")).run(wanted)
    assert operators(wanted) == ["Shape", "Cast"]
    PassManager([*parse("fold"), Fix(), *parse("fold,remove-unused")]).run(wanted)
    assert "Shape" not in operators(wanted)


@dataclass(frozen=True)
class Held(Pass):
    """Count nodes that are in no graph any more and still held by somebody."""

    name = "held"

    def run(self, model: ir.Model) -> bool:
        gc.collect()
        live = set(map(id, model.graph))
        held = [each for each in gc.get_objects() if type(each) is Tracked and id(each) not in live]
        assert not held
        return False


class Tracked(ir.Node):
    """A node told from those of other tests."""


def test_facts_hold_nothing_that_was_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmpass.passes.pipeline.manager._MANY", 0)
    x = ir.val("x", ir.DataType.FLOAT, ["n", 4])
    copied = Tracked("", "Identity", [x], name="copied")
    shaped = ir.Node("", "Shape", copied.outputs, name="shaped")
    graph = ir.Graph([x], shaped.outputs, nodes=[copied, shaped], opset_imports={"": 18}, name="g")
    shaped.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    wanted = ir.Model(graph, ir_version=9)
    del copied, shaped, graph
    manager = PassManager([*parse("infer,shape-arithmetic"), Held()])
    manager.run(wanted, in_place=True)
    assert operators(wanted) == ["Shape"]
