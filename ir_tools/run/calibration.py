"""Inputs that a user gives to measure a model with: files of arrays, or generated where asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.inputs import generate_inputs, read_inputs
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["calibration_feeds"]

_SEEDS = 2


def calibration_feeds(given: str, model: ir.Model) -> Sequence[Feed]:
    """Return sets of inputs, each one run.

    Args:
        given: An ``.npz`` file, a folder of them, or ``random`` for generated inputs.
        model: Takes them.

    Raises:
        VerifyError: There are none, or they are not what the model takes.
    """
    if given == "random":
        return tuple(generate_inputs(model, seed=seed) for seed in range(_SEEDS))
    if not os.path.isdir(given):
        return (_held(given, model),)
    files = sorted(each for each in Path(given).iterdir() if each.suffix == ".npz")
    if not files:
        raise VerifyError(f"no .npz file is in the folder {given}", remedy="numpy.savez writes one")
    return tuple(_held(os.fspath(each), model) for each in files)


def _held(file: str, model: ir.Model) -> Feed:
    feed = read_inputs(file, model)
    for value in model.graph.inputs:
        array = feed.get(str(value.name))
        if isinstance(array, np.ndarray) and not _fits(array.shape, value.shape):
            wanted = ", ".join(str(each) for each in value.shape or ())
            raise VerifyError(
                f"{file}: input '{value.name}' is of shape {list(array.shape)}, "
                f"and the model takes [{wanted}]",
                remedy="give arrays in the shapes that the model declares",
            )
    return feed


def _fits(shape: tuple[int, ...], declared: ir.Shape | None) -> bool:
    """Whether an array has a declared shape, as far as that is fixed."""
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        has == takes for has, takes in zip(shape, declared, strict=True) if isinstance(takes, int)
    )
