"""The memory figures are those of the process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil

from vlmpass.ir_tools.system.memory import peak_rss, rss

GROW = """
import numpy as np
from vlmpass.ir_tools.system.memory import peak_rss, rss
start, top = rss(), peak_rss()
assert top >= start > 5_000_000
block = np.ones(100_000_000, np.uint8)
assert rss() - start > 95_000_000
assert peak_rss() - start > 95_000_000
del block
assert rss() - start < 20_000_000
assert peak_rss() - start > 95_000_000
"""


def test_growth_and_peak_are_seen() -> None:
    subprocess.run([sys.executable, "-c", GROW], check=True)


def test_it_agrees_with_psutil() -> None:
    block = np.ones(1000)
    assert abs(rss() - psutil.Process().memory_info().rss) < 20_000_000
    assert peak_rss() >= rss() - 20_000_000
    assert block[0] == 1
