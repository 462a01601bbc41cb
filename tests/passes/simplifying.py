"""Graphs from ONNX text, run before and after a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort

from vlmpass.ir_tools.graph.walk import all_nodes, scopes
from vlmpass.passes.pipeline.base import Pass

Feeds = Mapping[str, np.ndarray]
ort.set_default_logger_severity(4)


def proto_of(text: str, *, opset: int = 18, ir_version: int = 9) -> onnx.ModelProto:
    """Parse a graph, or a whole model if the text starts with its header."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}]>'
    return onnx.parser.parse_model(text if text.lstrip().startswith("<") else f"{header}\n{text}")


def run(proto: onnx.ModelProto, feeds: Feeds) -> list[object]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in wanted})


def simplify(
    proto: onnx.ModelProto, passes: Sequence[Pass], *feeds: Feeds, exact: bool = True
) -> ir.Model:
    """Run passes; check names, types, idempotence, and the numbers for every set of inputs."""
    model = ir.from_proto(proto)
    inputs = [value.name for value in model.graph.inputs]
    outputs = [value.name for value in model.graph.outputs]
    shared = _shared_names(model)
    for each in passes:
        each.run(model)
        assert not each.run(model), f"{each} changes the model again"
    assert [value.name for value in model.graph.inputs] == inputs
    assert [value.name for value in model.graph.outputs] == outputs
    assert _shared_names(model) <= shared
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    ran = 0
    for feed in feeds:
        wanted = _try(proto, feed)
        if wanted is None:
            continue  # what the source cannot do is not asked of the result
        ran += 1
        for expected, found in zip(wanted, run(after, feed), strict=True):
            _compare(expected, found, exact)
    assert ran or not feeds
    return model


def _try(proto: onnx.ModelProto, feed: Feeds) -> list[object] | None:
    try:
        return run(proto, feed)
    except Exception as error:  # the runtime's errors have no common class
        if "onnxruntime" in type(error).__module__:
            return None
        raise


def _shared_names(model: ir.Model) -> set[tuple[int, str]]:
    """Return names that two values of one graph or function have; two branches may."""
    names: Counter[tuple[int, str]] = Counter()
    for scope in scopes(model):
        inner = [value for node in scope.graph for value in node.outputs if value.name]
        for value in {*inner, *scope.graph.inputs, *scope.initializers.values()}:
            names[id(scope.owner), value.name or ""] += 1
    return {name for name, count in names.items() if count > 1}


def _compare(expected: object, found: object, exact: bool) -> None:
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(expected) == len(found)
        for a, b in zip(expected, found, strict=True):
            _compare(a, b, exact)
        return
    expected, found = np.asarray(expected), np.asarray(found)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def operators(model: ir.Model) -> list[str]:
    """List the operators in order, Constant aside."""
    return [node.op_type for node in all_nodes(model) if node.op_type != "Constant"]
