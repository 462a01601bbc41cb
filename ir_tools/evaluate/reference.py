"""The reference evaluator of onnx for operators that are rare among constants and exact."""

from __future__ import annotations

import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.evaluate.arithmetic import Array

__all__ = ["REFERENCE", "by_reference"]

REFERENCE = frozenset(
    {"Compress", "DepthToSpace", "EyeLike", "GatherND", "OneHot", "ScatterElements", "ScatterND",
     "SpaceToDepth"}
)  # fmt: skip


def by_reference(node: ir.Node, inputs: list[Array], opset: int) -> list[Array] | None:
    """Return the outputs of a node without absent inputs; None for a float reduction."""
    if node.attributes.get_string("reduction", "none") != "none":
        return None
    names = [f"x{index}" for index in range(len(inputs))]
    alone = ir.Node(
        "",
        node.op_type,
        [ir.Value(name=name) for name in names],
        list(node.attributes.values()),
        outputs=[ir.Value(name=f"y{index}") for index in range(len(node.outputs))],
    )
    evaluator = ReferenceEvaluator(ir.to_proto(alone), opsets={"": opset})
    return list(evaluator.run(None, dict(zip(names, inputs, strict=True))))
