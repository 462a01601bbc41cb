"""What PyTorch's exporter translates to something else than PyTorch computes, left untranslated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import onnx

__all__ = ["LEFT", "translations"]

LEFT = "org.pytorch.aten"
"""The domain of what is left, for which `substitute` knows an equal."""
_RESIZES = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """Return translations of antialiased resizes that align corners or are given by scales."""
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

    aten: Any = torch.ops.aten
    return {getattr(aten, name).default: _translation(name) for name in _RESIZES}


def _translation(name: str) -> Callable[..., object]:
    from onnxscript import values  # type: ignore[import-not-found,unused-ignore]
    from onnxscript.function_libs.torch_lib.ops import (  # type: ignore[import-not-found,unused-ignore]
        nn,
    )

    known: Any = getattr(nn, f"aten_{name}")
    left = values.Op(values.Opset(LEFT, 1), name, _schema(name))

    def translated(
        x: Any, size: Any, align_corners: bool, scales_h: Any = None, scales_w: Any = None
    ) -> object:
        if align_corners or scales_h is not None or scales_w is not None:
            return cast(object, left(x, size, align_corners, scales_h, scales_w))
        return cast(object, known(x, size, align_corners))

    return translated


def _schema(name: str) -> onnx.defs.OpSchema:
    made = onnx.defs.OpSchema
    optional = made.FormalParameterOption.Optional
    kinds = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
    return made(
        name,
        LEFT,
        1,
        inputs=[
            made.FormalParameter("x", "T"),
            made.FormalParameter("size", "tensor(int64)"),
            made.FormalParameter("align_corners", "tensor(bool)"),
            made.FormalParameter("scales_h", "tensor(float)", param_option=optional),
            made.FormalParameter("scales_w", "tensor(float)", param_option=optional),
        ],
        outputs=[made.FormalParameter("y", "T")],
        type_constraints=[("T", kinds, "")],
    )
