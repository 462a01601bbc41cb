"""The child process that runs a model: a crash of a runtime ends this process and no other.

It reads one JSON request a line from its standard input and answers each on its standard output.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np

from vlmpass.ir_tools.system.memory import peak_rss
from vlmpass.ir_tools.worker.bounds import bound_memory, is_out_of_memory
from vlmpass.ir_tools.worker.iree_engine import Iree
from vlmpass.ir_tools.worker.openvino_engine import OpenVino
from vlmpass.ir_tools.worker.transport import Array, Feed, pack, unpack

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["main"]

Engine = Callable[[Feed], Mapping[str, "Array | Sequence[Array] | None"]]

# Element types that ONNX Runtime's Python API cannot tell from numpy's, by ONNX number.
_ONNX_TYPES = {
    16: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype(ml_dtypes.float8_e4m3fn),
    18: np.dtype(ml_dtypes.float8_e4m3fnuz),
    19: np.dtype(ml_dtypes.float8_e5m2),
    20: np.dtype(ml_dtypes.float8_e5m2fnuz),
    24: np.dtype(ml_dtypes.float8_e8m0fnu),
}
_NUMBERS = {dtype: number for number, dtype in _ONNX_TYPES.items()}
_FATAL_ONLY = 4
_FOLD_LIMIT = "optimization.constant_folding_max_output_size_in_bytes"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_LENT_BELOW = 1 << 31
"""Bytes of a tensor from which ONNX Runtime does not take it out of a file that it is lent."""


def _map_file(path: str) -> memoryview:
    with Path(path).open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _open_onnxruntime(request: Mapping[str, Any]) -> Engine:
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False
    # Planned in time quadratic in the values, for every set of sizes anew; and what is planned so
    # is held for longer, which takes many times the memory where there are thousands of nodes.
    options.enable_mem_reuse = options.enable_mem_pattern = False
    # In the order of the file: otherwise what is measured waits until all else has run.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if not request["prepack"]:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if request["fold"] is not None:
        options.add_session_config_entry(_FOLD_LIMIT, str(request["fold"]))
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = request.get("threads", 0)
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[request["optimization"]]
    if request["memory"] is not None:
        bound_memory(request["memory"])
    model: str | bytes = request["model"]
    lent: list[memoryview] = []  # must live until the session is there
    if request.get("largest", 0) >= _LENT_BELOW and os.sep == "/":
        options.add_session_config_entry(_DATA_FOLDER, os.sep)
        model = _rooted(request["files"], request["model"])
    else:
        lent = _lend(options, request["files"], request["model"])
    session = onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=request.get("without", []),
    )
    del lent
    return lambda feed: _run_onnxruntime(session, feed)


def _rooted(files: Mapping[str, str], model: str) -> bytes:
    """Return a model that knows its data files by their paths from the root of the file system.

    ONNX Runtime takes files from below one folder only, and follows no link that leads out of it.
    """
    import onnx

    from vlmpass.ir_tools.proto.proto_tensors import model_tensors

    proto = onnx.load(model, load_external_data=False)
    for tensor in model_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                path = os.path.realpath(files.get(entry.value, Path(model).parent / entry.value))
                entry.value = os.path.relpath(path, os.sep)
    return bytes(proto.SerializeToString())


def _lend(
    options: onnxruntime.SessionOptions, files: Mapping[str, str], model: str
) -> list[memoryview]:
    """Let a model find data files that lie elsewhere under the names it knows them by.

    Returns:
        Maps of the files, to be kept until the session has read them.
    """
    add = getattr(options, "add_external_initializers_from_files_in_memory", None)
    if add is None:
        # Releases without it follow links; the model's folder is a temporary one of ours.
        for name, path in files.items():
            link = Path(model).parent / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        return []
    maps = [_map_file(path) for path in files.values()]
    if maps:
        add(list(files), maps, [len(data) for data in maps])
    return maps


def _run_onnxruntime(
    session: onnxruntime.InferenceSession, feed: Feed
) -> Mapping[str, Array | Sequence[Array] | None]:
    names = [output.name for output in session.get_outputs()]
    tensors = all(output.type.startswith("tensor(") for output in session.get_outputs())
    plain = all(isinstance(v, np.ndarray) and v.dtype != object for v in feed.values())
    if not (tensors and plain):
        results = session.run(None, {k: v for k, v in feed.items() if v is not None})
        return dict(zip(names, results, strict=True))
    values = {name: _to_ort(cast(Array, value)) for name, value in feed.items()}
    outputs = session.run_with_ort_values(None, values)
    return {name: _from_ort(value) for name, value in zip(names, outputs, strict=True)}


def _to_ort(array: Array) -> onnxruntime.OrtValue:
    import onnxruntime

    number = _NUMBERS.get(array.dtype)
    array = np.ascontiguousarray(array).reshape(array.shape)
    if number is None:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, number)


def _from_ort(value: onnxruntime.OrtValue) -> Array:
    dtype = _ONNX_TYPES.get(value.element_type())
    if dtype is None:
        return cast(Array, value.numpy())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return cast(Array, np.frombuffer(raw, np.uint8).view(dtype).reshape(value.shape()))


def _open_reference(request: Mapping[str, Any]) -> Engine:
    import onnx
    from onnx import inliner
    from onnx.reference import ReferenceEvaluator

    if request["memory"] is not None:
        bound_memory(request["memory"])
    # The evaluator wants functions defined before they are called; inlined, order is no question.
    model = inliner.inline_local_functions(onnx.load(request["model"]))
    evaluator = ReferenceEvaluator(model)
    names = [output.name for output in model.graph.output]

    def run(feed: Feed) -> Mapping[str, Array | Sequence[Array] | None]:
        return dict(zip(names, evaluator.run(None, cast(Any, feed)), strict=True))

    return run


_Opened = Callable[[Mapping[str, Any]], Engine]


def _bounded(opened: _Opened) -> _Opened:
    """Return what opens a model as it is opened, in bounded memory."""

    def bounded(request: Mapping[str, Any]) -> Engine:
        if request["memory"] is not None:
            bound_memory(request["memory"])
        return opened(request)

    return bounded


_ENGINES = {
    "onnxruntime": _open_onnxruntime,
    "openvino": _bounded(OpenVino),
    "iree": _bounded(Iree),
    "reference": _open_reference,
}


def _chain(request: Mapping[str, Any]) -> Engine:
    """Return what runs pieces of a model one after the other."""
    if request["memory"] is not None:
        bound_memory(request["memory"])
    pieces = [(_ENGINES[each["backend"]](each), each["takes"]) for each in request["pieces"]]
    last = {name: index for index, (_, takes) in enumerate(pieces) for name in takes}
    wanted = frozenset(request["gives"])

    def run(feed: Feed) -> Mapping[str, Array | Sequence[Array] | None]:
        values: dict[str, Any] = dict(feed)
        for index, (engine, takes) in enumerate(pieces):
            values.update(engine({name: values[name] for name in takes if name in values}))
            for name in takes:
                if last[name] == index and name not in wanted:
                    values.pop(name, None)
        return {name: values[name] for name in request["gives"] if name in values}

    return run


class _Server:
    """Answers requests.

    ``open`` loads a model, and ``chain`` the pieces of one; ``run`` evaluates it, ``load`` only
    tries to load one.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        try:
            if request["do"] == "load":
                _ENGINES[request["backend"]](request)
                return {"ok": True}
            if request["do"] == "open":
                self._engine = _ENGINES[request["backend"]](request)
                return {"ok": True}
            if request["do"] == "chain":
                self._engine = _chain(request)
                return {"ok": True}
            assert self._engine is not None
            feed = unpack(request["manifest"], Path(request["inputs"]))
            # The evaluator works on float numpy arrays and says so when values overflow.
            with np.errstate(all="ignore"):
                outputs = self._engine(feed)
            manifest = pack(outputs, Path(request["outputs"]))
            return {"ok": True, "manifest": manifest, "peak_rss": peak_rss()}
        except Exception as error:  # noqa: BLE001 - for the parent to judge
            kind, said = type(error).__name__, str(error)
            return {"ok": False, "memory": is_out_of_memory(f"{kind} {said}"), "error": said}


def main() -> None:
    """Serve until the standard input ends."""
    # Native code may write to descriptor 1; the answers go through a copy that only we know.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = _Server()
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
