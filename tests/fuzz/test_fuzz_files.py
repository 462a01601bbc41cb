"""Mutants of model files end in an answer; and a product that fails on some is caught."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable

import pytest

from vlmpass.ir_tools import check
from vlmpass.ir_tools.load import deserialize, parse, source, tensors
from vlmpass.ir_tools.load import validate as vet
from vlmpass.ir_tools.load.graph_reader import GraphReader
from vlmpass.ir_tools.proto import graph_writer
from vlmpass.passes.cse import CommonSubexpressions
from vlmpass.passes.infer import Infer

from . import files
from .file_mutants import mutant
from .files import trials
from .plants import Plant, patch, then, untyped_inputs, without

SAMPLE = range(2000)
FEW = range(100_000, 100_600)


def test_mutants_end_in_an_answer() -> None:
    found, reached = [], Counter()
    for name, trial in trials(0, SAMPLE, share=0.08):
        found += [f"{name}: {finding}" for finding in trial.run()]
        reached[trial.reached] += 1
    assert not found, "\n".join(found)
    assert reached["refused"] > len(SAMPLE) / 4
    assert reached["loaded"] + reached["converted"] > len(SAMPLE) / 4


def test_mutants_are_the_same_each_time() -> None:
    assert [mutant(3, number) for number in range(20)] == [
        mutant(3, number) for number in range(20)
    ]
    assert len({mutant(3, number)[1] for number in range(20)}) == 20


def _hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HANG_SECONDS", 1)
    then(source, "deserialized", lambda model: [time.sleep(0.01) for _ in range(1000)])(monkeypatch)


def _takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 40 << 20)
    sizes = itertools.count(files.peak() + (60 << 20), 60 << 20)
    then(source, "deserialized", lambda model: bytearray(next(sizes)))(monkeypatch)


def _raises(error: Exception) -> Callable[[object], object]:
    def fail(*_: object) -> object:
        raise error

    return fail


PLANTED: dict[str, Plant] = {
    "texts that are no UTF-8": patch(parse, "refuse_undecodable"),
    "unknown fields": patch(source, "refuse_lost"),
    "models without a graph, training, devices": patch(vet, "_vet_model"),
    "devices": patch(vet._Walk, "_devices"),
    "attributes of two values": patch(vet, "_vet_fields"),
    "tensors": patch(tensors.TensorVet, "check"),
    "types and infos": patch(vet, "vet_infos"),
    "types of results": patch(check, "check_types"),
    "unknown values forgotten": patch(deserialize, "_note_unknown"),
    "interface forgotten": patch(deserialize, "_restore_interface"),
    "inputs of functions forgotten": patch(GraphReader, "_taken", untyped_inputs),
    "what onnx_ir leaves out forgotten": patch(graph_writer, "_put_unknown"),
    "doc strings forgotten": without("doc_string"),
    "metadata forgotten": without("metadata_props"),
    "denotations forgotten": without("denotation"),
    "devices forgotten": without("device_configurations"),
    "defaults of functions forgotten": without("attribute_proto"),
    "a pass that raises": then(CommonSubexpressions, "run", _raises(ValueError("planted"))),
    "inference that raises": then(Infer, "run", _raises(AttributeError("planted"))),
    "loading that hangs": _hang,
    "loading that takes memory": _takes_memory,
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[fault](monkeypatch)
    assert any(trial.run() for _, trial in trials(0, FEW, share=0.3))
