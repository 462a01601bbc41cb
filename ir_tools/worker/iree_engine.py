"""IREE as an engine of the process that runs models: compiled for this CPU, in its own types."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Iree"]

_FLAGS = (
    "--iree-input-type=onnx",
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-input-demote-f64-to-f32=false",
    "--iree-opt-level=O1",
)
"""Of its compiler: double stays double, and the level keeps whole models to seconds."""


_NAME = "main_graph"
"""Of the function that a model becomes."""


class Iree:
    """A model, imported as ``iree-import-onnx`` imports it, and compiled.

    Args:
        request: As the parent asks for it to be opened.

    Raises:
        ValueError: Its importer or compiler refuses the model.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        import onnx_ir as ir  # here: who runs another runtime starts twice as fast without it
        from iree import runtime  # type: ignore[import-untyped,import-not-found,unused-ignore]

        model = _inferred(request)
        given = {each.name for each in model.graph.initializer}
        self._inputs = [each.name for each in model.graph.input if each.name not in given]
        self._outputs: list[str] = request["outputs"]
        self._kinds = [
            ir.DataType(each.type.tensor_type.elem_type).numpy() for each in model.graph.output
        ]
        code = _compiled(model)
        config = runtime.Config("local-sync")
        module = runtime.VmModule.copy_buffer(config.vm_instance, code)
        self._context: Any = runtime.SystemContext(config=config)
        self._context.add_vm_module(module)
        self._function: Any = self._context.modules.module[_NAME]

    def __call__(self, feed: Feed) -> Mapping[str, Array | Sequence[Array] | None]:
        """Return the outputs by name.

        Raises:
            ValueError: A value is no tensor of numbers, or is missing.
        """
        tensors = [_tensor(name, feed.get(name)) for name in self._inputs]
        made = self._function(*tensors)
        made = made if isinstance(made, (list, tuple)) else [made]
        return {
            name: _typed(np.array(value.to_host()), kind)
            for name, value, kind in zip(self._outputs, made, self._kinds, strict=True)
        }


def _typed(value: Array, kind: np.dtype[Any]) -> Array:
    """Return integers with the sign that the model gives them: IREE has none of its own."""
    whole = value.dtype.kind in "iu" and kind.kind in "iu"
    return value.view(kind) if whole and value.itemsize == kind.itemsize else value


def _tensor(name: str, value: Array | Sequence[Array] | None) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OUS":
        raise ValueError(f"the input '{name}' is no tensor of numbers")
    return cast(Array, np.array(value))


def _inferred(request: Mapping[str, Any]) -> Any:
    """Return the model as IREE's importer wants it, the shapes of all values inferred."""
    import onnx

    model = onnx.load(request["model"])
    model.graph.name = _NAME
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _compiled(model: Any) -> bytes:
    from iree.compiler.api import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        Output,
        Session,
        Source,
    )
    from iree.compiler.extras import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        onnx_importer,
    )
    from iree.compiler.ir import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        Context,
    )

    info = onnx_importer.ModelInfo(model)
    module = info.create_module(context=Context()).operation
    onnx_importer.NodeImporter.define_function(info.main_graph, module).import_all()
    session = Session()
    session.set_flags(*_FLAGS)
    invocation = session.invocation()
    invocation.enable_console_diagnostics()
    # What a module of another context is handed over for ends the process.
    text = module.get_asm(assume_verified=True).encode() + b"\0"
    with _heard() as said:
        compiles = invocation.parse_source(Source.wrap_buffer(session, text))
        compiles = compiles and invocation.execute()
    if not compiles:
        raise ValueError(_reason(said[0]))
    output = Output.open_membuffer()
    invocation.output_vm_bytecode(output)
    return bytes(output.map_memory())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Yield a list that holds, in the end, what native code has written to standard error."""
    said: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def _reason(said: str) -> str:
    """Return what a compiler's diagnostics say: its errors, each once."""
    errors = re.findall(r"error: ([^\n]*)", said)
    return "; ".join(dict.fromkeys(errors)) or said.strip() or "it fails without a word"
