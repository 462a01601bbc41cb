"""The recipes of docs/extending.md work as they stand on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.S | re.M))
MISSING = "vlmpass.rewriter_rules.opset.table._TABLE.pop(('TopK', 11, 10))"
"""The recipe of a step enters one that vlmpass has: there, it is taken out first."""


def written(recipe: str, folder: Path) -> None:
    """Save a recipe's blocks as its reader would, entry points included."""
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", recipe, re.S | re.M):
        if block.startswith("# "):
            name = block.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(block, encoding="utf-8")
        elif kind == "toml":
            lines = re.sub(r'project.entry-points."(.+)"', r"\1", block).replace('"', "")
            info = folder / "mine-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
            (info / "entry_points.txt").write_text(lines)


def test_there_are_recipes() -> None:
    assert len(RECIPES) == 6


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_ends_in_a_green_test(title: str, tmp_path: Path) -> None:
    written(RECIPES[title], tmp_path)
    if title == "An opset step":
        head = f"import vlmpass.rewriter_rules.opset\n\n{MISSING}\n"
        (tmp_path / "conftest.py").write_text(head, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
