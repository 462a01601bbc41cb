"""B in the place of A: one answer to which name, shape and metadata there is afterwards."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph.edit import replace_value
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes import PassManager, parse
from vlmpass.passes.control.dead_branches import DeadBranches
from vlmpass.passes.cse import CommonSubexpressions

HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'
TEXT = """g (float[n,3] x) => (float[m,3] y, float[n,3] z) <float[1,3] w = {1,2,3}> {
    a = Neg(x)  b = Abs(a)  y = Relu(b)  z = Sigmoid(a)  c = Add(b, w) }"""


@pytest.fixture
def model() -> ir.Model:
    return ir.from_onnx_text(HEADER + TEXT)


def named(model: ir.Model, name: str) -> ir.Value:
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    return next(value for value in values if value.name == name)


def told(value: ir.Value) -> tuple[object, ...]:
    shape = None if value.shape is None else str(value.shape)
    return value.name, shape, value.doc_string, dict(value.metadata_props)


def made(node: ir.Node, before: ir.Node) -> ir.Value:
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def copied(value: ir.Value) -> ir.Value:
    node = ir.Node("", "Identity", [value], num_outputs=1)
    graph = next(iter(value.uses())).node.graph
    assert graph is not None
    graph.append(node)
    return node.outputs[0]


def described(value: ir.Value, word: str) -> ir.Value:
    value.doc_string = word
    value.metadata_props.update({"k": word, word: word})
    return value


def test_a_fresh_value_takes_the_name_and_all_that_is_said_of_it(model):
    old = described(named(model, "b"), "old")
    old.shape = ir.Shape([2, None])
    (node,) = [each for each in model.graph if each.op_type == "Abs"]
    new = made(ir.Node("", "Relu", node.inputs, num_outputs=1), node)
    new.shape, new.name = ir.Shape([None, 3]), "spare"
    new.metadata_props["new"] = "new"
    assert replace_value(old, new, fresh=True) is new
    assert told(new) == ("b", "[2,3]", "old", {"k": "old", "old": "old", "new": "new"})
    assert new.type == old.type
    assert old.name is None
    assert not old.uses()


def test_a_value_that_is_known_keeps_its_name_and_what_is_said_of_it(model):
    old, new = described(named(model, "b"), "old"), described(named(model, "a"), "new")
    old.type, old.shape, new.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3]), None
    assert replace_value(old, new, fresh=False) is new
    assert told(new) == ("a", "[2,3]", "new", {"k": "new", "new": "new"})
    assert new.dtype == ir.DataType.FLOAT
    assert old.name == "b"


def test_what_is_given_out_keeps_its_name_and_its_declared_shape(model):
    old, new = described(named(model, "y"), "old"), named(model, "b")
    new.shape = ir.Shape([2, 3])
    assert replace_value(old, new, fresh=False, copy=copied) is new
    assert told(new)[:3] == ("y", "[m,3]", "old")
    assert model.graph.outputs[0] is new


@pytest.mark.parametrize("name", ["x", "w", "z"])
def test_what_cannot_be_given_out_under_another_name_is_copied(model, name):
    old, new = named(model, "y"), named(model, name)
    if name == "z":
        model.graph.append(ir.Node("", "Neg", [new], num_outputs=1))
    before = told(new)
    copy = replace_value(old, new, fresh=False, copy=copied)
    assert copy is not new
    assert told(new) == before
    assert model.graph.outputs[0] is copy
    assert told(copy)[:2] == ("y", "[m,3]")


def test_what_a_graph_declares_of_its_inputs_stays(model):
    old, new = named(model, "a"), named(model, "x")
    new.shape, old.shape = None, ir.Shape([2, 3])
    replace_value(old, new, fresh=False)
    assert new.shape is None


def test_a_spliced_value_and_an_equal_one_are_told_alike(model):
    """The tape and cse had rules of their own for the metadata of what takes a name."""
    described(named(model, "y"), "old")
    node = model.graph[2]
    tape = Tape(Names.of(model), {"": 17}, "new")
    new = described(tape.Relu(node.inputs[0]), "new")
    splice(tape, [node], [(node.outputs[0], new)], in_function=False)
    y = model.graph.outputs[0]
    assert told(y) == ("y", "[m,3]", "old", {"k": "old", "old": "old", "new": "new"})
    twin = ir.Node("", "Relu", y.producer().inputs, num_outputs=1)
    described(made(twin, y.producer()), "new").name = "twin"
    assert CommonSubexpressions().run(model)
    assert told(model.graph.outputs[0])[2:] == ("old", {"k": "old", "old": "old", "new": "new"})


def test_a_loop_that_never_runs_gives_a_value_from_around_it_without_a_copy():
    """Control flow made an Identity where a rewrite gave the value the output's name."""
    model = ir.from_onnx_text(
        HEADER
        + """g (float[2] x) => (float[2] y) <int64 m = {0}, bool c = {1}> {
        a = Neg(x)
        y = Loop (m, c, a) <body = b (int64 i, bool k, float[2] v) => (bool t, float[2] w) {
            t = Identity(k)  w = Relu(v) }> }"""
    )
    assert DeadBranches().run(model)
    assert [node.op_type for node in model.graph] == ["Neg"]
    assert model.graph.outputs[0].name == "y"


BRANCHES = """g (float[n] x, int64[k] s, bool c) => (int64[q] y) {
    r = Reshape(x, s)  h = Relu(r)
    y = If (c) <
        then_branch = a () => (int64[p] o) <float[2,3] i> {
            i = OPERATOR(r)  j = Neg(i)  o = Shape(j) },
        else_branch = b () => (int64[p] o) { o = Shape(h) }> }"""


@pytest.mark.parametrize(
    ("operator", "passes", "stays"),
    [
        ("Relu", "cse", "h"),
        ("Relu", "infer,cse", "h"),
        ("OptionalGetElement", "convert-opset{to=15}", "r"),
        ("Identity", "simplify", "r"),
    ],
)
def test_what_a_branch_declares_is_not_said_of_a_value_from_around_it(operator, passes, stays):
    """A shape that one branch is for became that of both: the other one's Shape gave it, too."""
    header = HEADER.replace("17", "18")
    model = ir.from_onnx_text(header + BRANCHES.replace("OPERATOR", operator))
    PassManager(parse(passes)).run(model, in_place=True)
    assert [node.op_type for node in all_nodes(model)].count(operator) == (operator == "Relu")
    assert named(model, stays).shape is None
