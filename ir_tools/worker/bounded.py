"""onnx's C++ with limits of time and memory, in a child process that a crash ends alone.

The checker and the shape inference of onnx are bounded by nothing: one corrupt size makes them
allocate gigabytes, nested functions make them run for ever, deep recursion ends the process. The
child starts at the first request, in some 30 ms, and answers all later ones in the time they take.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

from onnx import onnx_cpp2py_export

from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.worker import native

__all__ = ["NativeError", "abandon", "check_model", "infer_shapes", "parse_text"]

_Task = Literal["check", "check structure", "infer", "infer strictly", "parse"]
_NAMES: dict[_Task, str] = {
    "check": "onnx's checker",
    "check structure": "onnx's checker",
    "infer": "onnx's shape inference",
    "infer strictly": "onnx's type check",
    "parse": "onnx's text parser",
}

# Some 100 times what models of exporters need, of which 1 MB without weights (3 000 nodes) takes
# a quarter of a second and 20 MB.
_SECONDS, _SECONDS_PER_MB = 10, 10
_BYTES, _BYTES_PER_BYTE = 512 << 20, 128
# Processor time is what is bounded; where only the clock can be, or something sleeps, this holds.
_CLOCK = 3
_KEEP_BELOW = 4 << 20  # a child that held more than this is not kept


class NativeError(Exception):
    """What onnx's C++ said about a model.

    Args:
        said: Its words.
        kind: The name of the class of its error.
    """

    def __init__(self, said: str, kind: str) -> None:
        super().__init__(said)
        self.said = said
        self.kind = kind


def check_model(path: Path, *, types: bool = True) -> None:
    """Run the checker of onnx on a model file.

    Args:
        path: The file.
        types: Whether with strict type and shape inference.

    Raises:
        NativeError: It rejects the model.
        CheckError: It did not finish within its limits, or crashed.
    """
    _CHILD.ask("check" if types else "check structure", path, path.stat().st_size)


def infer_shapes(model: bytes, *, strict: bool = False) -> bytes:
    """Run the shape inference of onnx on a serialized model.

    Args:
        model: Serialized.
        strict: Whether as the checker does: types are checked and faults raised, and the data of
            shapes are not propagated.

    Returns:
        The model with the types and shapes that it found, serialized.

    Raises:
        NativeError: It rejects the model.
        CheckError: It did not finish within its limits, or crashed.
    """
    return _through_files("infer strictly" if strict else "infer", model)


def parse_text(text: str) -> bytes:
    """Parse a model in the text form of onnx; the result is serialized.

    Raises:
        NativeError: It is no model in that form.
        CheckError: The parser did not finish within its limits, or crashed.
    """
    return _through_files("parse", text.encode())


def abandon() -> None:
    """End what onnx is doing for another thread, if it does something; nobody waits for it."""
    _CHILD.kill()


def _through_files(task: _Task, data: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="vlmpass-onnx-") as folder:
        path, result = Path(folder, "model"), Path(folder, "result")
        path.write_bytes(data)
        _CHILD.ask(task, path, len(data), result)
        return result.read_bytes()


class _Child:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, task: _Task, path: Path, size: int, result: Path | None = None) -> None:
        seconds = _SECONDS + _SECONDS_PER_MB * (size >> 20)
        nbytes = _BYTES + _BYTES_PER_BYTE * size
        request = {"do": task, "path": str(path), "result": str(result or "")}
        with self._lock:
            try:
                line = self._exchange({**request, "seconds": seconds, "nbytes": nbytes}, seconds)
            except BaseException:
                self.stop()  # an answer may be on its way, for nobody
                raise
            code = self.stop() if not line or size > _KEEP_BELOW else 0
        within = f"{seconds} s and {nbytes >> 20} MB"
        if not line:
            raise _unfinished(task, within, _manner(code))
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            if answer["kind"] == "MemoryError" or "bad_alloc" in answer["said"]:
                raise _unfinished(task, within, "wanted more memory")
            raise NativeError(answer["said"], answer["kind"])

    def _exchange(self, request: dict[str, object], seconds: int) -> str:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        clock = threading.Timer(_CLOCK * seconds, process.kill)
        clock.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            clock.cancel()

    def _running(self) -> subprocess.Popen[str]:
        # A forked process must not write into its parent's pipe.
        if self._process is not None and self._owner == os.getpid():
            if self._process.poll() is None:
                return self._process
            self.stop()
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", native.__file__, onnx_cpp2py_export.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        return self._process

    def kill(self) -> None:
        """End the process at once, in whatever thread an answer is waited for."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            process.kill()

    def stop(self) -> int:
        """End the process if it is ours and return how it ended."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return process.returncode


_CHILD = _Child()
atexit.register(_CHILD.stop)


def _manner(code: int) -> str:
    if sys.platform != "win32" and -code == signal.SIGXCPU:
        return "took longer"
    if sys.platform != "win32" and -code == signal.SIGKILL:
        return "took longer or was killed"
    return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"


def _unfinished(task: _Task, within: str, manner: str) -> CheckError:
    return CheckError(
        f"{_NAMES[task]} did not finish within {within} ({manner}), so that nothing is known of "
        "this model",
        remedy="look for corrupt sizes in its constants and shapes, and for functions that "
        "multiply",
    )
