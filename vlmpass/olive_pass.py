"""A pass of Olive that runs a pipeline, and the package configuration by which Olive finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olive.model import ONNXModelHandler  # type: ignore[import-untyped,import-not-found,unused-ignore]
from olive.model.utils import resolve_onnx_path  # type: ignore[import-untyped,import-not-found,unused-ignore]
from olive.passes import Pass  # type: ignore[import-untyped,import-not-found,unused-ignore]
from olive.passes.pass_config import PassConfigParam  # type: ignore[import-untyped,import-not-found,unused-ignore]

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load
from vlmpass.pipeline import Pipeline
from vlmpass.slots import fitting_layout

__all__ = ["PACKAGE", "Vlmpass"]

PACKAGE = Path(__file__).with_name("olive.json")
"""What `olive run --package-config` takes; Olive's own passes have to be in the same file."""

_OPTIONS = {
    "pipeline": (str, "Passes with their options; says everything, in place of all else."),
    "opset": (int, "Opset of the result."),
    "dtype": (str, "Element type of the result."),
    "target": (str, "What is to run the result."),
    "quantize": (str, "Element type that weights are rounded to."),
    "verify": (bool, "True refuses what cannot be compared; False compares nothing."),
}


class Vlmpass(Pass):  # type: ignore[misc,unused-ignore]
    """Convert an ONNX model, or refuse it with an error; without an option, nodes are made few."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, Any]:
        return {
            name: PassConfigParam(type_=kind, default_value=None, description=says)
            for name, (kind, says) in _OPTIONS.items()
        }

    def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
        if model.external_initializers_file_name or model.constant_inputs_file_name:
            raise ModelError(
                "the model takes weights from files beside it, which Olive gives it as it runs",
                remedy="convert it before adapters are taken out of it",
            )
        path = Path(resolve_onnx_path(output_model_path))
        path.parent.mkdir(parents=True, exist_ok=True)
        asked = {name: getattr(config, name) for name in _OPTIONS}
        verify, text = asked.pop("verify"), asked.pop("pipeline")
        given = {name: value for name, value in asked.items() if value is not None}
        if text is not None:
            pipeline = Pipeline(text, **given)
        else:
            pipeline = Pipeline(**given) if given else Pipeline(simplify=True)
        report = pipeline.convert(
            model.model_path, path, layout=fitting_layout(load(model.model_path)), verify=verify
        )
        alone = report.after.shards == 0
        return ONNXModelHandler(
            model_path=str(path if alone else path.parent),
            onnx_file_name=None if alone else path.name,
            inference_settings=model.inference_settings,
        )
