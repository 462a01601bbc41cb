"""Parts joined to the whole that they were, or to what became of it since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.describe import describe_type
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import holds_graphs, subgraphs
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.parts.function_identity import function_identity
from vlmpass.ir_tools.parts.manifest import Manifest, Part
from vlmpass.ir_tools.proto.onnx_text import Digests
from vlmpass.ir_tools.run.segments import is_repeated

__all__ = ["composed", "joined"]


def composed(manifest: Manifest) -> ir.Model:
    """Return the whole that the parts in a folder make, as `joined` does."""
    return joined(manifest, (load(manifest.path_of(part)) for part in manifest.parts))


def joined(manifest: Manifest, models: Iterable[ir.Model]) -> ir.Model:
    """Return the whole that some parts make; no weight is read, but where two have one name.

    What two parts have of the same name and content, such as a tied weight, is in the result once;
    what they have of the same name and another content is renamed in the later one.

    Raises:
        ModelError: A part is not valid, or does not fit the others any more: it is of another
            opset, or gives another type than a later one takes.
    """
    whole: ir.Model | None = None
    joint: _Joint | None = None
    for part, model in zip(manifest.parts, models, strict=True):
        if joint is None or whole is None:
            whole = _empty_like(model)
            joint = _Joint(whole, manifest)
        joint.add(part, model)
    if joint is None or whole is None:
        raise ModelError("the manifest has no parts", remedy="split a model")
    joint.finish()
    return whole


def _empty_like(model: ir.Model) -> ir.Model:
    graph = ir.Graph(
        [],
        [],
        nodes=[],
        name=model.graph.name,
        doc_string=model.graph.doc_string,
        opset_imports=dict(model.graph.opset_imports),
        metadata_props=dict(model.graph.metadata_props),
    )
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )


class _Joint:
    """A whole that parts are added to, one after the other."""

    def __init__(self, whole: ir.Model, manifest: Manifest) -> None:
        self._whole = whole
        self._manifest = manifest
        self._borders: dict[str, ir.Value] = {}
        self._givers: dict[str, str] = {}
        self._names = Names()
        self._outermost: set[str] = set()
        self._digests = Digests()
        self._shared: dict[str, ir.Value] = {}
        given = (*manifest.inputs, *(each for p in manifest.parts for each in p.outputs))
        self._outermost.update(given)
        self._names.note(given)

    def add(self, part: Part, model: ir.Model) -> None:
        """Move what a part is made of into the whole."""
        self._hold(part, model)
        model = clone(model)
        graph = model.graph
        optional = dict(graph.initializers)
        inputs, outputs = list(graph.inputs), list(graph.outputs)
        graph.inputs.clear()
        graph.outputs.clear()
        for value in inputs:
            self._take(part, value, value.name in optional)
        for value in outputs:
            if value not in inputs:
                self._give(part, value)
        self._rename_inside(graph)
        for value in list(graph.initializers.values()):
            self._move_weight(graph, value)
        for node in list(graph):
            graph.remove(node)
            if not self._is_there(node):
                self._rename(node)
                self._whole.graph.append(node)
        self._whole.ir_version = max(self._whole.ir_version, model.ir_version)

    def finish(self) -> None:
        """Say what comes out."""
        missing = [name for name in self._manifest.outputs if name not in self._borders]
        if missing:
            raise ModelError(f"no part gives the output '{missing[0]}' any more")
        graph = self._whole.graph
        graph.inputs.extend(self._borders[n] for n in self._manifest.inputs if n in self._borders)
        graph.outputs.extend(self._borders[name] for name in self._manifest.outputs)

    def _hold(self, part: Part, model: ir.Model) -> None:
        """Refuse a part that does not fit the others; take its functions."""
        graph, imports = model.graph, self._whole.graph.opset_imports
        for domain, version in graph.opset_imports.items():
            if imports.setdefault(domain, version) != version:
                raise ModelError(
                    f"the part '{part.name}' is of opset {domain or 'ai.onnx'} {version}, the"
                    f" others of {imports[domain]}",
                    remedy="convert all parts to one opset",
                )
        for what, has, wants in (
            ("takes", {str(value.name) for value in graph.inputs}, part.inputs),
            ("gives", {str(value.name) for value in graph.outputs}, part.outputs),
        ):
            if not has >= {*wants} or (what == "takes" and has != {*wants}):
                odd = sorted(has ^ {*wants})[0]
                raise ModelError(
                    f"the part '{part.name}' no longer {what} what the manifest says: '{odd}'"
                )
        for name, function in model.functions.items():
            known = self._whole.functions.setdefault(name, function)
            if known is not function and self._identity(known) != self._identity(function):
                raise ModelError(
                    f"the function {function.domain}.{function.name} is another one in the part"
                    f" '{part.name}'",
                    remedy="run the pass inline-functions over the parts",
                )

    def _take(self, part: Part, value: ir.Value, is_optional: bool) -> None:
        """Let a part take what it takes from outside."""
        name = str(value.name)
        known = self._borders.setdefault(name, value)
        if known is value:
            return
        types = known.type, value.type
        if None not in types and types[0] != types[1]:
            raise ModelError(
                f"'{name}' is {describe_type(known)} where it is made, and the part '{part.name}'"
                f" takes {describe_type(value)}",
                remedy="convert its inputs and outputs alike, or keep them with --keep-io",
            )
        value.replace_all_uses_with(known)
        if is_optional and value.graph is not None:
            value.graph.initializers.pop(name, None)

    def _give(self, part: Part, value: ir.Value) -> None:
        """Let later parts take what a part gives."""
        name = str(value.name)
        if name in self._borders:
            giver = self._givers.get(name)
            other = f"the part '{giver}' gives" if giver else "the whole takes"
            raise ModelError(
                f"the part '{part.name}' gives '{name}', which {other} too",
                remedy="call it otherwise in one of them",
            )
        self._givers[name], self._borders[name] = part.name, value

    def _move_weight(self, graph: ir.Graph, value: ir.Value) -> None:
        name = str(value.name)
        known = self._shared.get(name)
        if known is not None and self._equal(known.const_value, value.const_value):
            value.replace_all_uses_with(known)
            if self._borders.get(name) is value:
                self._borders[name] = known
            return
        del graph.initializers[name]
        if self._borders.get(name) is not value:
            value.name = self._fresh(name)
        self._shared.setdefault(name, value)
        self._whole.graph.register_initializer(value)

    def _equal(self, a: ir.TensorProtocol | None, b: ir.TensorProtocol | None) -> bool:
        if a is None or b is None or (a.dtype, tuple(a.shape)) != (b.dtype, tuple(b.shape)):
            return False
        return a is b or self._digests.of(a) == self._digests.of(b)

    def _is_there(self, node: ir.Node) -> bool:
        """Whether a Constant, or a Cast of a weight, came with an earlier part; then use that."""
        known = self._shared.get(str(node.outputs[0].name)) if node.outputs else None
        maker = None if known is None else known.producer()
        if known is None or maker is None or not is_repeated(node.outputs[0]):
            return False
        if not _same_but_inputs(maker, node, self._equal) or [*maker.inputs] != [*node.inputs]:
            return False
        node.outputs[0].replace_all_uses_with(known)
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
        return True

    def _rename(self, node: ir.Node) -> None:
        """Give what a node makes names of its own."""
        for value in node.outputs:
            if not value.name:
                continue
            if is_repeated(value):
                self._shared.setdefault(value.name, value)
            if self._borders.get(value.name) is not value:
                value.name = self._fresh(value.name)
        if node.name:
            node.name = self._names.node(node.name)

    def _fresh(self, hint: str) -> str:
        name = self._names.value(hint)
        self._outermost.add(name)
        return name

    def _rename_inside(self, graph: ir.Graph) -> None:
        """Let nothing inside the subgraphs of a part hide what another part makes."""
        inner = list(_inside(graph))
        for value in inner:
            if value.name in self._outermost:
                value.name = self._names.value(value.name)
        self._names.note(str(value.name) for value in inner)

    def _identity(self, function: ir.Function) -> bytes:
        return function_identity(function, self._digests)


def _inside(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what is named in the subgraphs of a graph's nodes."""
    for node in graph:
        for inner in subgraphs(node) if holds_graphs(node) else ():
            named = (*inner.inputs, *inner.initializers.values())
            yield from dict.fromkeys(value for value in named if value.name)
            yield from (v for each in inner for v in each.outputs if v.name)
            yield from _inside(inner)


def _same_but_inputs(a: ir.Node, b: ir.Node, equal: object) -> bool:
    if (a.op_identifier(), a.name, set(a.attributes)) != (
        b.op_identifier(),
        b.name,
        set(b.attributes),
    ):
        return False
    assert callable(equal)
    for name, one in a.attributes.items():
        other = b.attributes[name]
        if one.type != other.type:
            return False
        tensors = one.type == ir.AttributeType.TENSOR and not one.is_ref()
        if not (equal(one.value, other.value) if tensors else one.value == other.value):
            return False
    return True
