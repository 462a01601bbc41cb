"""Runs tests of single nodes in onnxruntime-web's WebAssembly build, by Node.js.

`npm install onnxruntime-web` in a folder, and `ORT_WEB=FOLDER` in the environment.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.system.runtime import require_runtime
from vlmpass.ir_tools.worker.child import Child
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import pack, unpack

__all__ = ["UnboundError", "is_there", "run"]

_UNREAD = (
    "unsupported type: ", "unsupported data type: ", "non-tensor typed value",
    "JavaScript binds no", "JavaScript has no",
)  # fmt: skip


class UnboundError(Exception):
    """JavaScript has no array for an input or an output: nothing is known of the node."""


def is_there() -> bool:
    """Whether Node.js and the package are."""
    try:
        require_runtime("ort-web-wasm")
    except VerifyError:
        return False
    return True


@cache
def _home() -> tuple[WorkFolder, Child]:
    home = WorkFolder()
    return home, Child(home.path / "log", "ort-web-wasm")


def run(model: bytes, inputs: list[Any]) -> list[Any]:
    """Return what a model makes of inputs."""
    graph = onnx.ModelProto.FromString(model).graph
    feeds = dict(zip((each.name for each in graph.input), inputs, strict=False))
    if not all(each is None or isinstance(each, np.ndarray) for each in feeds.values()):
        raise UnboundError("a sequence")
    home, _ = _home()
    path, fed, made = (home.path / each for each in ("one.onnx", "fed", "made"))
    path.write_bytes(model)
    _asked({"do": "open", "model": str(path), "files": {}, "optimization": "all"})
    manifest = pack(feeds, fed)
    ran = _asked({"do": "run", "inputs": str(fed), "outputs": str(made), "manifest": manifest})
    return [np.array(each) for each in unpack(ran["manifest"], Path(made)).values()]


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    answer = _home()[1].ask(request)
    if answer["ok"]:
        return answer
    if any(text in answer["error"] for text in _UNREAD):
        raise UnboundError(answer["error"])
    raise RuntimeError(answer["error"])
