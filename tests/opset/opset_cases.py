"""The node tests of onnx: converted, checked, run, compared with what they expect."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.system.opsets import FIRST_OPSET
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.rewriter_rules.opset.element_types.absent import is_absent, wider_dtype
from vlmpass.rewriter_rules.opset.element_types.widen import Interface

from .opset_sources import exports, restamped

NEWEST_OF_ORT = 26
RANDOM = re.compile("bernoulli|training_dropout|random")


@dataclass(frozen=True)
class Verdict:
    """What became of one case at one opset: right, refused, invalid, wrong or unrun."""

    case: str
    source: int
    target: int
    kind: str
    reason: str = ""

    @property
    def up(self) -> bool:
        return self.target > self.source


def opset_of(model: onnx.ModelProto) -> int | None:
    found = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    return found[0] if found else None


@functools.cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    usable = {}
    for case in (*found, *exports()):
        opset = opset_of(case.model)
        if opset is not None and FIRST_OPSET <= opset <= onnx.defs.onnx_opset_version():
            usable[case.name] = case
    usable.update((case.name, case) for case in restamped(dict(usable)))
    return dict(sorted(usable.items()))


def convert(model: onnx.ModelProto, target: int, interface: Interface = "keep") -> onnx.ModelProto:
    converted = ir.from_proto(model)
    ConvertOpset(to=target, interface=interface).run(converted)
    return ir.to_proto(converted)


def _by_ort(model: onnx.ModelProto, feeds: Sequence[Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    arrays = [np.asarray(each) if isinstance(each, np.generic) else each for each in feeds]
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=False)))


def _by_reference(model: onnx.ModelProto, feeds: Sequence[Any]) -> list[Any]:
    initialized = {each.name for each in model.graph.initializer}
    names = [each.name for each in model.graph.input if each.name not in initialized]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(model).run(None, dict(zip(names, feeds, strict=False)))


def attempts(model: onnx.ModelProto, feeds: Sequence[Any]) -> Iterator[list[Any] | Exception]:
    """Yield what ONNX Runtime and then the reference evaluator compute, or their errors."""
    plain = all(
        each is not None and getattr(each, "dtype", np.dtype("f4")).kind != "V" for each in feeds
    )
    if plain and (opset_of(model) or 0) <= NEWEST_OF_ORT:
        try:
            yield _by_ort(model, feeds)
        except Exception as error:  # noqa: BLE001 - any failure to run is a result here
            yield error
    try:
        yield _by_reference(model, feeds)
    except Exception as error:  # noqa: BLE001
        yield error


def differs(expected: Any, actual: Any, rtol: float, atol: float, values: bool) -> str:
    """Say how two outputs differ; empty if they do not."""
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)) or len(expected) != len(actual):
            return "another sequence"
        found = (differs(e, a, rtol, atol, values) for e, a in zip(expected, actual, strict=True))
        return next((each for each in found if each), "")
    if expected is None or actual is None:
        return "" if expected is actual else "one of them is None"
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        return f"shape {actual.shape}, expected {expected.shape}"
    if expected.dtype.kind in "OUS":
        same = [_text(e) == _text(a) for e, a in zip(expected.flat, actual.flat, strict=True)]
        return "" if not values or all(same) else "other strings"
    if expected.dtype.itemsize != actual.dtype.itemsize:
        return f"type {actual.dtype}, expected {expected.dtype}"
    if expected.dtype != actual.dtype:
        actual = actual.view(expected.dtype)
    if not values:
        return ""
    if expected.dtype.kind in "biu":
        return "" if np.array_equal(actual, expected) else "other integers"
    if expected.dtype.kind == "c":
        expected, actual = (np.stack([each.real, each.imag]) for each in (expected, actual))
    wide = [each.astype(np.float64) for each in (expected, actual)]
    # A transform's zeros are as noisy as its largest values are large.
    largest = np.max(np.abs(wide[0]), initial=0, where=np.isfinite(wide[0]))
    noise = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 5e-7}.get(expected.dtype.name, 0.0)
    tolerance = {"rtol": max(rtol, noise), "atol": max(atol, noise * max(largest, 1.0))}
    if np.allclose(wide[1], wide[0], equal_nan=True, **tolerance):
        return ""
    with np.errstate(all="ignore"):
        return f"off by up to {np.nanmax(np.abs(wide[0] - wide[1])):.3g}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(value: Any) -> Any:
    """Return the array of a tensor in a proto, anything else as it is."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


EXACT = {"Cast", "CastLike", "QuantizeLinear", "Reshape", "Transpose", "Identity", "Constant"}
"""Operators whose results are the same in any type; in bfloat16 the others round."""


@dataclass(frozen=True)
class Border:
    """The interface of a converted case against that of its source, input by input.

    Attributes:
        inputs: The element type of each input, None where it is the source's.
        outputs: The same of each output.
        exact: Whether values of another type have to be the very ones expected.
        problem: What differs from the types that the conversion announces; empty if nothing.
    """

    inputs: tuple[ir.DataType | None, ...]
    outputs: tuple[ir.DataType | None, ...]
    exact: bool
    problem: str

    @classmethod
    def of(cls, source: onnx.ModelProto, model: onnx.ModelProto, interface: Interface) -> Border:
        opset = opset_of(model) or 0
        found: list[list[ir.DataType | None]] = [[], []]
        problem = ""
        sides = ((source.graph.input, model.graph.input), (source.graph.output, model.graph.output))
        for types, (before, after) in zip(found, sides, strict=True):
            for one, other in zip(before, after, strict=True):
                old, new = (ir.DataType(each.type.tensor_type.elem_type) for each in (one, other))
                wider = interface == "wider" and is_absent(old, opset)
                if one.name != other.name or new != (wider_dtype(old, opset) if wider else old):
                    problem = f"{one.name} of type {old} became {other.name} of type {new}"
                types.append(new if wider else None)
        computes = not {node.op_type for node in source.graph.node} <= EXACT
        rounds = any(
            each.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
            for each in (*source.graph.input, *source.graph.output)
        )
        return cls(tuple(found[0]), tuple(found[1]), not (computes and rounds), problem)


def _as(value: Any, dtype: ir.DataType | None) -> Any:
    return value if dtype is None else np.asarray(value).astype(dtype.numpy())


def _unlike(case: Any, border: Border, expected: Sequence[Any], result: Sequence[Any]) -> str:
    """Say how results differ from what a case expects; empty if they do not."""
    values = not RANDOM.search(case.name)
    found = []
    for e, a, dtype in zip(expected, result, border.outputs, strict=True):
        if dtype is None:
            found.append(differs(e, a, case.rtol, case.atol, values))
        elif np.asarray(a).dtype != dtype.numpy():
            found.append(f"type {np.asarray(a).dtype}, announced {dtype}")
        elif border.exact:
            same = np.array_equal(_as(e, dtype), a, equal_nan=dtype.is_floating_point())
            found.append("" if same else "other values")
        else:
            noise = max(case.rtol, 2e-2)
            found.append(differs(_as(e, dtype), a, noise, noise, values))
    return "; ".join(filter(None, found))


def _compare(case: Any, model: onnx.ModelProto, interface: Interface = "keep") -> tuple[str, str]:
    """Run a model on a case's data: right, wrong or unrun, and why."""
    border = Border.of(case.model, model, interface)
    if border.problem:
        return "wrong", border.problem
    worst = ("right", "")
    for data_set in case.data_sets:
        feeds, expected = ([_array(each) for each in part] for part in data_set)
        feeds = [_as(each, dtype) for each, dtype in zip(feeds, border.inputs, strict=False)]
        outcome = ("unrun", "")
        for result in attempts(model, feeds):
            if isinstance(result, Exception):
                outcome = max(outcome, ("unrun", str(result)[:300]), key=lambda o: len(o[1]))
                continue
            difference = _unlike(case, border, expected, result)
            outcome = ("wrong", difference) if difference else ("right", "")
            if outcome[0] == "right":
                break
        if outcome[0] != "right":
            worst = outcome
    return worst


def judge(case: Any, target: int, interface: Interface = "keep", *, back: bool = False) -> Verdict:
    """Convert one case, if asked back again too, and say what became of it."""
    source = opset_of(case.model)
    assert source is not None

    def verdict(kind: str, reason: str = "") -> Verdict:
        return Verdict(case.name, source, target, kind, reason)

    try:
        converted = convert(case.model, target, interface)
        if back:
            converted = convert(converted, source)
    except Refused as refused:
        return verdict("refused", "; ".join(r.reason for r in refused.refusals))
    except Exception as error:  # noqa: BLE001 - a crash is a finding, like a wrong result
        return verdict("crash", f"{type(error).__name__}: {error}"[:300])
    try:
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # noqa: BLE001
        try:
            onnx.checker.check_model(case.model, full_check=True)
        except Exception:  # noqa: BLE001
            return verdict("ill-formed source", str(error)[:200])
        return verdict("invalid", str(error)[:300])
    kind, reason = _compare(case, converted, interface)
    if kind != "right" and _compare(case, case.model)[0] != "right":
        return verdict("source fails", reason)
    return verdict(kind, reason)
