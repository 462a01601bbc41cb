"""vlmpass: graph-rewrite compiler passes for large ONNX models."""

from __future__ import annotations

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING

_ROOT = _Path(__file__).resolve().parent.parent
if (_ROOT / "ir_tools").is_dir() and (_ROOT / "pyproject.toml").is_file():
    # In a checkout the other three floors lie beside this folder, not inside it.
    __path__.append(str(_ROOT))

if TYPE_CHECKING:
    from vlmpass.bisecting import bisect
    from vlmpass.exporting import export
    from vlmpass.genai import convert_genai
    from vlmpass.ir_tools.check import check
    from vlmpass.ir_tools.errors import VlmpassError
    from vlmpass.ir_tools.inspecting.difference import diff
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.parts.parts_runner import run_parts
    from vlmpass.ir_tools.run import verify
    from vlmpass.ir_tools.save import save
    from vlmpass.parts import compose, extract, split
    from vlmpass.pipeline import Pipeline
    from vlmpass.reducing import reduce
    from vlmpass.report import Report
    from vlmpass.slots import simplify, slim

__version__ = "0.1.0"
__all__ = [
    "Pipeline",
    "Report",
    "VlmpassError",
    "__version__",
    "bisect",
    "check",
    "compose",
    "convert_genai",
    "diff",
    "export",
    "extract",
    "load",
    "reduce",
    "run_parts",
    "save",
    "simplify",
    "slim",
    "split",
    "verify",
]

_HOMES = {
    "Pipeline": "pipeline",
    "Report": "report",
    "VlmpassError": "ir_tools.errors",
    "bisect": "bisecting",
    "check": "ir_tools.check",
    "compose": "parts",
    "convert_genai": "genai",
    "diff": "ir_tools.inspecting.difference",
    "export": "exporting",
    "extract": "parts",
    "load": "ir_tools.load",
    "reduce": "reducing",
    "run_parts": "ir_tools.parts.parts_runner",
    "save": "ir_tools.save",
    "simplify": "slots",
    "slim": "slots",
    "split": "parts",
    "verify": "ir_tools.run",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `vlmpass --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Name what is public, imported already or not."""
    return sorted({*globals(), *__all__})
