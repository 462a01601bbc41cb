"""Output types that an attribute or the structure of an input decides, operator by operator.

Each function returns the type of one output as text, or None where the attribute is absent and
the schema alone must do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import numbered_type
from vlmpass.ir_tools.operators.type_texts import element, sequence_of, spell, tensor
from vlmpass.ir_tools.types.carried import RESULT
from vlmpass.ir_tools.types.frame import Frame

__all__ = ["DECIDED", "Decide"]

Decide = Callable[[Frame, ir.Node], "str | None"]


def _input(frame: Frame, node: ir.Node, index: int = 0) -> str | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return frame.types.get(value) if value is not None else None


def _named(frame: Frame, node: ir.Node, name: str) -> str | None:
    """Return the type that an integer attribute names; None for a number that is no type's."""
    dtype = numbered_type(frame.integer(node, name) or 0)
    return tensor(dtype) if dtype else None


def _by(name: str, default: ir.DataType | None = None) -> Decide:
    """Decide by an integer attribute; without it by the default, and without that by input 0."""

    def decide(frame: Frame, node: ir.Node) -> str | None:
        if frame.integer(node, name):
            return _named(frame, node, name)
        return tensor(default) if default is not None else _input(frame, node)

    return decide


def _or_input(name: str, index: int) -> Decide:
    """Decide by an integer attribute; without it, by an input."""

    def decide(frame: Frame, node: ir.Node) -> str | None:
        named = bool(frame.integer(node, name))
        return _named(frame, node, name) if named else _input(frame, node, index)

    return decide


def _quantized(frame: Frame, node: ir.Node) -> str | None:
    return _input(frame, node, 2) or _by("output_dtype", ir.DataType.UINT8)(frame, node)


_SCALAR_FORMS = {
    "value_float": ir.DataType.FLOAT,
    "value_floats": ir.DataType.FLOAT,
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
    "value_string": ir.DataType.STRING,
    "value_strings": ir.DataType.STRING,
}


def _tensor_dtype(frame: Frame, node: ir.Node) -> ir.DataType | None:
    value = frame.attribute(node, "value")
    if value is None or value.type != ir.AttributeType.TENSOR:
        return None
    held: ir.TensorProtocol = value.value  # as_tensor() checks a protocol, which takes 30 us
    return held.dtype


def _constant(frame: Frame, node: ir.Node) -> str | None:
    held = _tensor_dtype(frame, node)
    if held is not None:
        return tensor(held)
    for name, dtype in _SCALAR_FORMS.items():
        if name in node.attributes:
            return tensor(dtype)
    return None


def _constant_of_shape(frame: Frame, node: ir.Node) -> str | None:
    return tensor(_tensor_dtype(frame, node) or ir.DataType.FLOAT)


def _sequence_empty(frame: Frame, node: ir.Node) -> str | None:
    held = _by("dtype", ir.DataType.FLOAT)(frame, node)
    return sequence_of(held) if held is not None else None


def _sequence(frame: Frame, node: ir.Node) -> str | None:
    held = _input(frame, node)
    return sequence_of(held) if held is not None else None


def _held(frame: Frame, node: ir.Node) -> str | None:
    holder = _input(frame, node)
    return element(holder) if holder is not None else None


def _got(frame: Frame, node: ir.Node) -> str | None:
    """OptionalGetElement: since version 18 what is no optional passes through."""
    given = _input(frame, node)
    return element(given) if given is not None and given.startswith("optional(") else given


def _optional(frame: Frame, node: ir.Node) -> str | None:
    given = _input(frame, node)
    if given is None:
        attribute = frame.attribute(node, "type")
        if attribute is None or attribute.type != ir.AttributeType.TYPE_PROTO:
            return None
        given = spell(attribute.value.type)
    return f"optional({given})" if given is not None else None


def _like(*indices: int) -> Decide:
    """Decide by the first of some inputs that is there."""

    def decide(frame: Frame, node: ir.Node) -> str | None:
        return next((kind for i in indices if (kind := _input(frame, node, i))), None)

    return decide


_FLOAT = ir.DataType.FLOAT

DECIDED: Mapping[tuple[str, str], Mapping[int, Decide]] = {
    **{operator: {0: _by(*decides)} for operator, decides in RESULT.items()},
    ("", "Constant"): {0: _constant},
    ("", "ConstantOfShape"): {0: _constant_of_shape},
    ("", "Multinomial"): {0: _by("dtype", ir.DataType.INT32)},
    ("", "QuantizeLinear"): {0: _quantized},
    ("", "DequantizeLinear"): {0: _or_input("output_dtype", 1)},
    ("", "LayerNormalization"): {1: _by("stash_type", _FLOAT), 2: _by("stash_type", _FLOAT)},
    ("", "SequenceEmpty"): {0: _sequence_empty},
    ("", "SequenceConstruct"): {0: _sequence},
    ("", "SplitToSequence"): {0: _sequence},
    ("", "SequenceAt"): {0: _held},
    ("", "ConcatFromSequence"): {0: _held},
    ("", "Optional"): {0: _optional},
    ("", "OptionalGetElement"): {0: _got},
    ("", "LinearAttention"): {1: _like(3, 0)},
    ("", "SimplifiedLayerNormalization"): {1: _by("stash_type", _FLOAT)},
    ("com.microsoft", "GroupQueryAttention"): {1: _like(3, 0), 2: _like(4, 0)},
    ("com.microsoft", "LinearAttention"): {1: _like(3, 0)},
    ("com.microsoft", "MultiHeadAttention"): {3: _like(0)},
    ("com.microsoft", "DecoderMaskedMultiHeadAttention"): {3: _like(0)},
    ("com.microsoft", "QuantizeLinear"): {0: _quantized},
}
