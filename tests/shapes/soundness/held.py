"""What is said of a drawn graph, held against its results."""

from __future__ import annotations

import random

import onnx_ir as ir

from tests.shapes.proven import number, wrapped
from tests.shapes.soundness.draw import Drawing, Graph
from tests.shapes.soundness.steps import draw
from vlmpass.ir_tools.graph.symbols import ProvenDim
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import Facts, facts_by_names, facts_of, visit_scope
from vlmpass.passes import PassManager, parse

__all__ = ["drawn", "hold", "hold_facts"]

STEPS = 22


def drawn(seed: int, steps: int = STEPS) -> Graph | None:
    """Return the graph of a seed; None where it does not run as a whole."""
    drawing = Drawing(random.Random(seed))
    draw(drawing, steps)
    return drawing.graph()


def hold(graph: Graph) -> int:
    """Hold facts and what infer writes against the results; return how many sizes were known."""
    for make in (facts_of, facts_by_names):
        model = ir.from_proto(graph.model)
        facts = make(model)
        visit_scope(facts, Scope(model.graph, model.graph, 0), lambda node, scope: None)
        hold_facts(graph, model, facts)
    return hold_shapes(graph)


def hold_facts(graph: Graph, model: ir.Model, facts: Facts) -> None:
    """Hold every size and element that is proven against the results."""
    for results in graph.results:
        for node in model.graph:
            for value in node.outputs:
                known, array = facts[value], results[value.name or ""]
                where = f"{node.op_type} {value.name}: {known}"
                if known.shape is not None:
                    sizes = tuple(number(facts.algebra, dim, results) for dim in known.shape)
                    assert sizes == array.shape, f"{where}, and it is {array.shape}"
                if known.elements is not None:
                    items = [number(facts.algebra, item, results) for item in known.elements]
                    assert items == [wrapped(int(x)) for x in array.ravel()], where


def hold_shapes(graph: Graph) -> int:
    """Hold what infer writes, and the symbols it leaves, against the results."""
    model = ir.from_proto(graph.model)
    PassManager(parse("infer")).run(model, in_place=True)
    known = 0
    for results in graph.results:
        names = _names(model, results)
        symbols: dict[int, int] = {}
        values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
        for value in values:
            if value.shape is None:
                continue
            array = results[value.name or ""]
            assert len(value.shape) == array.ndim, f"{value} has rank {array.ndim}"
            for dim, size in zip(value.shape, array.shape, strict=True):
                known += _hold_dim(value, dim, size, names, symbols)
    return known


def _names(model: ir.Model, results: dict[str, object]) -> dict[str, int]:
    return {
        dim.value: size
        for value in model.graph.inputs
        for dim, size in zip(value.shape or (), results[value.name or ""].shape, strict=True)  # type: ignore[attr-defined]
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }


def _hold_dim(
    value: ir.Value,
    dim: int | ir.SymbolicDim,
    size: int,
    names: dict[str, int],
    symbols: dict[int, int],
) -> bool:
    """Hold one size against what it is; say if anything was known of it."""
    if isinstance(dim, int):
        assert dim == size, f"{value} is {size} there"
        return True
    if isinstance(dim, ProvenDim):
        assert symbols.setdefault(dim.symbol, size) == size, f"{value}: a symbol's sizes differ"
    if dim.value is None:
        return isinstance(dim, ProvenDim)
    found = ir.SymbolicDim(dim.value).evaluate(names)
    assert found == size, f"{value} is {size} and not {found}"
    return True
