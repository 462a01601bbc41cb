"""Strategy: what is done to a whole model, one file per pass."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmpass.passes.pipeline.base import OptionError, Pass
    from vlmpass.passes.pipeline.manager import PassManager
    from vlmpass.passes.pipeline.report import PassReport, RunReport
    from vlmpass.passes.pipeline.text import parse, render

__all__ = [
    "OptionError",
    "Pass",
    "PassManager",
    "PassReport",
    "RunReport",
    "parse",
    "render",
]

_HOMES = {
    "OptionError": "pipeline.base",
    "Pass": "pipeline.base",
    "PassManager": "pipeline.manager",
    "PassReport": "pipeline.report",
    "RunReport": "pipeline.report",
    "parse": "pipeline.text",
    "render": "pipeline.text",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for; `import vlmpass.passes` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
