"""Every example of a whole system shows what the runtime said before, and a result that is right.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the step 'export from PyTorch' runs these")
FOLDER = Path(__file__).parents[2] / "examples" / "systems"
SHOWN = {
    "above_2gb": 2, "blip": 3, "contrib_decoder": 1, "minicpm_v": 2, "qwen2_gptq": 1, "qwen_vl": 2,
    "whisper": 2,
}  # fmt: skip


def test_no_example_is_left_out():
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts == {*SHOWN, "shown", "table"}


@pytest.mark.parametrize("name", SHOWN)
def test_a_system_is_shown(name, tmp_path):
    script = FOLDER / f"{name}.py"
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert (
        ran.stdout.count("    before: ") == ran.stdout.count("    after:  verified") == SHOWN[name]
    )
    assert list(tmp_path.iterdir()) == []
