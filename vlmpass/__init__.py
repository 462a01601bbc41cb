"""vlmpass: graph-rewrite compiler passes for large ONNX models."""

from __future__ import annotations

from pathlib import Path as _Path

_ROOT = _Path(__file__).resolve().parent.parent
if (_ROOT / "ir_tools").is_dir() and (_ROOT / "pyproject.toml").is_file():
    # In a checkout the other three floors lie beside this folder, not inside it.
    __path__.append(str(_ROOT))

__version__ = "0.1.0"
__all__ = ["__version__"]
