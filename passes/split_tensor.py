"""Weights larger than a file may be become several in the graph, bit for bit the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import (
    add_constant,
    is_used,
    remove_initializer,
    remove_unused_constant,
    replace_value,
)
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import TensorSlot, tensor_slots
from vlmpass.ir_tools.save import format_size
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.weights import Weight, as_weight, take
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.values import size_in_bytes
from vlmpass.rewriter_rules.parts import FORMS, Parts, join

__all__ = ["SplitTensor"]

_ROOM_BYTES = 1 << 16  # for what else a file holds: a header, alignment


@dataclass(frozen=True)
class SplitTensor(Pass):
    """Split every weight that is larger than a file may be, in the graph.

    Gather looks rows up in parts of the table, MatMul and Gemm multiply by parts of the matrix on
    their right; weights used in both ways are cut once for both. Whatever else uses such a weight
    gets its parts concatenated. Results are the same bits.
    """

    name: ClassVar[str] = "split-tensor"
    nothing: ClassVar[str] = "no weight is larger"

    limit: int | str = "2GB"
    """The most bytes that a weight may have, as for the files of the output."""

    def __post_init__(self) -> None:
        """Check that the limit is a size."""
        super().__post_init__()
        size_in_bytes("limit", self.limit)

    def run(self, model: ir.Model) -> bool:
        """Split in place."""
        limit = size_in_bytes("limit", self.limit)
        large = [slot for slot in tensor_slots(model) if _nbytes(slot.tensor) > limit]
        if not large:
            return False
        names = Names.of(model)
        cuts = _planned_cuts(self, large, limit)
        changed = False
        for slot, cut in zip(large, cuts, strict=True):
            if may_apply(self.name, slot.where):
                _Splitter(slot, cut, names, limit).run()
                changed = True
        return changed


def _nbytes(tensor: ir.TensorProtocol) -> int:
    return 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes


@dataclass(frozen=True)
class _Cut:
    axis: int
    places: tuple[int, ...]


def _planned_cuts(what: SplitTensor, large: Sequence[TensorSlot], limit: int) -> list[_Cut]:
    """Return where to cut every large weight, or refuse all that cannot be cut."""
    cuts: list[_Cut] = []
    refusals: list[Refusal] = []
    for slot in large:
        cut = _best_cut(slot, limit)
        if isinstance(cut, Refusal):
            refusals.append(cut)
        else:
            cuts.append(cut)
    if refusals:
        raise Refused(str(what), refusals)
    return cuts


def _best_cut(slot: TensorSlot, limit: int) -> _Cut | Refusal:
    size = format_size(slot.tensor.nbytes)
    value = slot.value
    if value is None:
        return Refusal(slot.where, f"{size} in an attribute cannot be split", "raise the limit")
    if value.is_graph_input():
        return Refusal(
            slot.where,
            f"{size} that are an input of the graph too cannot be split",
            "make it a mere initializer, or raise the limit",
        )
    weight = as_weight(slot.tensor)
    shape = weight.expression.shape
    wishes, blocks = _wishes(value, tuple(range(len(shape))), len(shape))
    bits = slot.tensor.dtype.bitwidth
    room = limit - min(_ROOM_BYTES, limit // 8)
    found = {}
    for axis, extent in enumerate(shape):
        places = _places(shape, axis, bits, room, blocks.get(axis, 1))
        if places is not None and extent > 1:
            found[axis] = places
    if not found:
        reason = f"{size} of shape {list(shape)} cannot be cut into parts of {format_size(limit)}"
        return Refusal(slot.where, reason, "raise the limit")
    axis = max(found, key=lambda axis: (wishes[axis], -axis))
    return _Cut(axis, found[axis])


def _wishes(
    value: ir.Value, axes: tuple[int, ...], rank: int
) -> tuple[Counter[int], dict[int, int]]:
    """Count the users that want a weight cut along each axis, through what passes it on.

    Args:
        value: The weight, or the weight passed on.
        axes: Which axis of the weight each of its axes is.
        rank: Of both.

    Returns:
        The counts, and the blocks that must stay whole along an axis.
    """
    counts: Counter[int] = Counter()
    blocks: dict[int, int] = {}
    for node, index in value.uses():
        form = FORMS.get(node.op_type) if node.domain == "" else None
        if form is None:
            continue
        if form.axis is not None:
            axis = form.axis(node, index, rank)
            if axis is not None:
                counts[axes[axis]] += 1
            continue
        if index != 0:
            continue
        perm: Sequence[int] = range(rank)
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm") or range(rank - 1, -1, -1)
        if (block := node.attributes.get_int("block_size", 0)) > 1:
            axis = axes[node.attributes.get_int("axis", 1) % rank]
            blocks[axis] = math.lcm(blocks.get(axis, 1), block)
        more, inner = _wishes(node.outputs[0], tuple(axes[axis] for axis in perm), rank)
        counts += more
        for axis, block in inner.items():
            blocks[axis] = math.lcm(blocks.get(axis, 1), block)
    return counts, blocks


def _places(
    shape: Sequence[int], axis: int, bits: int, room: int, block: int
) -> tuple[int, ...] | None:
    """Return where to cut an axis into even parts of at most `room` bytes, or None if they exceed.

    Cuts come at multiples of a block, and where elements of a sub-byte type fill whole bytes.
    """
    slice_bits = math.prod(shape) // shape[axis] * bits
    unit = math.lcm(block, 8 // math.gcd(8, math.prod(shape[axis + 1 :]) * bits))
    longest = room * 8 // slice_bits // unit * unit
    if longest == 0:
        return None
    count = math.ceil(shape[axis] / longest)
    step = math.ceil(shape[axis] / count / unit) * unit
    return (*range(0, shape[axis], step), shape[axis])


class _Splitter:
    """Splits one weight and rewrites what uses it."""

    def __init__(self, slot: TensorSlot, cut: _Cut, names: Names, limit: int) -> None:
        assert slot.value is not None
        self._value, self._scope, self._names = slot.value, slot.scope, names
        self._where = slot.where
        self._reason = (
            f"{slot.value.name} takes {format_size(slot.tensor.nbytes)}, more than "
            f"{format_size(limit)}: in {len(cut.places) - 1} parts along axis {cut.axis}"
        )
        weight = as_weight(slot.tensor)
        values = [
            self._placed(take(weight, cut.axis, start, stop))
            for start, stop in pairwise(cut.places)
        ]
        self._parts = Parts(tuple(values), cut.axis, cut.places, len(weight.shape), weight.dtype)

    def _placed(self, part: Weight) -> ir.Value:
        """Add a part of the weight where the weight is."""
        name = self._names.value(f"{self._value.name}_part")
        constant = self._value.producer()
        if constant is not None and self._scope.in_function:
            value = add_constant(part, constant, name, as_node=True)
            node = value.producer()
            assert node is not None
            node.name = self._names.node(f"{name}/Constant")
            node.metadata_props["vlmpass.reason"] = self._reason
            return value
        part.name = name
        type_, shape = ir.TensorType(part.dtype), ir.Shape(part.shape.numpy())
        value = ir.Value(name=name, type=type_, shape=shape, const_value=part)
        assert isinstance(self._scope.graph, ir.Graph)
        self._scope.graph.register_initializer(value)
        return value

    def run(self) -> None:
        """Let the parts take the place of the weight."""
        value, constant = self._value, self._value.producer()
        needed = not value.uses() or self._rewrite_users(value, self._parts)
        tape = self._tape(value.name or "weight")
        whole = self._whole(tape, value, self._parts) if needed else None
        if constant is not None:
            self._splice(tape, constant, whole)
            return
        graph = self._scope.graph
        assert isinstance(graph, ir.Graph)
        remove_initializer(value)
        if whole is not None:
            first = next(iter(graph), None)
            if first is None:
                graph.extend(tape.nodes)
            else:
                graph.insert_before(first, tape.nodes)
            replace_value(value, whole, fresh=True)

    def _rewrite_users(self, value: ir.Value, parts: Parts) -> bool:
        """Let users of a value use its parts; return whether some still need it whole."""
        for node, index in list(value.uses()):
            form = FORMS.get(node.op_type) if node.domain == "" else None
            if form is None or not is_used(node.outputs[0]):
                continue
            tape = self._tape(node.name or node.op_type)
            built = form.build(tape, node, index, parts)
            if built is None:
                tape.discard()
            elif isinstance(built, ir.Value):
                self._splice(tape, node, built)
            elif self._rewrite_users(node.outputs[0], built):
                self._splice(tape, node, self._whole(tape, node.outputs[0], built))
            else:
                self._splice(tape, node, None)
        return is_used(value)

    def _tape(self, hint: str) -> Tape:
        return Tape(self._names, self._scope.opsets, hint)

    def _whole(self, tape: Tape, value: ir.Value, parts: Parts) -> ir.Value:
        whole = join(tape, parts)
        if whole is None:
            users = listed((node.name or node.op_type for node, _ in value.uses()), 3)
            reason = f"Concat does not take {parts.dtype}, and {users} cannot use it in parts"
            raise Refused(SplitTensor.name, [Refusal(self._where, reason, "raise the limit")])
        return whole

    def _splice(self, tape: Tape, node: ir.Node, new: ir.Value | None) -> None:
        for each in tape.nodes:
            each.metadata_props["vlmpass.reason"] = self._reason
        replacements = [] if new is None else [(node.outputs[0], new)]
        operands = [value for value in node.inputs if value not in (None, self._value)]
        splice(tape, [node], replacements, in_function=self._scope.in_function)
        for value in operands:
            # A bias or scale that was cut likewise is not needed whole any more.
            if value is not None and value.const_value is not None and not is_used(value):
                remove_unused_constant(value)
