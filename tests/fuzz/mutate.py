"""Hostile changes to a model: what exporters and other tools leave behind, and what nobody would.

Each takes a model and dice, changes the model in place, and may well make it invalid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from .recipes import Dice

Mutation = Callable[[onnx.ModelProto, Dice], None]
MUTATIONS: list[Mutation] = []

_EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 3, -7)
_NUMBERS = (0.0, 1.0, -0.0, float("inf"), float("-inf"), float("nan"), 3.4e38, 1e-45, -2.0)
_TYPES = (
    TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64,
    TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL, TensorProto.STRING,
)  # fmt: skip


def mutation(function: Mutation) -> Mutation:
    MUTATIONS.append(function)
    return function


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield initializers and the tensors of Constant nodes, of functions too."""
    yield from model.graph.initializer
    for node in nodes(model):
        yield from (each.t for each in node.attribute if each.HasField("t"))


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [*model.graph.node, *itertools.chain(*(each.node for each in model.functions))]


def pick(dice: Dice, items: Iterator[object] | list[object]) -> object | None:
    listed = list(items)
    return dice.one(*listed) if listed else None


@mutation
def resize_constant(model: onnx.ModelProto, dice: Dice) -> None:
    """Widen a constant, give it more axes, none, or no elements."""
    tensor = pick(dice, tensors(model))
    if tensor is None or tensor.data_type == TensorProto.STRING:
        return
    array = numpy_helper.to_array(tensor)
    rank = array.ndim
    shape = dice.one((), (1,), (4,), (2, 1), (1,) * (rank + 1), (0,), (3, 1, 1), (1, 1, 2), (1, 0))
    array = np.resize(array if array.size else np.zeros(1, array.dtype), shape)
    tensor.CopyFrom(_tensor(array, tensor.name))


@mutation
def refill_constant(model: onnx.ModelProto, dice: Dice) -> None:
    """Put extreme numbers into a constant."""
    tensor = pick(dice, tensors(model))
    if tensor is None or tensor.data_type == TensorProto.STRING:
        return
    array = numpy_helper.to_array(tensor)
    kind = array.dtype.kind
    choices = _EXTREMES if kind in "iu" else _NUMBERS
    chosen = np.array([dice.one(*choices) for _ in range(array.size)], object)
    with np.errstate(all="ignore"):
        filled = [int(x) & 0x7F if array.dtype.itemsize < 8 and kind in "iu" else x for x in chosen]
        array = np.array(filled, np.float64 if kind not in "iu" else np.int64).astype(array.dtype)
    tensor.CopyFrom(_tensor(array.reshape(tuple(tensor.dims)), tensor.name))


@mutation
def retype(model: onnx.ModelProto, dice: Dice) -> None:
    """Let another element type take the place of float, or of int64, everywhere."""
    old = dice.one(TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64)
    new = dice.one(*_TYPES)
    for tensor in tensors(model):
        if tensor.data_type == old:
            tensor.CopyFrom(_cast(tensor, new))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == old:
            value.type.tensor_type.elem_type = new
    for node in nodes(model):
        for each in node.attribute:
            if each.name in ("to", "dtype") and each.i == old:
                each.i = new


@mutation
def retype_one(model: onnx.ModelProto, dice: Dice) -> None:
    """Give one constant or input another element type."""
    new = dice.one(*_TYPES)
    if dice.maybe():
        tensor = pick(dice, tensors(model))
        if tensor is not None and tensor.data_type != TensorProto.STRING:
            tensor.CopyFrom(_cast(tensor, new))
        return
    value = pick(dice, list(model.graph.input))
    if value is not None and value.type.HasField("tensor_type"):
        value.type.tensor_type.elem_type = new


@mutation
def resize_input(model: onnx.ModelProto, dice: Dice) -> None:
    """Make sizes 0, 1, symbolic or unknown, everywhere the same or once."""
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dice.maybe(0.4):
                dim.Clear()
                way = dice.one("none", "name", "0", "1", "2")
                if way == "name":
                    dim.dim_param = str(dice.one("n", "m", "batch"))
                elif way != "none":
                    dim.dim_value = int(way)


@mutation
def reshape_input(model: onnx.ModelProto, dice: Dice) -> None:
    """Give an input another rank, 0 among them."""
    value = pick(dice, list(model.graph.input))
    if value is None or not value.type.HasField("tensor_type"):
        return
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.SetInParent()
    for size in dice.one((), (1,), (2, 3), (1, 1, 1), (0, 2), (2, 3, 4, 5), (1, 2, 1, 2, 1)):
        value.type.tensor_type.shape.dim.add().dim_value = size


@mutation
def forget(model: onnx.ModelProto, dice: Dice) -> None:
    """Drop declared shapes or types between nodes, and shapes of outputs."""
    del model.graph.value_info[:]
    if dice.maybe(0.3):
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")


@mutation
def initializer_is_input(model: onnx.ModelProto, dice: Dice) -> None:
    """Let callers override initializers, as files of version 3 say of all."""
    old = dice.maybe(0.4) and not model.functions
    for tensor in model.graph.initializer:
        known = {each.name for each in model.graph.input}
        if tensor.name not in known and (old or dice.maybe()):
            dims = list(tensor.dims)
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, dims)
            model.graph.input.append(value)
    if old and {each.domain: each.version for each in model.opset_import}.get("", 1) < 9:
        model.ir_version = 3


@mutation
def same_input(model: onnx.ModelProto, dice: Dice) -> None:
    """Let a node use one value twice, or the value that another node uses."""
    node = pick(dice, nodes(model))
    names = [name for each in nodes(model)[:6] for name in each.input if name]
    if node is not None and node.input and names:
        node.input[int(dice.rng.integers(len(node.input)))] = str(dice.one(*names))


@mutation
def share(model: onnx.ModelProto, dice: Dice) -> None:
    """Give an interior value out too, or let another node use it."""
    made = [name for node in model.graph.node for name in node.output if name]
    if not made:
        return
    name = str(dice.one(*made))
    if dice.maybe() and name not in {each.name for each in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    elif f"{name}.shared" not in made:
        model.graph.node.append(helper.make_node("Identity", [name], [f"{name}.shared"]))
        model.graph.output.append(onnx.ValueInfoProto(name=f"{name}.shared"))


@mutation
def constant_as_node(model: onnx.ModelProto, dice: Dice) -> None:
    """Spell an initializer as a Constant, behind Identity or a Cast, or as a sparse one."""
    tensor = pick(dice, list(model.graph.initializer))
    if tensor is None or tensor.name in {each.name for each in model.graph.input}:
        return
    name, hidden = tensor.name, f"{tensor.name}.c"
    way = dice.one("plain", "identity", "cast", "list")
    held = TensorProto()
    held.CopyFrom(tensor)
    made = [
        helper.make_node("Constant", [], [name if way in ("plain", "list") else hidden], value=held)
    ]
    if way == "list":
        _spell(made[0], held)
    if way == "identity":
        made.append(helper.make_node("Identity", [hidden], [name]))
    if way == "cast":
        made.append(helper.make_node("Cast", [hidden], [name], to=tensor.data_type))
    model.graph.initializer.remove(tensor)
    rest = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(rest)


def _spell(node: onnx.NodeProto, tensor: TensorProto) -> None:
    names = {TensorProto.FLOAT: "value_float", TensorProto.INT64: "value_int"}
    name = names.get(tensor.data_type)
    if name is None or len(tensor.dims) > 1:
        return
    array = numpy_helper.to_array(tensor)
    del node.attribute[:]
    if array.ndim:
        kind = AttributeProto.FLOATS if name == "value_float" else AttributeProto.INTS
        node.attribute.append(helper.make_attribute(f"{name}s", array.tolist(), attr_type=kind))
    else:
        node.attribute.append(helper.make_attribute(name, array.item()))


@mutation
def change_attribute(model: onnx.ModelProto, dice: Dice) -> None:
    """Set an integer or list out of range, empty it, or leave the attribute out."""
    owner = pick(dice, [each for each in nodes(model) if each.attribute])
    if owner is None:
        return
    each = dice.one(*owner.attribute)
    if each.name in ("value", "to", "dtype") or each.HasField("g"):
        return
    if dice.maybe(0.3):
        owner.attribute.remove(each)
    elif each.type == AttributeProto.INT:
        each.i = int(dice.one(0, 1, -1, 2, -2, 5, -9))
    elif each.type == AttributeProto.INTS:
        numbers = dice.one([], [0], [1, 0], [-1], [0, 0], [9], list(each.ints)[:-1])
        del each.ints[:]
        each.ints.extend(numbers)
    elif each.type == AttributeProto.FLOAT:
        each.f = float(dice.one(*_NUMBERS))


@mutation
def leave_out(model: onnx.ModelProto, dice: Dice) -> None:
    """Leave an input out, or an output that nobody uses."""
    node = pick(dice, nodes(model))
    if node is None:
        return
    if dice.maybe() and len(node.input) > 1:
        node.input[int(dice.rng.integers(1, len(node.input)))] = ""
        return
    used = {name for each in nodes(model) for name in each.input}
    used |= {each.name for each in model.graph.output}
    for index, name in enumerate(node.output):
        if name not in used and index:
            node.output[index] = ""


@mutation
def drop_names(model: onnx.ModelProto, dice: Dice) -> None:
    """Leave nodes without names, or give all the same."""
    name = str(dice.one("", "same"))
    for node in nodes(model):
        node.name = name


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def _cast(tensor: TensorProto, new: int) -> TensorProto:
    array = numpy_helper.to_array(tensor)
    if new == TensorProto.STRING:
        texts = [str(each).encode() for each in array.ravel().tolist()]
        return helper.make_tensor(tensor.name, new, list(tensor.dims), texts)
    with np.errstate(all="ignore"):
        return _tensor(array.astype(helper.tensor_dtype_to_np_dtype(new)), tensor.name)
