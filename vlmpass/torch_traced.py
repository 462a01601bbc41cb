"""A call in the form that PyTorch's older exporter traces: tensors in, tensors out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from vlmpass.ir_tools.errors import ArgumentError
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.torch_values import Call

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["axes_of", "flat_module", "forget_traced", "input_names"]


def flat_module(call: Call) -> torch.nn.Module:
    """Return a module that takes the tensors of a call alone, and gives those of its outputs."""
    import torch

    class Flat(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.module = call.module

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(call.leaves(tensors))

    return Flat().eval()


def input_names(call: Call) -> list[str]:
    """Name the tensors of a call as its module names its arguments, such as ``cache_0_1``."""
    return ["_".join(map(str, path)) for path in _paths(call)]


def axes_of(call: Call, names: Sequence[str], dynamic: object) -> list[dict[int, str]]:
    """Return for every tensor of a call which axes vary, and what they are called.

    Args:
        call: The call.
        names: Of its tensors, after which axes are called that have no name of their own.
        dynamic: What `torch.export` calls dynamic shapes.

    Raises:
        ArgumentError: It does not fit the arguments.
    """
    if dynamic is None:
        return [{} for _ in names]
    order = _parameters(call)
    found = []
    for path, tensor, name in zip(_paths(call), call.tensors, names, strict=False):
        place = "_".join(map(str, path))
        varies = _below(dynamic, path, order)
        if not isinstance(varies, (Mapping, list, tuple)) and varies is not None:
            raise ArgumentError(f"dynamic: {place} takes dimensions by axis")
        pairs = varies.items() if isinstance(varies, Mapping) else enumerate(varies or ())
        axes = {int(axis): _called(dim, name, int(axis)) for axis, dim in pairs}
        if any(not 0 <= axis < tensor.dim() for axis in axes):
            raise ArgumentError(f"dynamic: {place} has {tensor.dim()} axes, not {max(axes) + 1}")
        found.append({axis: dim for axis, dim in axes.items() if dim})
    return found


def forget_traced(model: ir.Model) -> None:
    """Let what comes of operators that ONNX has not be of any size: the trace tells that of one.

    Args:
        model: What was traced with sizes that vary, changed in place.
    """
    reached: set[ir.Value | None] = set()
    for node in model.graph:
        inner = [value for graph in subgraphs(node) for each in graph for value in each.inputs]
        if not node.domain and reached.isdisjoint([*node.inputs, *inner]):
            continue
        reached.update(node.outputs)
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape([None] * len(value.shape))


def _parameters(call: Call) -> list[str]:
    return list(inspect.signature(call.module.forward).parameters)


def _paths(call: Call) -> list[tuple[object, ...]]:
    """Return where the tensors of a call stand: an argument's name, and what leads on from it."""
    order = _parameters(call)
    found: list[tuple[object, ...]] = []
    for first, *rest in call.places():
        name = order[first] if isinstance(first, int) and first < len(order) else first
        found.append((name, *rest))
    return found


def _below(dynamic: Any, path: Sequence[object], order: Sequence[str]) -> Any:
    """Return what is said of a place; None where nothing is."""
    for depth, key in enumerate(path):
        if dynamic is None:
            return None
        at_top = depth == 0 and not isinstance(dynamic, Mapping)
        step: Any = order.index(str(key)) if at_top and str(key) in order else key
        try:
            dynamic = dynamic.get(step) if isinstance(dynamic, Mapping) else dynamic[step]
        except (IndexError, TypeError) as error:
            raise ArgumentError(
                f"dynamic says nothing that fits {'_'.join(map(str, path))}"
            ) from error
    return dynamic


def _called(dim: Any, name: str, axis: int) -> str:
    """Return the name of a dimension that varies; none for one that does not."""
    import torch

    hints: Any = torch.export.Dim
    if dim is None or isinstance(dim, int) or dim == hints.STATIC:
        return ""
    if isinstance(dim, str):
        return dim
    return str(getattr(dim, "__name__", "") or f"{name}_{axis}")
