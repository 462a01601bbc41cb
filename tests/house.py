"""Counts of what the house is to have one of: `python -m tests.house` prints them.

`tests/test_layers.py` holds the house to the limits below.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[1]
FLOORS = ("ir_tools", "rewriter_rules", "passes", "vlmpass")
OPERATORS = frozenset(each.name for each in onnx.defs.get_all_schemas())
_MANY = 4
"""From how many operators on a module-level value is a table of operators."""


def sources(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def tables() -> Iterator[tuple[str, str, int]]:
    """Tables of operators outside `operators/`: file, name, how many operators it names."""
    for floor in FLOORS:
        for path in sources(floor):
            if "operators" in path.relative_to(ROOT).parts:
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    named = {word for text in _texts(node.value) for word in text.split()}
                    if len(named & OPERATORS) >= _MANY and isinstance(target, ast.Name):
                        place = path.relative_to(ROOT).as_posix()
                        yield place, target.id, len(named & OPERATORS)


def _texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def loose() -> list[str]:
    """Modules that lie in ir_tools itself, and in no room of it."""
    return [path.name for path in sorted((ROOT / "ir_tools").glob("*.py"))]


def namesakes() -> dict[str, list[str]]:
    """Files of one name within a floor."""
    found: dict[str, list[str]] = defaultdict(list)
    for floor in FLOORS:
        names = Counter(path.name for path in sources(floor) if path.name[0] != "_")
        for path in sources(floor):
            if names[path.name] > 1 and path.name[0] != "_":
                found[f"{floor}: {path.name}"].append(path.relative_to(ROOT).as_posix())
    return dict(found)


def adapters() -> list[int]:
    """How many statements' lines the bodies of opset adapters have, docstrings left out."""
    lengths = []
    for path in sources("rewriter_rules/opset"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(map(_enters, node.decorator_list)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lengths.append(body[-1].end_lineno - body[0].lineno + 1 if body else 0)
    return sorted(lengths)


def _enters(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id in ("adapter", "expansion")


def rooms() -> dict[str, set[str]]:
    """Which rooms of ir_tools import from which others."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sources("ir_tools"):
        parts = path.relative_to(ROOT / "ir_tools").parts
        room = parts[0] if len(parts) > 1 else path.stem
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "vlmpass.ir_tools."
            ):
                other = str(node.module).split(".")[2]
                if other != room:
                    found[room].add(other)
    return dict(found)


def lines() -> int:
    return sum(len(p.read_text(encoding="utf-8").splitlines()) for f in FLOORS for p in sources(f))


def main() -> None:
    lengths = adapters()
    print(f"operator tables outside operators/: {len(list(tables()))}")
    for place, name, count in tables():
        print(f"  {place}: {name} ({count})")
    print(f"loose modules in ir_tools: {', '.join(loose())}")
    print(f"files sharing a name within a floor: {namesakes()}")
    above = sum(length > 8 for length in lengths)
    print(f"adapters: {len(lengths)}, above 8 lines: {above}, median {lengths[len(lengths) // 2]}")
    for room, others in sorted(rooms().items()):
        print(f"  {room} <- {', '.join(sorted(others))}")
    print(f"lines: {lines()}")


if __name__ == "__main__":
    main()
