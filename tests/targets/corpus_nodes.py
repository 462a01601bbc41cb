"""Are the predictions of a profile what the runtime does, for the nodes of whole models?

    python -m tests.targets.corpus_nodes [--sample N --seed S] TARGET[,TARGET] [MODEL | FOLDER ...]

Without models it goes through the exports of tests/fixtures. Functions are inlined, then each
distinct node (operator, version, attributes, types, shapes and constants) of a main graph is a
model of its own: shapes are as open as they are there, constants stay constants, and what else
goes in is what the model computes there, with half precision in float32, or is drawn. What is
right is what onnx's reference evaluator says of it, or, where that has nothing to say, ONNX
Runtime in float32. Nodes that hold graphs or values that are no tensors are left out and counted.
"""

from __future__ import annotations

import argparse
import random
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from tests.legalize.target_models import NARROW, Source, sources
from tests.opset.opset_models import EXPORTS
from tests.targets.node_tests import report
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.targets.node_trials import Case
from vlmpass.ir_tools.targets.type_trials import computed_by_onnx
from vlmpass.passes import PassManager, parse
from vlmpass.passes.dtype.repair_types import RepairTypes

_SMALL = 64
"""Up to how many elements a constant's numbers tell two nodes apart, as profiles may."""

_OPEN = 2
"""How long an open axis is where a model does not run, and its values are drawn."""

_WHOLE = frozenset(each for each in ir.DataType if each.is_integer())

Values = Mapping[str, np.ndarray]


@dataclass
class Nodes:
    """The distinct nodes of models.

    Attributes:
        cases: Each as a model of its own, with what goes in and what is right.
        left_out: How many are none, by the reason.
    """

    cases: list[Case] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _seen: set[object] = field(default_factory=set, repr=False)

    def add(self, source: Source) -> None:
        """Add the nodes of one model that none before it has."""
        model = load(source.path)
        PassManager(parse("inline-functions,infer"), ()).run(model, in_place=True)
        new = []
        for node in model.graph:
            key = _key(node, model)
            if node.op_type != "Constant" and key not in self._seen:
                self._seen.add(key)
                new.append(node)
        values = _values(source, model) if new else {}
        for number, node in enumerate(new):
            name = f"{source.name}:{node.name or number}"
            found = _case(name, node, model, values)
            if isinstance(found, str):
                self.left_out[found] += 1
            else:
                self.cases.append(found)


def nodes_of(given: Sequence[str]) -> Nodes:
    """Return the distinct nodes of models, folders being searched."""
    found = Nodes()
    for source in sources(given):
        found.add(source)
    return found


def _key(node: ir.Node, model: ir.Model) -> object:
    """Return all that a profile could tell two nodes apart by."""
    dims: dict[object, int] = {}
    return (
        node.op_identifier(),
        model.opset_imports.get(node.domain),
        tuple(sorted((name, str(_plain(each))) for name, each in node.attributes.items())),
        tuple(_described(each, dims) for each in node.inputs),
        tuple(_described(each, dims) for each in node.outputs),
    )


def _plain(attribute: ir.Attr) -> object:
    if attribute.type is ir.AttributeType.TENSOR:
        return attribute.as_tensor().numpy().tolist()
    return attribute.value


def _described(value: ir.Value | None, dims: dict[object, int]) -> object:
    if value is None:
        return None
    shape = None if value.shape is None else tuple(
        each if isinstance(each, int) else f"d{dims.setdefault(each.value, len(dims))}"
        for each in value.shape
    )  # fmt: skip
    tensor = ir.convenience.get_const_tensor(value)
    held = None if tensor is None or tensor.size > _SMALL else str(tensor.numpy().tolist())
    return str(value.type), shape, tensor is not None, held


def _values(source: Source, model: ir.Model) -> Values:
    """Return what a model computes everywhere, with half precision in float32."""
    wide = clone(model)
    made = [v for node in wide.graph for v in node.outputs if isinstance(v.type, ir.TensorType)]
    made = [v for v in made if v.name and not v.is_graph_output()]
    wide.graph.outputs.extend(made)
    names = [str(each.name) for each in wide.graph.outputs]
    feeds = {k: v for k, v in source.feeds[0].items() if k in {e.name for e in model.graph.inputs}}
    try:
        RepairTypes().run(wide)
        widen(wide, NARROW)
        with Runner(wide, optimization="none") as runner:
            found = runner.run(feeds)
            return {**feeds, **dict(zip(names, map(np.array, found.values()), strict=True))}
    except VlmpassError:
        return feeds


def _seeded(value: ir.Value) -> np.ndarray | None:
    """Return numbers for a value that nothing computes; None where its rank is not known."""
    if value.shape is None or value.dtype is ir.DataType.STRING:
        return None
    rng = np.random.default_rng(zlib.crc32(str(value.name).encode()))
    dims = [each if isinstance(each, int) else _OPEN for each in value.shape]
    if value.dtype in (ir.DataType.BOOL, *_WHOLE):
        return rng.integers(0, 2, dims)
    return rng.standard_normal(dims)


def _case(name: str, node: ir.Node, model: ir.Model, values: Values) -> Case | str:
    """Return a node as a model of its own; why it is none, where it is none."""
    if any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
           for each in node.attributes.values()):  # fmt: skip
        return "holds graphs"
    taken, outputs = dict.fromkeys(v for v in node.inputs if v is not None), node.outputs
    if not all(isinstance(each.type, ir.TensorType) for each in (*taken, *outputs)):
        return "a value is no tensor"
    feeds: dict[str, np.ndarray] = {}
    copies: dict[ir.Value, ir.Value] = {}
    for value in taken:
        tensor = ir.convenience.get_const_tensor(value)
        copies[value] = ir.Value(name=value.name, type=value.type, shape=value.shape)
        if tensor is not None:
            copies[value].const_value = _held(tensor, value)
        else:
            found = values.get(str(value.name))
            found = _seeded(value) if found is None else found
            if found is None:
                return "nothing says what goes in"
            feeds[str(value.name)] = np.asarray(found).astype(value.dtype.numpy())
    proto = _proto(node, model, copies, feeds)
    right = computed_by_onnx(proto, feeds) or _computed(proto, feeds)
    if right is None:
        return "nothing says what is right"
    return Case(name, proto.SerializeToString(), list(feeds.values()), right)


def _held(tensor: ir.TensorProtocol, value: ir.Value) -> ir.TensorProtocol:
    if tensor.dtype is ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)


def _proto(
    node: ir.Node, model: ir.Model, copies: Mapping[ir.Value, ir.Value], feeds: Values
) -> onnx.ModelProto:
    inputs = [None if value is None else copies[value] for value in node.inputs]
    made = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in node.outputs]
    attributes = [
        ir.AttrTensor(each.name, ir.Tensor(each.as_tensor().numpy(), dtype=each.as_tensor().dtype))
        if each.type is ir.AttributeType.TENSOR
        else each
        for each in node.attributes.values()
    ]
    one = ir.Node(node.domain, node.op_type, inputs, attributes, outputs=made, name=node.name)
    domains = {"", node.domain}
    graph = ir.Graph(
        [each for each in copies.values() if each.name in feeds],
        [each for each in made if each.name],
        nodes=[one],
        initializers=[each for each in copies.values() if each.const_value is not None],
        opset_imports={k: v for k, v in model.opset_imports.items() if k in domains},
        name="one",
    )
    return ir.serde.serialize_model(ir.Model(graph, ir_version=model.ir_version))


def _computed(proto: onnx.ModelProto, feeds: Values) -> list[np.ndarray] | None:
    """Return what ONNX Runtime gives, in float32 for half types; None where it refuses."""
    model = ir.serde.deserialize_model(proto)
    kinds = [each.dtype for each in model.graph.outputs]
    widen(model, NARROW)
    try:
        with Runner(model, optimization="none") as runner:
            found = list(runner.run(feeds).values())
    except VlmpassError:
        return None
    pairs = zip(found, kinds, strict=True)
    return [np.array(each).astype(kind.numpy()) for each, kind in pairs if kind is not None]


def main(arguments: Sequence[str]) -> int:
    """Print the figures and every disagreement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets")
    parser.add_argument("models", nargs="*", default=[str(EXPORTS)])
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    nodes = nodes_of(asked.models)
    chosen = nodes.cases
    print(f"{len(chosen)} distinct nodes; left out: {dict(sorted(nodes.left_out.items()))}")
    if asked.sample:
        chosen = random.Random(asked.seed).sample(chosen, min(asked.sample, len(chosen)))
    for target in asked.targets.split(","):
        report(target, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
