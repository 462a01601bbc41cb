"""What ONNX Runtime computes otherwise than the standard says, spelled so that it cannot.

Written apart from the passes that convert models, because it judges them.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.shapes.inferred import inferred_shapes

__all__ = ["spell_standard"]


def spell_standard(model: ir.Model) -> str:
    """Give dilated pools with SAME padding the pads that the standard has for them, in place.

    It says that such a pool's output has ceil(size / stride) elements on an axis, and its windows
    are dilated; ONNX Runtime 1.31 pads as if they were not, which leaves fewer elements, and the
    reference evaluator of onnx 1.23 fills up what is missing with zeros. Those that need sizes
    which are not static stay.

    Returns:
        What was spelled, as a phrase; empty if nothing.
    """
    shapes = None
    found: dict[str, None] = {}
    for node in all_nodes(model):
        if node.domain or node.op_type not in ("AveragePool", "LpPool") or not _deviates(node):
            continue
        if shapes is None:
            shapes = inferred_shapes(model)
        sizes = shapes.get(node.inputs[0]) if node.inputs[0] is not None else None
        pads = _pads(node, [each.known for each in sizes[2:]]) if sizes else None
        if pads is not None:
            del node.attributes["auto_pad"]
            node.attributes.add(ir.AttrInt64s("pads", pads))
            found[f"{node.op_type} with SAME padding and dilations"] = None
    return " and ".join(found)


def _deviates(node: ir.Node) -> bool:
    same, dilations = node.attributes.get("auto_pad"), node.attributes.get("dilations")
    if same is None or dilations is None or same.is_ref() or dilations.is_ref():
        return False
    return same.as_string().startswith("SAME") and any(each != 1 for each in dilations.as_ints())


def _pads(node: ir.Node, sizes: Sequence[int | str | None]) -> list[int] | None:
    """Return the operator's formula: what the last window that starts inside reaches too far."""
    kernel = node.attributes.get_ints("kernel_shape") or ()
    strides = node.attributes.get_ints("strides") or [1] * len(kernel)
    dilations = node.attributes.get_ints("dilations") or ()
    ends: tuple[list[int], list[int]] = ([], [])
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if not isinstance(size, int) and stride != 1:
            return None
        known = size if isinstance(size, int) else 1  # with a stride of 1 every size needs the same
        count = (known + stride - 1) // stride
        total = max(0, (count - 1) * stride + (window - 1) * dilation + 1 - known)
        shorter, longer = total // 2, total - total // 2
        upper = node.attributes["auto_pad"].as_string() == "SAME_UPPER"
        ends[0].append(shorter if upper else longer)
        ends[1].append(longer if upper else shorter)
    return [*ends[0], *ends[1]]
