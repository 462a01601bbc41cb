"""What is known of ONNX Runtime before anything is imported that runs it."""

from __future__ import annotations

import importlib.util
from typing import Literal

from vlmpass.ir_tools.errors import VerifyError

__all__ = ["OPTIMIZATIONS", "Optimization", "require_onnxruntime"]

Optimization = Literal["none", "basic", "extended", "all"]
OPTIMIZATIONS: tuple[Optimization, ...] = ("none", "basic", "extended", "all")
"""ONNX Runtime's levels of graph optimisation."""


def require_onnxruntime() -> None:
    """Check that ONNX Runtime is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise VerifyError(
            "ONNX Runtime is not installed", remedy='install it: pip install "vlmpass[runtime]"'
        )
