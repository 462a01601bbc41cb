"""A second run changes nothing where simplifying and legalizing meet; see the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.legalize.handed_on import found
from vlmpass.ir_tools.rewrite import anything


def test_what_was_made_legal_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: simplifying makes what the target does not run."""
    for planted in (False, True):
        if planted:
            monkeypatch.setattr("vlmpass.passes.simplify.worse", lambda *_: anything)
        ((word, told),) = found(range(36, 37), tmp_path, ["tensorrt-10.15"], 1)
        assert word == ("a second run changes something" if planted else "agrees"), told
