"""Small models in ONNX text, small passes, and running both models to compare numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.passes.pipeline.base import OptionError, Pass

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'

RELU = "g (float[2,n] x) => (float[2,n] y) { a = Relu(x)  y = Neg(a) }"


def model(text: str, header: str = HEADER) -> ir.Model:
    return ir.from_onnx_text(header + text)


def content(model: ir.Model) -> bytes:
    """Everything a file would hold, tensors included."""
    return skeleton(model, inline).SerializeToString(deterministic=True)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def run(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        skeleton(model, inline).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))


@dataclass(frozen=True)
class Everything(Pass):
    """Hold one option of every type."""

    name = "everything"

    count: int
    """How many."""
    scale: float = 1.0
    """By how much."""
    label: str = "none"
    keep_io: bool = True
    mode: Literal["fast", "exact"] = "fast"
    items: tuple[str, ...] = ("a",)
    sizes: tuple[int, ...] = ()
    limit: str | None = None
    to: int | Literal["lowest", "auto"] = 18
    class_: str = ""
    others: tuple[tuple[str, int | str], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 0:
            raise OptionError("count", f"{self.count} is below zero", remedy="write 0 or more")

    def run(self, model: ir.Model) -> bool:
        return False


@dataclass(frozen=True)
class Scribble(Pass):
    """Change all that can be changed in place, then raise or not."""

    name = "scribble"

    fail: bool = False

    def run(self, model: ir.Model) -> bool:
        model.ir_version = 9
        model.metadata_props["scribble"] = "yes"
        model.opset_imports["scribble"] = 1
        for value in list(model.graph.initializers.values()):
            value.name = f"{value.name}_renamed"
        for node in model.graph:
            node.name = f"{node.name}_renamed"
            node.metadata_props["scribble"] = "yes"
            for value in node.outputs:
                value.dtype = ir.DataType.FLOAT16
                value.shape = ir.Shape([7])
            if self.fail and node.op_type == "Neg":
                raise ValueError("no more ink")
        return True


@dataclass(frozen=True)
class AddRelu(Pass):
    """Put a Relu before the last node."""

    name = "add-relu"
    idempotent = False

    def run(self, model: ir.Model) -> bool:
        last = model.graph[-1]
        relu = ir.node("Relu", [last.inputs[0]])
        relu.metadata_props["vlmpass.pass"] = "inherited"
        relu.outputs[0].type = last.inputs[0].type
        model.graph.insert_before(last, relu)
        last.replace_input_with(0, relu.outputs[0])
        return True


@dataclass(frozen=True)
class Nothing(Pass):
    """Change nothing."""

    name = "nothing"

    def run(self, model: ir.Model) -> bool:
        return False


PASSES: dict[str, type[Pass]] = {
    each.name: each for each in (Everything, Scribble, AddRelu, Nothing)
}
