"""All rules under test, with the hints for their random graphs and the cases written out.

The cases of a module of rules lie in the file of its name beside this one, found by being there:
FIRES, REFUSES and, where a pattern does not say all about random graphs, HINTS.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from rules.instances import Hints
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.restore import RESTORE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.substitute import SUBSTITUTE
from vlmpass.rewriter_rules.unfuse import UNFUSE

__all__ = ["CASES", "FIRES", "HINTS", "NO_KERNEL", "REFUSES", "ROUNDING", "RULES", "RUNNING"]

RULES = [*SIMPLIFY, *FUSE, *UNFUSE, *SUBSTITUTE, *RESTORE]
HERE = Path(__file__).parent
CASES: dict[str, ModuleType] = {
    name: import_module(f"rules.{name}")
    for family in ("simplify", "fuse", "unfuse", "substitute", "restore")
    for path in sorted((HERE / family).rglob("[a-z]*.py"))
    for name in [".".join(path.relative_to(HERE).with_suffix("").parts)]
}
FIRES = {name: cases for module in CASES.values() for name, cases in module.FIRES.items()}
REFUSES = {name: cases for module in CASES.values() for name, cases in module.REFUSES.items()}
HINTS: dict[str, Hints] = {
    name: hints for module in CASES.values() for name, hints in getattr(module, "HINTS", {}).items()
}
ROUNDING = {rule.name: 4e-3 for rule in RESTORE}
"""How much of a result these rules change, as what they read was rounded to a half."""
ROUNDING |= {rule.name: 1.0 for rule in UNFUSE if "-q-linear-" in rule.name}
"""Numbers that floats are rounded to may be the next ones."""
NO_KERNEL = {
    rule.name
    for rule in UNFUSE
    if "ONNX Runtime has it for GPUs alone" in " ".join(rule.doc.split())
}
"""Rules of operators that nothing runs here; tests/unfuse compares them with numpy."""
RUNNING = [rule for rule in RULES if rule.name not in NO_KERNEL]
