"""Calls of PyTorch modules: their tensors in the order in which an exporter names them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from vlmpass.ir_tools.errors import ArgumentError
from vlmpass.ir_tools.run.torch_hooks import arrays_in
from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.worker.transport import Array

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["Call", "negated", "resized"]


class Call:
    """A module, and the arguments of one call.

    Args:
        module: Left as it is.
        args: Arguments by position.
        kwargs: Arguments by name.

    Raises:
        ArgumentError: There is no tensor among them, or they are none that a call takes.
    """

    def __init__(
        self, module: torch.nn.Module, args: Sequence[object], kwargs: Mapping[str, object] | None
    ) -> None:
        if not isinstance(args, (list, tuple)):
            raise wrong("args", args, "a tuple of arguments")
        if not isinstance(kwargs, Mapping) and kwargs is not None:
            raise wrong("kwargs", kwargs, "arguments by name")
        self.module = module
        given = tuple(args), dict(kwargs or {})
        self._leaves, self._form = _trees().tree_flatten(given)
        self.tensors = tuple(each for each in self._leaves if _is_tensor(each))
        if not self.tensors:
            raise ArgumentError("no tensor is among the arguments, so that nothing can vary")

    def args(self) -> tuple[Any, ...]:
        """Return the arguments by position, the tensors new ones."""
        return cast("tuple[Any, ...]", self._given(self._fresh())[0])

    def kwargs(self) -> dict[str, Any]:
        """Return the arguments by name, the tensors new ones."""
        return cast("dict[str, Any]", self._given(self._fresh())[1])

    def outputs(self, tensors: Sequence[torch.Tensor]) -> list[Array]:
        """Run the module with other tensors in the places of its own; return what it gives.

        Args:
            tensors: As many as `tensors`; they are not changed.
        """
        import torch

        with torch.no_grad():
            return arrays_in(self._called([each.detach().clone() for each in tensors]))

    def leaves(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the module on the very tensors that are given, and return those that it gives."""
        found = _trees().tree_leaves(self._called(tensors))
        return [each for each in found if _is_tensor(each)]

    def places(self) -> list[tuple[int | str, ...]]:
        """Return where its tensors stand: by position or name, then what leads on from there."""
        args, kwargs = self._given(self.tensors)
        pairs, _ = _trees().tree_flatten_with_path((args, kwargs))
        found = [(path, leaf) for path, leaf in pairs if _is_tensor(leaf)]
        return [tuple(_step(key) for key in path[1:]) for path, _ in found]

    def _fresh(self) -> list[torch.Tensor]:
        return [each.detach().clone() for each in self.tensors]

    def _called(self, tensors: Sequence[torch.Tensor]) -> object:
        args, kwargs = self._given(tensors)
        return self.module(*args, **kwargs)

    def _given(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, Any]:
        fresh = iter(tensors)
        leaves = [next(fresh) if _is_tensor(each) else copy.copy(each) for each in self._leaves]
        return cast("tuple[Any, Any]", _trees().tree_unflatten(leaves, self._form))


def resized(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return a tensor of another size that repeats the elements of one, or leaves some out.

    Args:
        tensor: Has at least one element along each axis that is longer then.
        shape: The new one.
    """
    import torch

    for axis, size in enumerate(shape):
        if tensor.shape[axis] not in (0, size):
            places = torch.arange(size) % tensor.shape[axis]
            tensor = tensor.index_select(axis, places)
    return tensor


def negated(tensor: torch.Tensor) -> torch.Tensor:
    """Return numbers of the other sign; what looks like a mask, or counts, stays as it is."""
    if not tensor.is_floating_point() or len(set(tensor.reshape(-1)[:999].tolist())) < 3:
        return tensor
    return -tensor


def _step(key: Any) -> int | str:
    """Return the index, key or name that a step into a tree goes by."""
    for name in ("idx", "key", "name"):
        if hasattr(key, name):
            return cast("int | str", getattr(key, name))
    return str(key)


def _is_tensor(leaf: object) -> bool:
    is_tensor: Callable[[object], bool] = _torch().is_tensor
    return is_tensor(leaf)


def _trees() -> Any:
    """Return what takes arguments apart as `torch.export` does."""
    from torch.utils import _pytree  # type: ignore[import-not-found,unused-ignore]

    return _pytree


def _torch() -> Any:
    import torch

    return torch
