"""Runs tests of single nodes on IREE, in this process."""

from __future__ import annotations

from tempfile import NamedTemporaryFile
from typing import Any

import onnx

from vlmpass.ir_tools.worker.iree_engine import Iree

__all__ = ["run"]


def run(model: bytes, inputs: list[Any]) -> list[Any]:
    """Return what a model makes of inputs."""
    graph = onnx.ModelProto.FromString(model).graph
    feeds = dict(zip((each.name for each in graph.input), inputs, strict=False))
    with NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model)
        file.flush()
        engine = Iree({"model": file.name, "outputs": [each.name for each in graph.output]})
    return list(engine(feeds).values())
