"""The generated pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("page", ["passes.md", "rules.md", "opset.md"])
def test_page_is_up_to_date(fresh, page):
    kept, made = ((folder / page).read_text(encoding="utf-8") for folder in (ROOT / "docs", fresh))
    if page == "opset.md" and f"Of onnx {version('onnx')}:" not in kept:
        pytest.skip("the page was made with another release of onnx, which has other operators")
    assert kept == made, f"{page} is stale; run python docs/generate.py"
