"""Does ONNX Runtime load a model as a user does: with its default session?

A model of few weights is loaded just so. Of a larger one a twin is loaded, in seconds and without
memory: its large weights are stand-ins of the same type and shape, all of them one file of zeros
that takes no disk and is mapped, and weights are neither laid out anew nor widened. What decides
over fusing and folding stays as it is: every small tensor and the integers, which may be shapes,
axes or indices.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.materialize import Staged, stage
from vlmpass.ir_tools.run.runner import RunError, run_error
from vlmpass.ir_tools.system.runtime import require_onnxruntime
from vlmpass.ir_tools.worker.child import Child, Died
from vlmpass.ir_tools.worker.folder import WorkFolder

__all__ = ["EXACT_BYTES", "Loader"]

EXACT_BYTES = 64_000_000
"""Bytes of weights up to which a model is loaded as it is."""

_SMALL = 16 << 10
_INTEGERS = 1 << 20
_ALL_INLINE = 64 << 20  # of small tensors together; more would not fit a protobuf
_TINY = 1 << 10
_FOLDING = 200_000_000
_FOLD_LIMIT = 1 << 20
_WIDENING = "FuseFp16InitializerToFp32NodeTransformer"
"""What computes every weight of float16 in float32; the Casts load as well, and read nothing."""

_ZEROS = "zeros"


class Loader:
    """Tries to load models, one after the other, in one child process.

    Args:
        allowance: What loading one may take.
        exact: Bytes of weights up to which a model is loaded as it is.

    Raises:
        VerifyError: ONNX Runtime is not installed.
    """

    def __init__(self, allowance: Allowance, exact: int = EXACT_BYTES) -> None:
        require_onnxruntime()
        self._allowance = allowance
        self._exact = exact
        self._child: Child | None = None
        self._home = WorkFolder()

    def why_not(self, model: ir.Model) -> RunError | None:
        """Return why ONNX Runtime does not load a model at its default level; None if it does.

        Args:
            model: It is not changed. Its weights are read if they are few.
        """
        folder = WorkFolder()
        try:
            if weight_bytes(model) <= self._exact:
                return self._open(stage(model, folder.path), model, twin=False)
            staged = _stage_twin(model, folder.path)
            # Folding a large weight reads it and takes its size: of many those stay unfolded.
            if staged.nbytes > _FOLDING:
                return self._open(staged, model, memory=_FOLDING, fold=_FOLD_LIMIT)
            found = self._open(staged, model, memory=_FOLDING)
            if found is None or not found.is_stop:
                return found
            return self._open(staged, model, fold=_FOLD_LIMIT)
        finally:
            folder.remove()

    def close(self) -> None:
        """End the process."""
        self._end()
        self._home.remove()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(
        self,
        staged: Staged,
        model: ir.Model,
        *,
        twin: bool = True,
        memory: int | None = None,
        fold: int | None = None,
    ) -> RunError | None:
        allowed = self._allowance.memory if memory is None else memory
        request = {
            "do": "load",
            "backend": "onnxruntime",
            "model": staged.path,
            "files": staged.files,
            "largest": staged.largest,
            "optimization": "all",
            "prepack": not twin,
            "without": [_WIDENING] if twin else [],
            "fold": fold,
            "memory": None if allowed is None else allowed + staged.nbytes,
        }
        if self._child is None:
            self._child = Child(self._home.path / "stderr")
        try:
            answer = self._child.ask(request, self._allowance.seconds())
        except Died as error:
            self._end()
            return run_error("load", "onnxruntime", error, allowed)
        return None if answer["ok"] else run_error("load", "onnxruntime", answer, allowed)


class _StandIns:
    """What is serialised in place of a tensor."""

    def __init__(self) -> None:
        self.largest = 0
        self.nbytes = 0
        self._inline = 0

    def __call__(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        integers = tensor.dtype.is_integer() and tensor.dtype.bitwidth >= 32
        limit = _INTEGERS if integers else _SMALL
        limit = limit if self._inline <= _ALL_INLINE else _TINY
        if tensor.nbytes <= limit or tensor.dtype is ir.DataType.STRING:
            self._inline += tensor.nbytes
            return inline(tensor)
        self.largest = max(self.largest, tensor.nbytes)
        self.nbytes += tensor.nbytes
        shape = ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor(
            _ZEROS, 0, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or ""
        )


def _stage_twin(model: ir.Model, folder: Path) -> Staged:
    stand_in = _StandIns()
    path = folder / "model.onnx"
    path.write_bytes(skeleton(model, stand_in).SerializeToString())
    with (folder / _ZEROS).open("wb") as file:
        file.truncate(stand_in.largest)
    return Staged(str(path), {}, stand_in.nbytes)
