"""The parent's end of a child process that answers requests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmpass.ir_tools.system.runtime import web_package
from vlmpass.ir_tools.worker.bounds import MEMORY_EXIT, is_out_of_memory

__all__ = ["Child", "Died"]


class Died(Exception):
    """The child ended before it answered.

    Attributes:
        how: Its exit code or signal, and the last line that it wrote.
        late: Whether it was ended because it took too long.
        memory: Whether it got no more memory.
    """

    def __init__(self, how: str, *, late: bool, memory: bool) -> None:
        super().__init__(how)
        self.how = how
        self.late = late
        self.memory = memory


_WEB = Path(__file__).with_name("web_serve.mjs")
_WEB_MODULE = Path("dist", "ort.wasm.bundle.min.mjs")


def _command(backend: str) -> list[str]:
    """Return what starts a process that answers for a runtime."""
    if backend == "ort-web-wasm":
        return ["node", str(_WEB), str(web_package() / _WEB_MODULE)]
    # The child finds modules exactly where this process does.
    program = (
        f"import sys; sys.path[:] = {sys.path!r};"
        " from vlmpass.ir_tools.worker.serve import main; main()"
    )
    return [sys.executable, "-c", program]


class Child:
    """A process that runs models: one request a line, one answer a line.

    Args:
        log: Where its standard error goes.
        backend: What runs them: one of `RUNTIMES`, or ``reference``.

    Raises:
        VerifyError: It is onnxruntime-web, and not installed.
    """

    def __init__(self, log: Path, backend: str = "onnxruntime") -> None:
        command = _command(backend)
        self._log = log.open("w+b")
        self._late = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )

    def ask(self, request: Mapping[str, object], seconds: float | None = None) -> dict[str, Any]:
        """Return the answer to a request.

        Args:
            request: What `json.dumps` takes.
            seconds: After which the child is killed; None waits for ever.

        Raises:
            Died: It ended, or was killed, instead.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timer = None
        if seconds is not None:
            bounded = min(max(seconds, 0.0), threading.TIMEOUT_MAX)  # longer, and no thread waits
            timer = threading.Timer(bounded, self._end)
            timer.daemon = True
            timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            if timer is not None:
                timer.cancel()
        if not line:
            raise self._epitaph()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """End the process; it answers nothing any more."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def _epitaph(self) -> Died:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        memory = code == MEMORY_EXIT or any(map(is_out_of_memory, last))
        return Died(" ".join([f"it ended with {how}", *last]), late=self._late, memory=memory)
