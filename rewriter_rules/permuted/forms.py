"""What operators do on operands whose axes are in another order: the same, with other attributes.

An order is a permutation of axes as Transpose has it: axis i of the turned value is axis order[i].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators import Kind, broadcasting, named
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite.constant_values import SMALL_BYTES
from vlmpass.ir_tools.weights import as_weight, reshape, transpose
from vlmpass.rewriter_rules.simplify.known import normal, rank

__all__ = ["Form", "Order", "form_of", "perm_of", "turn_constant"]

Order: TypeAlias = tuple[int, ...]
Changes: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Form:
    """How a node works on turned operands.

    Attributes:
        turned: Inputs that have all axes and must be turned.
        constants: Inputs that are constants, turned when the node is.
        changes: What an order changes: attributes, or inputs of that name where the operator has
            them so.
        removed: Axes that the result has no more; None where it has all and is turned too.
    """

    turned: tuple[int, ...] = (0,)
    constants: tuple[int, ...] = ()
    changes: Callable[[Order], Changes] = lambda order: {}
    removed: frozenset[int] | None = None

    def restores(self, order: Order) -> bool:
        """Whether the result has its axes in their old order, those that are left."""
        left = [axis for axis in order if axis not in (self.removed or ())]
        return self.removed is not None and left == sorted(left)


Maker: TypeAlias = "Callable[[_Asked], Form | None]"


@dataclass(frozen=True)
class _Asked:
    """A node, asked for its form on values of so many axes at an opset."""

    node: ir.Node
    axes: int
    opset: int

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def given(self, name: str) -> object:
        """Return an attribute's value or that of the constant input of its name; None if absent.

        Returns `...` where it is computed.
        """
        schema = in_force("", self.node.op_type, self.opset)
        index = None if schema is None else schema.input_named(name)
        if index is None:
            default = None if schema is None else schema.default(name)
            return self.node.attributes[name].value if name in self.node.attributes else default
        value = self.input(index)
        if value is None:
            return None
        tensor = constant_of(value)
        known = tensor is not None and tensor.nbytes <= SMALL_BYTES
        return tensor.numpy().tolist() if tensor is not None and known else ...

    def list(self, name: str) -> Sequence[int] | None:
        """Return a list that is given and known."""
        found = self.given(name)
        return found if isinstance(found, (list, tuple)) and found else None

    def axis(self) -> int | None:
        """Return the axis that is given, counted from the front."""
        found = self.given("axis")
        found = normal([found], self.axes) if isinstance(found, int) else None
        return None if found is None else found[0]


def perm_of(node: ir.Node | None, axes: int | None = None) -> Order | None:
    """Return the order that a Transpose brings axes into; None for any other node.

    Args:
        node: The node.
        axes: How many axes there must be, if that matters.
    """
    if node is None or (node.domain, node.op_type) != ("", "Transpose") or not node.inputs:
        return None
    value, given = node.inputs[0], node.attributes.get("perm")
    size = None if value is None else rank(value)
    if size is None or (given is not None and given.is_ref()):
        return None
    perm = tuple(range(size))[::-1] if given is None else tuple(given.as_ints())
    return perm if sorted(perm) == list(range(size)) and axes in (None, size) else None


def form_of(node: ir.Node, axes: int, opset: int) -> Form | None:
    """Return how a node works on turned operands of so many axes; None if it does not.

    Args:
        node: A node of the standard domain; its results, but those with fewer axes, have as many.
        axes: How many axes the operands have.
        opset: In force where the node lies.
    """
    maker = _makers().get(node.op_type) if node.domain == "" and opset >= _BROADCASTS else None
    if maker is None or any(each.is_ref() for each in node.attributes.values()):
        return None
    found = maker(_Asked(node, axes, opset))
    if found is None or any(not _has(node, index, axes) for index in found.turned):
        return None
    left = axes - len(found.removed or ())
    return found if all(rank(each) == left for each in node.outputs) else None


def turn_constant(tape: Tape, value: ir.Value, order: Order) -> ir.Value:
    """Record a constant with its axes in another order; new ones of size 1 come first.

    Args:
        tape: The tape.
        value: A constant of at most as many axes as the order has.
        order: The new axis i is the old axis order[i].
    """
    tensor = constant_of(value)
    assert tensor is not None
    sizes = tensor.shape.numpy()
    if math.prod(sizes) == 1 and len(sizes) <= len(order):
        return value
    whole = reshape(as_weight(tensor), [1] * (len(order) - len(sizes)) + list(sizes))
    return tape.const(transpose(whole, order), name=(value.name or "const").rpartition("/")[2])


# -------------------------------------------------------------------------------------- by operator
def _has(node: ir.Node, index: int, axes: int) -> bool:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value is not None and rank(value) == axes


_TURNED_BYTES = 1 << 20
_BROADCASTS = 7
"""Since this opset operators broadcast as numpy does."""


def _can_turn(value: ir.Value, axes: int) -> bool:
    """Whether a value is a constant that is worth a copy with its axes in another order."""
    tensor = constant_of(value)
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return False
    return tensor.shape.rank() <= axes and tensor.nbytes <= _TURNED_BYTES


def _elementwise(asked: _Asked) -> Form | None:
    """All operands broadcast against each other; scalars are left as they are."""
    turned, constants = [], []
    for index, value in enumerate(asked.node.inputs):
        if value is None or rank(value) == 0:
            continue
        if _can_turn(value, asked.axes):
            constants.append(index)
        elif rank(value) == asked.axes:
            turned.append(index)
        else:
            return None
    return Form(tuple(turned), tuple(constants)) if turned else None


def _first(asked: _Asked) -> Form | None:
    """The first operand alone has axes."""
    return Form()


def _along(asked: _Asked) -> Form | None:
    """One axis is special."""
    axis = asked.axis()
    return None if axis is None else Form(changes=lambda order: {"axis": order.index(axis)})


def _softmax(asked: _Asked) -> Form | None:
    """Before opset 13 all axes from one on are."""
    return _along(asked) if asked.opset >= 13 else None


def _concat(asked: _Asked) -> Form | None:
    form, along = _elementwise(asked), _along(asked)
    if form is None or along is None or any(rank(v) != asked.axes for v in asked.node.inputs if v):
        return None
    return Form(form.turned, form.constants, along.changes)


def _gather(asked: _Asked) -> Form | None:
    """With a list of indices; one index alone takes the axis away."""
    indices, along = asked.input(1), _along(asked)
    if indices is None or along is None or rank(indices) not in (0, 1):
        return None
    gone = frozenset([asked.axis() or 0]) if rank(indices) == 0 else None
    return Form(changes=along.changes, removed=gone)


def _quantization(asked: _Asked) -> Form | None:
    scale = asked.input(1)
    if scale is None or rank(scale) not in (0, 1):
        return None
    return Form() if rank(scale) == 0 else _along(asked)


def _mapped(asked: _Asked, axes: Sequence[int]) -> Form | None:
    found = normal(axes, asked.axes)
    if found is None:
        return None
    return Form(changes=lambda order: {"axes": [order.index(axis) for axis in found]})


def _without(form: Form | None, axes: Sequence[int], asked: _Asked) -> Form | None:
    """Return a form whose result has some axes no more."""
    gone = normal(axes, asked.axes)
    if form is None or gone is None:
        return None
    return Form(form.turned, form.constants, form.changes, frozenset(gone))


def _reduction(asked: _Asked) -> Form | None:
    axes, keeps = asked.given("axes"), asked.given("keepdims") == 1
    form: Form | None = None
    if axes is None and asked.given("noop_with_empty_axes") != 1:
        form, axes = Form(), range(asked.axes)
    elif isinstance(axes, (list, tuple)) and axes:
        form = _mapped(asked, axes)
    else:
        return None
    return form if keeps else _without(form, list(axes), asked)


def _best_along(asked: _Asked) -> Form | None:
    """Like reductions, along one axis."""
    form, axis = _along(asked), asked.axis()
    return form if asked.given("keepdims") == 1 or axis is None else _without(form, [axis], asked)


def _squeeze(asked: _Asked) -> Form | None:
    axes = asked.list("axes")
    return None if axes is None else _without(_mapped(asked, axes), axes, asked)


def _slice(asked: _Asked) -> Form | None:
    starts, axes = asked.list("starts"), asked.given("axes")
    if axes is None and starts is not None:
        axes = range(len(starts))
    return None if axes is ... or axes is None else _mapped(asked, list(axes))  # type: ignore[call-overload]


def _pad(asked: _Asked) -> Form | None:
    pads, axes, size = asked.list("pads"), asked.given("axes"), asked.axes
    if isinstance(axes, (list, tuple)) and axes:
        return _mapped(asked, axes)
    if axes is not None or pads is None or len(pads) != 2 * size:
        return None

    def changes(order: Order) -> Changes:
        return {"pads": [pads[half + axis] for half in (0, size) for axis in order]}

    return Form(changes=changes)


def _sizes(name: str) -> Maker:
    """One number for each axis."""

    def make(asked: _Asked) -> Form | None:
        given = asked.list(name)
        if given is None or len(given) > asked.axes:
            return None
        sizes = [1] * (asked.axes - len(given)) + list(given)
        return Form(changes=lambda order: {name: [sizes[axis] for axis in order]})

    return make


_SPECIAL: dict[str, Maker] = {
    "ArgMax": _best_along,
    "ArgMin": _best_along,
    "CastLike": _first,
    "Concat": _concat,
    "CumSum": _along,
    "DequantizeLinear": _quantization,
    "Expand": _sizes("shape"),
    "Gather": _gather,
    "Hardmax": _softmax,
    "Identity": _first,
    "LogSoftmax": _softmax,
    "LpNormalization": _along,
    "Pad": _pad,
    "QuantizeLinear": _quantization,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _along,
    "Squeeze": _squeeze,
    "Tile": _sizes("repeats"),
    "TopK": _along,
}


@cache
def _makers() -> Mapping[str, Maker]:
    alike = named(Kind.ELEMENTWISE, Kind.CAST) | broadcasting()
    reductions = named(Kind.REDUCTION)
    return {
        **dict.fromkeys(sorted(alike), _elementwise),
        **dict.fromkeys(sorted(reductions), _reduction),
        **_SPECIAL,
    }
