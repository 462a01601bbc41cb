"""Are the predictions of a profile what the runtime does? Held to onnx's own tests of single nodes.

    python -m tests.targets.node_tests ort-cpu openvino
    python -m tests.targets.node_tests --types ort-cpu openvino

Each test is run where the runtime is installed, in a child process: it is right, wrong, or refused.
A prediction agrees if it says that the node runs and the result is right, or that it does not, or
that it runs wrongly, and no right result came. What is unknown agrees with nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from tests.targets import iree_run, web
from vlmpass.ir_tools.targets import Context, Support, Verdict, profile, why_not
from vlmpass.ir_tools.targets.node_trials import Case, difference
from vlmpass.ir_tools.targets.node_trials import cases as all_cases
from vlmpass.ir_tools.targets.type_trials import type_cases
from vlmpass.passes import parse
from vlmpass.passes.pipeline.manager import PassManager

NEWEST = 26
_SECONDS = 60
_NUMBERS = {
    16: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype(ml_dtypes.float8_e4m3fn),
    18: np.dtype(ml_dtypes.float8_e4m3fnuz),
    19: np.dtype(ml_dtypes.float8_e5m2),
    20: np.dtype(ml_dtypes.float8_e5m2fnuz),
    21: np.dtype(ml_dtypes.uint4),
    22: np.dtype(ml_dtypes.int4),
    23: np.dtype(ml_dtypes.float4_e2m1fn),
    24: np.dtype(ml_dtypes.float8_e8m0fnu),
    25: np.dtype(ml_dtypes.uint2),
    26: np.dtype(ml_dtypes.int2),
}


def cases() -> tuple[Case, ...]:
    """Return onnx's tests of single nodes up to the newest opset that runtimes read."""
    return all_cases(NEWEST)


def in_types() -> tuple[Case, ...]:
    """Return them in every other type that every interface has."""
    return tuple(type_cases([each for each in cases() if each.is_plain]))


def predicted(case: Case, target: str) -> Verdict:
    """Return what a profile says of the node of a test."""
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(case.model))
    PassManager(parse("infer"), ()).run(model, in_place=True)
    context = _context(target, tuple(sorted(model.opset_imports.items())), model.ir_version)
    return why_not(next(iter(model.graph)), context)


@cache
def _context(target: str, opsets: tuple[tuple[str, int], ...], ir_version: int) -> Context:
    return Context(profile(target), dict(opsets), ir_version)


# The child.


def _serve(pipe: Connection, runtime: str) -> None:
    run = _RUNS[runtime]
    while True:
        model, inputs = pipe.recv()
        try:
            pipe.send(("ran", run(*_with_constants(model, inputs))))
        except web.UnboundError as error:
            pipe.send(("unbound", str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it says is what it does
            pipe.send(("refused", str(error)))


def _run_onnxruntime(model: bytes, inputs: list[Any]) -> list[Any]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = dict(zip((each.name for each in session.get_inputs()), inputs, strict=False))
    if not all(isinstance(each, np.ndarray) and each.dtype.kind != "O" for each in feeds.values()):
        return list(session.run(None, {k: v for k, v in feeds.items() if v is not None}))
    if not all(each.type.startswith("tensor(") for each in session.get_outputs()):
        return list(session.run(None, feeds))
    values = {name: _to_ort(value) for name, value in feeds.items()}
    return [_from_ort(each) for each in session.run_with_ort_values(None, values)]


def _to_ort(array: np.ndarray[Any, Any]) -> Any:
    import onnxruntime

    number = next((n for n, dtype in _NUMBERS.items() if dtype == array.dtype), None)
    if number is None:
        return onnxruntime.OrtValue.ortvalue_from_numpy(_packed(array))
    packed = _packed(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(packed, number)


def _packed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array).reshape(array.shape)


def _with_constants(model: bytes, inputs: list[Any]) -> tuple[bytes, list[Any]]:
    """Return a model whose inputs of less than a byte are constants: nothing binds such arrays."""
    small = [isinstance(each, np.ndarray) and each.dtype in _BITS for each in inputs]
    if not any(small):
        return model, inputs
    proto = onnx.ModelProto.FromString(model)
    names = [each.name for each in proto.graph.input]
    for name, value, is_small in zip(names, inputs, small, strict=True):
        if is_small:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            proto.graph.input.remove(next(e for e in proto.graph.input if e.name == name))
    kept = [each for each, is_small in zip(inputs, small, strict=True) if not is_small]
    return proto.SerializeToString(), kept


def _from_ort(value: Any) -> np.ndarray[Any, Any]:
    import ctypes

    dtype = _NUMBERS.get(value.element_type())
    if dtype is None:
        return value.numpy()
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()), np.uint8)
    return _decoded(raw, dtype, tuple(value.shape()))


def _decoded(
    raw: np.ndarray[Any, Any], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Return an array of bytes, in which elements of less than one are packed."""
    bits = _BITS.get(dtype, 8)
    if bits == 8:
        return raw.view(dtype).reshape(shape)
    apart = np.stack([(raw >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], -1)
    values = apart.reshape(-1)[: int(np.prod(shape))].astype(np.uint8)
    if dtype == np.dtype(ml_dtypes.float4_e2m1fn):
        return values.view(dtype).reshape(shape)
    if dtype in (np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.int2)):
        signed = values.astype(np.int8)
        values = np.where(signed >= 2 ** (bits - 1), signed - 2**bits, signed)
    return values.astype(np.int8).astype(dtype).reshape(shape)


_BITS = {
    np.dtype(ml_dtypes.uint4): 4,
    np.dtype(ml_dtypes.int4): 4,
    np.dtype(ml_dtypes.float4_e2m1fn): 4,
    np.dtype(ml_dtypes.uint2): 2,
    np.dtype(ml_dtypes.int2): 2,
}


def _run_openvino(model: bytes, inputs: list[Any]) -> list[Any]:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [each.name for each in onnx.ModelProto.FromString(model).graph.input]
    given = dict(zip(names, inputs, strict=False))
    request = compiled.create_infer_request()
    left = [each for each in given.values() if each is not None]
    for position, port in enumerate(compiled.inputs):
        # An input that nothing uses is gone; one that a Dropout hands on has another name.
        name = next((each for each in names if each in port.get_names()), None)
        value = left[position] if name is None else given[name]
        request.set_tensor(port, _to_openvino(value))
    request.infer()
    return [_from_openvino(request.get_tensor(port)) for port in compiled.outputs]


_OPENVINO = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "u4": np.dtype(ml_dtypes.uint4),
    "i4": np.dtype(ml_dtypes.int4),
    "f4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
}


def _to_openvino(array: Any) -> Any:
    import openvino

    name = next((name for name, dtype in _OPENVINO.items() if dtype == array.dtype), None)
    if name is None:
        return openvino.Tensor(_packed(array))
    kind = getattr(openvino.Type, name)
    bits = np.uint8 if array.itemsize == 1 else np.uint16
    tensor = openvino.Tensor(kind, openvino.Shape(list(array.shape)))
    tensor.data.view(bits)[...] = _packed(array).view(bits)
    return tensor


def _from_openvino(tensor: Any) -> np.ndarray[Any, Any]:
    dtype = _OPENVINO.get(tensor.element_type.get_type_name())
    if dtype is None:
        return tensor.str_data if tensor.element_type.get_type_name() == "string" else tensor.data
    raw = np.array(tensor.data).reshape(-1).view(np.uint8)
    return _decoded(raw, dtype, tuple(tensor.shape))


_RUNS = {
    "ort-cpu": _run_onnxruntime,
    "openvino": _run_openvino,
    "ort-web-wasm": web.run,
    "iree": iree_run.run,
}


class Runtime:
    """Runs tests in a child process, which is started anew when one ends it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: Any = None
        self._pipe: Any = None

    def outcome(self, case: Case) -> tuple[str, str]:
        """Return `right`, `wrong`, `refused` or `unbound`, and what was said."""
        if self._process is None:
            spawn = multiprocessing.get_context("spawn")
            self._pipe, theirs = spawn.Pipe()
            self._process = spawn.Process(target=_serve, args=(theirs, self._name), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((case.model, case.inputs))
            if not self._pipe.poll(_SECONDS):
                raise EOFError("it took too long")
            how, said = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            return "refused", f"it ended the process {error}"
        if how != "ran":
            return how, str(said)
        problem = difference(case, said)
        return ("wrong", problem) if problem else ("right", "")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None


@dataclass(frozen=True)
class Told:
    """What was predicted of a test, and what came."""

    case: Case
    verdict: Verdict
    outcome: str
    said: str

    @property
    def agrees(self) -> bool:
        if self.verdict.support is Support.UNKNOWN:
            return False
        return self.verdict.runs == (self.outcome == "right")


def told(target: str, chosen: Sequence[Case]) -> Iterator[Told]:
    """Yield prediction and outcome of tests."""
    runtime = Runtime(target)
    try:
        for case in chosen:
            outcome, said = runtime.outcome(case)
            if outcome != "unbound":
                yield Told(case, predicted(case, target), outcome, said)
    finally:
        runtime.close()


def report(target: str, chosen: Sequence[Case]) -> None:
    """Print how many predictions agree, and every one that does not."""
    found = list(told(target, chosen))
    agree = sum(each.agrees for each in found)
    outcomes = dict(Counter(each.outcome for each in found))
    print(f"{target}: {agree} of {len(found)} agree, {agree / len(found):.2%}; {outcomes}")
    for each in found:
        if not each.agrees:
            said = " ".join(each.said.split())[:200]
            print(
                f"  {each.case.name}: {each.verdict.support.word} ({each.verdict.reason}); "
                f"{each.outcome} {said}"
            )


def main(arguments: Sequence[str]) -> int:
    """Print the figures and every disagreement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--types", action="store_true")
    asked = parser.parse_args(arguments)
    chosen = list(in_types() if asked.types else cases())
    if asked.sample:
        chosen = random.Random(asked.seed).sample(chosen, asked.sample)
    for target in asked.targets:
        report(target, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
