"""Scalars that calls give to functions as tensors, given as numbers.

torch makes what differs between modules of one class an attribute of their function, and an eps a
tensor. A tensor can be the value of a Constant alone; a number can be any operator's attribute.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, scopes

__all__ = ["give_numbers"]

_NARROW = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_Key = tuple[ir.OperatorIdentifier, str]
"""A function and the name of one of its attributes."""


@dataclass
class _Parameter:
    """What is done with one attribute of a function.

    Attributes:
        constants: The Constants of the body whose value it is, and where they lie.
        passed: The attributes of other functions that calls in the body give it to.
        elsewhere: Whether the body uses it in any other way.
        sources: The attributes of other functions that calls of this one give.
        kinds: The types of the scalars that calls give in the end, None for anything else.
    """

    constants: list[tuple[Scope, ir.Node]] = field(default_factory=list)
    passed: set[_Key] = field(default_factory=set)
    elsewhere: bool = False
    sources: set[_Key] = field(default_factory=set)
    kinds: set[ir.DataType | None] = field(default_factory=set)


def give_numbers(model: ir.Model) -> bool:
    """Let functions take scalars that only make Constants as numbers; say if any did.

    What the Constants hold stays the same, to the bit: float32 is cast to a narrower type or to
    double, and a double that float32 does not hold stays a tensor.
    """
    parameters = _parameters(model)
    chosen = _chosen(parameters)
    if not chosen:
        return False
    names = Names.of(model)
    for key, parameter in parameters.items():
        if key in chosen:
            attributes = model.functions[key[0]].attributes
            attributes[key[1]] = _number(attributes[key[1]])
            for scope, node in parameter.constants:
                _make_number(scope, node, next(iter(parameter.kinds)), names)
    for scope in scopes(model):
        for node in scope.graph:
            for name in list(node.attributes):
                if (node.op_identifier(), name) in chosen:
                    node.attributes[name] = _number(node.attributes[name])
    return True


def _parameters(model: ir.Model) -> dict[_Key, _Parameter]:
    found = {
        (key, name): _Parameter(kinds=set() if default.value is None else {_kind(default)})
        for key, function in model.functions.items()
        for name, default in function.attributes.items()
    }
    for scope in scopes(model) if found else ():
        for node in scope.graph:
            _note_uses(found, scope, node)
            function = model.functions.get(node.op_identifier())
            if function is not None:
                for name, default in function.attributes.items():
                    given = node.attributes.get(name, default)
                    _note_given(found[node.op_identifier(), name], scope, given)
    pending = [key for key, parameter in found.items() if parameter.kinds]
    while pending:
        kinds = found[pending[-1]].kinds
        for target in found[pending.pop()].passed:
            if not kinds <= found[target].kinds:
                found[target].kinds |= kinds
                pending.append(target)
    return found


def _source(scope: Scope, attribute: ir.Attr) -> _Key | None:
    """Return the attribute of the function around it that an attribute refers to, if it does."""
    if attribute.ref_attr_name is None or not isinstance(scope.owner, ir.Function):
        return None
    return scope.owner.identifier(), attribute.ref_attr_name


def _note_uses(found: dict[_Key, _Parameter], scope: Scope, node: ir.Node) -> None:
    for attribute in node.attributes.values():
        source = _source(scope, attribute)
        if source not in found:
            continue
        target = (node.op_identifier(), attribute.name)
        numbers = scope.opsets.get("", 0) >= 12  # Constant has no value_float before
        if numbers and (node.domain, node.op_type, attribute.name) == ("", "Constant", "value"):
            found[source].constants.append((scope, node))
        elif target in found:
            found[source].passed.add(target)
        else:
            found[source].elsewhere = True


def _note_given(parameter: _Parameter, scope: Scope, given: ir.Attr) -> None:
    source = _source(scope, given)
    if source is not None:
        parameter.sources.add(source)
    else:
        parameter.kinds.add(_kind(given))


def _kind(given: ir.Attr) -> ir.DataType | None:
    """Return the type of a scalar that a float32 can stand for."""
    if given.type != ir.AttributeType.TENSOR or given.value is None:
        return None
    tensor = given.as_tensor()
    if len(tensor.shape) or not (tensor.dtype in _NARROW or tensor.dtype == ir.DataType.DOUBLE):
        return None
    with np.errstate(over="ignore"):
        exact = float(np.float32(tensor.numpy().item())) == float(tensor.numpy().item())
    return tensor.dtype if exact else None


def _chosen(parameters: dict[_Key, _Parameter]) -> set[_Key]:
    """Return the attributes that can be numbers, all of them at once."""
    chosen = {
        key
        for key, each in parameters.items()
        if len(each.kinds) == 1 and None not in each.kinds and not each.elsewhere
    }
    while True:
        left = {key for key in chosen if parameters[key].passed | parameters[key].sources <= chosen}
        if left == chosen:
            return {key for key in chosen if parameters[key].constants or parameters[key].passed}
        chosen = left


def _number(given: ir.Attr) -> ir.Attr:
    if given.ref_attr_name is not None:
        return ir.RefAttr(given.name, given.ref_attr_name, ir.AttributeType.FLOAT)
    if given.value is None:
        return given
    return ir.AttrFloat32(given.name, float(given.as_tensor().numpy().item()))


def _make_number(scope: Scope, node: ir.Node, kind: ir.DataType | None, names: Names) -> None:
    """Put a Constant of a number, cast to the type of the tensor, in the place of one."""
    (given,) = node.attributes.values()
    assert given.ref_attr_name is not None
    tape = Tape(names, scope.opsets, node.name or node.outputs[0].name or "", in_function=True)
    reference = ir.RefAttr("value_float", given.ref_attr_name, ir.AttributeType.FLOAT)
    value = tape.node("Constant", [], {"value_float": reference})[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    if kind != ir.DataType.FLOAT:
        value = tape.Cast(value, to=kind)
    splice(tape, [node], [(node.outputs[0], value)], in_function=True)
