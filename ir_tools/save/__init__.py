"""Save models of any size: hard shard limits, bounded memory, complete files or none."""

from typing import TYPE_CHECKING

from vlmpass.ir_tools.system.lazy_imports import lazy

if TYPE_CHECKING:
    from vlmpass.ir_tools.save.layout import Layout
    from vlmpass.ir_tools.save.report import SavedFile, SaveReport
    from vlmpass.ir_tools.save.saving import save
    from vlmpass.ir_tools.save.size import format_size, parse_size

__all__ = ["Layout", "SaveReport", "SavedFile", "format_size", "parse_size", "save"]

__getattr__ = lazy(
    __name__,
    {
        "Layout": "layout",
        "SaveReport": "report",
        "SavedFile": "report",
        "format_size": "size",
        "parse_size": "size",
        "save": "saving",
    },
)
