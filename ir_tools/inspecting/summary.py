"""What a model is made of, read off the graph: versions, nodes, operators, types, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes, tensor_slots
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.ir_tools.weights.packing import packed_size

__all__ = ["Facts", "Share", "dtype_name"]


_STRING = ir.DataType.STRING


def dtype_name(dtype: ir.DataType | None) -> str:
    """Return an element type as people write it: ``float32``, ``bfloat16``, ``int4``."""
    if dtype is None or dtype is ir.DataType.UNDEFINED:
        return "?"
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


@dataclass(frozen=True)
class Share:
    """The tensors of one element type.

    Attributes:
        tensors: How many.
        elements: Their elements together.
        nbytes: Their bytes, packed types packed.
    """

    tensors: int
    elements: int
    nbytes: int


@dataclass(frozen=True)
class Facts:
    """A model in figures; a tensor that lies in several places counts at each.

    Attributes:
        ir_version: Of the file format.
        opset: Version of the default domain; None if it is not imported.
        opsets: Version by domain, the default domain as ``ai.onnx``.
        producer: Who wrote it.
        nodes: Nodes of all graphs, subgraphs and function bodies.
        operators: Nodes by operator, the most frequent first; foreign ones with their domain.
        dtypes: Tensors by element type, the most bytes first.
        functions: How many model-local functions.
        elements: Elements of all tensors.
        nbytes: Bytes of all tensors.
    """

    ir_version: int
    opset: int | None
    opsets: Mapping[str, int]
    producer: str
    nodes: int
    operators: Mapping[str, int]
    dtypes: Mapping[str, Share]
    functions: int
    elements: int
    nbytes: int

    @classmethod
    def of(cls, model: ir.Model) -> Facts:
        """Count; no weight is read."""
        operators = Counter(_operator(node) for node in all_nodes(model))
        imports = dict(model.opset_imports)
        for function in model.functions.values():
            for domain, version in function.opset_imports.items():
                imports[domain] = max(version, imports.get(domain, 0))
        shares = _shares(model)
        producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
        return cls(
            ir_version=model.ir_version,
            opset=default_opset(model.opset_imports),
            opsets={domain or "ai.onnx": imports[domain] for domain in sorted(imports)},
            producer=producer,
            nodes=sum(operators.values()),
            operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
            dtypes=shares,
            functions=len(model.functions),
            elements=sum(share.elements for share in shares.values()),
            nbytes=sum(share.nbytes for share in shares.values()),
        )


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _shares(model: ir.Model) -> dict[str, Share]:
    names: dict[ir.DataType, str] = {}
    tensors: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for slot in tensor_slots(model):
        tensor = slot.tensor
        dtype, size = tensor.dtype, tensor.size
        name = names.get(dtype) or names.setdefault(dtype, dtype_name(dtype))
        tensors[name] += 1
        elements[name] += size
        nbytes[name] += tensor.nbytes if dtype == _STRING else packed_size(dtype, size)
    ranked = sorted(tensors, key=lambda name: (-nbytes[name], name))
    return {name: Share(tensors[name], elements[name], nbytes[name]) for name in ranked}
