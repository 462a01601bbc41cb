"""Shapes of every value from the inputs and the operators alone, whatever the model declares.

Two sources, each sound where it speaks: onnx's own inference, which knows every operator of ONNX,
and the facts of `vlmpass.ir_tools.shapes`, which compute with sizes that are only known by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.check.weightless import weightless
from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.walk import Scope, all_nodes, subgraphs
from vlmpass.ir_tools.proto.proto_view import graph_protos, skeleton
from vlmpass.ir_tools.shapes import Dim, Facts, kept_facts, visit_scope
from vlmpass.ir_tools.worker.bounded import NativeError, infer_shapes
from vlmpass.ir_tools.worker.in_parts import in_parts, wants_parts

__all__ = ["Size", "inferred_shapes", "shapes_known", "size_of"]


@dataclass(frozen=True)
class Size:
    """What is known about one axis.

    Attributes:
        known: Its size, or an expression over named sizes of the model's inputs; None if neither.
        varies: Whether it is known to depend on the sizes of the inputs.
        made: Whether it is not known because a node makes it, so that others may know better.
        symbol: What it has in common with the sizes that are proven equal, see `ProvenDim`.
    """

    known: int | str | None
    varies: bool = False
    symbol: int | None = None
    made: bool = False


def inferred_shapes(
    model: ir.Model, *, trust_unknown: bool = True
) -> dict[ir.Value, tuple[Size, ...] | None]:
    """Infer the shapes of the inputs, and of node outputs of the graph and its subgraphs.

    Args:
        model: Any model in topological order; it is not changed and no weight is read.
        trust_unknown: Whether to believe what is declared for operators nobody knows.

    Returns:
        The sizes of every axis, for all these values; None where the rank is not known. Declared
        shapes of graph inputs are believed, those in between and of outputs are not.
    """
    proven = _by_facts(model)
    known = {id(sizes): sizes for sizes in proven.values()}.values()
    if not any(sizes is None or any(size.made for size in sizes) for sizes in known):
        return proven
    named = {
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    odd = {node for node in all_nodes(model) if _misread(node, proven)}
    others = _by_onnx(model, named, trust_unknown, odd)
    return {value: _merge(sizes, others.get(value)) for value, sizes in proven.items()}


@contextmanager
def shapes_known(model: ir.Model) -> Iterator[None]:
    """Let every value have the shape that follows from the inputs, for a while."""
    before: dict[ir.Value, ir.Shape | None] = {}
    for value, sizes in inferred_shapes(model).items():
        if sizes is not None and (value.shape is None or not value.shape.is_static()):
            before[value] = value.shape
            value.shape = ir.Shape([size.known for size in sizes])
    try:
        yield
    finally:
        for value, shape in before.items():
            value.shape = shape


def _by_facts(model: ir.Model) -> dict[ir.Value, tuple[Size, ...] | None]:
    """Return what is proven about all inputs and node outputs, None where the rank is not."""
    facts = kept_facts(model, by_names=True)
    values = [value for value in model.graph.inputs if value.shape is not None]
    visit_scope(
        facts,
        Scope(model.graph, model.graph, 0),
        lambda node, scope: values.extend(node.outputs),
    )
    size = cache(partial(size_of, facts))

    @cache
    def sizes(shape: tuple[Dim, ...] | None) -> tuple[Size, ...] | None:
        return None if shape is None else tuple(map(size, shape))

    return {value: sizes(facts[value].shape) for value in values}


def _merge(
    proven: tuple[Size, ...] | None, other: tuple[Size, ...] | None
) -> tuple[Size, ...] | None:
    """Take what is proven, but a number of onnx where that is lacking.

    Its names are those of sizes that a Reshape is given, which may be 0 and then stand for others.
    """
    if proven is None or other is None or len(other) != len(proven):
        return other if proven is None else proven
    return tuple(
        replace(a, known=b.known) if a.made and isinstance(b.known, int) else a
        for a, b in zip(proven, other, strict=True)
    )


def size_of(facts: Facts, dim: Dim) -> Size:
    """Say an expression as what is known about an axis."""
    if isinstance(dim, int):
        return Size(dim)
    text = _text(facts, dim)
    return Size(text, _varies(facts, dim), dim.symbol, text is None and _made(facts, dim))


def _made(facts: Facts, dim: Dim) -> bool:
    values = (facts.algebra.atoms[serial].value for serial in facts.algebra.atoms_in(dim))
    return any(value.producer() is not None for value in values if value is not None)


def _atoms(dim: Dim) -> Iterator[int]:
    if not isinstance(dim, int):
        yield from (serial for monomial, _ in dim.terms for serial, _ in monomial)


def _varies(facts: Facts, dim: Dim) -> bool:
    """Whether an expression is one of the sizes of the model's inputs and nothing else."""
    for serial in _atoms(dim):
        atom = facts.algebra.atoms[serial]
        if atom.operation == "dim":
            if atom.value is None or not atom.value.is_graph_input():
                return False
        elif not atom.args or not all(_varies(facts, arg) for arg in atom.args):
            return False
    return True


def _text(facts: Facts, dim: Dim) -> str | None:
    """Write an expression over names of input sizes, such as ``2*batch + 1``; None if it is not."""
    if isinstance(dim, int):
        return str(dim)
    terms = []
    for monomial, factor in reversed(dim.terms):
        names = [_atom_text(facts, serial) for serial, power in monomial for _ in range(power)]
        if any(name is None for name in names):
            return None
        factors = [str(abs(factor))] if abs(factor) != 1 or not names else []
        factors += [name for name in names if name is not None]
        terms.append(("- " if factor < 0 else "+ ") + "*".join(factors))
    text = " ".join(terms)
    return text[2:] if text.startswith("+ ") else f"-{text[2:]}"


def _atom_text(facts: Facts, serial: int) -> str | None:
    atom = facts.algebra.atoms[serial]
    if atom.operation == "dim" and atom.value is not None and atom.value.is_graph_input():
        dim = None if atom.value.shape is None else atom.value.shape[atom.index]
        return dim.value if isinstance(dim, ir.SymbolicDim) else None
    args = [_text(facts, arg) for arg in atom.args]
    if atom.operation == "broadcast" and len(set(args)) == 1:
        return args[0]  # inputs whose axes have one name have one size
    if atom.operation == "floordiv" and None not in args:
        return f"floor(({args[0]})/({args[1]}))"
    return None


def _misread(node: ir.Node, proven: Mapping[ir.Value, tuple[Size, ...] | None]) -> bool:
    """Whether onnx says of this node what is not so, or not everywhere.

    It takes an unknown length of Attention for 0. What it gets wrong is the product of queries and
    keys, and where there is a past, the last axis if that of the values is not known. A backward
    Slice from or to beyond the ends has lengths that the runtimes do not share.
    """
    if node.op_type == "Slice" and node.domain == "":
        return any(size.made for size in proven.get(node.outputs[0]) or ())
    if node.op_type != "Attention" or node.domain != "":
        return False
    if len(node.outputs) > 3 and node.outputs[3].name:
        return True
    values = node.inputs[2] if len(node.inputs) > 4 else None
    if values is None:
        return False
    sizes = proven.get(values)
    last = sizes[-1].known if sizes else None if values.shape is None else values.shape[-1]
    return not isinstance(last, int)


def _by_onnx(
    model: ir.Model, named: set[str], trust_unknown: bool, odd: set[ir.Node]
) -> dict[ir.Value, tuple[Size, ...]]:
    def declare(value: ir.Value) -> ir.Value:
        """Declare only what nobody can infer."""
        node = value.producer()
        if node is not None and node.domain in _ONNX_DOMAINS and node not in odd:
            return ir.Value(name=value.name)
        if node is not None and trust_unknown and node.op_type != "Slice":
            return ir.Value(name=value.name, type=value.type, shape=value.shape)
        return ir.Value(name=value.name, type=value.type)

    proto = skeleton(model, weightless, declare)
    for graph, graph_proto in _pairs(model.graph, proto.graph) if odd else ():
        for node, node_proto in zip(graph, graph_proto.node, strict=True):
            if node in odd:
                node_proto.domain = _OUTSIDE
    if odd:
        proto.opset_import.add(domain=_OUTSIDE, version=1)
    nodes = iter(model.graph)
    shapes: dict[ir.Value, tuple[Size, ...]] = {}
    for result in _completed(proto):
        for graph, graph_proto in _pairs(list(islice(nodes, len(result.node))), result):
            shapes.update(_shapes_in(graph, graph_proto, named))
    return shapes


def _shapes_in(
    graph: Iterable[ir.Node], proto: onnx.GraphProto, named: set[str]
) -> Iterator[tuple[ir.Value, tuple[Size, ...]]]:
    types = {each.name: each.type for each in (*proto.value_info, *proto.output)}
    for node in graph:
        for value in node.outputs:
            type_ = types.get(value.name or "")
            if type_ is not None and type_.tensor_type.HasField("shape"):
                dims = type_.tensor_type.shape.dim
                yield value, tuple(Size(_dim(dim, named)) for dim in dims)


def _completed(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph as onnx infers it, in parts where it is large and holds many graphs."""
    try:
        if wants_parts(proto):
            yield from in_parts(proto, infer_shapes)
        else:
            yield onnx.load_model_from_string(infer_shapes(proto.SerializeToString())).graph
    except NativeError as error:
        reason = (error.said.strip().splitlines() or [error.kind])[0]
        raise ModelError(f"onnx's shape inference refuses the model: {reason}") from error


def _dim(dim: onnx.TensorShapeProto.Dimension, named: set[str]) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value
    return dim.dim_param if dim.dim_param in named else None


_ONNX_DOMAINS = ("", "ai.onnx.ml")
_OUTSIDE = "vlmpass.unknown"


def _pairs(
    graph: Iterable[ir.Node], proto: onnx.GraphProto
) -> Iterator[tuple[Iterable[ir.Node], onnx.GraphProto]]:
    yield graph, proto
    for node, node_proto in zip(graph, proto.node, strict=True):
        for inner, inner_proto in zip(subgraphs(node), graph_protos(node_proto), strict=True):
            yield from _pairs(inner, inner_proto)
