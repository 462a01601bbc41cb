"""Models of one operator of ONNX Runtime's own, and what becomes of them without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rewrite.support import RUNTIME_ERRORS

from vlmpass.ir_tools.check.versions import check_versions
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.rewrite import explain
from vlmpass.passes.infer import Infer
from vlmpass.passes.unfusing.unfuse import Unfuse
from vlmpass.rewriter_rules.unfuse import STANDARD, UNFUSE

Array: TypeAlias = "np.ndarray"
Words: TypeAlias = Literal["standard", "primitive"]
ORT = "com.microsoft"
KINDS = {
    "float32": (np.dtype(np.float32), 2e-5),
    "float16": (np.dtype(np.float16), 2e-2),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 1e-1),
}
TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.bool_): TensorProto.BOOL,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
}


class Untaken(Exception):
    """ONNX Runtime has no such kernel, or does not take a case."""


class Stays(Exception):
    """An operator is left as it is, with a reason, where it may be."""


@dataclass(frozen=True)
class Given:
    """An input: what it holds, names of its axes where sizes are open, whether it is constant."""

    array: Array
    axes: Sequence[str] = ()
    constant: bool = False


@dataclass(frozen=True)
class Case:
    """One operator with some configuration.

    Attributes:
        operator: Its name.
        inputs: By name, None for one that is left out.
        attributes: What it is given.
        outputs: Those that are used by name, with their ranks and types; "" for one left out.
        opset: Of the model.
        tolerance: How far results may be apart, relative to the largest.
        dynamic: Whether axes are open.
        reference: What computes the outputs where ONNX Runtime has no kernel.
        steps: How far integers may be apart, which are rounded from floats.
        compared: What of each output counts; all where it is not named.
        domain: Its domain.
        anonymous: Whether axes that are open have no names.
        may_stay: Whether the operator may be left, for what cannot be known of it or has no equal.
        ir_version: Of the model.
        to: What it is said in, standard operators or primitive ones.
    """

    operator: str
    inputs: Mapping[str, Given | None]
    attributes: Mapping[str, object]
    outputs: Sequence[tuple[str, int, np.dtype]]
    opset: int
    tolerance: float = 2e-5
    dynamic: bool = False
    reference: Callable[[Case], list[Array]] | None = None
    steps: int = 0
    compared: Mapping[str, Array] = field(default_factory=dict)
    domain: str = ORT
    anonymous: bool = False
    may_stay: bool = False
    ir_version: int = 10
    to: Words = "standard"

    def model(self) -> onnx.ModelProto:
        """Return the model that has the operator alone."""
        names = [name if given is not None else "" for name, given in self.inputs.items()]
        while names and not names[-1]:
            names.pop()
        outputs = [name for name, _, _ in self.outputs]
        node = helper.make_node(
            self.operator, names, outputs, name="n", domain=self.domain, **self.attributes
        )
        given = {name: each for name, each in self.inputs.items() if each is not None}
        graph = helper.make_graph(
            [node],
            "g",
            [self._declared(name, x) for name, x in given.items() if not x.constant],
            [
                helper.make_tensor_value_info(
                    name, TYPES[kind], [f"{name}{i}" for i in range(rank)]
                )
                for name, rank, kind in self.outputs
                if name
            ],
            [_constant(name, x.array) for name, x in given.items() if x.constant],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(ORT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def _declared(self, name: str, given: Given) -> onnx.ValueInfoProto:
        axes: Sequence[object] = given.array.shape
        if self.dynamic and given.axes:
            axes = [
                size if name.isdigit() else None if self.anonymous else name
                for name, size in zip(given.axes, given.array.shape, strict=True)
            ]
        return helper.make_tensor_value_info(name, TYPES[given.array.dtype], axes)

    def feeds(self) -> dict[str, Array]:
        """Return what the model is given."""
        return {k: v.array for k, v in self.inputs.items() if v is not None and not v.constant}

    def expected(self) -> list[Array]:
        """Return what ONNX Runtime's kernel computes, or the reference."""
        if self.reference is not None:
            return self.reference(self)
        return run(self.model(), self.feeds())


def _constant(name: str, array: Array) -> onnx.TensorProto:
    if array.dtype in TYPES and array.dtype.kind != "V":
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, TYPES[array.dtype], array.shape, array.tobytes(), raw=True)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return what ONNX Runtime computes, nothing of it optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def without_it(
    model: onnx.ModelProto, to: Literal["standard", "primitive"] = "standard"
) -> onnx.ModelProto:
    """Return the model after `unfuse`."""
    made = ir.from_proto(model)
    Infer()(made)
    Unfuse(to=to)(made)
    return ir.to_proto(made)


def left(model: onnx.ModelProto) -> list[str]:
    """Return the operators of ONNX Runtime's own that a model has."""
    return [node.op_type for node in model.graph.node if node.domain == ORT]


def whole_operators(model: onnx.ModelProto) -> list[str]:
    """Return the standard operators of a model that primitive ones can say."""
    names = {name for rule in STANDARD for root in rule.plan.root_ops for _, name in root.ops}
    return [node.op_type for node in model.graph.node if not node.domain and node.op_type in names]


def reasons(model: onnx.ModelProto) -> list[str]:
    """Return why rules do not apply to what is left."""
    made = ir.from_proto(model)
    Infer()(made)
    return [attempt.reason for rule in UNFUSE for attempt in explain(rule, made)]


def problem(case: Case) -> str | None:
    """Return what is wrong with what `unfuse` makes of a case; None if nothing is.

    Raises:
        Untaken: ONNX Runtime has no such kernel, or does not take the case.
        Stays: The operator is left, and the case says that it may be.
    """
    source = case.model()
    made = without_it(source, case.to)
    if case.to == "primitive" and (whole := whole_operators(made)):
        return f"{whole} are not taken apart"
    if left(made):
        why = [each for each in reasons(source) if each]
        if case.may_stay and why:
            raise Stays(why[0])
        return f"left: {left(made)}: {why}"
    try:
        onnx.checker.check_model(made, full_check=True)
        check_versions(ir.from_proto(made))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, CheckError) as error:
        return f"{type(error).__name__}: {error}"
    try:
        wanted = case.expected()
    except RUNTIME_ERRORS as error:
        raise Untaken(str(error)) from error
    try:
        found = run(made, case.feeds())
    except RUNTIME_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return differs(case, wanted, found)


def differs(case: Case, wanted: Sequence[Array], found: Sequence[Array]) -> str | None:
    """Return how two results differ; None if they do not."""
    names = [name for name, _, _ in case.outputs if name]
    for name, one, other in zip(names, wanted, found, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{name}: {one.dtype}{one.shape} becomes {other.dtype}{other.shape}"
        counts = case.compared.get(name, np.ones(one.shape, np.bool_))
        a, b = (np.where(counts, x.astype(np.float64), 0) for x in (one, other))
        with np.errstate(invalid="ignore"):
            error = np.max(np.where(a == b, 0, np.abs(a - b)), initial=0)
        allowed = case.tolerance * max(1.0, float(np.max(np.abs(a), initial=0)))
        if not error <= max(allowed, case.steps):
            return f"{name}: differs by {error:.3g} of {np.max(np.abs(a)):.3g}"
    return None
