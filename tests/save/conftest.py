"""Folders of models to save."""

from __future__ import annotations

import pytest
from save_models import (
    write_chain,
)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "o").mkdir()
    return write_chain(tmp_path / "in" / "big.onnx")
