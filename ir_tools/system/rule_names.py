"""Which rules exist, read off their sources: importing them takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from vlmpass.ir_tools.errors import RuleError

__all__ = ["GROUP", "no_rule", "refuse_unwritten", "rule_name", "written_rules"]

GROUP = "vlmpass.rules"
_MAKERS = ("rule", "unfused")
"""The decorators that make one."""
_OURS = "vlmpass."


def rule_name(function: str) -> str:
    """Return the name of the rule that a function of this name is."""
    return function.replace("_", "-").strip("-")


def no_rule(name: str, known: Iterable[str]) -> RuleError:
    """Return the error for an unknown name; it suggests the closest ones."""
    close = get_close_matches(name, list(known), n=3)
    remedy = f"did you mean {' or '.join(close)}?" if close else "`vlmpass rules` lists them"
    return RuleError(f"no rule named '{name}'", remedy=remedy)


def refuse_unwritten(name: str) -> None:
    """Refuse the name of a rule that is surely none; one that passes may be none all the same.

    Raises:
        RuleError: No rule has it.
    """
    known = written_rules()
    if known is not None and name not in known:
        raise no_rule(name, known)


def written_rules() -> tuple[str, ...] | None:
    """Return the names of all rules; None where another package has some, made who knows how."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    if not all(point.module.startswith(_OURS) for point in points):
        return None
    return tuple(name for point in points for name in _in_module(point.module))


def _in_module(module: str) -> Iterator[str]:
    """Yield the names of the rules of a module, or of all modules of a package."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return
    folders = spec.submodule_search_locations
    files = [path for each in folders or () for path in sorted(Path(each).rglob("*.py"))]
    for path in files if folders is not None else [Path(spec.origin)]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(map(_makes_rule, node.decorator_list)):
                yield rule_name(node.name)


def _makes_rule(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else None
    return isinstance(called, ast.Name) and called.id in _MAKERS
