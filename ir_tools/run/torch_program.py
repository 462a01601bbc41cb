"""A PyTorch module as a program that takes and gives arrays."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import ml_dtypes
import numpy as np

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.program import Program, See
from vlmpass.ir_tools.run.torch_hooks import arrays_in, watching
from vlmpass.ir_tools.worker.transport import Array

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["Module", "is_module", "program_of"]

Module: TypeAlias = "torch.nn.Module"


def is_module(given: object) -> bool:
    """Whether something is a module; PyTorch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.nn.Module)


def program_of(module: torch.nn.Module, names: Sequence[str]) -> Program:
    """Return a module as a program.

    Args:
        module: In evaluation mode, on the CPU.
        names: Of a model's inputs: the module is given them as arguments of these names where its
            ``forward`` has such, and else by place, in this order.

    Raises:
        VerifyError: It is in training mode, or takes fewer arguments.
    """
    if module.training:
        raise VerifyError(
            f"the {type(module).__name__} is in training mode, in which it may draw at random",
            remedy="call its eval() first",
        )
    called = _calling(module, names)
    settled = False

    def run(inputs: Mapping[str, object]) -> list[Array]:
        nonlocal settled
        made = called(inputs)
        if not settled and not _same(made, called(inputs)):
            raise VerifyError(
                "the module gives other numbers when it runs once more, and cannot be compared",
                remedy="take what draws at random out of it, or keep its state in arguments",
            )
        settled = True
        return made

    paths: dict[str, str] = {}
    first: dict[int, str] = {}
    for path, each in module.named_modules(remove_duplicate=False):
        paths[path] = first.setdefault(id(each), path)

    def watched(inputs: Mapping[str, object], see: See) -> None:
        with watching(module, see):
            called(inputs)

    return Program(run, "pytorch", watched, paths)


def _same(one: Sequence[Array], two: Sequence[Array]) -> bool:
    return [each.tobytes() for each in one] == [each.tobytes() for each in two]


def _calling(
    module: torch.nn.Module, names: Sequence[str]
) -> Callable[[Mapping[str, object]], list[Array]]:
    """Return a function that runs a module on arrays by the names of a model's inputs."""
    import torch

    parameters = inspect.signature(module.forward).parameters.values()
    by_name = {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_ended = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    named = {*names} <= by_name
    if not named and len(names) > len(placed) and not open_ended:
        raise VerifyError(
            f"the {type(module).__name__} takes {len(placed)} arguments by place, and the model"
            f" {len(names)} inputs",
            remedy="wrap it in a module whose forward takes the model's inputs, in their order",
        )

    def call(inputs: Mapping[str, object]) -> list[Array]:
        tensors = {name: _tensors(inputs[name]) for name in names if name in inputs}
        with torch.no_grad():
            return arrays_in(module(**tensors) if named else module(*tensors.values()))

    return call


def _tensors(given: object) -> object:
    """Return an array as a tensor of its own, and a sequence of them as a list."""
    import torch

    if isinstance(given, list):
        return [_tensors(each) for each in given]
    if not isinstance(given, np.ndarray):
        return given
    array = np.array(given)  # what is mapped is not written to
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
