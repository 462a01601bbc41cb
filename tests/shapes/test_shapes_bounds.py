"""Arithmetic on sizes, however long or hostile, takes memory and time by its length alone."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.shapes.proven import facts_about, hold
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, add, divide_exactly, mul, sub
from vlmpass.passes import PassManager, parse
from vlmpass.presets import SIMPLIFY

LONG, LONGER = 250, 1000


class Chain:
    """A chain of operations on the sizes of an input with two axes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0

    def __call__(self, operator: str, *inputs: str, **attributes: object) -> str:
        self.count += 1
        name = f"v{self.count}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def const(self, value: object) -> str:
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, np.int64)))

    def model(self, last: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
        out = helper.make_tensor_value_info(last, TensorProto.INT64, None)
        graph = helper.make_graph(self.nodes, "g", [x], [out])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def squares(c: Chain, x: str, i: int) -> str:
    return c("Mul", x, x)


def doubled(c: Chain, x: str, i: int) -> str:
    return c("Add", x, x)


def divided(c: Chain, x: str, i: int) -> str:
    return c("Div", c("Add", c("Mul", x, x), c.const([1])), c.const([i + 2]))


def rest(c: Chain, x: str, i: int) -> str:
    return c("Mod", c("Add", x, c("Shape", "x", start=i % 2, end=i % 2 + 1)), c.const([i + 3]))


def clipped(c: Chain, x: str, i: int) -> str:
    return c("Max", c("Min", c("Mul", x, c.const([3])), c.const([i])), c("Sub", x, c.const([i])))


def own_divisor(c: Chain, x: str, i: int) -> str:
    return c("Div", c("Mul", x, x), c("Add", x, c.const([i + 1])))


def power(c: Chain, x: str, i: int) -> str:
    return c("Add", c("Pow", x, c.const([2])), x)


def cumulated(c: Chain, x: str, i: int) -> str:
    pair = c("Concat", x, c("Shape", "x"), axis=0)
    return c("ReduceProd", pair, c.const([0]), keepdims=1)


def repeated(c: Chain, x: str, i: int) -> str:
    return c("Add", c("ReduceSum", c("Tile", x, c.const([9])), c.const([0])), c.const([i]))


STEPS = [squares, doubled, divided, rest, clipped, own_divisor, power, cumulated, repeated]


def chain(step, length: int) -> onnx.ModelProto:
    c = Chain()
    x = c("Shape", "x", start=0, end=1)
    for i in range(length):
        x = step(c, x, i)
    return c.model(x)


def _cost(step, length: int) -> tuple[float, int, int]:
    model = ir.from_proto(chain(step, length))
    tracemalloc.start()
    start = time.process_time()
    facts = facts_about(model)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = max(atom.size for atom in facts.algebra.atoms)
    return seconds, peak, largest


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_chain_costs_what_its_length_is(step) -> None:
    _cost(step, 10)
    seconds, memory, _ = _cost(step, LONG)
    more_seconds, more_memory, largest = _cost(step, LONGER)
    assert more_memory <= 6 * memory + 1_000_000
    assert more_seconds <= 10 * seconds + 0.5
    assert largest <= 10_000


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("sizes", [(0, 1), (1, 2), (3, 5)], ids=str)
def test_what_is_proven_of_a_chain_holds(step, sizes) -> None:
    hold(chain(step, 9), {"x": np.ones(sizes, np.float32)})


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_simplifying_a_chain_keeps_to_the_bounds(step) -> None:
    model = ir.from_proto(chain(step, 60))
    PassManager(parse(SIMPLIFY)).run(model, in_place=True)
    assert len(model.graph)


def test_equal_expressions_are_one_object() -> None:
    algebra, value = Algebra(), ir.Value(name="x")
    n, m = algebra.axis(value, 0), algebra.axis(value, 1)
    assert add(n, m) is add(m, n)
    assert mul(add(n, 1), sub(n, 1)) is sub(mul(n, n), 1)
    assert algebra.floordiv(n, 3) is algebra.floordiv(n, 3)
    assert algebra.atoms_in(algebra.floordiv(add(n, m), 3)) >= {0, 1}
    assert add(n, m) is not add(Algebra().axis(value, 0), Algebra().axis(value, 1))


def test_powers_are_not_written_out_one_by_one() -> None:
    algebra, value = Algebra(), ir.Value(name="x")
    total: Dim = algebra.axis(value, 0)
    for _ in range(4):
        total = mul(total, total)
    assert not isinstance(total, int)
    assert total.terms == ((((0, 16),), 1),)
    more = mul(total, total)
    assert not isinstance(more, int)
    assert len(more.terms) == 1
    assert not algebra.small(more)


def test_division_that_would_not_end_is_given_up() -> None:
    algebra, value = Algebra(), ir.Value(name="x")
    divisor: Dim = algebra.axis(value, 0)
    power_of: Dim = 1
    for _ in range(16):
        power_of = mul(power_of, divisor)
    for axis in range(1, 20):
        divisor = sub(divisor, algebra.axis(value, axis))
    assert divide_exactly(power_of, divisor) is None


def test_broadcasts_of_many_sizes_stay_short() -> None:
    algebra, value = Algebra(), ir.Value(name="x")
    total: Dim = 1
    for axis in range(500):
        total = algebra.broadcast((total, algebra.axis(value, axis)))
        again = algebra.broadcast((total, algebra.axis(value, axis)))
        assert again is total
        if not algebra.small(total):
            total = algebra.axis(value, 1000 + axis)
