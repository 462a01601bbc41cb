"""The distinct nodes of whole models, by which predictions are held to runtimes."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import onnx

from tests.opset.opset_models import EXPORTS
from tests.targets.corpus_nodes import Nodes, nodes_of
from tests.targets.node_tests import told

_EXPORT = str(EXPORTS / "text.float32.ts17.onnx")


def test_predictions_for_the_nodes_of_an_export_are_what_the_runtime_does() -> None:
    nodes = nodes_of([_EXPORT])
    assert not nodes.left_out
    chosen = random.Random(13).sample(nodes.cases, 24)
    assert all(each.agrees for each in told("ort-cpu", chosen))
    off = replace(chosen[0], outputs=[np.add(each, 1) for each in chosen[0].outputs])
    assert not any(each.agrees for each in told("ort-cpu", [off])), "the result counts"


def test_a_node_is_taken_once_with_the_constants_and_shapes_that_it_has() -> None:
    nodes: Nodes = nodes_of([_EXPORT, _EXPORT])
    protos = [onnx.ModelProto.FromString(each.model) for each in nodes.cases]
    assert len({each.name for each in nodes.cases}) == len(nodes.cases) > 40
    assert len({each.SerializeToString() for each in protos}) == len(protos)
    assert all(len(each.graph.node) == 1 for each in protos)
    products = [each for each in protos if each.graph.node[0].op_type == "MatMul"]
    assert {len(each.graph.initializer) for each in products} == {0, 1}
    dims = [d for e in products for v in e.graph.input for d in v.type.tensor_type.shape.dim]
    assert {bool(each.dim_param) for each in dims} == {True, False}
