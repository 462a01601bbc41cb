"""What an operator's schema says about types, in the form the solver reads fastest.

Schemas come from onnx for the domains it knows, and from the table `contrib.txt` for the
operators that ONNX Runtime registers beside them.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import Formal as SchemaFormal
from vlmpass.ir_tools.operators.schema import history, in_force
from vlmpass.ir_tools.operators.type_texts import dtype_of

__all__ = ["Formal", "ResultType", "Signature", "result_type", "signature"]


@dataclass(frozen=True)
class Formal:
    """A formal input or output.

    Attributes:
        name: As in the schema.
        variable: The type variable it is bound to; a fixed type is a variable of its own name.
        homogeneous: False for a variadic whose members may differ in type.
    """

    name: str
    variable: str
    homogeneous: bool = True


@dataclass(frozen=True)
class Signature:
    """The types of one operator version.

    Attributes:
        since: The version of the operator that is in force.
        inputs: Formal inputs without the variadic one.
        outputs: Formal outputs likewise.
        rest_in: The variadic input, which is the last one, if there is one.
        rest_out: The variadic output likewise.
        allowed: Admitted types of each variable, as texts.
        fixed: The variables that admit one type only, with that type.
    """

    since: int
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    rest_in: Formal | None
    rest_out: Formal | None
    allowed: Mapping[str, frozenset[str]]
    fixed: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        fixed = {name: next(iter(types)) for name, types in self.allowed.items() if len(types) == 1}
        object.__setattr__(self, "fixed", fixed)

    def input(self, index: int) -> Formal | None:
        """Return the formal input at a position; None beyond the last."""
        return self.inputs[index] if index < len(self.inputs) else self.rest_in

    def output(self, index: int) -> Formal | None:
        """Return the formal output at a position; None beyond the last."""
        return self.outputs[index] if index < len(self.outputs) else self.rest_out


_Formals: TypeAlias = "tuple[tuple[str, str, bool, bool], ...]"
"""Name, type, whether it is variadic, whether that is homogeneous."""


def _split(formals: _Formals) -> tuple[tuple[Formal, ...], Formal | None]:
    """Part plain formals from the variadic one."""
    plain = tuple(Formal(name, kind) for name, kind, variadic, _ in formals if not variadic)
    rest = [Formal(name, kind, same) for name, kind, variadic, same in formals if variadic]
    return plain, rest[0] if rest else None


def _make(
    since: int,
    inputs: _Formals,
    outputs: _Formals,
    allowed: dict[str, frozenset[str]],
) -> Signature:
    for _, kind, _, _ in (*inputs, *outputs):
        allowed.setdefault(kind, frozenset([kind]))
    plain_in, rest_in = _split(inputs)
    plain_out, rest_out = _split(outputs)
    return Signature(since, plain_in, plain_out, rest_in, rest_out, allowed)


@cache
def _standard(domain: str, op_type: str, version: int) -> Signature | None:
    schema = in_force(domain, op_type, version)
    if schema is None:
        return None

    def formals(side: tuple[SchemaFormal, ...]) -> _Formals:
        return tuple((f.name, f.parameter, f.variadic, f.homogeneous) for f in side)

    allowed = {formal.parameter: formal.types for formal in (*schema.inputs, *schema.outputs)}
    return _make(schema.version, formals(schema.inputs), formals(schema.outputs), allowed)


def _contrib_formals(text: str) -> _Formals:
    formals = []
    for word in text.split():
        name, _, kind = word.partition(":")
        kind = kind.rstrip("?")
        variadic = kind.endswith(("*", "+"))
        formals.append((name, kind.rstrip("*+"), variadic, not kind.endswith("+")))
    return tuple(formals)


@cache
def _contrib() -> Mapping[tuple[str, str], Signature]:
    """Read the table: `domain::Operator | inputs | outputs | T=float,float16 U=int64`."""
    text = (importlib.resources.files(__package__) / "contrib.txt").read_text(encoding="utf-8")
    table = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        operator, inputs, outputs, constraints = (part.strip() for part in line.split("|"))
        domain, _, op_type = operator.rpartition("::")
        allowed = {}
        for word in constraints.split():
            variable, _, types = word.partition("=")
            allowed[variable] = frozenset(
                kind if "(" in kind else f"tensor({kind})" for kind in types.split(",")
            )
        table[domain, op_type] = _make(
            1, _contrib_formals(inputs), _contrib_formals(outputs), allowed
        )
    return table


def signature(domain: str, op_type: str, version: int) -> Signature | None:
    """Return the signature in force at an opset version; None for an operator nobody knows.

    Args:
        domain: Empty for the default one.
        op_type: The operator.
        version: Opset of the domain; that of a contrib operator does not matter.
    """
    known = _standard(domain, op_type, version)
    return known if known is not None else _contrib().get((domain, op_type))


class ResultType(NamedTuple):
    """What type a result has, as far as the schemas decide it.

    Attributes:
        fixed: Its element type, where it is always the same.
        operand: The position of an operand of its type, where there is one.
    """

    fixed: ir.DataType | None = None
    operand: int | None = None


@cache
def result_type(op_type: str, index: int) -> ResultType:
    """Return what a result of a standard operator is at every version; nothing if they differ."""
    found = {_result_type(signature("", op_type, each), index) for each in history(op_type)}
    return found.pop() if len(found) == 1 else ResultType()


def _result_type(known: Signature | None, index: int) -> ResultType:
    formal = None if known is None else known.output(index)
    if known is None or formal is None or not formal.homogeneous:
        return ResultType()
    if (fixed := known.fixed.get(formal.variable)) is not None:
        return ResultType(fixed=dtype_of(fixed))
    same = (i for i, each in enumerate(known.inputs) if each.variable == formal.variable)
    rest = known.rest_in is not None and known.rest_in.variable == formal.variable
    return ResultType(operand=next(same, len(known.inputs) if rest else None))
