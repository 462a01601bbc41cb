"""The onnx checker with strict inference, run on a model of any size.

Large tensors are references to one empty file, which the checker wants to exist. Nodes go under
numbers, so that what it says about an unnamed node, or about one of a name used twice, is still
known to be about that node.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import onnx
import onnx.defs
import onnx_ir as ir

from vlmpass.ir_tools.check.explain import explain
from vlmpass.ir_tools.check.fault import fault
from vlmpass.ir_tools.check.weightless import LOCATION, weightless
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.graph.walk import all_nodes, holds_graphs, scopes, subgraphs
from vlmpass.ir_tools.proto.proto_view import graph_protos, skeleton
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.opsets import newest_opset
from vlmpass.ir_tools.worker.bounded import NativeError, abandon, check_model, infer_shapes
from vlmpass.ir_tools.worker.in_parts import in_parts, wants_parts

__all__ = ["beside_standard", "check_types"]

_OUTSIDE = "vlmpass.unknown"
_MARK = re.compile(r"#(\d+)#")

_ORT_IN_ONNX_DOMAIN = frozenset(
    {
        # Operators that ONNX Runtime registers in domain '' and ONNX does not have (any more, or
        # at lower opsets); SkipSimplifiedLayerNormalization is put there by exporters.
        "Affine",
        "Crop",
        "DisentangledAttention_TRT",
        "DynamicSlice",
        "EfficientNMS_TRT",
        "GRUUnit",
        "GivenTensorFill",
        "ImageScaler",
        "LayerNormalization",
        "MemcpyFromHost",
        "MeanVarianceNormalization",
        "MemcpyToHost",
        "MultilevelCropAndResize_TRT",
        "ParametricSoftplus",
        "PyramidROIAlign_TRT",
        "Scale",
        "ScaledTanh",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "ThresholdedRelu",
    }
)

_SAID_BY = {
    "SimplifiedLayerNormalization": "; with --opset 23, --fuse and --target write RMSNormalization"
}
"""What says in an operator of the standard what no opset of it has."""


@without_collector
def check_types(
    model: ir.Model,
    protobuf: Callable[[], onnx.ModelProto] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Run the onnx checker with strict type and shape inference.

    Args:
        model: Its nodes are named in errors.
        protobuf: Returns a new protobuf of it, without large weights, in which nodes are in the
            same order; by default it is serialised.
        meanwhile: Done while onnx works in another process. What it raises comes first.

    Raises:
        CheckError: The first fault it finds.
    """
    twin = protobuf or partial(skeleton, model, weightless)
    error = _first_fault(model, twin(), meanwhile, doubt=False)
    if error is not None and any(_is_doubtful(node) for node in all_nodes(model)):
        error = _first_fault(model, twin(), lambda: None, doubt=True)
    if error is not None:
        raise error


def _is_doubtful(node: ir.Node) -> bool:
    """Whether onnx itself is wrong about some valid nodes of this kind.

    It takes unknown lengths of Attention for 0, in the product of queries and keys and where there
    is a past; its own body of MeanVarianceNormalization is invalid where `axes` is the default; of
    STFT it takes `onesided` for 0 where it is the default.
    """
    if node.domain != "":
        return False
    if node.op_type == "MeanVarianceNormalization":
        return "axes" not in node.attributes
    if node.op_type == "STFT":
        return "onesided" not in node.attributes
    return node.op_type == "Attention" and (len(node.inputs) > 4 or len(node.outputs) > 3)


def _first_fault(
    model: ir.Model, proto: onnx.ModelProto, meanwhile: Callable[[], None], *, doubt: bool
) -> CheckError | None:
    """Return the first fault; `doubt` takes nodes that onnx may be wrong about as they are."""
    nodes = _number(model, proto, doubt=doubt)
    with (
        tempfile.TemporaryDirectory(prefix="vlmpass-check-") as folder,
        ThreadPoolExecutor(1) as onnx_waits,
    ):
        path = Path(folder, "model.onnx")
        Path(folder, LOCATION).touch()
        path.write_bytes(proto.SerializeToString())
        parted = wants_parts(proto)
        checked = onnx_waits.submit(check_model, path, types=not parted)
        del proto  # of which there is another soon
        try:
            meanwhile()
        except BaseException:
            abandon()
            raise
        try:
            checked.result()
            if parted:
                _check_in_parts(path)
        except NativeError as error:
            return _explained(error.said, nodes, model)
    return None


def _check_in_parts(path: Path) -> None:
    """Run the type check of onnx on a model file, part by part."""
    proto = onnx.load_model(path, load_external_data=False)
    for _ in in_parts(proto, partial(infer_shapes, strict=True)):
        pass


def _number(model: ir.Model, proto: onnx.ModelProto, *, doubt: bool) -> list[ir.Node]:
    """Name nodes by number and move misplaced ones to a domain of no meaning; return them."""
    nodes: list[ir.Node] = []
    _number_owner(model.graph, proto, nodes, doubt)
    for function, held in zip(model.functions.values(), proto.functions, strict=True):
        _number_owner(function, held, nodes, doubt)
    return nodes


def _number_owner(
    owner: ir.Graph | ir.Function,
    proto: onnx.ModelProto | onnx.FunctionProto,
    nodes: list[ir.Node],
    doubt: bool,
) -> None:
    outside, opsets = False, owner.opset_imports
    protos = proto.graph.node if isinstance(proto, onnx.ModelProto) else proto.node
    for node, node_proto in _pairs(owner, protos):
        node_proto.name = f"#{len(nodes)}#"
        nodes.append(node)
        domain = node.domain
        beside = _is_beside(domain, node.op_type, opsets.get(domain, 1))
        if beside or (doubt and _is_doubtful(node)):
            node_proto.domain = _OUTSIDE
            outside = True
    if outside:
        proto.opset_import.add(domain=_OUTSIDE, version=1)


@cache
def is_deprecated(domain: str, op_type: str, version: int) -> bool:
    """Whether an operator is one that the standard advises against, which runtimes still run.

    The checker of onnx takes them for invalid, and their shape inference is gone. A version that
    only says that an operator has ended, such as Upsample's in opset 10, is none that runs.
    """
    try:
        found = onnx.defs.get_schema(op_type, version, domain)
        since = found.since_version
        ended = onnx.defs.has(op_type, max_inclusive_version=since - 1, domain=domain)
    except onnx.defs.SchemaError:
        return False
    return bool(found.deprecated) and not ended


@cache
def _is_beside(domain: str, op_type: str, version: int) -> bool:
    """Whether an operator is none of the opset, or none any more, which ONNX Runtime runs."""
    if is_deprecated(domain, op_type, version):
        return True
    if domain != "" or op_type not in _ORT_IN_ONNX_DOMAIN:
        return False
    return not onnx.defs.has(op_type, max_inclusive_version=version)


def beside_standard(model: ir.Model) -> list[str]:
    """Say which nodes the check takes as they are and onnx's own checker refuses.

    Returns:
        A line for each operator and opset: how many nodes, why, and an opset that has it.
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for scope in scopes(model):
        opsets = scope.opsets
        found.update(
            (each.domain, each.op_type, opsets.get(each.domain, 1)) for each in scope.graph
        )
    found = Counter({operator: nodes for operator, nodes in found.items() if _is_beside(*operator)})
    return [_told(*operator, nodes) for operator, nodes in sorted(found.items())]


def _told(domain: str, op_type: str, version: int, nodes: int) -> str:
    has = partial(onnx.defs.has, op_type, domain=domain)
    above = range(version, newest_opset() + 1) if domain == "" else ()
    valid = (each for each in above if has(max_inclusive_version=each))
    first = next((each for each in valid if not is_deprecated(domain, op_type, each)), 0)
    why = "deprecated in" if has(max_inclusive_version=version) else "no operator of"
    where = f"opset {version}" + (f" of {domain}" if domain else "")
    said = f"{op_type} ({nodes} node{'s' if nodes > 1 else ''}) is {why} {where}"
    remedy = f"; --opset {first} has it" if first else _SAID_BY.get(op_type, "")
    return f"{said}: ONNX Runtime takes it, onnx's checker does not{remedy}"


def _pairs(
    nodes: Iterable[ir.Node], protos: Iterable[onnx.NodeProto]
) -> Iterator[tuple[ir.Node, onnx.NodeProto]]:
    for node, proto in zip(nodes, protos, strict=True):
        yield node, proto
        if holds_graphs(node):
            for graph, graph_proto in zip(subgraphs(node), graph_protos(proto), strict=True):
                yield from _pairs(graph, graph_proto.node)


def _explained(said: str, nodes: list[ir.Node], model: ir.Model) -> CheckError:
    """Turn the checker's words into an error about the innermost node of its first line."""
    lines = [line.strip() for line in said.splitlines() if _MARK.search(line)]
    named = _MARK.sub(lambda match: nodes[int(match[1])].name or "", said).strip()
    if not lines:
        return CheckError(f"the onnx checker rejects the model: {named}")
    node = nodes[int(_MARK.findall(lines[0])[-1])]
    owners = (scope for scope in scopes(model) if any(each is node for each in scope.graph))
    opset = next(owners).opsets.get(node.domain, 1)
    reason, remedy = explain(node, lines[0] if "(op_type:" in lines[0] else named, opset)
    others = sum("(op_type:" in line for line in lines[1:])
    more = f" (and {others} more fault{'s' if others > 1 else ''})" if others else ""
    return fault(node, reason + more, remedy, named)
