"""Rule tests: two graphs in ONNX text, compared as canonical text and by numbers."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
)

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite import Rule, RuleSet, apply_rules, explain

RUNTIME_ERRORS = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)
CONTRIB = "com.microsoft"
TOLERANCE = {"float16": 4e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-9}


def parse(text: str, opset: int = 20, **domains: int) -> ir.Model:
    """Return a model from graph text, types and shapes inferred; a header may be left out."""
    imports = {"": opset, CONTRIB: 1, **domains}
    if not text.lstrip().startswith("<"):
        listed = ", ".join(f'"{domain}" : {version}' for domain, version in imports.items())
        text = f"<ir_version: 10, opset_import: [{listed}]>\n{text}"
    model = ir.serde.from_proto(onnx.parser.parse_model(text))
    if not any(node.domain == CONTRIB for scope in scopes(model) for node in scope.graph):
        for scope in scopes(model):
            scope.owner.opset_imports.pop(CONTRIB, None)
    return infer(model)


def infer(model: ir.Model) -> ir.Model:
    for scope in scopes(model):
        for node in scope.graph:
            infer_node(node, scope.opsets)
    return model


# ---------------------------------------------------------------------------------- canonical text
def _constant(tensor: ir.TensorProtocol) -> str:
    array = tensor.numpy()
    data = array.tolist() if array.size <= 16 else f"{array.size} numbers, sum {array.sum()}"
    return f"{tensor.dtype.name}{list(array.shape)}:{data}"


class _Printer:
    def __init__(self, opsets: Mapping[str, int]) -> None:
        self.opsets = opsets
        self.names: dict[ir.Value, str] = {}
        self.lines: list[str] = []

    def value(self, value: ir.Value | None) -> str:
        if value is None:
            return "_"
        tensor = constant_of(value)
        if tensor is not None:
            return _constant(tensor)
        if value not in self.names:
            producer = value.producer()
            if producer is None:
                return f"outer:{value.name}"
            self.node(producer)
        return self.names[value]

    def node(self, node: ir.Node) -> None:
        inputs = ", ".join(self.value(value) for value in node.inputs)
        number = sum(1 for line in self.lines if line.lstrip().startswith("%"))
        outputs = []
        for index, output in enumerate(node.outputs):
            self.names[output] = f"%{number}" + (f".{index}" if index else "")
            outputs.append(self.names[output])
        schema = in_force(node.domain, node.op_type, self.opsets.get(node.domain, 1))
        words = [
            f"{name}={self._attribute(attribute)}"
            for name, attribute in sorted(node.attributes.items())
            if schema is None or attribute.value != schema.default(name)
        ]
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        self.lines.append(" ".join([f"{', '.join(outputs)} = {kind}({inputs})", *words]))

    def _attribute(self, attribute: ir.Attr) -> str:
        if attribute.is_ref():
            return f"@{attribute.ref_attr_name}"
        if attribute.type == ir.AttributeType.GRAPH:
            inner = _Printer(self.opsets)
            inner.names = dict(self.names)
            return "{" + "; ".join(inner.graph(attribute.as_graph())) + "}"
        if attribute.type == ir.AttributeType.TENSOR:
            return _constant(attribute.as_tensor())
        if attribute.type == ir.AttributeType.FLOAT:
            return f"{attribute.as_float():.6g}"
        return str(attribute.value)

    def graph(self, graph: ir.Graph | ir.Function) -> list[str]:
        for index, value in enumerate(graph.inputs):
            self.names[value] = f"in{index}"
        results = [self.value(value) for value in graph.outputs]
        for node in graph:
            if node.outputs[0] not in self.names and node.op_type != "Constant":
                self.node(node)
        return [*self.lines, f"return {', '.join(results)}"]


def canonical(model: ir.Model) -> str:
    """Return a model's text: values by position, constants in place, defaults left out."""
    lines = _Printer(model.opset_imports).graph(model.graph)
    for key, function in sorted(model.functions.items()):
        lines += [f"function {'::'.join(key)}", *_Printer(function.opset_imports).graph(function)]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ numbers
def random_inputs(model: ir.Model, seed: int = 0, size: int = 3) -> dict[str, np.ndarray]:
    """Return inputs for a model; every symbolic dimension has the same size."""
    rng = np.random.default_rng(seed)
    feed = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        assert value.shape is not None
        assert value.dtype is not None
        assert value.name
        shape = [dim if isinstance(dim, int) else size for dim in value.shape]
        dtype = value.dtype.numpy()
        if value.dtype == ir.DataType.BOOL:
            feed[value.name] = np.asarray(rng.random(shape) < 0.5)
        elif value.dtype.is_integer():
            feed[value.name] = np.asarray(rng.integers(0, 5, shape), dtype)
        else:
            feed[value.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
    return feed


def run(model: ir.Model, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return what a model computes: on ONNX Runtime, unoptimised, or by onnx's evaluator."""
    proto = ir.to_proto(model)
    if any(array.dtype == ml_dtypes.bfloat16 for array in feed.values()):
        return list(onnx.reference.ReferenceEvaluator(proto).run(None, dict(feed)))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, dict(feed))
    # A sequence counts as its tensors.
    return [each for some in found for each in (some if isinstance(some, list) else [some])]


def difference(expected: list[np.ndarray], actual: list[np.ndarray], rounding: float = 0.0) -> str:
    """Return how two runs differ beyond their type's tolerance; empty if they do not.

    Args:
        expected: What one graph computes.
        actual: What the other does.
        rounding: Largest difference that is meant, where it is more than the type's tolerance;
            of integers if it is 1 or more.
    """
    if len(expected) != len(actual):
        return f"{len(actual)} outputs instead of {len(expected)}"
    for index, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if want.shape != got.shape or want.dtype != got.dtype:
            return f"output {index}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
        tolerance = TOLERANCE.get(str(want.dtype))
        if tolerance is None:
            slack = rounding if rounding >= 1 and want.dtype.kind in "iu" else 0
            if not (np.allclose(want, got, 0, slack) if slack else np.array_equal(want, got)):
                return f"output {index}: {got} instead of {want}"
            continue
        tolerance = max(tolerance, rounding)
        one, two = want.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(one)
        if not np.array_equal(finite, np.isfinite(two)):
            return f"output {index}: not finite in other places"
        scale = max(float(np.abs(one[finite]).max(initial=0.0)), 1.0)
        error = float(np.abs(one - two)[finite].max(initial=0.0)) / scale
        if error > tolerance:
            return f"output {index}: differs by {error:g} of its largest element"
    return ""


# ------------------------------------------------------------------------------------------- claims
def check(model: ir.Model) -> None:
    """Assert that the standard's own checker accepts a model and that its names are unique."""
    known = {node.op_type for scope in scopes(model) for node in scope.graph}
    if "SimplifiedLayerNormalization" not in known:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for scope in scopes(model):
        names = [value.name for node in scope.graph for value in node.outputs]
        assert len(names) == len(set(names))


def rewrites(
    rules: Rule | RuleSet,
    before: str | ir.Model,
    after: str | None = None,
    *,
    opset: int = 20,
    emits: Collection[str] = (),
    fast_math: bool = False,
    rounding: float = 0.0,
    runs: bool = True,
) -> ir.Model:
    """Assert that rules turn one graph into another, which computes the same; return it."""
    model = parse(before, opset) if isinstance(before, str) else before
    original = ir.serde.from_proto(ir.to_proto(model))
    applied = apply_rules(model, rules, emits=emits, fast_math=fast_math)
    reasons = [str(a) for rule in _each(rules) for a in explain(rule, original)]
    assert applied, "nothing applied:\n" + "\n".join(reasons)
    check(model)
    if after is not None:
        want, got = canonical(parse(after, opset)), canonical(model)
        lines = difflib.unified_diff(want.split("\n"), got.split("\n"), lineterm="", n=99)
        assert want == got, "\n".join(lines)
    if runs:
        same_numbers(original, model, rounding)
    assert not apply_rules(model, rules, emits=emits, fast_math=fast_math), "not idempotent"
    return model


def same_numbers(original: ir.Model, model: ir.Model, rounding: float = 0.0) -> None:
    for seed, size in ((0, 3), (1, 4)):
        feed = random_inputs(original, seed, size)
        assert difference(run(original, feed), run(model, feed), rounding) == ""


def refuses(
    rules: Rule | RuleSet,
    text: str | ir.Model,
    because: str,
    *,
    opset: int = 20,
    emits: Collection[str] = (),
    fast_math: bool = False,
) -> None:
    """Assert that rules leave a graph alone and that one of them says why.

    An empty reason says that no rule even finds its root.
    """
    model = parse(text, opset) if isinstance(text, str) else text
    reasons = [attempt.reason for rule in _each(rules) for attempt in explain(rule, model)]
    before = canonical(model)
    assert not apply_rules(model, rules, emits=emits, fast_math=fast_math)
    assert canonical(model) == before
    if because:
        assert any(because in reason for reason in reasons), reasons
    else:
        assert not reasons


def _each(rules: Rule | RuleSet) -> tuple[Rule, ...]:
    return (rules,) if isinstance(rules, Rule) else tuple(rules)
