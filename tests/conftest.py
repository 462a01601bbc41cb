"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A run in the background ignores Ctrl-C, and so would every process that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let golden files be written anew from what the code does."""
    parser.addoption("--update", action="store_true", help="rewrite the golden files")
