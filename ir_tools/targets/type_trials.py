"""onnx's tests of single nodes in other types: one for each type that an operator admits.

onnx tests most operators in float32 alone. A test is said anew in another type: what its type
parameter binds takes it, small numbers of its own come in, and onnx's reference evaluator says what
is right. What that or onnx's checker does not take is left out.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import dtype_of
from vlmpass.ir_tools.targets.node_trials import PLAIN, Case

__all__ = ["TypeCase", "computed_by_onnx", "type_cases"]

_TEMPLATES = 4
"""How many tests of an operator are tried as a model for one of a type."""

_SMALL = 16
"""Up to which whole numbers stay what they are in integers: their products are to be held, too."""

_LARGEST = 60000.0
"""What float16 holds."""

_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_CHOOSERS = ("to", "dtype", "output_dtype")
"""Attributes that say of which type an output is."""


@dataclass(frozen=True)
class TypeCase(Case):
    """A test in another type.

    Attributes:
        parameter: The type parameter that takes it.
        kind: The type, as profiles spell it.
        others: The other type parameters that may take several types, with what they have.
    """

    parameter: str = ""
    kind: str = ""
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Template:
    """A test with its node, that operator, and the formals of what the node names."""

    case: Case
    proto: onnx.ModelProto
    schema: Schema

    @property
    def node(self) -> onnx.NodeProto:
        found: onnx.NodeProto = self.proto.graph.node[0]
        return found

    def formals(self) -> dict[str, Formal]:
        """Return the formal of every value, by its name."""
        found = {}
        for names, at in (
            (self.node.input, self.schema.input_at),
            (self.node.output, self.schema.output_at),
        ):
            pairs = ((name, at(index)) for index, name in enumerate(names) if name)
            found.update({name: formal for name, formal in pairs if formal is not None})
        return found

    def types(self) -> frozenset[tuple[str, int]]:
        """Return the type parameters with the types that they are bound to."""
        formals = self.formals()
        return frozenset(
            (formals[each.name].parameter, each.type.tensor_type.elem_type)
            for each in (*self.proto.graph.input, *self.proto.graph.output)
            if each.name in formals
        )

    @property
    def plainness(self) -> tuple[bool, int, str]:
        """How plain the test is: with elements before one without, then by its name."""
        empty = any(isinstance(each, np.ndarray) and not each.size for each in self.case.inputs)
        return empty, len(self.case.name), self.case.name


def type_cases(tests: Sequence[Case]) -> Iterator[TypeCase]:
    """Yield a test for each type that an operator admits and of which it has none.

    Args:
        tests: onnx's own; the plainest that can be said in a type is the model for it.
    """
    for templates in _by_operator(tests):
        known = {each.types() for each in templates}
        allowed = templates[0].schema.allowed
        for parameter, kind in sorted((p, kind) for p, kinds in allowed.items() for kind in kinds):
            made = (_retyped(each, parameter, kind, known) for each in templates[:_TEMPLATES])
            found = next(filter(None, made), None)
            if found is not None:
                yield found


def _by_operator(tests: Sequence[Case]) -> Iterator[list[_Template]]:
    found: dict[tuple[str, str, int], list[_Template]] = defaultdict(list)
    for case in tests:
        proto = onnx.ModelProto.FromString(case.model)
        node = proto.graph.node[0]
        opset = next((o.version for o in proto.opset_import if o.domain == node.domain), 1)
        schema = in_force(node.domain, node.op_type, opset)
        if schema is not None and not any(each.type in _GRAPHS for each in node.attribute):
            key = node.domain, node.op_type, schema.version
            found[key].append(_Template(case, proto, schema))
    for _, templates in sorted(found.items()):
        yield sorted(templates, key=lambda each: each.plainness)


def _retyped(
    template: _Template, parameter: str, kind: str, known: Collection[frozenset[tuple[str, int]]]
) -> TypeCase | None:
    dtype = dtype_of(kind)
    if dtype is None or dtype is ir.DataType.STRING or dtype.numpy() not in PLAIN:
        return None
    formals = template.formals()
    taken = {name for name, formal in formals.items() if formal.parameter == parameter}
    proto = onnx.ModelProto()
    proto.CopyFrom(template.proto)
    for each in (*proto.graph.input, *proto.graph.output):
        if each.name in taken:
            each.type.tensor_type.elem_type = dtype.value
    bound = replace(template, proto=proto).types()
    if not taken or bound in known:
        return None
    if not any(each.name in taken for each in proto.graph.input):
        _choose(proto.graph.node[0], dtype)
    feeds = {
        each.name: _tame(value, positive=dtype.is_integer() and dtype.min == 0)
        for each, value in zip(proto.graph.input, template.case.inputs, strict=True)
    }
    feeds.update({name: _in_type(feeds[name], dtype) for name in taken & feeds.keys()})
    outputs = computed_by_onnx(proto, feeds)
    if outputs is None:
        return None
    fixed = template.schema.fixed
    others = tuple(sorted((n, _word(e)) for n, e in bound if n != parameter and n not in fixed))
    word = _word(dtype.value)
    name = f"{template.case.name}[{parameter}={word}]"
    model = proto.SerializeToString(deterministic=True)
    return TypeCase(name, model, list(feeds.values()), outputs, parameter, word, others)


def _word(element: int) -> str:
    return ir.DataType(element).name.lower()


def _choose(node: onnx.NodeProto, dtype: ir.DataType) -> None:
    """Have a node give a type that none of its inputs has."""
    for each in node.attribute:
        if each.name in _CHOOSERS:
            each.i = dtype.value
        elif each.type == onnx.AttributeProto.TENSOR:
            value = _in_type(ir.serde.deserialize_tensor(each.t).numpy(), dtype)
            each.t.CopyFrom(ir.serde.serialize_tensor(ir.Tensor(value, dtype=dtype)))


def _in_type(value: Any, dtype: ir.DataType) -> Any:
    """Return numbers near others in a type; in place of fractions, integers have 1 and 2."""
    if not isinstance(value, np.ndarray):
        return value
    if dtype is ir.DataType.BOOL:
        return value > 0
    if dtype.is_integer() and value.dtype.kind not in "iub":
        wide = value.astype(np.float64)
        whole = bool(((wide == np.rint(wide)) & (wide >= 0) & (wide <= _SMALL)).all())
        value = wide if whole else 1 + np.floor(np.abs(wide) * 7) % 2
    if dtype.is_integer():
        value = np.clip(value, max(dtype.min, -(2**62)), min(dtype.max, 2**62))
    else:
        value = np.clip(value, -_LARGEST, _LARGEST)
    return np.asarray(value).astype(dtype.numpy())


def _tame(value: Any, *, positive: bool) -> Any:
    """Return numbers that every type holds or rounds: what a cast makes of others is undefined."""
    if not isinstance(value, np.ndarray) or value.dtype not in PLAIN or value.dtype.kind in "iub":
        return value
    wide = np.nan_to_num(value.astype(np.float64), nan=1.0, posinf=4.0, neginf=-4.0)
    wide = np.asarray(np.clip(wide, -_LARGEST, _LARGEST))
    return np.asarray(np.abs(wide) if positive else wide).astype(value.dtype)


def computed_by_onnx(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any] | None:
    """Return what onnx's evaluator gives; None where it gives nothing of the declared types.

    Args:
        proto: The model, which onnx's checker is asked of first.
        feeds: By the names of its inputs.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            onnx.checker.check_model(proto, full_check=True)
            found = ReferenceEvaluator(proto).run(None, dict(feeds))
    except Exception:  # noqa: BLE001 - whatever it says, there is nothing to compare with
        return None
    wanted = [ir.DataType(each.type.tensor_type.elem_type) for each in proto.graph.output]
    kinds = [each.dtype if isinstance(each, np.ndarray) else None for each in found]
    return list(found) if kinds == [each.numpy() for each in wanted] else None
