"""The child process that runs onnx's C++: checker, shape inference and text parser.

It loads the compiled module of onnx and nothing else, not even numpy, so that it is there within
some 30 ms. It reads one JSON request a line from its standard input and answers each on its
standard output; what is large goes through files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def _load(path: str) -> Any:
    # Without the package around it, which would import numpy and protobuf.
    spec = importlib.util.spec_from_file_location("onnx_cpp2py_export", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _limit(seconds: int, nbytes: int) -> None:
    """Bound what this process may take from now on, where the system can do that."""
    if sys.platform == "win32":
        return
    import resource

    spent = int(time.process_time()) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, hard))
    if sys.platform == "linux":  # macOS takes the limit and does not keep it
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        held = pages * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + nbytes, hard))


def _do(onnx: Any, request: dict[str, Any]) -> None:
    path = Path(request["path"])
    if request["do"] == "check":
        onnx.checker.check_model_path(str(path), True, False, False)
    elif request["do"] == "check structure":
        onnx.checker.check_model_path(str(path), False, False, False)
    elif request["do"] in ("infer", "infer strictly"):
        # Strictly is how the full check infers: types checked, faults raised, no data propagated.
        strict = request["do"] == "infer strictly"
        made = onnx.shape_inference.infer_shapes(path.read_bytes(), strict, strict, not strict)
        Path(request["result"]).write_bytes(made)
    else:
        done, said, made = onnx.parser.parse_model(path.read_text(encoding="utf-8"))
        if not done:
            raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else said)
        Path(request["result"]).write_bytes(made)


def _answer(onnx: Any, request: dict[str, Any]) -> dict[str, object]:
    try:
        _limit(request["seconds"], request["nbytes"])
        _do(onnx, request)
    except Exception as error:  # noqa: BLE001 - for the parent to judge
        return {"ok": False, "kind": type(error).__name__, "said": str(error)}
    return {"ok": True}


def main() -> None:
    """Serve until the standard input ends."""
    # Ctrl-C is for the parent, which ends this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Native code may write to descriptor 1; the answers go through a copy that only we know.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    onnx = _load(sys.argv[1])
    for line in sys.stdin:
        answers.write(json.dumps(_answer(onnx, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
