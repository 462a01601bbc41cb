"""What the modules inside a PyTorch module take and give, as arrays."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np

from vlmpass.ir_tools.run.program import Part, See
from vlmpass.ir_tools.worker.transport import Array

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["array_of", "arrays_in", "watching"]


@contextmanager
def watching(module: torch.nn.Module, see: See) -> Iterator[None]:
    """Show what a module and those inside it take and give meanwhile.

    What one takes or gives as another gave it is shown once, except for what the whole gives. It is
    copied before anything is written over it, as a ReLU does in place.
    """
    import torch

    shown = _Shown(see)
    with ExitStack() as stack:
        for path, each in module.named_modules():
            if isinstance(each, torch.jit.ScriptModule):
                continue  # has no hooks of this kind
            before, after = shown.hooks(path)
            stack.callback(each.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(each.register_forward_hook(after).remove)
        yield


class _Shown:
    """Remembers which tensors were shown, as long as they live and are as they were."""

    def __init__(self, see: See) -> None:
        self._see = see
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int | None]] = {}
        self._calls: Counter[tuple[str, bool]] = Counter()

    def hooks(self, path: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """Return what is called before and after a module."""

        def before(_: object, args: object, kwargs: object) -> None:
            self._show(path, True, (args, kwargs))

        def after(_: object, args: object, made: object) -> None:
            self._show(path, False, made)

        return before, after

    def _show(self, path: str, taken: bool, held: object) -> None:
        call = self._calls[path, taken]
        self._calls[path, taken] += 1
        for place, tensor in enumerate(_tensors_in(held)):
            if not self._is_known(tensor) or not (taken or path):
                array = _plain(tensor)
                if array is not None:
                    self._see(Part(path, taken, call, place), array)
            self._known[id(tensor)] = weakref.ref(tensor), _writes(tensor)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        held, writes = self._known.get(id(tensor), (None, None))
        if held is None or writes is None:
            return False
        return held() is tensor and writes == _writes(tensor)


def _writes(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor was written over; None where inference mode does not count it."""
    return None if tensor.is_inference() else tensor._version


def _plain(tensor: torch.Tensor) -> Array | None:
    """Return the elements of a tensor; None for types and layouts that numpy has not."""
    try:
        return array_of(tensor)
    except (TypeError, RuntimeError):
        return None


def array_of(tensor: torch.Tensor) -> Array:
    """Return the elements of a tensor."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return cast(Array, plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(plain.numpy())


def arrays_in(found: object) -> list[Array]:
    """Return the tensors in nested lists, dictionaries and dataclasses, as `torch.export` does."""
    return [array_of(each) for each in _tensors_in(found)]


def _tensors_in(found: object) -> list[torch.Tensor]:
    import torch
    from torch.utils import _pytree  # type: ignore[import-not-found,unused-ignore]

    leaves = cast(Any, _pytree).tree_leaves(found)
    return [each for each in leaves if torch.is_tensor(each)]
