"""Passes found by entry point: names, files, lazy imports, broken packages of others."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import vlmpass.passes
from vlmpass.ir_tools.errors import PipelineError
from vlmpass.passes import parse
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.options import options_of, summary_of
from vlmpass.passes.pipeline.registry import GROUP, PASSES, Registry

FOLDER = Path(vlmpass.passes.__file__).parent


def pass_files() -> dict[str, str]:
    """Name of the pass class by module, for the modules that have one."""
    found = {}
    for path in FOLDER.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Pass" for base in node.bases
            ):
                found[path.stem] = node.name
    return found


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group=GROUP)))
def test_a_registered_pass_is_what_it_says(name: str) -> None:
    cls = PASSES[name]
    assert issubclass(cls, Pass)
    assert cls.name == name
    assert cls.__module__.startswith("vlmpass.passes.")
    assert cls.__module__.rpartition(".")[2] == name.replace("-", "_")
    assert summary_of(cls).endswith(".")
    assert all(option.doc for option in options_of(cls)), "every option has a docstring"


def test_every_pass_file_is_registered() -> None:
    registered = {name.replace("-", "_") for name in PASSES}
    assert set(pass_files()) <= registered


def test_listing_names_imports_neither_passes_nor_onnx_ir() -> None:
    code = (
        "import sys; from vlmpass.passes.pipeline.registry import PASSES\n"
        "assert 'infer' in list(PASSES);"
        "assert 'onnx_ir' not in sys.modules; assert 'vlmpass.passes.infer' not in sys.modules;"
        "PASSES['fix-names']; assert 'vlmpass.passes.infer' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A second package on the path: one good pass, several bad ones."""
    info = tmp_path / "other-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\n"
        "good = other_passes:Good\n"
        "missing = other_missing:Good\n"
        "raising = other_raising:Good\n"
        "misnamed = other_passes:Good\n"
        "no-pass = other_passes:dataclass\n"
        "infer = other_passes:Good\n"
    )
    (tmp_path / "other_passes.py").write_text(
        "from dataclasses import dataclass\n"
        "from vlmpass.passes.pipeline.base import Pass\n"
        "@dataclass(frozen=True)\n"
        "class Good(Pass):\n"
        '    """Do good."""\n'
        "    name = 'good'\n"
        "    def run(self, model): return False\n"
    )
    (tmp_path / "other_raising.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Registry()


def test_passes_of_other_packages_are_found(plugins: Registry) -> None:
    (found,) = parse("good", plugins)
    assert str(found) == "good"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"pass 'missing' of other_missing:Good \(other 1.2\) cannot be loaded: Mod"),
        ("raising", "cannot be loaded: RuntimeError: no licence; repair or uninstall"),
        ("misnamed", "is not a Pass with the name 'misnamed'"),
        ("no-pass", "is not a Pass with the name 'no-pass'"),
        ("infer", r"registered more than once, by .*other_passes:Good \(other 1.2\)"),
    ],
)
def test_a_broken_package_harms_only_who_names_its_pass(
    plugins: Registry, name: str, message: str
) -> None:
    assert name in list(plugins)
    assert len(parse("good,fix-names", plugins)) == 2
    with pytest.raises(PipelineError, match=message) as caught:
        parse(f"good,{name}", plugins)
    assert str(caught.value).endswith("     " + "^" * len(name))
