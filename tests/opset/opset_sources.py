"""Cases of opsets 1 to 6, which onnx's node tests hardly have.

onnx's exports of PyTorch are of opset 6. Node tests of younger opsets are led down to opset 7 and
restamped at the lowest opset below, at which every one of their operators is of the same version.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.operators.schema import since
from vlmpass.ir_tools.system.opsets import FIRST_OPSET, OLDEST_OPSET
from vlmpass.passes.convert_opset import ConvertOpset

DATA = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"
EXPORTS = ("pytorch-converted", "pytorch-operator", "simple")


@dataclass(frozen=True)
class Case:
    """A model with inputs and outputs, as onnx's own test cases have them."""

    name: str
    model: onnx.ModelProto
    data_sets: list[tuple[list[Any], list[Any]]] = field(repr=False)
    rtol: float = 1e-3
    atol: float = 1e-7


def _tensors(folder: pathlib.Path, side: str) -> list[onnx.TensorProto]:
    paths = sorted(folder.glob(f"{side}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [onnx.TensorProto.FromString(path.read_bytes()) for path in paths]


def exports() -> Iterator[Case]:
    """Yield what lies as files in onnx."""
    for folder in EXPORTS:
        for path in sorted((DATA / folder).glob("*/model.onnx")):
            model = onnx.load(path)
            tensors_only = all(each.type.HasField("tensor_type") for each in model.graph.input)
            sets = [
                (_tensors(each, "input"), _tensors(each, "output"))
                for each in sorted(path.parent.glob("test_data_set_*"))
            ]
            if tensors_only and sets:
                yield Case(f"{folder}/{path.parent.name.removeprefix('test_')}", model, sets)


def _lowest(model: onnx.ModelProto) -> int:
    """Return the lowest opset at which every node is of the version that opset 7 has."""
    found = OLDEST_OPSET
    operators = {node.op_type for node in model.graph.node if not node.domain}
    while found > FIRST_OPSET and all(
        since(each, found - 1) == since(each, OLDEST_OPSET) for each in operators
    ):
        found -= 1
    return found


def restamped(cases: Mapping[str, Any]) -> Iterator[Case]:
    """Yield the cases that opset 7 can hold and an opset below just as well."""
    for name, case in cases.items():
        if name.endswith("_expanded") or not case.data_sets:
            continue
        model = ir.from_proto(case.model)
        try:
            ConvertOpset(to=OLDEST_OPSET).run(model)
        except Refused:
            continue
        proto = ir.to_proto(model)
        if any(each.type == each.GRAPH for node in proto.graph.node for each in node.attribute):
            continue
        lowest = _lowest(proto)
        if lowest == OLDEST_OPSET:
            continue
        for each in proto.opset_import:
            if each.domain in ("", "ai.onnx"):
                each.version = lowest
        yield Case(f"{name}_at_{lowest}", proto, case.data_sets, case.rtol, case.atol)
