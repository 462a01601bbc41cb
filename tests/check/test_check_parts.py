"""A graph that is inferred part by part gets the verdict and the shapes that the whole gets."""

from __future__ import annotations

import random
import re

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.shapes.inferred import inferred_shapes
from vlmpass.ir_tools.worker import in_parts

FLOAT, SIZE = ir.DataType.FLOAT, 8
_MORE = re.compile(r" \(and \d+ more faults?\)")


class _Maker:
    """Makes layers at random: products, branches that read values from far back, shapes, loops."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.inputs = [
            ir.val("x", dtype=FLOAT, shape=["rows", SIZE]),
            ir.val("c", dtype=ir.DataType.BOOL, shape=[]),
        ]
        self.matrices = [self.inputs[0]]

    def constant(self, array: np.ndarray) -> ir.Value:
        name = f"w{len(self.initializers)}"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.initializers.append(value)
        return value

    def node(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes)
        node.name = f"n{len(self.nodes)}"
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def layer(self) -> None:
        kind = self.random.choice(("product", "sum", "branch", "reshape", "concat"))
        x, y = self.random.choice(self.matrices), self.random.choice(self.matrices)
        if kind == "product":
            made = self.node("MatMul", x, self.constant(np.ones((SIZE, SIZE), np.float32)))
        elif kind == "sum":
            made = self.node("Add", x, y)
        elif kind == "branch":
            made = self.node("If", self.inputs[1], then_branch=_branch(x), else_branch=_branch(y))
        elif kind == "reshape":
            made = self.node("Reshape", x, self.constant(np.array([-1, SIZE], np.int64)))
        else:
            made = self.node("Concat", x, y, axis=0)
        self.matrices.append(made)

    def model(self) -> ir.Model:
        result = self.matrices[-1]
        result.type, result.shape = ir.TensorType(FLOAT), ir.Shape([None, SIZE])
        graph = ir.Graph(
            self.inputs, [result], nodes=self.nodes, initializers=self.initializers,
            opset_imports={"": 18}, name="g",
        )  # fmt: skip
        return ir.Model(graph, ir_version=9)


def _branch(captured: ir.Value) -> ir.Graph:
    node = ir.node("Relu", [captured])
    made = node.outputs[0]
    made.name, made.type = f"of {captured.name} {id(node)}", ir.TensorType(FLOAT)
    return ir.Graph([], [made], nodes=[node], name="branch")


def made(seed: int, layers: int = 40) -> ir.Model:
    maker = _Maker(seed)
    for _ in range(layers):
        maker.layer()
    return maker.model()


def damaged(model: ir.Model, seed: int) -> None:
    """Let one matrix not fit, or declare a value or output what it is not."""
    chance = random.Random(seed)
    kind = chance.choice(("matrix", "declared", "output", "sizes"))
    weights = {"matrix": 2, "sizes": 1}
    if kind in weights:
        held = model.graph.initializers.values()
        fit = [each for each in held if len(each.const_value.shape) == weights[kind]]
        if fit:
            value = chance.choice(fit)
            wrong = np.ones((3, SIZE), np.float32) if kind == "matrix" else np.array([[7]])
            value.const_value = ir.tensor(wrong, name=value.name)
            value.shape = ir.Shape(wrong.shape)
            return
    node = chance.choice(list(model.graph))
    value = model.graph.outputs[0] if kind == "output" else node.outputs[0]
    value.type, value.shape = ir.TensorType(FLOAT), ir.Shape([SIZE, SIZE + 1])


def verdict(model: ir.Model) -> str:
    try:
        check(model)
    except CheckError as error:
        # Of a part, the faults that follow in later ones are not counted nor cited.
        said, _, cited = _MORE.sub("", str(error)).partition("onnx says: ")
        return said + "".join(cited.splitlines()[:1])
    return "valid"


def known(model: ir.Model) -> dict[str, list[int | str | None]]:
    shapes = inferred_shapes(model)
    return {value.name: [each.known for each in sizes] for value, sizes in shapes.items()}


@pytest.fixture
def parts(monkeypatch):
    def cut(size: int) -> None:
        monkeypatch.setattr(in_parts, "_PART", size)
        monkeypatch.setattr(in_parts, "_MOST", 0 if size < 1000 else 1_000_000)

    return cut


@pytest.mark.parametrize("seed", range(6))
def test_a_sound_graph_is_sound_in_parts(seed, parts):
    model = made(seed)
    whole = known(model)
    assert verdict(model) == "valid"
    for size in (3, 7, 19):
        parts(size)
        assert verdict(model) == "valid"
        assert known(model) == whole


@pytest.mark.parametrize("seed", range(30))
def test_a_fault_is_found_in_parts_and_told_likewise(seed, parts):
    model = made(seed)
    damaged(model, seed)
    whole = verdict(model)
    parts(random.Random(seed).choice((3, 7, 19)))
    assert verdict(model) == whole


def test_the_damage_is_one():
    found = []
    for seed in range(30):
        model = made(seed)
        damaged(model, seed)
        found.append(verdict(model))
    assert sum(each != "valid" for each in found) > 15
