"""Running passes: all or nothing, instruments around each, errors that say where and how."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import onnx_ir as ir
import onnx_ir.passes.common as common
import pytest
from pass_models import RELU, AddRelu, Nothing, Scribble, content, model, operators

from vlmpass.ir_tools.errors import PassFailed, Refusal, Refused
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.limit import LIMIT, may_apply
from vlmpass.passes import PassManager, parse
from vlmpass.passes.foreign import Foreign
from vlmpass.passes.instruments.dump import Dump
from vlmpass.passes.instruments.instrument import Instrument, Step
from vlmpass.passes.instruments.limit import Limit
from vlmpass.passes.instruments.numeric import NumericCheck
from vlmpass.passes.instruments.provenance import Provenance
from vlmpass.passes.instruments.verify import VerifyEach
from vlmpass.passes.pipeline.base import Pass

WEIGHTED = """g (float[2,n] x) => (float[2,n] y) <float[2,1] w = {1,2}> {
    ["add"] a = Add(x, w)  ["neg"] y = Neg(a) }"""


@dataclass(frozen=True)
class Refuses(Pass):
    """Refuse."""

    name = "refuses"

    def run(self, model: ir.Model) -> bool:
        raise Refused("refuses", [Refusal("node 'a'", "no", "write yes")])


@dataclass(frozen=True)
class Break(Pass):
    """Leave an invalid model."""

    name = "break"

    def run(self, model: ir.Model) -> bool:
        model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.INT32)
        return True


@dataclass(frozen=True)
class Rules(Pass):
    """Rename up to three nodes, asking each time."""

    name = "rules"

    def run(self, model: ir.Model) -> bool:
        changed = False
        for index in range(3):
            if may_apply("rename", f"n{index}"):
                model.graph[0].name = f"n{index}"
                changed = True
        return changed


@dataclass(frozen=True)
class Negate(Pass):
    """Take the first node for an Identity."""

    name = "negate"

    def run(self, model: ir.Model) -> bool:
        model.graph[0].op_type = "Identity"
        return True


class Log(Instrument):
    def __init__(self, log: list[str], name: str, skip: str = "") -> None:
        self.log, self.name, self.skip = log, name, skip

    def should_run(self, step: Step, model: ir.Model) -> bool:
        return step.text != self.skip

    def before(self, step: Step, model: ir.Model) -> None:
        self.log.append(f"{self.name} before {step.text} {step.number}/{step.total}")

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        self.log.append(f"{self.name} after {step.text} {changed}")

    def failed(self, step: Step, model: ir.Model, error: BaseException) -> None:
        self.log.append(f"{self.name} failed {step.text} {type(error).__name__}")


def test_success_changes_the_model_itself() -> None:
    m = model(RELU)
    report = PassManager([AddRelu(), Nothing()]).run(m)
    assert operators(m) == ["Relu", "Relu", "Neg"]
    assert report.changed
    assert report.pipeline == "add-relu,nothing"
    assert [each.changed for each in report.passes] == [True, False]
    assert [(each.nodes_before, each.nodes_after) for each in report.passes] == [(2, 3), (3, 3)]
    assert report.peak_rss > 10_000_000
    assert json.loads(json.dumps(dataclasses.asdict(report)))["passes"][0]["text"] == "add-relu"


def test_failure_leaves_the_model_exactly_as_it_was() -> None:
    m = model(WEIGHTED)
    m.metadata_props["kept"] = "1"
    m.graph[0].meta["kept"] = 1
    before = content(m)
    graph, nodes, tensor = m.graph, list(m.graph), m.graph.initializers["w"].const_value
    with pytest.raises(PassFailed):
        PassManager([AddRelu(), Scribble(fail=True)]).run(m)
    assert content(m) == before
    assert m.graph is graph
    assert list(m.graph) == nodes
    assert m.graph.initializers["w"].const_value is tensor
    assert tensor is not None
    assert tensor.name == "w"


def test_failure_says_where_and_how() -> None:
    with pytest.raises(PassFailed) as caught:
        PassManager([AddRelu(), Scribble(fail=True), Nothing()], source="my model.onnx").run(
            model(WEIGHTED)
        )
    assert str(caught.value) == dedent(
        """\
        pass 2 of 3, scribble{fail=true} at node 'neg_renamed' (Neg): ValueError: no more ink
          replay: vlmpass convert 'my model.onnx' --passes 'add-relu,scribble{fail=true}'"""
    )
    assert isinstance(caught.value.__cause__, ValueError)


def test_in_place_saves_the_copy_and_owns_up() -> None:
    m = model(WEIGHTED)
    graph = m.graph
    PassManager([AddRelu()]).run(m, in_place=True)
    assert m.graph is graph
    with pytest.raises(PassFailed) as caught:
        PassManager([Scribble(fail=True)]).run(m, in_place=True)
    assert "is left half changed" in caught.value.__notes__[0]
    assert "replay: vlmpass convert <model> --passes 'scribble{fail=true}'" in str(caught.value)


def test_a_refusal_stays_one_and_says_which_pass() -> None:
    with pytest.raises(Refused) as caught:
        PassManager([Nothing(), Refuses()]).run(model(RELU))
    assert caught.value.refusals == (Refusal("node 'a'", "no", "write yes"),)
    assert str(caught.value) == dedent(
        """\
        refuses is refused for 1 node
          node 'a': no; write yes
          in pass 2 of 2, refuses
          replay: vlmpass convert <model> --passes nothing,refuses"""
    )


def test_instruments_nest_and_may_skip() -> None:
    log: list[str] = []
    passes = [Nothing(), AddRelu(), Scribble(fail=True)]
    with pytest.raises(PassFailed):
        PassManager(passes, [Log(log, "a"), Log(log, "b", skip="nothing")]).run(model(RELU))
    assert log == [
        "a before add-relu 2/3",
        "b before add-relu 2/3",
        "b after add-relu True",
        "a after add-relu True",
        "a before scribble{fail=true} 3/3",
        "b before scribble{fail=true} 3/3",
        "b failed scribble{fail=true} ValueError",
        "a failed scribble{fail=true} ValueError",
    ]


def test_skipped_passes_are_reported() -> None:
    report = PassManager([AddRelu()], [Log([], "a", skip="add-relu")]).run(model(RELU))
    assert [(each.skipped, each.changed) for each in report.passes] == [(True, False)]


def test_verify_each_names_the_pass_that_broke_the_model() -> None:
    m = model(WEIGHTED)
    with pytest.raises(PassFailed) as caught:
        PassManager([Nothing(), Break(), Nothing()], [VerifyEach()]).run(m)
    text = str(caught.value)
    assert text.startswith(
        "pass 2 of 3, break: node 'add' (Add): it makes float, but int32 is declared"
    )
    assert "> add: a int32 = Add(x float[2,n], w float[2,1])" in text
    assert m.graph[0].outputs[0].dtype != ir.DataType.INT32


def test_numeric_check_names_the_pass_that_changed_the_numbers() -> None:
    m = model("g (float[2,n] x) => (float[2,n] y) { a = Neg(x)  y = Relu(a) }")
    PassManager([AddRelu(), Nothing()], [NumericCheck()]).run(m)  # a Relu before a Relu
    with pytest.raises(PassFailed, match=r"pass 2 of 3, negate: .*no longer computes .* \(y: "):
        PassManager([Nothing(), Negate(), Nothing()], [NumericCheck()]).run(m)


def test_new_nodes_say_which_pass_made_them() -> None:
    m = model(RELU)
    PassManager([AddRelu(), Nothing()], [Provenance()]).run(m)
    assert [node.metadata_props.get("vlmpass.pass") for node in m.graph] == [
        None,
        "add-relu",
        None,
    ]


def test_nodes_that_a_functional_pass_copied_are_not_new() -> None:
    m = model(RELU)
    PassManager([ir.passes.functionalize(AddRelu())], [Provenance()]).run(m)
    assert [bool(node.metadata_props.get("vlmpass.pass")) for node in m.graph] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("limit", "relus", "name", "last"),
    [
        (0, 1, "", ""),
        (1, 2, "", "add-relu"),
        (2, 2, "n0", "rename at n0"),
        (4, 2, "n2", "rename at n2"),
        (5, 3, "n2", "add-relu"),
        (None, 3, "n2", "add-relu"),
    ],
)
def test_limit_stops_after_the_nth_change(
    limit: int | None, relus: int, name: str, last: str
) -> None:
    m = model(RELU)
    m.graph[0].name = ""
    instrument = Limit(limit)
    PassManager([AddRelu(), Nothing(), Rules(), AddRelu()], [instrument]).run(m)
    assert operators(m).count("Relu") == relus
    assert m.graph[0].name == name
    assert instrument.changes.last == last
    assert instrument.changes.made == (5 if limit is None else limit)
    assert LIMIT.get() is None


def test_limit_ends_with_a_failing_pass() -> None:
    with pytest.raises(PassFailed):
        PassManager([Scribble(fail=True)], [Limit(None)]).run(model(WEIGHTED))
    assert LIMIT.get() is None


def test_changed_graphs_are_dumped_in_order(tmp_path: Path) -> None:
    m = model(
        """g (float[2,n] x) => (float[2,n] y) <float[2,1] w = {1,2}, float[17] big =
        {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17}, string[17] s =
        {"a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"}> {
        a = Add(x, w)  y = Neg(a) }"""
    )
    PassManager([Nothing(), AddRelu(), Nothing(), AddRelu()], [Dump(tmp_path / "d")]).run(m)
    assert [path.name for path in sorted((tmp_path / "d").iterdir())] == [
        "02-add-relu.onnxtxt",
        "04-add-relu.onnxtxt",
    ]
    text = (tmp_path / "d" / "02-add-relu.onnxtxt").read_text(encoding="utf-8")
    assert text.startswith("# vlmpass convert <model> --passes nothing,add-relu\n")
    assert "float[2,1] w =  {1,2}" in text
    assert 'float[17] big = ["location": "sha256:' in text
    assert 'string[17] s = ["location": "sha256:' in text
    assert [node.op_type for node in ir.from_onnx_text(text).graph] == ["Add", "Relu", "Neg"]


def test_passes_of_onnx_ir_run_as_they_are_and_by_name() -> None:
    text = "g (float[2] x) => (float[2] z) { a = Relu(x)  b = Relu(x)  z = Add(a, b) }"
    by_name = model(text)
    passes = parse(
        "foreign{class=onnx_ir.passes.common:CommonSubexpressionEliminationPass size_limit=10}"
    )
    assert isinstance(passes[0], Foreign)
    assert PassManager(passes).run(by_name).changed
    as_it_is = model(text)
    report = PassManager([common.CommonSubexpressionEliminationPass()]).run(as_it_is)
    assert operators(by_name) == operators(as_it_is) == ["Relu", "Add"]
    assert report.pipeline.startswith("foreign{class=onnx_ir.passes.common.common_sub")


def test_a_foreign_pass_that_returns_a_copy_changes_the_model() -> None:
    m = model(RELU)
    foreign = Foreign("pass_models:AddRelu")
    assert foreign.run(m)
    assert operators(m) == ["Relu", "Relu", "Neg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foreign{class=nowhere}", "not of the form package.module:Class"),
        ("foreign{class=nowhere:Pass}", "cannot be imported: No module named 'nowhere'"),
        ("foreign{class=onnx_ir:Pass}", "has no attribute 'Pass'"),
        ("foreign{class=onnx_ir:Model}", "no class derived from ir.passes.PassBase"),
        (
            "foreign{class=onnx_ir.passes.common:TopologicalSortPass a=1}",
            "rejects the arguments",
        ),
    ],
)
def test_foreign_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        parse(text)
    assert "^" in str(caught.value)


def test_clone_shares_nothing_that_a_pass_may_change() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) <float[2] w = {1,2}> {
        z = If(c) <then_branch = t () => (float[2] y) { y = Add(x, w) },
                   else_branch = e () => (float[2] y2) { y2 = Neg(x) }> }"""
    )
    m.metadata_props["a"] = "1"
    before = content(m)
    copy = clone(m)
    assert content(copy) == before
    Scribble().run(copy)
    for graph in copy.graphs():
        for node in graph:
            node.outputs[0].dtype = ir.DataType.INT8
    copy.metadata_props.clear()
    copy.graph.initializers["w_renamed"].const_value.name = "w"  # type: ignore[union-attr]
    assert content(m) == before


def test_clone_takes_graphs_out_of_order_with_dangling_values() -> None:
    m = model("g (float[2] x) => (float[2] z) { z = Add(a, b)  a = Relu(x)  b = Neg(x) }")
    m.graph[0].replace_input_with(1, ir.Value(name="dangling"))
    copy = clone(m)
    assert content(copy) == content(m)
    assert copy.graph[0].inputs[0] is copy.graph[1].outputs[0]


def test_a_pass_with_nothing_new_to_see_is_left_out() -> None:
    report = PassManager([Nothing(), Scribble(), Nothing(), Scribble(), Nothing()]).run(model(RELU))
    assert [each.skipped for each in report.passes] == [False, False, False, True, True]


def test_a_pass_that_is_not_idempotent_runs_every_time() -> None:
    wanted = model(RELU)
    PassManager([AddRelu(), AddRelu()]).run(wanted)
    assert operators(wanted).count("Relu") == operators(model(RELU)).count("Relu") + 2


class HoldsFirst(Instrument):
    """Holds back the first pass."""

    def should_run(self, step: Step, model: ir.Model) -> bool:
        return step.number > 1


def test_a_pass_that_was_held_back_still_runs_later() -> None:
    wanted = model(RELU)
    report = PassManager([Scribble(), Scribble()], [HoldsFirst()]).run(wanted)
    assert [each.skipped for each in report.passes] == [True, False]
