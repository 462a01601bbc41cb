"""What decides about a node: conditions as profiles write them, such as `rank(X) != 4 5`.

A condition holds, does not hold, or is not known (None): a rank that nobody inferred decides
nothing. What is said of an operand or an attribute that a node leaves out does not hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of, source_of
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.type_texts import spell

__all__ = ["EVERY", "Condition", "NodeView", "condition", "type_text"]

EVERY = "*"
"""What stands for every input of a node, and for every operator that a profile lists."""

_LARGEST = 65536
"""Up to how many elements of a constant are read, to compare them."""

_LARGEST_BOUNDED = 1 << 22
"""Up to how many elements of a constant are read, to see the least and the largest."""

_WRITTEN = re.compile(
    r"(?:(?P<function>\w+)\((?P<inside>[^)]*)\)|(?P<name>\w+))"
    r"(?:\s*(?P<sign><=|>=|!=|=|<|>|\bhas\b)\s*(?P<values>.+))?"
)
_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OTHER = re.compile(r"type\((?P<name>\w+)\)")
"""What stands for the types of another operand, in the place of types."""

_ALONE = ("given", "absent", "computed", "dynamic", "empty", "differ")
_TYPED = ("type", "behind")
_COMPARED = ("rank", "size", "back", "beyond", *_TYPED)
_FORMS = (
    "NAME = VALUES, NAME has TEXT, given(NAME), absent(NAME), computed(NAME), dynamic(NAME), "
    "empty(NAME), differ(rank), differ(shape), rank(NAME) = VALUES, size(NAME, AXIS) = VALUES, "
    "back(NAME) = AXES, beyond(NAME) = BITS, type(NAME) = TYPES, type(NAME) = type(NAME), "
    "behind(NAME) = TYPES or opset = VALUES"
)
_FUSED = (Kind.CAST, Kind.ELEMENTWISE, Kind.MOVE)
_BEHIND = 64
"""Up to how many values are looked at, of those that one is computed from."""


@dataclass(frozen=True)
class NodeView:
    """A node with what its conditions are about.

    Attributes:
        node: The node.
        schema: Its operator's schema; None where nobody knows the operator.
        opset: Version of the operator's domain.
        ir_version: Of the model.
    """

    node: ir.Node
    schema: Schema | None
    opset: int
    ir_version: int

    def operand(self, name: str) -> tuple[bool, ir.Value | None]:
        """Return whether a formal has that name, and what the node gives for it."""
        if self.schema is None:
            return False, None
        for formals, given in (
            (self.schema.inputs, self.node.inputs),
            (self.schema.outputs, self.node.outputs),
        ):
            for index, each in enumerate(formals):
                if each.name == name:
                    value = given[index] if index < len(given) else None
                    return True, None if value is not None and _is_left_out(value) else value
        return False, None

    def types(self, name: str) -> list[str | None]:
        """Return the types of all that a type parameter or a formal of that name binds."""
        if self.schema is None:
            return []
        found: list[str | None] = []
        for at, given in (
            (self.schema.input_at, self.node.inputs),
            (self.schema.output_at, self.node.outputs),
        ):
            for index, value in enumerate(given):
                formal = at(index)
                if value is None or formal is None or _is_left_out(value):
                    continue
                if name in (formal.parameter, formal.name):
                    found.append(type_of(value))
        return found

    def attribute(self, name: str) -> object:
        """Return an attribute's value or default; None where neither is, `...` if not known."""
        given = self.node.attributes.get(name)
        if given is not None:
            return ... if given.is_ref() else given.value
        return None if self.schema is None else self.schema.default(name)


def _is_left_out(value: ir.Value) -> bool:
    return value.name == "" and not value.uses() and value.producer() is not None


def type_of(value: ir.Value) -> str | None:
    """Return the type of a value as the schemas spell it; None where nobody said it."""
    text = spell(value.type)
    if text is None and value.const_value is not None:
        text = spell(ir.TensorType(value.const_value.dtype))
    return text


def type_text(word: str) -> str:
    """Return a type as the schemas spell it, of a word such as ``float`` or ``seq(float)``.

    Raises:
        ValueError: It is no type.
    """
    head, inside, _ = word.partition("(")
    if inside:
        if head not in ("seq", "optional", "sparse") or not word.endswith(")"):
            raise ValueError(f"{word} is no type")
        if head == "sparse":
            return f"sparse_{type_text(word[len(head) + 1 : -1])}"
        return f"{head}({type_text(word[len(head) + 1 : -1])})"
    if word.upper() not in ir.DataType.__members__ or word == "undefined":
        raise ValueError(f"{word} is no type")
    return f"tensor({word})"


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        text: As it is written.
        function: ``rank``, ``given`` …; empty for the value of an attribute or of a constant input.
        name: What it is about.
        axis: Which axis, for ``size``.
        sign: How it is compared; empty where it is not.
        values: With what.
        other: Whose types it is compared with instead; empty where there are values.
    """

    text: str
    function: str
    name: str
    axis: int
    sign: str
    values: tuple[object, ...]
    other: str = ""

    def holds(self, view: NodeView) -> bool | None:
        """Return whether it holds for a node; None where that is not known."""
        if self.name == "opset" and not self.function:
            return self._compared([view.opset])
        if self.function == "type":
            return self._types(view)
        if self.function == "differ":
            return _any(_differ(each, self.name == "rank") for each in _branch_results(view.node))
        if self.function == "back":
            return self._from_the_end(view)
        if self.name == EVERY:
            return _any(self._operand(e, view) for e in view.node.inputs if e is not None)
        is_operand, value = view.operand(self.name)
        if self.function in ("given", "absent"):
            is_given = value is not None or (not is_operand and self.name in view.node.attributes)
            return is_given == (self.function == "given")
        if is_operand:
            return False if value is None else self._operand(value, view)
        if self.function:  # an attribute is constant, and has neither shape nor type
            return False
        return self._compared_with(view.attribute(self.name))

    def is_open(self, view: NodeView) -> bool:
        """Whether it holds only if an open axis, of an operand of known rank, has no elements."""
        one = [view.operand(self.name)[1]]
        operands = [*view.node.inputs] if self.name == EVERY else one
        ranked = all(each is None or each.shape is not None for each in operands)
        return self.function == "empty" and ranked

    def _operand(self, value: ir.Value, view: NodeView) -> bool | None:
        if self.function in ("", "computed"):
            tensor = constant_of(source_of(value), view.ir_version)
            if self.function:
                return tensor is None
            if tensor is None or tensor.size > _LARGEST:
                return None
            return self._compared(tensor.numpy().reshape(-1).tolist())
        if self.function == "beyond":
            return self._is_beyond(constant_of(source_of(value), view.ir_version))
        if self.function == "behind":
            return any(self._compared([type_of(each)]) for each in _fused_with(value))
        if value.shape is None:
            return None
        if self.function == "dynamic":
            return not value.shape.is_static()
        if self.function == "empty":
            return 0 in list(value.shape) or (False if value.shape.is_static() else None)
        rank = len(value.shape)
        if self.function == "rank":
            return self._compared([rank])
        if not -rank <= self.axis < rank:
            return False
        size = value.shape[self.axis]
        return self._compared([size]) if isinstance(size, int) else None

    def _is_beyond(self, tensor: ir.TensorProtocol | None) -> bool | None:
        """Whether a constant holds an integer that signed ones of some bits do not."""
        (bits,) = self.values
        end = 1 << (int(str(bits)) - 1)
        if tensor is None or not tensor.dtype.is_integer() or not tensor.size:
            return False
        if tensor.dtype.bitwidth < int(str(bits)):
            return False
        if tensor.size > _LARGEST_BOUNDED:
            return None
        numbers = tensor.numpy()
        return not -end <= int(numbers.min()) <= int(numbers.max()) < end

    def _from_the_end(self, view: NodeView) -> bool | None:
        """Compare an axis of the first operand, counted from the end."""
        axis, x = view.attribute(self.name), next(iter(view.node.inputs), None)
        if not isinstance(axis, int):
            return None if axis is ... else False
        if axis < 0:
            return self._compared([axis])
        return None if x is None or x.shape is None else self._compared([axis - len(x.shape)])

    def _types(self, view: NodeView) -> bool | None:
        found, others = view.types(self.name), view.types(self.other) if self.other else []
        if None in found or None in others:
            return None
        if self.other:
            same = set(found) == set(others)
            return bool(found and others) and same == (self.sign == "=")
        return bool(found) and self._compared(found)

    def _compared_with(self, value: object) -> bool | None:
        if value is ...:
            return None
        if value is None:
            return False
        return self._compared(value if isinstance(value, (list, tuple)) else [value])

    def _compared(self, found: Iterable[object]) -> bool:
        """Compare; `=` wants every element to be among the values, other signs any."""
        found = list(found)
        if self.sign in ("=", "!="):
            return all(each in self.values for each in found) == (self.sign == "=")
        if self.sign == "has":
            return any(str(value) in str(each) for each in found for value in self.values)
        compare = _SIGNS[self.sign]
        numbers = [each for each in found if isinstance(each, (int, float))]
        return any(compare(each, self.values[0]) for each in numbers)


def _fused_with(value: ir.Value) -> Iterator[ir.Value]:
    """Yield a value, and those that it is computed from element by element."""
    left, seen = [value], {value}
    while left:
        one = left.pop()
        yield one
        node = one.producer()
        traits = None if node is None else traits_of(node.domain, node.op_type)
        if node is None or traits is None or traits.kind not in _FUSED:
            continue
        for position, each in enumerate(node.inputs):
            known = each is None or each in seen or position in traits.sizes
            if each is not None and not known and len(seen) < _BEHIND:
                seen.add(each)
                left.append(each)


def _branch_results(node: ir.Node) -> Iterator[tuple[ir.Value, ...]]:
    """Yield what the branches of a node give for each of its outputs."""
    return zip(*(graph.outputs for graph in subgraphs(node)), strict=False)


def _differ(values: Sequence[ir.Value], in_rank: bool) -> bool | None:
    """Whether shapes differ in rank, or in a size that is fixed; None where a rank is not known."""
    if any(isinstance(each.type, (ir.SequenceType, ir.OptionalType)) for each in values):
        return False
    shapes = [each.shape for each in values]
    if any(each is None for each in shapes):
        return None
    if len({len(each) for each in shapes if each is not None}) > 1:
        return True
    sizes = zip(*(list(each) for each in shapes if each is not None), strict=True)
    return not in_rank and any(len({s for s in each if isinstance(s, int)}) > 1 for each in sizes)


def _any(found: Iterable[bool | None]) -> bool | None:
    """Return whether one is true; None where none is and one is not known."""
    kinds = set(found)
    return True if True in kinds else None if None in kinds else False


def condition(text: str) -> Condition:
    """Return a condition.

    Args:
        text: As a profile has it.

    Raises:
        ValueError: It is none; says why in one line.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no condition; write {_FORMS}")
    function, name = match["function"] or "", (match["name"] or match["inside"]).strip()
    sign, values = match["sign"] or "", (match["values"] or "").replace(",", " ").split()
    if function not in ("", *_ALONE, *_COMPARED) or bool(sign) == (function in _ALONE):
        raise ValueError(f"{text!r} is no condition; write {_FORMS}")
    if function == "differ" and name not in ("rank", "shape"):
        raise ValueError(f"{text!r} is no condition; write {_FORMS}")
    axis = 0
    if function == "size":
        name, _, last = (part.strip() for part in name.partition(","))
        axis = int(last)
    if not re.fullmatch(r"\w+", name) and (name != EVERY or not function):
        raise ValueError(f"{text!r} is about {name!r}, which is no name")
    other = _OTHER.fullmatch(match["values"] or "") if function == "type" else None
    if other is not None:
        return Condition(text.strip(), function, name, axis, sign, (), other["name"])
    read = type_text if function in _TYPED else _literal
    return Condition(text.strip(), function, name, axis, sign, tuple(map(read, values)))


def _literal(word: str) -> object:
    for read in (int, float):
        try:
            return read(word)
        except ValueError:
            continue
    return word
