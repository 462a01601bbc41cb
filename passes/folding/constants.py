"""Which values of a model are constants, and of which stored tensors they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import can_evaluate, evaluate
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.operators import Kind, broadcasting, named
from vlmpass.ir_tools.shapes import Facts, constant_of
from vlmpass.passes.folding.lazy import fold_lazily

__all__ = ["SMALL", "Candidate", "Constant", "Constants"]

SMALL = 1024
"""Bytes of a constant that costs no more than the node it replaces."""
_EAGER = 1 << 20
"""Bytes above which an operand or a result is not brought into memory."""
_NONE: frozenset[ir.Value] = frozenset()
# What unpacks and scales quantised weights; a matrix of integers is not run through these.
_UNPACKING = broadcasting() | named(Kind.ELEMENTWISE, Kind.CAST) | {"Expand", "Tile"}

_READ_SHAPES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Constant:
    """The tensor of a value that does not depend on any input.

    Attributes:
        tensor: The tensor, a lazy weight if it is large.
        roots: The stored tensors above `SMALL` that it is made of.
        packed: Whether a matrix of integers is among them, which may be packed weights.
    """

    tensor: ir.TensorProtocol
    roots: frozenset[ir.Value]
    packed: bool


@dataclass(frozen=True)
class Candidate:
    """A node all outputs of which are constants."""

    node: ir.Node
    scope: Scope
    outputs: tuple[Constant, ...]


@dataclass
class Constants:
    """The constants found so far; nodes are visited after the facts about them.

    Attributes:
        facts: What is known about shapes; the elements of computed constants are added to it.
        ir_version: Of the model.
        candidates: Nodes that could be replaced by their outputs, in topological order.
        unpacking: Nodes that look like a step of dequantisation and stay.
    """

    facts: Facts
    ir_version: int
    candidates: list[Candidate] = field(default_factory=list)
    unpacking: set[ir.Node] = field(default_factory=set)
    _known: dict[ir.Value, Constant | None] = field(default_factory=dict)

    def __getitem__(self, value: ir.Value) -> Constant | None:
        """Return the constant of a value, None if it is none."""
        if value not in self._known:
            tensor = constant_of(value, self.ir_version)
            self._known[value] = None if tensor is None else _stored(value, tensor)
        return self._known[value]

    def visit(self, node: ir.Node, scope: Scope) -> None:
        """Note whether a node's outputs are constants."""
        if node.op_type == "Constant" or node.domain not in ("", "ai.onnx") or not node.outputs:
            return
        outputs = self._computed(node, scope.opsets) if self._computable(node) else None
        if outputs is None and not self._disputed(node):
            outputs = self._from_facts(node)
        if outputs is None:
            return
        for value, constant in zip(node.outputs, outputs, strict=True):
            self._known[value] = constant
            self.facts[value] = self.facts.of_tensor(constant.tensor)
        self.candidates.append(Candidate(node, scope, outputs))

    def _computable(self, node: ir.Node) -> bool:
        """Whether all inputs are constants, of an operator that can be evaluated."""
        known = all(value is None or self[value] is not None for value in node.inputs)
        return known and can_evaluate(node)

    def _disputed(self, node: ir.Node) -> bool:
        """Whether evaluating a node was declined, which what is proven must not get around."""
        return self._computable(node) and node.op_type not in _READ_SHAPES

    def _from_facts(self, node: ir.Node) -> tuple[Constant, ...] | None:
        """Return outputs whose elements are proven, such as parts of a shape."""
        found = []
        for value in node.outputs:
            known = self.facts[value]
            if known.elements is None or known.numbers is None or known.static is None:
                return None
            dtype = self.facts.dtype(value)
            if dtype is None:
                return None
            array = np.array(known.numbers, dtype.numpy()).reshape(known.static)
            found.append(Constant(ir.Tensor(array, dtype=dtype), *self._origin(node)))
        return tuple(found)

    def _origin(self, node: ir.Node) -> tuple[frozenset[ir.Value], bool]:
        """Return the roots of a node's constant inputs and whether one is packed."""
        constants = [self[value] for value in node.inputs if value is not None]
        known = [constant for constant in constants if constant is not None]
        roots = _NONE.union(*(constant.roots for constant in known))
        return roots, any(constant.packed for constant in known)

    def _computed(self, node: ir.Node, opsets: Mapping[str, int]) -> tuple[Constant, ...] | None:
        """Return outputs computed from constant inputs."""
        tensors: list[ir.TensorProtocol | None] = []
        for value in node.inputs:
            constant = None if value is None else self[value]
            tensors.append(None if constant is None else constant.tensor)
        roots, packed = self._origin(node)
        if packed and node.op_type in _UNPACKING:
            self.unpacking.add(node)
            return None
        outputs = self._tensors(node, tensors, opsets)
        if outputs is None:
            return None
        return tuple(Constant(tensor, roots, packed) for tensor in outputs)

    def _tensors(
        self,
        node: ir.Node,
        inputs: list[ir.TensorProtocol | None],
        opsets: Mapping[str, int],
    ) -> list[ir.TensorProtocol] | None:
        if any(tensor is not None and tensor.nbytes > _EAGER for tensor in inputs):
            lazy = fold_lazily(node, inputs, opsets)
            return None if lazy is None else [*lazy]
        if not all(self._moderate(value) for value in node.outputs):
            return None
        if any(tensor is not None and tensor.dtype == ir.DataType.STRING for tensor in inputs):
            return None
        arrays = [None if tensor is None else tensor.numpy() for tensor in inputs]
        found = evaluate(node, arrays, opsets)
        if found is None:
            return None
        return [ir.Tensor(np.asarray(array, order="C")) for array in found]

    def _moderate(self, value: ir.Value) -> bool:
        """Whether a result is known to be small enough to compute, at 8 bytes an element."""
        shape = self.facts[value].static
        return shape is None or math.prod(shape) * 8 <= _EAGER


def _stored(value: ir.Value, tensor: ir.TensorProtocol) -> Constant:
    long_axes = sum(int(dim) > 1 for dim in tensor.shape.numpy())
    packed = tensor.dtype.is_integer() and long_axes > 1
    roots = frozenset({value}) if tensor.nbytes > SMALL else _NONE
    return Constant(tensor, roots, packed)
