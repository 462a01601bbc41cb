"""Save models of any size: hard shard limits, bounded memory, complete files or none."""

from vlmpass.ir_tools.save.layout import Layout
from vlmpass.ir_tools.save.report import SavedFile, SaveReport
from vlmpass.ir_tools.save.saving import save
from vlmpass.ir_tools.save.size import format_size, parse_size

__all__ = ["Layout", "SaveReport", "SavedFile", "format_size", "parse_size", "save"]
