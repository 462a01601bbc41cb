"""OpenVINO as an engine of the process that runs models: on the CPU, in the model's own types."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np

from vlmpass.ir_tools.worker.transport import Array, Feed

if TYPE_CHECKING:
    import openvino  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["OpenVino"]

_PLAIN = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Neither bfloat16 where the processor has it, nor activations quantised on the way."""

_BRAIN = np.dtype(ml_dtypes.bfloat16)


def _bring(files: Mapping[str, str], model: str) -> None:
    """Bring data files into the folder of a model, a temporary one of ours.

    OpenVINO refuses links that lead out of it. A second name costs nothing; where the files lie on
    another disk, they are copied.

    Args:
        files: Real paths by the names that the model has for them.
        model: Its path.
    """
    for name, path in files.items():
        here = Path(model).parent / name
        if here.exists():
            continue
        try:
            os.link(path, here)
        except OSError:
            shutil.copyfile(path, here)


class OpenVino:
    """A model, compiled.

    Args:
        request: As the parent asks for it to be opened.

    Raises:
        ValueError: It has other inputs or outputs as OpenVINO reads it.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        import openvino

        _bring(request["files"], request["model"])
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(request["model"]), "CPU", _PLAIN)
        self._names: list[str] = request["outputs"]
        if len(self._compiled.outputs) != len(self._names):
            raise ValueError(f"it reads {len(self._compiled.outputs)} outputs of the model")
        self._brain = [each.element_type == openvino.Type.bf16 for each in self._compiled.outputs]
        self._known = {name for each in self._compiled.inputs for name in each.get_names()}

    def __call__(self, feed: Feed) -> Mapping[str, Array | Sequence[Array] | None]:
        """Return the outputs by name.

        Raises:
            ValueError: A value is no tensor, or for no input that OpenVINO has.
        """
        given = {name: value for name, value in feed.items() if value is not None}
        for name, value in given.items():
            if name not in self._known:
                raise ValueError(f"it has no input '{name}', or takes it for a constant")
            if not isinstance(value, np.ndarray) or value.dtype == object:
                raise ValueError(f"the input '{name}' is no tensor of numbers")
        tensors = {name: _tensor(cast(Array, value)) for name, value in given.items()}
        made = self._compiled(tensors).to_tuple()
        return {
            name: value.view(_BRAIN) if brain else value
            for name, value, brain in zip(self._names, made, self._brain, strict=True)
        }


def _tensor(array: Array) -> Array | openvino.Tensor:
    """Return what OpenVINO takes for an array: it has bfloat16 in float16 of the same bits."""
    import openvino

    if array.dtype != _BRAIN:
        return np.array(array)  # a map of a file is read only
    return openvino.Tensor(np.array(array).view(np.float16), array.shape, openvino.Type.bf16)
