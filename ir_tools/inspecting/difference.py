"""What two models have in common and what not: interface, nodes, edges, attributes, weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.describe import describe_type, name_node
from vlmpass.ir_tools.graph.walk import Scope, scopes, subgraphs
from vlmpass.ir_tools.inspecting.change import Change, Difference
from vlmpass.ir_tools.load.source import Source, load
from vlmpass.ir_tools.proto.onnx_text import Digests
from vlmpass.ir_tools.weights import file_range

__all__ = ["diff", "difference", "origins"]


def diff(a: Source, b: Source) -> Difference:
    """Return what two models do not have in common.

    Args:
        a: Anything that `load` takes.
        b: Likewise.

    Raises:
        ModelError: One cannot be opened.
    """
    return difference(*(each if isinstance(each, ir.Model) else load(each) for each in (a, b)))


def difference(a: ir.Model, b: ir.Model) -> Difference:
    """Compare two models.

    Weights are read in chunks, and only where the places that they lie in do not say enough.

    Nodes are the same where all that leads to them is: operators, attributes, weights by content.
    Others are matched by the names of what they give.
    """
    return _Comparison(_Half(a), _Half(b)).run()


def origins(model: ir.Model) -> dict[ir.Value, str]:
    """Return what leads to every value of the main graph, for those where that is told apart.

    Alike in two models, whatever is called otherwise in between, except for weights, which count by
    name; none is read.
    """
    half = _Half(model)
    known = _Origins(half, lambda value: f"weight {value.name}")
    found = {
        value: known.of(node) + f" {at}"
        for node in model.graph
        for at, value in enumerate(node.outputs)
    }
    number = Counter(found.values())
    return {value: origin for value, origin in found.items() if number[origin] == 1}


class _Half:
    """One of the two models: its nodes by what leads to them and by name."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.digests = Digests()
        self._content: dict[int, Hashable] = {}
        self.owner: dict[ir.Node, Scope] = {}
        self.nodes: list[ir.Node] = []
        for scope in scopes(model):
            for node in scope.graph:
                self.nodes.append(node)
                self.owner[node] = scope

    def weights(self) -> dict[str, ir.TensorProtocol]:
        """Return every initializer by name, those of subgraphs behind the graph's."""
        return {
            _qualified(scope, str(value.name)): value.const_value
            for scope in scopes(self.model)
            for value in scope.initializers.values()
            if value.const_value is not None
        }

    def content(self, tensor: ir.TensorProtocol) -> str:
        """Return what is equal for equal tensors."""
        return f"{tensor.dtype.name}{list(tensor.shape.numpy())}{self.digests.of(tensor)}"


def _qualified(scope: Scope, name: str) -> str:
    if isinstance(scope.owner, ir.Function):
        return f"{scope.owner.domain}.{scope.owner.name}/{name}"
    return name


@dataclass
class _Comparison:
    a: _Half
    b: _Half
    _same_bytes: dict[tuple[int, int], bool] = field(default_factory=dict)

    def run(self) -> Difference:
        weights, renamed = self._weights()
        origins = [_Origins(half, self._names_of_weights(half)) for half in (self.a, self.b)]
        pairs, gone, come = self._matched(*origins)
        renamed.update(self._renamed(pairs))
        alike = {one for one, two in pairs if origins[0].of(one) == origins[1].of(two)}
        nodes = [
            change
            for one, two in pairs
            if one not in alike
            for change in self._changes(one, two, renamed)
        ]
        equal = len(self.a.nodes) - len(gone) - len({change.name for change in nodes})
        counts = [Counter(_operator(node) for node in half.nodes) for half in (self.a, self.b)]
        return Difference(
            tuple(self._interface()),
            tuple(self._about()),
            {
                name: (counts[0][name], counts[1][name])
                for name in sorted(counts[0].keys() | counts[1].keys())
                if counts[0][name] != counts[1][name]
            },
            tuple(name_node(node) for node in gone),
            tuple(name_node(node) for node in come),
            tuple(nodes),
            tuple(self._values(pairs)),
            tuple(weights),
            renamed,
            equal,
        )

    def equal(self, one: ir.TensorProtocol, two: ir.TensorProtocol) -> bool:
        """Whether two tensors hold the same; those of one place are not read."""
        if one is two:
            return True
        if (one.dtype, list(one.shape.numpy())) != (two.dtype, list(two.shape.numpy())):
            return False
        place = file_range(one)
        if place is not None and place == file_range(two):
            return True
        key = id(one), id(two)
        if key not in self._same_bytes:
            self._same_bytes[key] = self.a.content(one) == self.b.content(two)
        return self._same_bytes[key]

    def _weights(self) -> tuple[list[Change], dict[str, str]]:
        old, new = self.a.weights(), self.b.weights()
        changes = [
            Change(name, "weight", _tensor(old[name]), _tensor(new[name], old[name]))
            for name in old
            if name in new and not self.equal(old[name], new[name])
        ]
        gone = {name: each for name, each in old.items() if name not in new}
        come = {name: each for name, each in new.items() if name not in old}
        kinds = {_tensor(each) for each in come.values()}
        known: dict[str, list[str]] = {}
        for name, each in come.items() if gone else ():
            known.setdefault(self.b.content(each), []).append(name)
        renamed: dict[str, str] = {}
        for name, each in gone.items():
            names = known.get(self.a.content(each), []) if _tensor(each) in kinds else []
            if names:
                renamed[name] = names.pop(0)
        taken = {*renamed.values()}
        changes += [
            Change(n, "weight", _tensor(e), "") for n, e in gone.items() if n not in renamed
        ]
        changes += [Change(n, "weight", "", _tensor(e)) for n, e in come.items() if n not in taken]
        return changes, renamed

    def _names_of_weights(self, half: _Half) -> Callable[[ir.Value], str]:
        """Return what tells a weight's content apart; what both have in one place is not read."""
        other = (self.b if half is self.a else self.a).weights()

        def told(value: ir.Value) -> str:
            tensor, twin = value.const_value, other.get(str(value.name))
            assert tensor is not None
            if twin is not None and self.equal(
                *((tensor, twin) if half is self.a else (twin, tensor))
            ):
                return f"weight {value.name}"
            return half.content(tensor)

        return told

    def _matched(
        self, one: _Origins, two: _Origins
    ) -> tuple[list[tuple[ir.Node, ir.Node]], list[ir.Node], list[ir.Node]]:
        """Return pairs of nodes, by origin and then by name, and the nodes without one."""
        left: dict[ir.Node, None] = dict.fromkeys(self.b.nodes)
        pairs: dict[ir.Node, ir.Node] = {}
        for key_of in (
            lambda origins, node: (_name(node), origins.of(node)),
            lambda origins, node: origins.of(node),
            lambda _, node: _name(node) or None,
        ):
            known: dict[Hashable, list[ir.Node]] = {}
            for node in left:
                known.setdefault(key_of(two, node), []).append(node)
            for node in self.a.nodes:
                key = None if node in pairs else key_of(one, node)
                if key is not None and known.get(key):
                    pairs[node] = known[key].pop(0)
                    del left[pairs[node]]
        gone = [node for node in self.a.nodes if node not in pairs]
        return list(pairs.items()), gone, list(left)

    def _changes(self, one: ir.Node, two: ir.Node, renamed: Mapping[str, str]) -> Iterator[Change]:
        name = name_node(one)
        if _operator(one) != _operator(two):
            yield Change(name, "operator", _operator(one), _operator(two))
            return
        before, after = _texts(one), _texts(two)
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if old == new or old is None or new is None:
                if old != new:
                    yield Change(name, f"attribute {key}", old or "", new or "")
                continue
            tensors = one.attributes[key], two.attributes[key]
            if all(e.type == ir.AttributeType.TENSOR and not e.is_ref() for e in tensors):
                if not self.equal(tensors[0].as_tensor(), tensors[1].as_tensor()):
                    told = _tensor(tensors[1].as_tensor(), tensors[0].as_tensor())
                    yield Change(name, f"attribute {key}", old, told)
            else:
                yield Change(name, f"attribute {key}", old, new)
        wired = [[_label(value) for value in node.inputs] for node in (one, two)]
        if [renamed.get(each, each) for each in wired[0]] != wired[1] and _name(one) == _name(two):
            yield Change(name, "inputs", ", ".join(wired[0]), ", ".join(wired[1]))

    def _renamed(self, pairs: Iterable[tuple[ir.Node, ir.Node]]) -> dict[str, str]:
        return {
            str(old.name): str(new.name)
            for one, two in pairs
            for old, new in zip(one.outputs, two.outputs, strict=False)
            if old.name and new.name and old.name != new.name
        }

    def _values(self, pairs: Iterable[tuple[ir.Node, ir.Node]]) -> Iterator[Change]:
        for one, two in pairs:
            for old, new in zip(one.outputs, two.outputs, strict=False):
                if old.is_graph_output() or new.is_graph_output():
                    continue
                before, after = describe_type(old), describe_type(new)
                if before and after and before != after:
                    yield Change(str(old.name), "type", before, after)

    def _interface(self) -> Iterator[Change]:
        for what in ("inputs", "outputs"):
            ends = [
                {str(value.name): describe_type(value) for value in getattr(half.model.graph, what)}
                for half in (self.a, self.b)
            ]
            for name in dict.fromkeys((*ends[0], *ends[1])):
                old, new = ends[0].get(name, ""), ends[1].get(name, "")
                if old != new:
                    yield Change(name, what.removesuffix("s"), old, new)
            names = [[n for n in end if n in ends[0] and n in ends[1]] for end in ends]
            if names[0] != names[1]:
                yield Change(what, "order", ", ".join(names[0]), ", ".join(names[1]))

    def _about(self) -> Iterator[Change]:
        told = [dict(_facts(half.model)) for half in (self.a, self.b)]
        for name in dict.fromkeys((*told[0], *told[1])):
            old, new = told[0].get(name, ""), told[1].get(name, "")
            if old != new:
                yield Change(name, "model", old, new)


class _Origins:
    """What leads to every node of a model, as one hash: alike whatever things are called."""

    def __init__(self, half: _Half, weight: Callable[[ir.Value], str]) -> None:
        self._half = half
        self._weight = weight
        self._known: dict[ir.Node, str] = {}
        self._values: dict[ir.Value, str] = {}
        graphs: list[ir.Graph | ir.Function] = [half.model.graph, *half.model.functions.values()]
        for graph in graphs:
            self._walk(graph, "")

    def of(self, node: ir.Node) -> str:
        """Return the hash of a node."""
        return self._known[node]

    def _walk(self, graph: ir.Graph | ir.Function, around: str) -> None:
        where = f"{graph.domain}.{graph.name}" if isinstance(graph, ir.Function) else around
        for index, value in enumerate(graph.inputs):
            told = value.name if not where else f"{where} {index}"
            self._values[value] = f"input {told}"
        for node in graph:
            self._known[node] = self._hash(node)
            for index, value in enumerate(node.outputs):
                self._values[value] = f"{self._known[node]} {index}"
            for number, inner in enumerate(subgraphs(node)):
                self._walk(inner, f"{self._known[node]} {number}")

    def _hash(self, node: ir.Node) -> str:
        digest = hashlib.sha256(_operator(node).encode())
        for key, text in sorted(_texts(node, self._half.content).items()):
            digest.update(f"\0{key}={text}".encode())
        for value in node.inputs:
            digest.update(f"\1{self._origin(value)}".encode())
        return digest.hexdigest()

    def _origin(self, value: ir.Value | None) -> str:
        if value is None:
            return ""
        if value not in self._values:
            known = value.is_initializer() and value.const_value is not None
            self._values[value] = self._weight(value) if known else f"value {value.name}"
        return self._values[value]


def _operator(node: ir.Node) -> str:
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{name}:{node.overload}" if node.overload else name


def _name(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), None) or node.name or ""


def _label(value: ir.Value | None) -> str:
    return "-" if value is None else str(value.name)


def _tensor(tensor: ir.TensorProtocol, unlike: ir.TensorProtocol | None = None) -> str:
    told = f"{tensor.dtype.name.lower()}{list(tensor.shape.numpy())}".replace(" ", "")
    if tensor.size == 1 and tensor.dtype.bitwidth >= 8:
        return f"{told} {tensor.numpy().ravel()[0]}"
    return told if unlike is None or _tensor(unlike) != told else f"{told}, other values"


def _texts(
    node: ir.Node, content: Callable[[ir.TensorProtocol], str] | None = None
) -> dict[str, str]:
    """Return a node's attributes as texts; graphs count as nodes of their own."""
    found = {}
    for attribute in node.attributes.values():
        if attribute.is_ref():
            found[attribute.name] = f"@{attribute.ref_attr_name}"
        elif attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            found[attribute.name] = _tensor(tensor) if content is None else content(tensor)
        elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            found[attribute.name] = str(attribute.value)
    return found


def _facts(model: ir.Model) -> Iterator[tuple[str, str]]:
    yield "IR version", str(model.ir_version)
    for domain, version in model.graph.opset_imports.items():
        yield f"opset {domain or 'ai.onnx'}", str(version)
    for name, function in model.functions.items():
        yield f"function {'.'.join(filter(None, name))}", f"{len(list(function))} nodes"
    for key, value in model.metadata_props.items():
        yield f"metadata {key}", value
