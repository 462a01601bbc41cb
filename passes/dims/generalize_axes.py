"""Traced sizes taken out of a graph where it is proven which axis they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.edit import is_used, remove_unused_constant
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes.algebra import ENDLESS, Dim
from vlmpass.ir_tools.shapes.analysis import Facts
from vlmpass.ir_tools.shapes.lower import Lowering
from vlmpass.passes.dims.agreement import needs
from vlmpass.passes.dims.regroup import AmbiguousError, Factor, regroup, size_of

__all__ = ["Debaker"]

_READABLE = 1 << 20
_EXPORT = "export the model with this axis dynamic"


class Debaker:
    """Makes a graph work for every size of some axes, node by node in topological order.

    Args:
        model: The model, its inputs' axes named already.
        before: What held at the traced sizes.
        after: What holds now; filled in as nodes are visited.
        named: Serial numbers of the atoms of the named axes.

    Attributes:
        refusals: What stands in the way.
    """

    def __init__(self, model: ir.Model, before: Facts, after: Facts, named: frozenset[int]) -> None:
        self._model = model
        self._before = before
        self._after = after
        self._named = named
        self._names = Names.of(model)
        self._lowerings: dict[ir.Graph | ir.Function, Lowering] = {}
        self._merged: dict[Dim, Sequence[Factor]] = {}
        self._refused: set[ir.Node] = set()
        self._dropped: list[ir.Value] = []
        self.refusals: list[Refusal] = []

    def clean_up(self) -> None:
        """Remove the constants that nobody uses any more."""
        for value in dict.fromkeys(self._dropped):
            remove_unused_constant(value)

    # --- repairs, before a node is visited ---

    def prepare(self, node: ir.Node, scope: Scope) -> None:
        """Repair a node's inputs."""
        if node.domain not in ("", "ai.onnx"):
            return
        if node.op_type == "Reshape":
            self._reshape(node, scope)
        elif node.op_type == "Expand":
            self._expand(node, scope)
        elif node.op_type == "Concat":
            self._concat(node, scope)

    def _varies(self, dim: Dim) -> bool:
        return not self._named.isdisjoint(self._after.algebra.atoms_in(dim))

    def _vector(self, dims: Sequence[Dim], node: ir.Node, scope: Scope) -> ir.Value | None:
        """Return the sizes as a value of the graph; None if they cannot be written down."""
        lowering = self._lowerings.get(scope.graph)
        if lowering is None:
            as_nodes = scope.in_function or self._model.ir_version < 4
            lowering = Lowering(self._after.algebra, self._names, scope.opsets, as_nodes=as_nodes)
            self._lowerings[scope.graph] = lowering
        return lowering.vector(dims, node) if all(map(lowering.can, dims)) else None

    def _set(self, node: ir.Node, index: int, dims: Sequence[Dim], scope: Scope) -> bool:
        value = self._vector(dims, node, scope)
        if value is None:
            return False
        old = node.inputs[index]
        assert old is not None
        self._dropped.append(old)
        node.replace_input_with(index, value)
        self._after[value] = self._after.of_sizes(dims)
        return True

    def _reshape(self, node: ir.Node, scope: Scope) -> None:
        data, target = node.inputs[0], self._after[node.inputs[1]].elements
        now, traced = self._after[data].shape, self._before[data].static
        sizes = self._before[node.outputs[0]].static
        if now is None or traced is None or sizes is None or target is None:
            return
        if not any(map(self._varies, now)) or 0 in traced:
            return
        try:
            found = regroup(list(zip(now, traced, strict=True)), sizes, self._merged)
        except AmbiguousError:
            self._refuse(node, f"which of its sizes {list(sizes)} vary cannot be told")
            return
        dims = [size_of(factors) for factors in found]
        for dim, factors in zip(dims, found, strict=True):
            if len(factors) > 1 and not isinstance(dim, int):
                self._merged[dim] = factors
        self._after.visit(node, scope.opsets)
        if self._after[node.outputs[0]].shape == tuple(dims):
            return
        wanted = self._target(node, now, dims, target)
        if list(wanted) != list(target) and not self._set(node, 1, wanted, scope):
            self._refuse(node, f"its sizes {list(sizes)} cannot be computed in the graph")

    @staticmethod
    def _target(
        node: ir.Node, data: Sequence[Dim], dims: Sequence[Dim], old: Sequence[Dim]
    ) -> Sequence[Dim]:
        """Write sizes with 0 for what is copied and -1 for the rest, as constants if possible."""
        if node.attributes.get_int("allowzero", 0):
            copied = list(dims)
        else:
            copied = [
                0 if index < len(data) and data[index] == dim and not isinstance(dim, int) else dim
                for index, dim in enumerate(dims)
            ]
        unknown = [index for index, dim in enumerate(copied) if not isinstance(dim, int)]
        if -1 in old and copied[old.index(-1)] != 0:
            unknown = [old.index(-1), *(i for i in unknown if i != old.index(-1))]
        if unknown:
            copied[unknown[0]] = -1
        return copied

    def _expand(self, node: ir.Node, scope: Scope) -> None:
        now, traced = self._after[node.inputs[0]].shape, self._before[node.inputs[0]].static
        target = self._after[node.inputs[1]].elements
        if now is None or traced is None or target is None or len(target) < len(now):
            return
        offset = len(target) - len(now)
        wanted = list(target)
        for index, (dim, size) in enumerate(zip(now, traced, strict=True), offset):
            if self._varies(dim) and target[index] == size:
                wanted[index] = 1
        if wanted != list(target):
            self._set(node, 1, wanted, scope)

    def _concat(self, node: ir.Node, scope: Scope) -> None:
        """Repeat operands that have the traced size of an axis the others vary along."""
        shapes = [self._after[value].shape for value in node.inputs]
        traced = self._before[node.outputs[0]].static
        if traced is None or any(shape is None or len(shape) != len(traced) for shape in shapes):
            return
        axis = node.attributes.get_int("axis", 1) % max(len(traced), 1)
        common: list[Dim | None] = []
        for index, column in enumerate(zip(*(shape or () for shape in shapes), strict=True)):
            varying = [dim for dim in column if self._varies(dim)]
            common.append(varying[0] if varying and index != axis else None)
        for position, shape in enumerate(shapes):
            wrong = [
                index
                for index, dim in enumerate(common)
                if dim is not None and (shape or ())[index] == traced[index]
            ]
            if wrong:
                self._repeat(node, position, wrong, common, scope)

    def _repeat(
        self,
        node: ir.Node,
        position: int,
        axes: Sequence[int],
        sizes: Sequence[Dim | None],
        scope: Scope,
    ) -> None:
        """Expand an operand along axes where all its parts are equal."""
        value = node.inputs[position]
        assert value is not None
        source = self._one_of_each(value, axes)
        shape = None if source is None else self._after[source].shape
        if source is None or shape is None:
            return  # the check that follows names the operand
        wanted: list[Dim] = [1] * len(shape)
        for axis in axes:
            size = sizes[axis]
            assert size is not None
            wanted[axis] = size
        vector = self._vector(wanted, node, scope)
        if vector is None:
            return
        graph = node.graph
        assert graph is not None
        expand = ir.Node("", "Expand", [source, vector], num_outputs=1)
        expand.name = self._names.node(f"{node.name or node.op_type}/Expand")
        (output,) = expand.outputs
        output.name = self._names.value(f"{expand.name}_output")
        output.type = value.type
        graph.insert_before(node, expand)
        self._after[vector] = self._after.of_sizes(wanted)
        self._after.visit(expand, scope.opsets)
        node.replace_input_with(position, output)
        self._dropped.append(value)

    def _one_of_each(self, value: ir.Value, axes: Sequence[int]) -> ir.Value | None:
        """Return the value with length 1 along these axes, None if its parts are not all equal."""
        shape = self._after[value].shape
        if shape is None or all(shape[axis] == 1 for axis in axes):
            return value
        producer = value.producer()
        if producer is not None and producer.op_type == "Expand":
            source = producer.inputs[0]
            own = self._after[source].shape
            if own is not None and len(own) == len(shape):
                return source if all(own[axis] == 1 for axis in axes) else None
        tensor = constant_of(value, self._model.ir_version)
        if tensor is None or tensor.nbytes > _READABLE or not value.is_initializer():
            return None
        array = tensor.numpy()
        part = array
        for axis in axes:
            part = np.take(part, [0], axis)
        if not (array == part).all() or value.graph is None:
            return None
        name = self._names.value(f"{value.name}/one")
        tensor = ir.Tensor(np.ascontiguousarray(part), dtype=tensor.dtype, name=name)
        one = ir.Value(name=name, type=value.type, shape=ir.Shape(part.shape), const_value=tensor)
        value.graph.register_initializer(one)
        return one

    # --- proofs, after a node was visited ---

    def check(self, node: ir.Node, scope: Scope) -> None:
        """Refuse a node that is not proven to work for every size."""
        for need in needs(node, self._after):
            sizes = [size for size in need.sizes if not (need.ones and size == 1)]
            if any(map(self._varies, sizes)) and any(size != sizes[0] for size in sizes):
                self._refuse_need(node, sizes, need.sizes, need.inputs)
        self._check_traced(node)
        self._check_outputs(node)

    def _refuse_need(
        self, node: ir.Node, sizes: Sequence[Dim], all_sizes: Sequence[Dim], inputs: Sequence[int]
    ) -> None:
        texts = " and ".join(dict.fromkeys(map(self._after.algebra.text, sizes)))
        baked = [
            node.inputs[index]
            for size, index in zip(all_sizes, inputs, strict=True)
            if isinstance(size, int) and size in sizes and index >= 0
        ]
        names = ", ".join(f"'{value.name}'" for value in baked if value is not None)
        reason = f"sizes {texts} are not proven equal"
        if names:
            reason = f"{names} has a traced size baked in: {reason}"
        self._refuse(node, reason)

    def _check_traced(self, node: ir.Node) -> None:
        """Refuse constants that name the traced size of an axis and may or may not mean it."""
        now, traced = self._after[node.inputs[0]] if node.inputs else None, None
        if now is None or now.shape is None or node.domain not in ("", "ai.onnx"):
            return
        traced = self._before[node.inputs[0]].static
        if traced is None or not any(map(self._varies, now.shape)):
            return
        for axis, number in _named_sizes(node, self._after, len(traced)):
            if self._varies(now.shape[axis]) and traced[axis] <= number < ENDLESS:
                self._refuse(
                    node,
                    f"its constant {number} may be the traced size {traced[axis]} of axis {axis} "
                    f"of '{node.inputs[0].name if node.inputs[0] is not None else ''}'",
                )

    def _check_outputs(self, node: ir.Node) -> None:
        touched = any(
            any(map(self._varies, self._after[value].shape or ()))
            for value in node.inputs
            if value is not None
        )
        if not touched:
            return
        if node.op_identifier() in self._model.functions:
            reason = "sizes inside a function are not looked into"
            self._refuse(node, reason, "run inline-functions first")
            return
        for value in node.outputs:
            traced, now = self._before[value].static, self._after[value].shape
            if traced is None and (now is not None or value.type is None):
                continue
            own = now is None or any(
                self._after.algebra.atoms[serial].value is value
                for dim in now
                for serial in self._after.algebra.atoms_in(dim)
            )
            if own and is_used(value) and not isinstance(value.type, ir.SequenceType):
                self._refuse(node, "the shape of its result is not known for other sizes")

    def _refuse(self, node: ir.Node, reason: str, remedy: str = _EXPORT) -> None:
        if node not in self._refused:
            self._refused.add(node)
            self.refusals.append(Refusal(name_node(node), reason, remedy))


def _named_sizes(node: ir.Node, facts: Facts, rank: int) -> list[tuple[int, int]]:
    """Return axes of the first input together with constants that bound or divide them."""
    if node.op_type == "Slice" and len(node.inputs) > 2:
        ends = facts[node.inputs[2]].numbers or ()
        axes = facts[node.inputs[3]].numbers if len(node.inputs) > 3 else range(len(ends))
        return [(axis % rank, end) for axis, end in zip(axes or (), ends, strict=False)]
    if node.op_type == "Split":
        given = facts[node.inputs[1]].numbers if len(node.inputs) > 1 else None
        sizes = given or node.attributes.get_ints("split", ())
        axis = node.attributes.get_int("axis", 0) % rank
        return [(axis, sum(sizes))] if sizes else []
    if node.op_type == "Gather":
        axis = node.attributes.get_int("axis", 0) % rank
        places = facts[node.inputs[1]].numbers or ()
        whole = len(places) > 1 and len(set(places)) == len(places)
        return [(axis, max(places) + 1)] if whole else []
    return []
