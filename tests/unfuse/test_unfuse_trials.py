"""Operators of ONNX Runtime's own in random configurations, said in standard ones."""

from __future__ import annotations

import logging
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from unfuse.cases import Given, left, reasons, without_it
from unfuse.decoders import grouped
from unfuse.trials import DRAWN, cases, outcomes
from vlmpass.passes.unfusing.unfuse import Unfuse

COUNT = 15


@pytest.mark.parametrize("operator", sorted(DRAWN))
def test_an_operator_is_said_in_standard_ones_and_computes_the_same(operator: str) -> None:
    tally, wrong = outcomes(operator, 2026, COUNT)
    assert wrong == []
    assert tally["right"] >= COUNT // 2, tally


def test_what_stays_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    case = grouped(np.random.default_rng(1))
    model = ir.from_proto(case.model())
    model.graph[0].attributes["sliding_window_cache"] = ir.AttrInt64("sliding_window_cache", 1)
    sparse = ir.Node("com.microsoft", "SparseAttention", [model.graph.inputs[0]], num_outputs=1)
    model.graph.append(sparse)
    with caplog.at_level(logging.WARNING, "vlmpass"):
        assert not Unfuse().run(model)
    assert [record.getMessage() for record in caplog.records] == [
        "unfuse: GroupQueryAttention stays: its cache holds a window of tokens and drops what "
        "leaves it",
        "unfuse: SparseAttention stays: the keys that it looks at are told by rows of a "
        "compressed block matrix",
    ]


def test_primitive_ones_throughout_where_that_is_asked_for() -> None:
    for seed in range(40):
        case = grouped(np.random.default_rng(seed))
        if case.opset < 23:
            continue
        made = without_it(case.model(), "primitive")
        operators = {node.op_type for node in made.graph.node}
        assert not operators & {"Attention", "RotaryEmbedding", "RMSNormalization"}, seed
        assert reasons(made) == []


BRAIN = np.dtype(ml_dtypes.bfloat16)
IN_BFLOAT16 = (
    "GroupQueryAttention",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "MatMulNBits",
    "MatMulBnb4",
    "GatherBlockQuantized",
    "Attention",
    "FastGelu",
    "QuickGelu",
    "MoE",
)


@pytest.mark.parametrize("operator", IN_BFLOAT16)
def test_bfloat16_becomes_a_valid_model(operator: str) -> None:
    """No CPU kernel has it: what comes out is of the type and passes the checker at every opset."""
    for _, case in cases(operator, 7, 12):
        inputs = {name: given and _in_bfloat16(name, given) for name, given in case.inputs.items()}
        kinds = [(name, rank, _narrow(kind)) for name, rank, kind in case.outputs]
        made = without_it(replace(case, inputs=inputs, outputs=kinds).model())
        assert case.may_stay or left(made) == []
        onnx.checker.check_model(made, full_check=True)


def _narrow(kind: np.dtype) -> np.dtype:
    return BRAIN if kind.kind == "f" else kind


def _in_bfloat16(name: str, given: Given) -> Given:
    if name in ("k_scale", "v_scale"):  # of float32 for all caches
        return given
    return replace(given, array=given.array.astype(_narrow(given.array.dtype)))
