"""Everything that can be said about a model without reading a weight."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import TensorSlot, all_nodes, tensor_slots
from vlmpass.ir_tools.inspecting.macs import Macs, free_symbols, macs_of
from vlmpass.ir_tools.inspecting.modules import module_of
from vlmpass.ir_tools.inspecting.summary import Facts, dtype_name
from vlmpass.ir_tools.weights import FileRange, file_range

__all__ = ["DataFile", "Inspection", "Module", "Port", "Tie", "WeightInfo", "inspect_model"]

_LARGEST = 10
_TIED_BYTES = 65536


@dataclass(frozen=True)
class Port:
    """An input or output of the graph: its name, element type and dimensions ("?" if unknown)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class WeightInfo:
    """One tensor: where it is in the graph, its element type, shape, bytes and data file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str | None


@dataclass(frozen=True)
class DataFile:
    """A data file.

    Attributes:
        path: Absolute.
        nbytes: Its size on disk.
        used: Bytes of it that the model refers to, shared ranges once.
        tensors: How many tensors lie in it.
    """

    path: str
    nbytes: int
    used: int
    tensors: int


@dataclass(frozen=True)
class Tie:
    """A weight used at several places.

    Attributes:
        names: The tensors that share these bytes.
        nbytes: Their size.
        users: Nodes that take it.
    """

    names: tuple[str, ...]
    nbytes: int
    users: tuple[str, ...]


@dataclass
class Module:
    """One module of the exported program, without the modules inside it."""

    path: str
    nodes: int = 0
    elements: int = 0
    nbytes: int = 0
    macs: Macs = field(default_factory=Macs)


@dataclass(frozen=True)
class Inspection:
    """A model described.

    Attributes:
        facts: Versions and counts.
        inputs: What must be fed.
        outputs: What comes out.
        dynamic: The symbols of dynamic dimensions, in order of appearance.
        largest: The largest tensors.
        ties: Weights that several nodes share.
        files: Data files; empty if all weights are inline.
        inline_bytes: Bytes of tensors in the model file itself.
        macs: Multiply-accumulates of one run.
        modules: By module, in order of appearance; empty where the exporter left no scopes.
    """

    facts: Facts
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dynamic: tuple[str, ...]
    largest: tuple[WeightInfo, ...]
    ties: tuple[Tie, ...]
    files: tuple[DataFile, ...]
    inline_bytes: int
    macs: Macs
    modules: tuple[Module, ...]


def inspect_model(model: ir.Model, *, shaped: ir.Model | None = None) -> Inspection:
    """Describe a model; no weight is read.

    Args:
        model: The model as it is.
        shaped: The same model with functions inlined and shapes inferred, from which
            multiply-accumulates are counted; the model itself by default.
    """
    slots = list(tensor_slots(model))
    ranges = {id(slot): file_range(slot.tensor) for slot in slots}
    counted = shaped if shaped is not None else model
    initializers = model.graph.initializers
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    macs = Macs()
    modules = _modules(counted, macs)
    return Inspection(
        facts=Facts.of(model),
        inputs=tuple(_port(value) for value in inputs),
        outputs=tuple(_port(value) for value in model.graph.outputs),
        dynamic=_symbols(inputs),
        largest=_largest(slots, ranges),
        ties=_ties(slots, ranges),
        files=_files(slots, ranges),
        inline_bytes=sum(slot.tensor.nbytes for slot in slots if ranges[id(slot)] is None),
        macs=macs,
        modules=modules,
    )


def _port(value: ir.Value) -> Port:
    kind = value.type
    dtype = dtype_name(value.dtype)
    if kind is not None and not isinstance(kind, ir.TensorType):
        dtype = f"{type(kind).__name__.removesuffix('Type').lower()} of {dtype}"
    if value.shape is None:
        return Port(value.name or "", dtype, None)
    dims = tuple(dim if isinstance(dim, int) else dim.value or "?" for dim in value.shape)
    return Port(value.name or "", dtype, dims)


def _symbols(values: Iterable[ir.Value]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for value in values:
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim):
                names = sorted(free_symbols(dim)) if dim.value else [f"{value.name}[{axis}]"]
                found.update(dict.fromkeys(names))
    return tuple(found)


_Ranges = Mapping[int, FileRange | None]


def _name(slot: TensorSlot) -> str:
    return (slot.value.name if slot.value is not None else None) or slot.where


def _largest(slots: list[TensorSlot], ranges: _Ranges) -> tuple[WeightInfo, ...]:
    ranked = sorted(slots, key=lambda slot: (-slot.tensor.nbytes, _name(slot)))
    infos = []
    for slot in ranked[:_LARGEST]:
        where = ranges[id(slot)]
        shape = tuple(int(dim) for dim in slot.tensor.shape.numpy())
        dtype = dtype_name(slot.tensor.dtype)
        file = os.path.basename(where.path) if where is not None else None
        infos.append(WeightInfo(_name(slot), dtype, shape, slot.tensor.nbytes, file))
    return tuple(infos)


def _files(slots: list[TensorSlot], ranges: _Ranges) -> tuple[DataFile, ...]:
    used: dict[str, set[FileRange]] = defaultdict(set)
    tensors: dict[str, int] = defaultdict(int)
    for slot in slots:
        where = ranges[id(slot)]
        if where is not None:
            used[where.path].add(where)
            tensors[where.path] += 1
    return tuple(
        DataFile(
            path, os.path.getsize(path), sum(part.length for part in used[path]), tensors[path]
        )
        for path in sorted(used)
    )


def _ties(slots: list[TensorSlot], ranges: _Ranges) -> tuple[Tie, ...]:
    groups: dict[object, list[TensorSlot]] = defaultdict(list)
    for slot in slots:
        if slot.tensor.nbytes >= _TIED_BYTES:
            groups[ranges[id(slot)] or id(slot.tensor)].append(slot)
    ties = []
    for group in groups.values():
        users = [
            node.name or node.op_type
            for slot in group
            if slot.value is not None
            for node in dict.fromkeys(node for node, _ in slot.value.uses())
        ]
        if len(group) > 1 or len(users) > 1:
            names = tuple(_name(slot) for slot in group)
            ties.append(Tie(names, group[0].tensor.nbytes, tuple(users)))
    return tuple(sorted(ties, key=lambda tie: (-tie.nbytes, tie.names)))


def _modules(model: ir.Model, total: Macs) -> tuple[Module, ...]:
    """Collect nodes, weights and multiply-accumulates by module, adding the latter to a total.

    A weight counts for the module of the first node that takes it.
    """
    modules: dict[str, Module] = {}
    seen: set[int] = set()
    scoped = False
    for node in all_nodes(model):
        path = module_of(node)
        scoped = scoped or bool(path)
        module = modules.setdefault(path or "", Module(path or ""))
        module.nodes += 1
        macs = macs_of(node)
        if macs is not None:
            module.macs.add(macs)
            total.add(macs)
        for value in node.inputs:
            tensor = value.const_value if value is not None else None
            if tensor is not None and id(value) not in seen:
                seen.add(id(value))
                module.elements += tensor.size
                module.nbytes += tensor.nbytes
    return tuple(modules.values()) if scoped else ()
