"""Holds everything that is said to be proven about a model against what happens when it runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import Algebra, Dim, Facts, facts_of, visit_scope

Results = Mapping[str, np.ndarray]


def facts_about(model: ir.Model) -> Facts:
    facts = facts_of(model)
    visit_scope(facts, Scope(model.graph, model.graph, 0), lambda node, scope: None)
    return facts


def number(algebra: Algebra, dim: Dim, results: Results) -> int:
    """Evaluate an expression on the values of a run."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        for serial, power in monomial:
            factor *= _atom(algebra, serial, results) ** power
        total += factor
    return wrapped(total)


def wrapped(number: int) -> int:
    """Return what int64 makes of a number."""
    return (number + 2**63) % 2**64 - 2**63


def _atom(algebra: Algebra, serial: int, results: Results) -> int:
    atom = algebra.atoms[serial]
    if atom.value is not None:
        array = results[atom.value.name or ""]
        found = array.shape[atom.index] if atom.operation == "dim" else array.ravel()[atom.index]
        assert atom.low is None or found >= atom.low
        return int(found)
    args = [number(algebra, arg, results) for arg in atom.args]
    if atom.operation == "broadcast":
        sizes = {size for size in args if size != 1}
        assert len(sizes) <= 1
        return sizes.pop() if sizes else 1
    a, b = args
    found = {
        "sum": lambda: a + b,
        "product": lambda: a * b,
        "floordiv": lambda: a // b,
        "truncdiv": lambda: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
        "max": lambda: max(a, b),
        "min": lambda: min(a, b),
    }[atom.operation]()
    assert atom.low is None or found >= atom.low
    return found


def hold(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Facts:
    """Run a model with every value as an output and compare shapes and elements."""
    model = ir.from_proto(proto)
    facts = facts_about(model)
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    have = {value.name for value in proto.graph.output}
    for node in model.graph:
        for value in node.outputs:
            if value.name not in have:
                shown.graph.output.append(onnx.ValueInfoProto(name=value.name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    results = {**feeds, **dict(zip(names, session.run(names, dict(feeds)), strict=True))}
    for node in model.graph:
        for value in node.outputs:
            known, array = facts[value], results[value.name or ""]
            if known.shape is not None:
                sizes = tuple(number(facts.algebra, dim, results) for dim in known.shape)
                assert sizes == array.shape, f"{node.op_type} {value.name}"
            if known.elements is not None:
                items = [number(facts.algebra, item, results) for item in known.elements]
                assert items == [int(x) for x in array.ravel()], f"{node.op_type} {value.name}"
    return facts
