"""The model file as a protobuf with references in the place of weights.

References name data files by number until the commit knows their names. Large weights that stay
inside are marks of a few bytes until the file is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.graph.ir_versions import DEVICES_SINCE
from vlmpass.ir_tools.graph.walk import TensorSlot
from vlmpass.ir_tools.proto.graph_writer import Holder, written
from vlmpass.ir_tools.proto.proto_tensors import model_tensors
from vlmpass.ir_tools.save.collect import name_of
from vlmpass.ir_tools.save.forms import refuse_too_large
from vlmpass.ir_tools.save.plan import Plan
from vlmpass.ir_tools.save.splice import mark
from vlmpass.ir_tools.weights import StoredWeight, Tally, Weight, as_weight

__all__ = ["Skeleton", "make_skeleton"]

_MARK_FROM_BYTES = 1 << 16


@dataclass
class Skeleton:
    """A model as a protobuf without large weights, serialised: so it takes a quarter of the memory.

    Attributes:
        serialized: In it, locations are numbers of data files.
        initializers: Which initializers of the main graph lie in data files.
        inside: Whether tensors elsewhere do as well.
        marked: Large weights that stay inside, by the number of their mark, with their place.
        tallies: What casts of small weights lost, by place.
    """

    serialized: bytes = b""
    initializers: list[int] = field(default_factory=list)
    inside: bool = False
    marked: list[tuple[TensorSlot, Weight]] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def named(self, names: Sequence[str]) -> onnx.ModelProto:
        """Return the protobuf in which every reference names its data file.

        Args:
            names: By the number of the file, relative to the model's folder and with slashes.
        """
        model = onnx.ModelProto()
        model.ParseFromString(self.serialized)
        tensors: Iterable[onnx.TensorProto] = (
            model_tensors(model)
            if self.inside
            else (model.graph.initializer[index] for index in self.initializers)
        )
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entry = tensor.external_data[0]
                entry.value = names[int(entry.value)]
        return model


def _like(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    proto = onnx.TensorProto(data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    if tensor.name:
        proto.name = tensor.name
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    return proto


def _standing_in(tensor: ir.TensorProtocol, proto: onnx.TensorProto) -> ir.TensorProtocol:
    """Return a tensor that is serialised as a given protobuf, with another's metadata."""
    stand_in = ir.serde.TensorProtoTensor(proto)
    stand_in.metadata_props.update(tensor.metadata_props)
    return stand_in


class _Builder:
    """Finds what stands for each tensor while a model is serialised."""

    def __init__(self, plan: Plan, skeleton: Skeleton, *, inline: bool) -> None:
        self.plan, self.skeleton, self.inline = plan, skeleton, inline
        self.placed = {_key(each.slot.tensor, _holder(each.slot)): each for each in plan.tensors}

    def stand_in(self, tensor: ir.TensorProtocol, holder: Holder) -> ir.TensorProtocol:
        """Return what is serialised for the tensor that an initializer or an attribute holds."""
        placed = self.placed[_key(tensor, holder)]
        slot = placed.slot
        if placed.part is not None:
            return self._reference(tensor, placed.part)
        if self.inline and self._is_marked(tensor):
            proto = _like(tensor)
            proto.raw_data = mark(len(self.skeleton.marked))
            self.skeleton.marked.append((slot, as_weight(tensor)))
            return _standing_in(tensor, proto)
        if isinstance(tensor, (Weight, ir.ExternalTensor)):
            return self._inside(slot, as_weight(tensor))
        return _own(tensor)

    def _is_marked(self, tensor: ir.TensorProtocol) -> bool:
        # onnx_ir looks into the bytes of 6-bit floats, which a mark would not pass for.
        odd = tensor.dtype == ir.DataType.STRING or tensor.dtype.bitwidth == 6
        return not odd and tensor.nbytes >= _MARK_FROM_BYTES

    def _reference(self, tensor: ir.TensorProtocol, part: int) -> ir.TensorProtocol:
        place = self.plan.places[part]
        proto = _like(tensor)
        proto.data_location = onnx.TensorProto.EXTERNAL
        proto.external_data.add(key="location", value=str(place.file))
        proto.external_data.add(key="offset", value=str(place.offset))
        proto.external_data.add(key="length", value=str(tensor.nbytes))
        kept = place.file < len(self.plan.kept)
        if kept and isinstance(tensor, StoredWeight) and tensor.checksum is not None:
            proto.external_data.add(key="checksum", value=tensor.checksum)
        return _standing_in(tensor, proto)

    def _inside(self, slot: TensorSlot, weight: Weight) -> ir.TensorProtocol:
        tally = Tally()
        proto = _like(slot.tensor)
        proto.raw_data = b"".join(weight.chunks(tally))
        if tally:
            self.skeleton.tallies[name_of(slot)] = tally
        return _standing_in(slot.tensor, proto)


def _holder(slot: TensorSlot) -> Holder:
    holder = slot.attribute or slot.value
    assert holder is not None
    return holder


def _key(tensor: ir.TensorProtocol, holder: Holder) -> tuple[int, int]:
    return id(tensor), id(holder)


def _own(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor that is serialised as it is, which is another if onnx_ir would change it."""
    if not isinstance(tensor, ir.serde.TensorProtoTensor) or not tensor.metadata_props:
        return tensor
    # onnx_ir would write the metadata twice: with the protobuf, and after it.
    proto = onnx.TensorProto()
    proto.CopyFrom(tensor.raw)
    proto.ClearField("metadata_props")
    return _standing_in(tensor, proto)


def make_skeleton(model: ir.Model, plan: Plan, output: Path, *, inline: bool) -> Skeleton:
    """Serialise a model without its large weights.

    Args:
        model: It is not changed.
        plan: Where the weights go.
        output: What the model file will be called.
        inline: Whether large weights go into the model file, and so are marked in it.

    Raises:
        SaveError: Something in the model has no protobuf form, or it is too large for one.
    """
    if model.device_configurations and model.ir_version < DEVICES_SINCE:
        raise SaveError(
            f"IR version {model.ir_version} has no configuration of devices",
            remedy=f"set it to {DEVICES_SINCE} or higher",
        )
    skeleton = Skeleton()
    proto = written(model, _Builder(plan, skeleton, inline=inline).stand_in)
    out = onnx.TensorProto.EXTERNAL
    skeleton.initializers = [
        index for index, each in enumerate(proto.graph.initializer) if each.data_location == out
    ]
    external = sum(tensor.data_location == out for tensor in model_tensors(proto))
    skeleton.inside = external > len(skeleton.initializers)
    refuse_too_large(proto, output)
    skeleton.serialized = proto.SerializeToString()
    return skeleton
