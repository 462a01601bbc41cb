"""What operator schemas say about inputs and attributes, by name, for the version in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import in_force

__all__ = ["OpSchema", "schema_of"]


@dataclass(frozen=True)
class OpSchema:
    """The names in one version of an operator.

    Attributes:
        since: The opset version that introduced this version of the operator.
        inputs: Names of the formal inputs, in order.
        attributes: Every attribute with its default as a Python value; None where it has none.
    """

    since: int
    inputs: tuple[str, ...]
    attributes: Mapping[str, object]

    def input_named(self, name: str) -> int | None:
        """Return the position of the input of that name, unless it is an attribute's name too."""
        if name in self.attributes or name not in self.inputs:
            return None
        return self.inputs.index(name)


_MS = "com.microsoft"
_ORT = {
    ("", "SimplifiedLayerNormalization"): OpSchema(
        1, ("X", "scale"), {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
    ),
    (_MS, "SkipLayerNormalization"): OpSchema(
        1, ("input", "skip", "gamma", "beta", "bias"), {"epsilon": 1e-12}
    ),
    (_MS, "SkipSimplifiedLayerNormalization"): OpSchema(
        1, ("input", "skip", "gamma", "bias"), {"epsilon": 1e-12}
    ),
    (_MS, "Gelu"): OpSchema(1, ("X",), {}),
    (_MS, "BiasGelu"): OpSchema(1, ("A", "B"), {}),
    (_MS, "FastGelu"): OpSchema(1, ("X", "bias"), {}),
    (_MS, "QuickGelu"): OpSchema(1, ("X",), {"alpha": 1.702}),
}
"""Operators of ONNX Runtime that rules name; onnx knows none of them."""


@cache
def schema_of(domain: str, op_type: str, version: int) -> OpSchema | None:
    """Return what is in force at an opset version; None for an operator that is not known.

    Args:
        domain: Empty for the default one.
        op_type: The operator.
        version: Opset of the domain; that of a contrib operator does not matter.
    """
    found = in_force(domain, op_type, version)
    if found is None:
        return _ORT.get((domain, op_type))
    defaults = {name: _default(found.defaults.get(name)) for name in sorted(found.attributes)}
    return OpSchema(found.version, tuple(each.name for each in found.inputs), defaults)


def _default(attribute: ir.Attr | None) -> object:
    """Return an attribute's value in Python; None where there is none."""
    if attribute is None:
        return None
    value: object = attribute.value
    return tuple(value) if isinstance(value, (list, tuple)) else value
