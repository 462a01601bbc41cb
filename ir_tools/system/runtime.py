"""What is known of runtimes before anything is imported that runs them."""

from __future__ import annotations

import importlib.util
from typing import Literal

from vlmpass.ir_tools.errors import VerifyError

__all__ = [
    "OPTIMIZATIONS",
    "RUNTIMES",
    "Optimization",
    "Runtime",
    "require_onnxruntime",
    "require_runtime",
]

Optimization = Literal["none", "basic", "extended", "all"]
OPTIMIZATIONS: tuple[Optimization, ...] = ("none", "basic", "extended", "all")
"""ONNX Runtime's levels of graph optimisation."""


Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
"""What runs a model that is judged, by the name of its package."""

_EXTRAS = {"onnxruntime": ("ONNX Runtime", "runtime"), "openvino": ("OpenVINO", "targets")}


def require_runtime(runtime: Runtime) -> None:
    """Check that a runtime is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    if importlib.util.find_spec(runtime) is None:
        name, extra = _EXTRAS[runtime]
        remedy = f'install it: pip install "vlmpass[{extra}]"'
        raise VerifyError(f"{name} is not installed", remedy=remedy)


def require_onnxruntime() -> None:
    """Check that ONNX Runtime is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    require_runtime("onnxruntime")
