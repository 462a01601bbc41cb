"""Folders of models to load, and the peak memory of code in a process of its own."""

import subprocess
import sys
import textwrap

import pytest
from load_external import DATA


@pytest.fixture
def peak_mb(tmp_path):
    """Run code that sets `before = peak()`; return by how many MB the peak RSS grew after it."""

    def run(code):
        program = (
            "import resource\n"
            "def peak():\n"
            "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            + textwrap.dedent(code)
            + "\nprint((peak() - before) / 1024)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(DATA)
    (tmp_path / "model" / "w.bin").write_bytes(DATA)
    return tmp_path / "model"


@pytest.fixture
def link(tmp_path):
    """Make a symbolic link, or skip the test where the system does not allow it."""

    def make(path, target):
        try:
            path.symlink_to(target)
        except OSError:
            pytest.skip("no symbolic links here")

    return make
