"""What a file says is kept or refused by name, field by field; and a field that is lost is seen."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

from vlmpass.ir_tools.graph import clone
from vlmpass.ir_tools.load import deserialize, infos, source, tensors
from vlmpass.ir_tools.load import validate as vet
from vlmpass.ir_tools.load.graph_reader import GraphReader
from vlmpass.ir_tools.load.resolve_external import ProtoPlaces
from vlmpass.ir_tools.proto import graph_writer
from vlmpass.ir_tools.save import proto

from .losses import cases, findings, word_of
from .plants import Plant, named_outputs, patch, untyped_inputs, without


def test_every_field_of_every_message_is_kept_or_refused() -> None:
    counts: Counter[str] = Counter()
    wrong = []
    for case, verdict in findings(cases()):
        counts[word_of(verdict)] += 1
        if word_of(verdict) == "wrong":
            wrong.append(f"{case}: {verdict}")
    assert not wrong, "\n".join(wrong)
    assert counts["kept"] > 400
    assert counts["refused"] > 400


def test_every_message_of_onnx_is_met() -> None:
    """None is left out but those that stand in a message which is refused whole."""
    met = {case.place.rpartition(".")[0] for case in cases("unknown")}
    pending, messages = [onnx.ModelProto.DESCRIPTOR], set()
    refused = {"TrainingInfoProto", "SparseTensorProto", "TypeProto.Map", "TypeProto.Opaque"}
    while pending:
        descriptor = pending.pop()
        name = descriptor.full_name.removeprefix("onnx.")
        if name not in messages | refused | {"TensorProto.Segment"}:
            messages.add(name)
            pending += [each.message_type for each in descriptor.fields if each.message_type]
    assert len(met) >= len(messages)
    assert {_kind_at(place) for place in met} == messages


def _kind_at(place: str) -> str:
    descriptor = onnx.ModelProto.DESCRIPTOR
    for name in place.split(".") if place else ():
        descriptor = descriptor.fields_by_name[name].message_type
    return str(descriptor.full_name.removeprefix("onnx."))


class _Anything(dict[int, object]):
    """A table whose every entry equals whatever it is compared with."""

    def __getitem__(self, key: int) -> object:
        return _Equal()


class _Equal:
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


def _devices_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vet, "DEVICES_SINCE", 0)
    monkeypatch.setattr(proto, "DEVICES_SINCE", 0)


PLANTED: dict[str, tuple[Plant, str]] = {
    "values that nothing defines": (patch(deserialize, "_note_unknown"), "described: graph.name"),
    "inputs of functions": (patch(GraphReader, "_taken", untyped_inputs), "functions.name"),
    "what is said elsewhere": (patch(deserialize, "_restore_interface"), "described: graph.name"),
    "empty outputs at the end": (
        patch(graph_writer, "_names", named_outputs), r"node\.output blank"),
    "fields beside an attribute's own": (patch(vet, "_vet_fields"), r"attribute\.(f|s|ints) "),
    "plain attributes are not looked at": (
        patch(vet, "_PLAIN", _Anything(vet._PLAIN)), r"attribute\.type FLOAT"),
    "two annotations of one value": (patch(vet, "vet_annotations"), "annotation|tensor_names"),
    "keys that are there twice": (patch(vet, "refuse_repeated"), "metadata_props again"),
    "keys of tensors": (patch(tensors, "refuse_repeated"), r"initializer\.metadata_props again"),
    "training": (patch(vet, "_vet_model"), "training_info"),
    "devices of old files": (_devices_ever, "inline: configuration"),
    "devices without a name": (patch(vet._Walk, "_devices"), "device_configurations"),
    "two infos of one value": (patch(vet, "vet_infos"), "value_info again"),
    "types that cannot be kept": (patch(infos, "vet_type"), "map_type|sparse_tensor_type"),
    "names that are there twice": (
        patch(vet, "_distinct", lambda names, what: set(names)), "initializer twice"),
    "tensors are not looked at": (
        patch(tensors.TensorVet, "check"), r"external_data (filled|empty)"),
    "fields that nobody knows": (patch(source, "refuse_lost"), "unknown"),
    "checksums": (
        patch(source, "ProtoPlaces", lambda parsed, folder, sums: ProtoPlaces(parsed, folder, {})),
        "external: graph.initializer"),
    "two opsets of one domain": (patch(vet, "_vet_opsets"), "opset_import again"),
    "doc strings": (without("doc_string"), "doc_string"),
    "metadata": (without("metadata_props"), r"graph\.metadata_props"),
    "annotations": (without("quantization_annotation"), "quantised: graph.name"),
    "denotations": (without("denotation"), "denotation"),
    "overloads": (without("overload"), r"(functions|node)\.overload"),
    "devices": (without("configuration"), "described: configuration"),
    "sharding": (without("device_configurations"), "described: graph.node"),
    "defaults of functions": (without("attribute_proto"), r"functions\.attribute_proto"),
    "versions": (without("model_version"), "model_version"),
    "metadata of a clone": (patch(clone, "_copy_meta"), "described: graph.name"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_loss_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, only = PLANTED[fault]
    plant(monkeypatch)
    assert "wrong" in {word_of(verdict) for _, verdict in findings(cases(only))}
