"""What is known of runtimes before anything is imported that runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from vlmpass.ir_tools.errors import VerifyError

__all__ = [
    "OPTIMIZATIONS",
    "RUNTIMES",
    "RUNTIME_NAMES",
    "Optimization",
    "Runtime",
    "require_onnxruntime",
    "require_runtime",
    "runtime_version",
    "web_package",
]

Optimization = Literal["none", "basic", "extended", "all"]
OPTIMIZATIONS: tuple[Optimization, ...] = ("none", "basic", "extended", "all")
"""ONNX Runtime's levels of graph optimisation."""


Runtime = Literal["onnxruntime", "openvino", "iree", "ort-web-wasm"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino", "iree", "ort-web-wasm")
"""What runs a model that is judged."""

RUNTIME_NAMES: dict[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "iree": "IREE",
    "ort-web-wasm": "onnxruntime-web",
}
"""What they are called."""

_WEB = "ORT_WEB"
_EXTENSION = Path("node_modules", "onnxruntime-web")


@dataclass(frozen=True)
class _Wheels:
    """Wheels that are a runtime: what is imported, whose version counts, what pip is asked for."""

    modules: tuple[str, ...]
    distribution: str
    remedy: str


_WHEELS: dict[Runtime, _Wheels] = {
    "onnxruntime": _Wheels(("onnxruntime",), "onnxruntime", '"vlmpass[runtime]"'),
    "openvino": _Wheels(("openvino",), "openvino", '"vlmpass[targets]"'),
    "iree": _Wheels(
        ("iree.compiler", "iree.runtime"),
        "iree-base-compiler",
        '"vlmpass[targets]"',
    ),
}


def require_runtime(runtime: Runtime) -> None:
    """Check that a runtime is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    if runtime == "ort-web-wasm":
        web_package()
        return
    wheels = _WHEELS[runtime]
    if not all(map(_is_importable, wheels.modules)):
        remedy = f"install it: pip install {wheels.remedy}"
        raise VerifyError(f"{RUNTIME_NAMES[runtime]} is not installed", remedy=remedy)


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def require_onnxruntime() -> None:
    """Check that ONNX Runtime is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    require_runtime("onnxruntime")


def web_package() -> Path:
    """Return the folder of onnxruntime-web, which Node.js runs.

    Raises:
        VerifyError: It or Node.js is not installed, and how to install it.
    """
    if shutil.which("node") is None:
        remedy = "install it, and onnxruntime-web with it"
        raise VerifyError("Node.js, which runs onnxruntime-web, is not installed", remedy=remedy)
    folder = os.environ.get(_WEB, "")
    package = Path(folder).absolute() / _EXTENSION
    if not folder or not (package / "package.json").is_file():
        where = f"under {folder}" if folder else f"known, as {_WEB} is not set"
        remedy = f"npm install onnxruntime-web in a folder, and {_WEB}=FOLDER in the environment"
        raise VerifyError(f"no onnxruntime-web is {where}", remedy=remedy)
    return package


def runtime_version(runtime: Runtime) -> str:
    """Return the name and version of the package of a runtime that is installed.

    Raises:
        VerifyError: It is not, and how to install it.
    """
    require_runtime(runtime)
    if runtime != "ort-web-wasm":
        name = _WHEELS[runtime].distribution
        return f"{name} {metadata.version(name)}"
    text = (web_package() / "package.json").read_text(encoding="utf-8")
    return f"onnxruntime-web {json.loads(text)['version']}"
