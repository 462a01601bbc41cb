"""Repairs ill-typed graphs with the fewest and cheapest Casts.

Every open group of types (`groups`) gets the label of least total cost (`cut`): a Cast node costs
most, one of a scalar less than one of a tensor and one off the critical path less than one on it;
constants are cast offline for next to nothing where no bit of them is lost, and last of all where
one is; preferences decide between equals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import left_out_at_calls
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.operators.type_texts import dtype_of, spell, tensor
from vlmpass.ir_tools.types.bodies import Slot
from vlmpass.ir_tools.types.cast_nodes import Casts, leave_well_typed, left_out_refusal
from vlmpass.ir_tools.types.conflict import label
from vlmpass.ir_tools.types.narrow import Narrowing, cast_tensor
from vlmpass.ir_tools.types.offline import Offline
from vlmpass.ir_tools.types.typing import Typing, apply, require_well_typed, retyped, solve
from vlmpass.passes.dtype.cut import FORBIDDEN, Offer, minimize
from vlmpass.passes.dtype.groups import Group, Groups

__all__ = ["repair"]

_ROUNDED = 1 << 60  # more than the Casts of any model, far less than what is forbidden
_CAST = 1_000_000_000
_SCALAR_CAST = 900_000_000
_ON_PATH = 1_000_000
_MATRIX = 600_000_000
_PREFERENCE = 10_000
_WEIGHT = 100
_DECLARED = 10
_WIDER = 1
_LOOKED_AT = 1024
_ROUNDS = 4
_INDICES = ("Tind", "Tidx")

_SPARE_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_SPARE_WHOLE = (ir.DataType.INT64, ir.DataType.INT32)


class _Problem:
    """The labels to choose, and what each choice costs."""

    def __init__(
        self, groups: Groups, typing: Typing, prefer: ir.DataType | None, critical: set[ir.Value]
    ) -> None:
        self.groups = groups
        self.typing = typing
        self.prefer = prefer
        self.critical = critical
        self._wanted = self._wants()
        self._floats = {dtype for group in groups.open for dtype in self._types(group)}
        self._floats = {dtype for dtype in self._floats if dtype.is_floating_point()}

    def _wants(self) -> dict[ir.Value, set[ir.DataType]]:
        """Return for each value the types that its open users have otherwise."""
        found: dict[ir.Value, set[ir.DataType]] = {}
        for group in self.groups.open:
            dtypes = [self.typing.dtype(slot.value) for slot in group.slots]
            for slot, own in zip(group.slots, dtypes, strict=True):
                others = {dtype for dtype in dtypes if dtype is not None and dtype != own}
                found.setdefault(slot.value, set()).update(others)
        for slot, text in self.groups.outputs:
            dtype = dtype_of(text)
            if dtype is not None:
                found.setdefault(slot.value, set()).add(dtype)
        return found

    def _types(self, group: Group) -> set[ir.DataType]:
        values = [*group.values, *(slot.value for slot in group.slots)]
        found = {dtype for value in values if (dtype := self.typing.dtype(value)) is not None}
        for value in group.values if group.attribute is not None else ():
            found |= self._wanted.get(value, set())
        return found

    def candidates(self, group: Group) -> list[str]:
        """Return the types that a group may take, in a fixed order; none if nothing is right."""
        present = self._types(group)
        varying = {
            dtype
            for slot in group.slots
            if constant_of(slot.value) is None
            and (dtype := self.typing.dtype(slot.value)) is not None
        }
        if ir.DataType.STRING in present:
            return []
        if any(dtype.is_floating_point() for dtype in present):
            pool, spare = self._floats, list(_SPARE_FLOATS)
            if {ir.DataType.FLOAT16, ir.DataType.BFLOAT16} <= varying:  # neither holds the other
                pool = (pool & {ir.DataType.DOUBLE}) | {ir.DataType.FLOAT}
        else:
            pool, spare = present, list(_SPARE_WHOLE)
            if group.attribute is None:
                pool = {d for d in pool if all(holds_all(d, v) for v in varying)}
                spare = [d for d in spare if all(holds_all(d, v) for v in varying)]
        texts = [tensor(dtype) for dtype in sorted(pool, key=int)]
        found = [text for text in texts if group.allowed is None or text in group.allowed]
        more = [tensor(d) for d in spare if group.allowed is None or tensor(d) in group.allowed]
        if not found and not more and group.variable in _INDICES:
            more = [tensor(ir.DataType.INT64)]  # positions, computed in floats by the exporter
        return found or more[:1]

    def _hand_down(self, admitted: list[list[str]]) -> None:
        """Let every group take the floats that what it takes may become, where it admits them."""
        growing = True
        while growing:
            growing = False
            for group, texts in zip(self.groups.open, admitted, strict=True):
                owners = {self.groups.owner.get(slot.value) for slot in group.slots} - {None}
                above = {text for owner in owners if owner is not None for text in admitted[owner]}
                new = [
                    text
                    for text in sorted(above - set(texts))
                    if (group.allowed is None or text in group.allowed)
                    and (dtype := dtype_of(text)) is not None
                    and dtype.is_floating_point()
                ]
                texts += new if texts else []
                growing |= bool(new and texts)

    def cost(self, group: Group, text: str) -> int:
        """Return what a label costs a group by itself."""
        dtype = dtype_of(text)
        assert dtype is not None
        total = sum(self._constant(slot.value, dtype) for slot in group.slots)
        for value in group.values:
            declared = spell(value.type)
            if declared is not None and declared != text:
                total += _DECLARED
        if dtype.is_floating_point():
            total += _WIDER if dtype.bitwidth < 32 else 0
            if self.prefer is not None and dtype != self.prefer:
                total += _PREFERENCE
        if group.attribute is not None and self.typing.text_of(group.values[0]) != text:
            total += _DECLARED // 2
            fill = group.node.attributes[group.attribute]
            if fill.type == ir.AttributeType.TENSOR and not _keeps_bits(fill.as_tensor(), dtype):
                total += _ROUNDED
        return total

    def _constant(self, value: ir.Value, dtype: ir.DataType) -> int:
        """Return what it costs to have a constant in another type; nothing for what varies."""
        held = constant_of(value)
        if held is None or held.dtype == dtype:
            return 0
        if held.size <= _LOOKED_AT and not _fits(held, dtype):
            return FORBIDDEN
        if dtype != self.prefer and not _keeps_bits(held, dtype):
            return _ROUNDED
        if self.prefer is None and len(held.shape) > 1 and held.size > 1:
            return _MATRIX
        return _WEIGHT

    def cast_cost(self, value: ir.Value) -> int:
        """Return what a Cast of a value costs."""
        scalar = value.shape is not None and all(dim == 1 for dim in value.shape)
        return (_SCALAR_CAST if scalar else _CAST) + (_ON_PATH if value in self.critical else 0)

    def offers(self) -> Iterator[Offer]:
        """Yield every value that open groups take or give, with all who want it."""
        users: dict[ir.Value, list[int | str]] = {}
        for index, group in enumerate(self.groups.open):
            for slot in group.slots:
                if constant_of(slot.value) is None:
                    users.setdefault(slot.value, []).append(index)
        taken = {(slot.node, slot.index) for group in self.groups.open for slot in group.slots}
        for value in self.groups.owner:
            for node, index in value.uses():
                text = self.typing.text_of(value)
                if (node, index) not in taken and text is not None and node.op_type != "Cast":
                    users.setdefault(value, []).append(text)
        for slot, text in self.groups.outputs:
            if slot.value in self.groups.owner:
                users.setdefault(slot.value, []).append(text)
        for value, wanting in users.items():
            owner = self.groups.owner.get(value)
            source = owner if owner is not None else self.typing.text_of(value)
            if source is not None:
                yield Offer(source, tuple(wanting), self.cast_cost(value))

    def solve(self) -> list[str] | None:
        """Return a label for every open group, or None where a group admits none."""
        admitted = [self.candidates(group) for group in self.groups.open]
        self._hand_down(admitted)
        costs = [
            {text: self.cost(group, text) for text in texts}
            for group, texts in zip(self.groups.open, admitted, strict=True)
        ]
        if not all(costs):
            return None
        start = [min(cost, key=lambda text: (cost[text], text)) for cost in costs]
        return minimize(start, costs, list(self.offers()))


def _fits(held: ir.TensorProtocol, dtype: ir.DataType) -> bool:
    """Whether a small constant survives a cast: whole numbers exactly, floats in their range."""
    array = np.asarray(held.numpy())
    if dtype.is_floating_point():
        if not held.dtype.is_floating_point():
            return True
        trial = Narrowing()
        trial.cast(held, dtype, "")
        return not trial.refusals
    if held.dtype.is_floating_point():
        return False
    return bool(array.size == 0 or (array.min() >= dtype.min and array.max() <= dtype.max))


def _keeps_bits(held: ir.TensorProtocol, dtype: ir.DataType) -> bool:
    """Whether a constant is known to be the same number in another type, by type or by value."""
    if holds_all(dtype, held.dtype):
        return True
    if held.size > _LOOKED_AT or not held.dtype.is_floating_point():
        return not held.dtype.is_floating_point()
    array = held.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        back = array.astype(dtype.numpy()).astype(array.dtype)
    return bool(np.array_equal(array.astype(np.float64), back.astype(np.float64), equal_nan=True))


class _Repair:
    """One round: choose, then edit."""

    def __init__(self, model: ir.Model, typing: Typing, prefer: ir.DataType | None) -> None:
        self.model = model
        self.typing = typing
        self.groups = Groups(model, typing)
        self.problem = _Problem(self.groups, typing, prefer, _critical(model))
        self.names = Names.of(model)
        self.narrowing = Narrowing()
        self.offline = Offline(self.names, self.narrowing)
        self.casts = Casts(self.names)
        self.left_out = left_out_at_calls(model)
        self.labels: list[str] = []

    def run(self) -> bool:
        """Edit the model; False if nothing can be done."""
        labels = self.problem.solve()
        if labels is None:
            return False
        self.labels = labels
        changed = False
        for group, text in zip(self.groups.open, labels, strict=True):
            if group.attribute is not None and self.typing.text_of(group.values[0]) != text:
                _retype_attribute(group.node, group.attribute, text)
                changed = True
        for group, text in zip(self.groups.open, labels, strict=True):
            for value in group.values:
                value.type = retyped(value.type, text)
            for slot in group.slots:
                changed |= self._serve(slot, text, group)
        for slot, text in self.groups.outputs:
            changed |= self._serve(slot, text, None)
        self.offline.settle()
        return changed

    def _have(self, value: ir.Value) -> str | None:
        owner = self.groups.owner.get(value)
        return self.labels[owner] if owner is not None else self.typing.text_of(value)

    def _serve(self, slot: Slot, text: str, group: Group | None) -> bool:
        """Give a slot its type; say whether that took an edit."""
        have = self._have(slot.value)
        if have is None or have == text or dtype_of(have) is None or dtype_of(text) is None:
            return False
        if slot.node is not None and (slot.node.domain, slot.node.op_type) == ("", "Cast"):
            return False  # it takes any type, and would otherwise be served by itself
        held = constant_of(slot.value)
        if slot.value in self.left_out:
            raise Refused("repair-types", [left_out_refusal(slot.value)])
        reason = self._reason(slot, text, group)
        if held is not None and slot.node is not None:
            new = self.offline.to(slot.value, text, held)
        elif slot.node is None:
            new = self.casts.to(slot.value, text, reason, end_of=slot.graph)
        else:
            new = self.casts.to(slot.value, text, reason)
        if slot.node is not None:
            slot.node.replace_input_with(slot.index, new)
            return True
        if slot.graph is self.model.graph:
            name = slot.value.name
            slot.value.name, new.name = self.names.value(f"{name}/{have[7:-1]}"), name
            slot.value.type, new.shape = retyped(slot.value.type, have), slot.value.shape
        slot.graph.outputs[slot.index] = new
        return True

    def _reason(self, slot: Slot, text: str, group: Group | None) -> str:
        if group is None:
            return f"output '{slot.value.name}' is declared {text}"
        here = self._have(slot.value)
        others = sorted(
            {
                str(other.value.name)
                for other in group.slots
                if other.value is not slot.value and self._have(other.value) == text
            }
        )
        match = f", as '{others[0]}' is" if others else ""
        return f"{label(group.node)} takes {group.variable} in {text}{match}, and not in {here}"


def _retype_attribute(node: ir.Node, name: str, text: str) -> None:
    """Let the attribute that types a node's output say another type."""
    dtype, attribute = dtype_of(text), node.attributes[name]
    assert dtype is not None
    if attribute.type == ir.AttributeType.TENSOR:
        node.attributes[name] = ir.AttrTensor(name, cast_tensor(attribute.as_tensor(), dtype))
    else:
        node.attributes[name] = ir.AttrInt64(name, dtype.value)


def _critical(model: ir.Model) -> set[ir.Value]:
    """Return the main graph's values on a longest path through it, counted in nodes."""
    nodes = list(model.graph)
    depth: dict[ir.Value | None, int] = {}
    height: dict[ir.Value | None, int] = {}
    for node in nodes:
        deepest = max((depth.get(value, 0) for value in node.inputs), default=0) + 1
        depth.update(dict.fromkeys(node.outputs, deepest))
    for node in reversed(nodes):
        highest = max((height.get(value, 0) for value in node.outputs), default=0) + 1
        for value in node.inputs:
            height[value] = max(height.get(value, 0), highest)
    longest = max(depth.values(), default=0)
    return {
        value
        for value in {**depth, **height}
        if value is not None and depth.get(value, 0) + height.get(value, 0) == longest
    }


def repair(model: ir.Model, *, request: str, prefer: ir.DataType | None = None) -> bool:
    """Make an ill-typed model well typed with the fewest and cheapest Casts.

    Args:
        model: Any model; a well-typed one stays as it is.
        request: What was asked, for messages.
        prefer: The float type that decides between equally few Casts; None lets the large
            weights keep theirs.

    Returns:
        Whether anything changed.

    Raises:
        Refused: Casts alone cannot make it well typed; the error lists what remains.
    """
    changed = False
    for _ in range(_ROUNDS):
        typing = solve(model)
        if not typing.conflicts:
            break
        round_ = _Repair(model, typing, prefer)
        edited = round_.run()
        if round_.narrowing.refusals:
            raise Refused(request, round_.narrowing.refusals)
        interface = {value for value in model.graph.outputs if value.type is not None}
        declared = apply(model, solve(model), keep=interface)
        if not edited and not declared:
            break
        changed = True
    if changed:
        leave_well_typed(model, request, Names.of(model))
    else:
        require_well_typed(model, request)
    return changed
