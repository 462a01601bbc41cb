"""Peak memory of code, in a process of its own."""

import subprocess
import sys
import textwrap

import pytest


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
