"""Between which numbers the elements of a value lie, whatever a model is given.

What is not known of an integer is all that its type holds, and what leaves a type wraps in it. Of a
float something is known only where it can be neither infinite nor NaN. A rule also says which
numbers come up on the way to its results, so that a narrower type can be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of, is_constant
from vlmpass.ir_tools.graph.walk import needed_among, scopes, subgraphs
from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.shapes.algebra import ENDLESS, Atom, Dim
from vlmpass.ir_tools.shapes.analysis import Facts
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.interval import Interval, hull, of_type
from vlmpass.ir_tools.shapes.polynomial import terms_of

__all__ = ["Intervals", "Ranged", "interval_rule"]

_MOST_READ = 1 << 22
"""Bytes up to which a constant of integers is read."""


class Ranged(Call):
    """One node as its rule sees it: a call, and between which numbers its operands lie.

    Attributes:
        interior: What the rule notes that comes up on the way to the results.
    """

    def __init__(self, intervals: Intervals, node: ir.Node, opset: int) -> None:
        super().__init__(intervals.facts, node, opset)
        self._intervals = intervals
        self.interior: list[Interval] = []

    def of(self, index: int) -> Interval | None:
        """Return between which numbers an input lies; None where that is not known."""
        value = self.input(index)
        return None if value is None else self._intervals[value]

    @property
    def operands(self) -> list[Interval | None]:
        """Between which numbers the inputs that are given lie."""
        return [self._intervals[value] for value in self.node.inputs if value is not None]

    def dtype(self, output: int = 0) -> ir.DataType | None:
        """Return the type of an output."""
        return self._intervals.facts.dtype(self.node.outputs[output])

    def size(self, dim: Dim) -> Interval:
        """Return between which numbers a size lies."""
        return self._intervals.of_dim(dim)

    def sizes(self, index: int) -> list[Interval] | None:
        """Return between which numbers the sizes of an input lie; None if its rank is unknown."""
        shape = self.shape(index)
        return None if shape is None else [self.size(dim) for dim in shape]

    def passes(self, *interior: Interval | None) -> None:
        """Note what comes up on the way to the results."""
        self.interior += [each for each in interior if each is not None]


IntervalRule: TypeAlias = "Callable[[Ranged], Interval | Sequence[Interval | None] | None]"
_RULES: dict[str, IntervalRule] = {}


def interval_rule(operators: str) -> Callable[[IntervalRule], IntervalRule]:
    """Let a function say between which numbers the outputs of standard operators lie.

    That an operator has a rule also says that it computes the same in every type of integers that
    holds its operands, its results and what the rule notes on the way.

    Args:
        operators: One operator or several, separated by spaces.
    """

    def enter(rule: IntervalRule) -> IntervalRule:
        _RULES.update(dict.fromkeys(operators.split(), rule))
        return rule

    return enter


class Intervals:
    """Between which numbers all values of a model lie.

    Args:
        model: In topological order.
        facts: What is proven of it, all its nodes visited.
        bounds: The most that an axis of an input with a name has, or that the numbers of an input
            are, of either sign, as the caller says; by name.

    Attributes:
        interior: What comes up on the way to the results of every node that has a rule.
    """

    def __init__(self, model: ir.Model, facts: Facts, bounds: Mapping[str, int]) -> None:
        self.facts = facts
        self.interior: dict[ir.Node, list[Interval]] = {}
        self._bounds = bounds
        self._found: dict[ir.Value, Interval | None] = {}
        self._atoms: dict[int, Interval] = {}
        self._ir_version = model.ir_version
        self._main = model.graph
        self._told = self._indices(model)
        for scope in scopes(model):
            if scope.depth == 0:
                self._enter(scope.graph, scope.opsets)

    def __getitem__(self, value: ir.Value) -> Interval | None:
        """Return between which numbers a value lies; None where that is not known."""
        if value not in self._found:
            self._found[value] = self._settled(value, self._of_root(value))
        return self._found[value]

    def _of_root(self, value: ir.Value) -> Interval | None:
        tensor = constant_of(value, self._ir_version)
        if tensor is not None and tensor.nbytes <= _MOST_READ and tensor.size:
            return _of_tensor(tensor)
        most = self._bounds.get(value.name or "") if value in self._main.inputs else None
        return None if most is None else Interval(-most, most)

    def _settled(self, value: ir.Value, found: Interval | None) -> Interval | None:
        """Return what is known of a value: its rule's answer, within what its type can hold."""
        whole = of_type(self.facts.dtype(value))
        if whole is not None and (found is None or not _inside(found, whole)):
            found = whole  # it may wrap
        if found is None:
            return None
        items = self.facts[value].elements
        if items:
            found = found.meet(hull(self.of_dim(item) for item in items))
        return found.meet(self._told.get(value))

    def _enter(self, graph: ir.Graph | ir.Function, opsets: Mapping[str, int]) -> None:
        for node in graph:
            for inner in subgraphs(node):
                self._begin(node, inner)
                self._enter(inner, opsets)
            self._visit(node, opsets)

    def _begin(self, node: ir.Node, body: ir.Graph) -> None:
        """Say of a Loop's body which iteration it can be."""
        if node.op_type == "Loop" and body.inputs:
            trips = None if node.inputs[0] is None else self[node.inputs[0]]
            most = of_type(ir.DataType.INT64) if trips is None else trips
            assert most is not None
            self._found[body.inputs[0]] = Interval(0, max(most.high - 1, 0))

    def _visit(self, node: ir.Node, opsets: Mapping[str, int]) -> None:
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            return
        call = Ranged(self, node, opsets.get("", 1))
        try:
            answer = rule(call)
        except (ArithmeticError, IndexError, ValueError, KeyError, TypeError):
            return  # an attribute that the caller gives, or a misfit for the checker to report
        parts = [answer] if answer is None or isinstance(answer, Interval) else answer
        self.interior[node] = call.interior
        for value, part in zip(node.outputs, parts, strict=False):
            rounded = part if part is None else self._rounded(node, value, part)
            self._found[value] = self._settled(value, rounded)

    def _rounded(self, node: ir.Node, value: ir.Value, part: Interval) -> Interval | None:
        dtype, traits = self.facts.dtype(value), traits_of("", node.op_type)
        if dtype is None or not dtype.is_floating_point():
            return part
        if traits is None or traits.kind == Kind.CAST:
            return part.widened(dtype)  # exact of the operand's type alone
        moves = traits.exact or traits.kind in (Kind.MOVE, Kind.FILL)
        return part if moves else part.widened(dtype)

    def of_dim(self, dim: Dim) -> Interval:
        """Return between which numbers a size, or an element that sizes decide, lies."""
        if isinstance(dim, int):
            return Interval(dim, dim)
        total = Interval(0, 0)
        for monomial, factor in terms_of(dim):
            term = Interval(factor, factor)
            for serial, power in monomial:
                for _ in range(power):
                    term = term * self._of_atom(serial)
            total = total + term
        return total

    def _of_atom(self, serial: int) -> Interval:
        if serial not in self._atoms:
            atom = self.facts.algebra.atoms[serial]
            found = self._of_operation(atom)
            low = found.low if atom.low is None else max(found.low, atom.low)
            self._atoms[serial] = Interval(low, max(low, found.high))
        return self._atoms[serial]

    def _of_operation(self, atom: Atom) -> Interval:
        whole = of_type(ir.DataType.INT64)
        assert whole is not None
        if atom.operation == "dim":
            return Interval(0, self._most(atom))
        if atom.operation == "element":
            known = None if atom.value is None else self._found.get(atom.value)
            return known or whole
        args = [self.of_dim(each) for each in atom.args]
        if atom.operation == "broadcast":
            return Interval(0, max(each.high for each in args))
        if atom.operation == "max":
            return Interval(max(each.low for each in args), max(each.high for each in args))
        if atom.operation == "min":
            return Interval(min(each.low for each in args), min(each.high for each in args))
        a, b = args
        if atom.operation in ("sum", "product"):
            return a + b if atom.operation == "sum" else a * b
        found = a.divided(b, whole=True)
        lower = 1 if atom.operation == "floordiv" else 0
        return whole if found is None else Interval(found.low - lower, found.high)

    def _most(self, atom: Atom) -> int:
        """Return the most elements that an axis has: no tensor has an endless one."""
        value = atom.value
        if value is not None and value.shape is not None and value in self._main.inputs:
            size = value.shape[atom.index]
            name = size.value if isinstance(size, ir.SymbolicDim) else None
            return self._bounds.get(name or "", ENDLESS - 1)
        return ENDLESS - 1

    def _indices(self, model: ir.Model) -> dict[ir.Value, Interval]:
        """Return what is fed as indices and must be in bounds, or the model fails in any case."""
        told: dict[ir.Value, Interval] = {}
        live = needed_among(model.graph.outputs, set(model.graph))
        for node in model.graph:
            if node not in live or (node.domain, node.op_type) != ("", "Gather"):
                continue
            table, axis = node.inputs[0], node.attributes.get_int("axis", 0)
            shape = None if table is None else self.facts[table].shape
            size = None if shape is None else shape[axis]
            if isinstance(size, int) and size > 0:
                for value in _same_elements(node.inputs[1]):
                    told[value] = Interval(-size, size - 1).meet(told.get(value))
        return told


def _of_tensor(tensor: ir.TensorProtocol) -> Interval | None:
    if tensor.dtype.is_integer():
        array = tensor.numpy()
        if array.dtype != np.uint64:
            array = array.astype(np.int64)  # those below a byte have no extremes
        return Interval(int(array.min()), int(array.max()))
    if not tensor.dtype.is_floating_point():
        return None
    wide = np.asarray(tensor.numpy()).astype(np.float64)
    finite = bool(np.isfinite(wide).all())
    return Interval(float(wide.min()), float(wide.max())) if finite else None


def _same_elements(value: ir.Value | None) -> list[ir.Value]:
    """Return a value, and those that hold all of its elements and no others."""
    found: list[ir.Value] = []
    while value is not None and not is_constant(value):
        found.append(value)
        node = value.producer()
        traits = None if node is None else traits_of(node.domain, node.op_type)
        keeps = traits is not None and (traits.keeps_all or traits.keeps_order)
        empties = node is not None and node.op_type in ("Expand", "Tile")
        value = node.inputs[0] if node is not None and keeps and not empties else None
    return found


def _inside(part: Interval, whole: Interval) -> bool:
    return whole.low <= part.low and part.high <= whole.high
