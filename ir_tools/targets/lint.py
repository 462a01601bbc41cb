"""What is odd about a model whatever the target: it may be valid, and still not what was meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of, source_of
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators.schema import default_opset, history, in_force, since

__all__ = ["Remark", "lint"]

_SMALL = 64
"""Up to how many elements a constant is read."""

_HALF = ir.DataType.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)


class Remark(NamedTuple):
    """Something odd.

    Attributes:
        kind: Which check found it, such as ``newer-operator``.
        reason: What it is, in one line.
        nodes: Every node of it, as it is named.
        remedy: What helps; empty where nothing is known.
    """

    kind: str
    reason: str
    nodes: tuple[str, ...]
    remedy: str


_Said = tuple[str, str, str]
"""The kind, the reason and the remedy of a remark."""


def lint(model: ir.Model) -> tuple[Remark, ...]:
    """Return what is odd, in graph order; nodes that share a reason are told together.

    Args:
        model: One whose values have types and shapes; small constants of it are read.
    """
    found: dict[_Said, list[str]] = defaultdict(list)
    for scope in scopes(model):
        for node in scope.graph:
            for check in _CHECKS:
                for said in check(node, scope):
                    found[said].append(name_node(node))
    return tuple(
        Remark(kind, reason, tuple(nodes), helps) for (kind, reason, helps), nodes in found.items()
    )


def _misplaced(node: ir.Node, scope: Scope) -> Iterator[_Said]:
    """What the imported opset does not have: of a later one, or of another domain."""
    opset = default_opset(scope.opsets)
    if node.domain not in ("", "ai.onnx") or opset is None:
        return
    if since(node.op_type, opset) is not None:
        return
    versions = history(node.op_type)
    if versions:
        reason = f"{node.op_type} is from opset {versions[0]} on, and the model says {opset}"
        yield "newer-operator", reason, f"vlmpass convert --opset {versions[0]}"
    elif in_force("", node.op_type, opset) is not None:
        reason = f"{node.op_type} is no operator of onnx: ONNX Runtime alone has it in this domain"
        yield "misplaced-operator", reason, "vlmpass convert --passes unfuse"


def _baked(node: ir.Node, _: Scope) -> Iterator[_Said]:
    """A Reshape that makes an open first dimension a number."""
    if (node.domain, node.op_type) != ("", "Reshape") or len(node.inputs) < 2:
        return
    data, sizes = node.inputs[0], _small(node.inputs[1])
    if data is None or data.shape is None or not len(data.shape) or sizes is None:
        return
    first = data.shape[0]
    if isinstance(first, ir.SymbolicDim) and first.value and sizes.size and sizes.flat[0] > 0:
        reason = f"the first dimension is {first.value}, and a Reshape says {sizes.flat[0]}"
        yield "baked-batch", reason, "vlmpass convert --passes generalize-axes"


def _unsafe(node: ir.Node, _: Scope) -> Iterator[_Said]:
    """A constant of float32 that is finite, and infinite in float16."""
    for value in node.inputs:
        if value is None or value.dtype is not ir.DataType.FLOAT:
            continue
        numbers = _small(value)
        if numbers is None:
            continue
        large = numbers[np.isfinite(numbers) & (np.abs(numbers) > _LARGEST)]
        if large.size:
            reason = f"the constant {float(large.flat[0]):.3g} is infinite in float16"
            yield "unsafe-constant", reason, "vlmpass convert --dtype float16 keeps such masks"


def _plain_half(node: ir.Node, _: Scope) -> Iterator[_Said]:
    """A normalisation whose squares are summed in float16."""
    kept = node.attributes.get("stash_type")
    if kept is not None and not kept.is_ref() and kept.as_int() == _HALF.value:
        yield "half-norm", f"{node.op_type} takes its statistics in float16", _WIDER
    data = node.inputs[0] if node.inputs else None
    if node.op_type != "ReduceMean" or data is None or data.dtype is not _HALF:
        return
    squared = data.producer()
    if squared is None:
        return
    same = squared.op_type == "Mul" and squared.inputs[0] is squared.inputs[1]
    if same or (squared.op_type == "Pow" and _is_two(squared.inputs[1])):
        yield (
            "half-norm",
            "a mean of squares is taken in float16, which 256 squared overflows",
            _WIDER,
        )


_WIDER = "vlmpass convert --dtype float16 keeps norms in float32"
_CHECKS: tuple[Callable[[ir.Node, Scope], Iterator[_Said]], ...] = (
    _misplaced,
    _baked,
    _unsafe,
    _plain_half,
)


def _is_two(value: ir.Value | None) -> bool:
    numbers = _small(value)
    return numbers is not None and numbers.size == 1 and numbers.flat[0] == 2


def _small(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    tensor = None if value is None else constant_of(source_of(value))
    if tensor is None or tensor.size > _SMALL or tensor.dtype is ir.DataType.STRING:
        return None
    return tensor.numpy()
