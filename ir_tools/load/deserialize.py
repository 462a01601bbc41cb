"""From a vetted ModelProto to IR, with what onnx_ir leaves behind carried over."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.walk import scopes

__all__ = ["deserialized"]


def deserialized(proto: onnx.ModelProto) -> ir.Model:
    """Return the model as IR; the proto must have been vetted.

    Raises:
        ModelError: onnx_ir cannot hold it.
    """
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # whatever onnx_ir raises means that it cannot hold this model
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(f"the model cannot be held as IR: {reason[:200]}") from error
    _restore_function_inputs(model, proto)
    for scope in scopes(model):
        if scope.depth == 0:
            _rename_default_domain(scope.owner.opset_imports)
    return model


def _restore_function_inputs(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Types of function inputs, which onnx_ir reads for the nodes' outputs only."""
    for function in proto.functions:
        infos = {info.name: info for info in function.value_info}
        key = (function.domain, function.name, function.overload)
        for value in model.functions[key].inputs:
            if value.name in infos:
                ir.serde.deserialize_value_info_proto(infos[value.name], value)


def _rename_default_domain(imports: dict[str, int]) -> None:
    """Import the default domain as "", which is how onnx_ir names it on nodes."""
    if "ai.onnx" in imports:
        imports[""] = imports.pop("ai.onnx")
