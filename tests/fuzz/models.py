"""Whole models around one node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from vlmpass.ir_tools.operators.schema import ir_version_of

from .places import placed
from .recipes import Spec
from .runtime import RUNTIME, evaluated

Array = np.ndarray


@dataclass
class Parts:
    """A model under construction: nodes of one graph, and what they read."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    feeds: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    dims: dict[str, Sequence[int | str | None]] = field(default_factory=dict)
    """How the axes of an input are declared where it is not by their sizes."""
    absent: list[str] = field(default_factory=list)
    """Inputs of a function that its call leaves out."""


def info(
    name: str, array: Array, dims: Sequence[int | str | None] | None = None
) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape if dims is None else dims)


def make_node(
    spec: Spec, inputs: Sequence[str], outputs: Sequence[str], name: str = ""
) -> onnx.NodeProto:
    """Return the node, trailing empty names kept as they are given."""
    domain, _, operator = spec.op_type.rpartition("::")
    return helper.make_node(operator, inputs, outputs, name=name, domain=domain, **spec.attributes)


def whole(
    parts: Parts, opset: int, place: str, feeds: Mapping[str, object]
) -> onnx.ModelProto | None:
    """Return the model with outputs typed by inference; None where that is not valid."""
    graph = helper.make_graph(
        parts.nodes,
        "g",
        [info(name, array, parts.dims.get(name)) for name, array in parts.feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in parts.outputs],
        [numpy_helper.from_array(array, name) for name, array in parts.constants.items()],
    )
    domains = dict.fromkeys(node.domain for node in parts.nodes if node.domain)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(each, 1) for each in domains)]
    version = max(ir_version_of(opset), 4)
    model = helper.make_model(graph, opset_imports=imports, ir_version=version)
    return typed(placed(model, place, parts.absent), feeds)


def typed(model: onnx.ModelProto, feeds: Mapping[str, object]) -> onnx.ModelProto | None:
    """Give outputs the types that onnx infers, or ONNX Runtime; None for an invalid model."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception:  # noqa: BLE001 - whatever onnx finds, this is no valid source
        return None
    _type_outputs(model.graph, inferred.graph)
    _give_ranks(model, feeds)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # noqa: BLE001
        return None
    return model


def _type_outputs(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    known = {each.name: each for each in (*inferred.value_info, *inferred.output)}
    for each in graph.output:
        found = known.get(each.name)
        if found is not None:
            each.CopyFrom(found)
    for node, other in zip(graph.node, inferred.node, strict=True):
        for mine, theirs in zip(node.attribute, other.attribute, strict=True):
            if mine.HasField("g"):
                _type_outputs(mine.g, theirs.g)


def _give_ranks(model: onnx.ModelProto, feeds: Mapping[str, object]) -> None:
    """Declare what inference leaves out of outputs: their rank, before opset 7 their type too."""
    bare = [
        index
        for index, each in enumerate(model.graph.output)
        if each.type.WhichOneof("value") is None
        or (each.type.HasField("tensor_type") and not each.type.tensor_type.HasField("shape"))
    ]
    results = (RUNTIME.run(model, feeds) or evaluated(model, feeds)) if bare else None
    for index in bare if results is not None else ():
        output, found = model.graph.output[index], results[index]
        if isinstance(found, list):
            continue
        found = np.asarray(found)
        if output.type.WhichOneof("value") is None:
            output.CopyFrom(info(output.name, found, [None] * found.ndim))
        else:
            for _ in found.shape:
                output.type.tensor_type.shape.dim.add()


def versions() -> Iterator[tuple[str, int, int]]:
    """Yield every operator version: name, since-version, and the opset before the next one."""
    found: dict[str, dict[int, bool]] = {}
    for each in defs.get_all_schemas_with_history():
        if each.domain == "":
            found.setdefault(each.name, {})[each.since_version] = each.deprecated
    for name, since in sorted(found.items()):
        ordered = sorted(since)
        ends = [*(each - 1 for each in ordered[1:]), defs.onnx_opset_version()]
        for version, end in zip(ordered, ends, strict=True):
            if not since[version]:
                yield name, version, end
