"""Every floor of the house imports from its own and from those below, and from nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parents[1]
FLOORS = ("ir_tools", "rewriter_rules", "passes", "vlmpass")


def imported(path: Path) -> list[str]:
    """The modules that a file names in imports, wherever they stand."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += [f"{node.module}.{each.name}" for each in node.names]
    return found


def floor_of(module: str) -> int | None:
    """Return how high up a module lives; None for one of another package."""
    package, _, rest = module.partition(".")
    if package != "vlmpass":
        return None
    folder = rest.partition(".")[0]
    return FLOORS.index(folder) if folder in FLOORS else FLOORS.index("vlmpass")


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_downwards_only(floor: str) -> None:
    upwards = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sorted((ROOT / floor).rglob("*.py"))
        for module in imported(path)
        if (floor_of(module) or 0) > FLOORS.index(floor)
    ]
    assert not upwards


@pytest.mark.parametrize(
    ("module", "floor"),
    [("vlmpass.passes.pipeline.base.Pass", 2), ("vlmpass.Pipeline", 3), ("onnx_ir", None)],
)
def test_modules_are_told_apart(module: str, floor: int | None) -> None:
    assert floor_of(module) == floor


ROOMS = (
    "errors", "system", "operators", "weights", "graph", "proto", "worker", "load", "check",
    "types", "shapes", "evaluate", "rewrite", "save", "inspecting", "run", "parts", "targets",
)  # fmt: skip
"""The rooms of ir_tools in the order in which they may import from each other."""


def test_rooms_import_from_those_before_them() -> None:
    found = house.rooms()
    assert set(found) <= set(ROOMS)
    upwards = {
        (room, other)
        for room, others in found.items()
        for other in others
        if ROOMS.index(other) > ROOMS.index(room)
    }
    assert not upwards


def test_no_two_files_of_a_floor_share_a_name() -> None:
    assert house.namesakes() == {}


def test_a_file_is_read_at_one_sitting() -> None:
    paths = [
        path for floor in (*FLOORS, "tests", "benchmarks") for path in (ROOT / floor).rglob("*.py")
    ]
    lines = {path.relative_to(ROOT): len(path.read_bytes().splitlines()) for path in paths}
    assert {path: count for path, count in lines.items() if count >= 400} == {}


def test_every_room_has_tests_of_its_name() -> None:
    without = [room for room in ROOMS[1:] if not list((ROOT / "tests" / room).glob("test_*.py"))]
    assert not without


def test_ir_tools_has_no_loose_modules() -> None:
    assert house.loose() == ["__init__.py", "errors.py"]


def test_tables_of_operators_do_not_become_more() -> None:
    assert len(list(house.tables())) <= 12


def test_a_checkout_is_type_checked_whole():
    """What type checkers see of a checkout are links, one for each file of the door."""
    linked = {path.name for path in (ROOT / "typings" / "vlmpass").iterdir()}
    door = {path.name for path in (ROOT / "vlmpass").iterdir() if path.name != "__pycache__"}
    assert linked == door | {"ir_tools", "passes", "rewriter_rules"}


def test_opset_steps_read_like_their_formulas() -> None:
    lengths = house.adapters()
    assert sum(length > 8 for length in lengths) <= 8
    assert lengths[len(lengths) // 2] <= 6


def test_rules_read_attributes_by_what_knows_of_calls() -> None:
    """onnx_ir gives None for an attribute that a call gives, whatever the default is."""
    raw = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "rewriter_rules").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"get_int", "get_float", "get_ints", "get_string", "get_tensor"}
    ]
    assert not raw
