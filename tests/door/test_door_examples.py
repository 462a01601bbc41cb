"""The examples run and say what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest
from door_tools import mlp_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name, tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "full type check passed" in result.stdout
    assert "5 outputs equal" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_python_of_the_readme(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = text.partition("## From Python")[2].partition("\n## ")[0]
    mlp_model(tmp_path, "in.onnx")
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    for block in section.split("```python\n")[1:]:
        exec(block.partition("```")[0], found)
    assert found["proto"].opset_import[0].version == 18
    assert found["equal"]
