"""Executors that fail on purpose."""

from __future__ import annotations

import os
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

__all__ = ["Breaking"]


class Breaking(ProcessPoolExecutor):
    """Loses a worker after some tasks; a pool of processes is broken by that."""

    after, submitted = 0, 0

    def submit(self, *given: Any, **more: Any) -> Future[Any]:
        self.submitted += 1
        if self.submitted == self.after:
            super().submit(os._exit, 9)
        return super().submit(*given, **more)
