"""onnx's own tests of single nodes, tried on a runtime: each is right, wrong or refused there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.system.runtime import Runtime
from vlmpass.ir_tools.worker.child import Child, Died
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Feed, pack, unpack

__all__ = ["PLAIN", "Case", "Trials", "cases", "difference"]

_SECONDS = 60.0
PLAIN = frozenset(
    np.dtype(each)
    for each in (
        "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64", ml_dtypes.bfloat16,
    )
)  # fmt: skip
"""The types that every interface has."""

_UNBOUND = ("JavaScript has no array", "takes it for a constant")
"""What is said where an interface does not take a test's values, and nothing is known."""

_NARROW = frozenset(
    np.dtype(each)
    for each in (
        np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One test of onnx: a model with one node, and what it makes of what.

    Attributes:
        name: As onnx calls it.
        model: The file.
        inputs: By the order of the graph; lists are sequences, None is left out.
        outputs: What is right.
    """

    name: str
    model: bytes
    inputs: list[Any]
    outputs: list[Any]

    @property
    def is_plain(self) -> bool:
        """Whether all that goes in and out are tensors of types that every interface has."""
        return all(
            isinstance(each, np.ndarray) and each.dtype in PLAIN
            for each in (*self.inputs, *self.outputs)
        )


@cache
def cases(newest: int) -> tuple[Case, ...]:
    """Return onnx's tests of single nodes, by name.

    Args:
        newest: The newest opset that is asked for.
    """
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = loader.load_model_tests(kind="node")  # type: ignore[no-untyped-call,unused-ignore]
    kept = []
    for each in found:
        model, sets = each.model, each.data_sets
        if model is None or not sets:
            continue
        opset = max((o.version for o in model.opset_import if not o.domain), default=1)
        if len(model.graph.node) == 1 and opset <= newest and not model.functions:
            inputs, outputs = (list(map(_array, values)) for values in sets[0])
            kept.append(Case(each.name, model.SerializeToString(), inputs, outputs))
    return tuple(sorted(kept, key=lambda each: each.name))


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return ir.serde.deserialize_tensor(value).numpy()
    return np.asarray(value) if isinstance(value, np.generic) else value


def difference(case: Case, found: Sequence[Any]) -> str:
    """Return how far results are off what onnx expects; nothing where they are right."""
    if len(found) != len(case.outputs):
        return f"{len(found)} outputs, not {len(case.outputs)}"
    node = onnx.ModelProto.FromString(case.model).graph.node[0]
    traits = traits_of(node.domain, node.op_type)
    is_random = traits is not None and traits.kind is Kind.RANDOM
    return next(
        (
            problem
            for one, other in zip(case.outputs, found, strict=True)
            if (problem := _off(one, other, is_random))
        ),
        "",
    )


def _off(expected: Any, found: Any, is_random: bool) -> str:
    if isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            return "another sequence"
        pairs = zip(expected, found, strict=True)
        return next((p for a, b in pairs if (p := _off(a, b, is_random))), "")
    if expected is None or found is None:
        return "" if expected is found else "nothing there"
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape:
        return f"shape {found.shape}, not {expected.shape}"
    if is_random:
        return ""
    if expected.dtype.kind in "OUS":
        return "" if (expected.astype(str) == found.astype(str)).all() else "other strings"
    narrow = expected.dtype in _NARROW
    one, other = expected.astype(np.complex128 if expected.dtype.kind == "c" else np.float64), None
    other = found.astype(one.dtype)
    rtol, atol = (4e-2, 2e-2) if narrow else (2e-3, 1e-4)
    finite = np.abs(one[np.isfinite(one)])
    atol *= max(1.0, float(finite.max(initial=0.0)))  # sums are off by the size of their terms
    if np.allclose(other, one, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"off by up to {np.nanmax(np.abs(one - other)):.3g}"


class Trials:
    """Runs tests in a child process, which is started anew when one ends it.

    Args:
        runtime: What runs them.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._home = WorkFolder()
        self._child: Child | None = None

    def outcome(self, case: Case) -> tuple[str, str]:
        """Return `right`, `wrong`, `refused` or `unbound`, and what was said."""
        graph = onnx.ModelProto.FromString(case.model).graph
        feeds = dict(zip((each.name for each in graph.input), case.inputs, strict=False))
        try:
            found = self._made(case.model, feeds, [each.name for each in graph.output])
        except Died as error:
            self._end()
            return "refused", error.how
        except _Refusal as error:
            said = str(error)
            return ("unbound" if any(each in said for each in _UNBOUND) else "refused"), said
        problem = difference(case, list(found.values()))
        return ("wrong", problem) if problem else ("right", "")

    def _made(self, model: bytes, feeds: Mapping[str, Any], outputs: list[str]) -> Feed:
        path, fed, made = (self._home.path / each for each in ("one.onnx", "fed", "made"))
        path.write_bytes(model)
        if self._child is None:
            self._child = Child(self._home.path / "log", self._runtime)
        opening: dict[str, object] = {
            "do": "open", "backend": self._runtime, "model": str(path), "files": {},
            "optimization": "all", "prepack": True, "fold": None, "memory": None,
            "outputs": outputs,
        }  # fmt: skip
        _asked(self._child, opening)
        running = {"do": "run", "inputs": str(fed), "outputs": str(made)}
        answer = _asked(self._child, {**running, "manifest": pack(feeds, fed)})
        return unpack(answer["manifest"], made)

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = None

    def close(self) -> None:
        """End the process."""
        self._end()
        self._home.remove()


class _Refusal(Exception):
    pass


def _asked(child: Child, request: Mapping[str, object]) -> dict[str, Any]:
    answer = child.ask(request, _SECONDS)
    if not answer["ok"]:
        raise _Refusal(answer["error"])
    return answer
