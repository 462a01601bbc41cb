"""ONNX Runtime in a process of its own, so that a model that kills it is one that does not run."""

from __future__ import annotations

import atexit
import multiprocessing
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

NEWEST_OPSET = 26
SECONDS = 20
_FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32}


def _serve(pipe: Connection) -> None:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    while True:
        data, feeds = pipe.recv()
        try:
            session = ort.InferenceSession(data, options)
            given = {each.name: _as(feeds[each.name], each.type) for each in session.get_inputs()}
            pipe.send((False, session.run(None, given)))
        except Exception as error:  # noqa: BLE001 - what ONNX Runtime does not run is not compared
            pipe.send((type(error).__name__ != "NotImplemented", None))


def _as(value: object, kind: str) -> object:
    """Give an input whose element type was changed in that type."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and kind in _FLOATS:
        return value.astype(_FLOATS[kind])
    return value


class Runtime:
    """Starts the process when it is first needed, and again when a model has killed it."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        atexit.register(self.stop)

    def run(self, model: onnx.ModelProto, feeds: Mapping[str, object]) -> list[object] | None:
        """Return what the model computes, unoptimised; None where it does not run."""
        return self._tried(model, feeds)[1]

    def fails(self, model: onnx.ModelProto, feeds: Mapping[str, object]) -> bool:
        """Whether ONNX Runtime, which has its kernels, finds a fault in the model or the inputs."""
        return self._tried(model, feeds)[0]

    def _tried(
        self, model: onnx.ModelProto, feeds: Mapping[str, object]
    ) -> tuple[bool, list[object] | None]:
        if any(each.domain == "" and each.version > NEWEST_OPSET for each in model.opset_import):
            return False, None
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((model.SerializeToString(), dict(feeds)))
            if self._pipe.poll(SECONDS):
                failed, results = self._pipe.recv()
                return failed, results
        except (EOFError, OSError):
            pass
        self.stop()
        return False, None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far,), daemon=True)
        self._process.start()
        far.close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


RUNTIME = Runtime()


def evaluated(model: onnx.ModelProto, feeds: Mapping[str, object]) -> list[object] | None:
    """Return what onnx's reference evaluator makes of a model; None where it fails."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return ReferenceEvaluator(model).run(None, dict(feeds))
    except Exception:  # noqa: BLE001 - whatever it does not run is not compared
        return None
