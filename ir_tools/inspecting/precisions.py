"""What each node computes in, as scripts that build TensorRT engines set it on layers.

TensorRT calls a layer as the node is called, and takes `ILayer.precision` and `set_output_type` as
orders where a network is built with types of its own choice (`OBEY_PRECISION_CONSTRAINTS`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.types.typing import Typing, solve

__all__ = ["Precisions", "precisions_of"]

_WORDS = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.FLOAT8E4M3FN: "fp8",
    ir.DataType.DOUBLE: "fp64",
}
_NOT_COMPUTING = frozenset(("Cast", "CastLike", "Constant"))


@dataclass(frozen=True)
class Precisions:
    """What the nodes of a model's main graph compute in: fp32, fp16, bf16, fp8 or fp64.

    Attributes:
        layers: By name of the node; Casts, and nodes without floats, are left out.
        outputs: The types of all outputs of these nodes and of Casts, by name of the node; an empty
            text for one that is no float.
    """

    layers: dict[str, str]
    outputs: dict[str, tuple[str, ...]]


def precisions_of(model: ir.Model) -> Precisions:
    """Return what the nodes compute in: the type of the first float that one gives, else takes.

    Args:
        model: No weight of it is read.

    Raises:
        ModelError: A node has no name, or that of another.
    """
    typing, found = solve(model), Precisions({}, {})
    for node in model.graph:
        if not node.name or node.name in found.outputs:
            told = f"the name '{node.name}', as another has" if node.name else "no name"
            raise ModelError(
                f"a node {node.op_type} has {told}, so that layers cannot be told apart by names",
                remedy="run the pass fix-names",
            )
        outputs = _words(node.outputs, typing)
        found.outputs[node.name] = outputs
        first = next(filter(None, (*outputs, *_words(node.inputs, typing))), "")
        if first and node.op_type not in _NOT_COMPUTING:
            found.layers[node.name] = first
    floats = {name: words for name, words in found.outputs.items() if any(words)}
    return Precisions(found.layers, floats)


def _words(values: Iterable[ir.Value | None], typing: Typing) -> tuple[str, ...]:
    types = (None if value is None else typing.dtype(value) for value in values)
    return tuple("" if dtype is None else _WORDS.get(dtype, "") for dtype in types)
