"""Runs tests of single nodes in onnxruntime-web's WebAssembly build, by Node.js.

`npm install onnxruntime-web` in a folder, and `ORT_WEB=FOLDER` in the environment.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["UnboundError", "is_there", "run"]

_RUNNER = Path(__file__).with_name("web_run.mjs")
_TYPES = frozenset(
    {"float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32",
     "int64", "uint64", "bool"}
)  # fmt: skip
_UNREAD = ("unsupported type: ", "unsupported data type: ", "non-tensor typed value")
_PROCESS: list[Any] = []


class UnboundError(Exception):
    """JavaScript has no array for an input or an output: nothing is known of the node."""


def is_there() -> bool:
    """Whether Node.js and the package are."""
    return bool(os.environ.get("ORT_WEB")) and shutil.which("node") is not None


def run(model: bytes, inputs: list[Any]) -> list[Any]:
    """Return what a model makes of inputs."""
    names = [each.name for each in onnx.ModelProto.FromString(model).graph.input]
    feeds = {n: _told(v) for n, v in zip(names, inputs, strict=False) if v is not None}
    request = {"model": base64.b64encode(model).decode(), "inputs": feeds}
    process = _started()
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("@@"):
            answer = json.loads(line[2:])
            break
    else:
        raise EOFError("Node.js ended")
    if answer["how"] == "ran":
        return [_read(each) for each in answer["outputs"]]
    if any(text in answer["said"] for text in _UNREAD):
        raise UnboundError(answer["said"])
    raise RuntimeError(answer["said"])


def _started() -> Any:
    if not _PROCESS:
        folder = Path(os.environ["ORT_WEB"])
        script = folder / _RUNNER.name  # packages are looked for beside the script
        shutil.copy(_RUNNER, script)
        _PROCESS.append(
            subprocess.Popen(
                ["node", script.name],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        )
    return _PROCESS[0]


def _told(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        raise UnboundError("a sequence")
    if value.dtype.kind in "OUS":
        texts = [str(each) for each in value.reshape(-1)]
        return {"type": "string", "dims": list(value.shape), "data": texts}
    if str(value.dtype) not in _TYPES:
        raise UnboundError(str(value.dtype))
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"type": str(value.dtype), "dims": list(value.shape), "data": data}


def _read(told: dict[str, Any]) -> np.ndarray[Any, Any]:
    if told["type"] == "string":
        return np.array(told["data"], object).reshape(told["dims"])
    return np.frombuffer(base64.b64decode(told["data"]), told["type"]).reshape(told["dims"])
