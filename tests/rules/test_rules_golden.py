"""Whole blocks through whole pipelines, as golden files."""

from __future__ import annotations

from pathlib import Path

import pytest
from rewrite.golden import golden

FILES = sorted((Path(__file__).parent / "golden").glob("*.onnxtxt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    golden(path, update=bool(request.config.getoption("--update")))


def test_an_outdated_file_is_shown_as_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "old.onnxtxt"
    text = "// -p simplify\ng (float[n] x) => (float[n] y) { i = Identity(x) y = Neg(i) }"
    path.write_text(f"{text}\n// -----\n%0 = Identity(in0)\n")
    with pytest.raises(AssertionError, match=r"-%0 = Identity(?s:.*)\+%0 = Neg\(in0\)"):
        golden(path, update=False)
    golden(path, update=True)
    golden(path, update=False)
