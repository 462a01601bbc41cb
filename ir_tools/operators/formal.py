"""One operator version as its specification has it: formals, attributes, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

__all__ = ["Formal", "Schema"]


@dataclass(frozen=True)
class Formal:
    """One formal input or output.

    Attributes:
        name: Its name in the specification.
        parameter: Type parameter such as ``T``, or the one type it has.
        optional: Whether it may be absent.
        variadic: Whether it stands for any number of arguments.
        homogeneous: Whether these all have the same type.
        types: Every type it admits, as the specification spells them.
    """

    name: str
    parameter: str
    optional: bool
    variadic: bool
    homogeneous: bool
    types: frozenset[str]


@dataclass(frozen=True)
class Schema:
    """An operator at one since-version.

    Attributes:
        name: The operator.
        version: The since-version.
        inputs: Its formals, in order.
        outputs: Its formals, in order.
        min_inputs: The fewest inputs that a node may have, trailing ones left out.
        max_inputs: The most.
        max_outputs: The most outputs that a node may have.
        attributes: Type of each attribute, by name.
        required: Names of the attributes that have no default and must be given.
        defaults: Attributes that have a default, by name.
        deprecated: Whether this version retires the operator.
        bodies: Opsets at which ONNX gives a function body, ascending.
        allowed: The types that each type parameter admits, as the specification spells them.
        fixed: The parameters that admit one type only, with that type.
    """

    name: str
    version: int
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    min_inputs: int
    max_inputs: int
    max_outputs: int
    attributes: Mapping[str, ir.AttributeType]
    required: frozenset[str]
    defaults: Mapping[str, ir.Attr]
    deprecated: bool
    bodies: tuple[int, ...]
    allowed: Mapping[str, frozenset[str]] = field(init=False)
    fixed: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        allowed = {each.parameter: each.types for each in (*self.inputs, *self.outputs)}
        fixed = {name: next(iter(types)) for name, types in allowed.items() if len(types) == 1}
        object.__setattr__(self, "allowed", allowed)
        object.__setattr__(self, "fixed", fixed)

    def input(self, index: int) -> Formal:
        """Return the formal that an actual input of a valid node matches."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> Formal:
        """Return the formal that an actual output of a valid node matches."""
        return self.outputs[min(index, len(self.outputs) - 1)]

    def input_at(self, index: int) -> Formal | None:
        """Return the formal input at a position; None beyond the last."""
        return _at(self.inputs, index)

    def output_at(self, index: int) -> Formal | None:
        """Return the formal output at a position; None beyond the last."""
        return _at(self.outputs, index)

    def input_named(self, name: str) -> int | None:
        """Return the position of the input of that name, unless it is an attribute's name too."""
        if name in self.attributes:
            return None
        return next((i for i, each in enumerate(self.inputs) if each.name == name), None)

    def default(self, name: str) -> object:
        """Return an attribute's default as a Python value; None where it has none."""
        attribute = self.defaults.get(name)
        value: object = None if attribute is None else attribute.value
        return tuple(value) if isinstance(value, (list, tuple)) else value


def _at(formals: tuple[Formal, ...], index: int) -> Formal | None:
    if index < len(formals):
        return formals[index]
    return formals[-1] if formals and formals[-1].variadic else None
