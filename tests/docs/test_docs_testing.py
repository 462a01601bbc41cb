"""What docs/testing.md says of the generators is what the tests take."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import test_fuzz_again as again
from tests.fuzz import test_fuzz_hostile as hostile
from tests.fuzz import test_fuzz_left_out as left_out

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


def test_the_page_names_models_seeds_and_planted_defects() -> None:
    last = hostile.SEED + hostile.PARTS - 1
    said = (
        f"{left_out.MODELS} models, seed {left_out.SEED}",
        f"{hostile.MODELS} models, seeds {hostile.SEED} to {last}",
        f"{again.PAIRS} pairs, seed {again.SEED}",
        f"| `left_out` | {len(left_out.PLANTS)} |",
        f"| `hostile` | {len(hostile.GUARDED) + len(hostile.PLANTS)} |",
        f"| `again` | {len(again.PLANTS)} |",
    )
    assert [each for each in said if each not in PAGE] == []
