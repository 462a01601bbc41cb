"""infer and check on every operator: the models that ship with onnx, their sizes made unknown."""

from __future__ import annotations

import random
import warnings
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.test_case import TestCase

from vlmpass.ir_tools.check import check
from vlmpass.passes.infer import Infer


@cache
def cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return [
        case
        for case in found
        if case.model is not None and case.data_sets and "_expanded" not in case.name
    ]


def hide(m: ir.Model, inputs: list[object], chance: random.Random) -> dict[str, int]:
    """Give names to half of the sizes of the inputs, forget those of outputs; return the sizes."""
    sizes: dict[str, int] = {}
    for value, array in zip(m.graph.inputs, inputs, strict=False):
        if isinstance(array, np.ndarray) and isinstance(value.type, ir.TensorType):
            dims: list[int | str] = list(array.shape)
            for axis, size in enumerate(array.shape):
                if chance.random() < 0.5:
                    dims[axis] = f"{value.name}_{axis}"
                    sizes[f"{value.name}_{axis}"] = size
            value.shape = ir.Shape(dims)
    for value in m.graph.outputs:
        if isinstance(value.type, ir.TensorType) and value.shape is not None:
            value.shape = ir.Shape([None] * len(value.shape))
    return sizes


def contradicts(value: ir.Value, array: object, sizes: dict[str, int]) -> bool:
    if not isinstance(array, np.ndarray) or not isinstance(value.type, ir.TensorType):
        return False
    claims = []
    for dim in value.shape or ():
        name = dim if isinstance(dim, int) else dim.value
        if isinstance(name, str):
            name = int(eval(name.replace("/", "//"), {"floor": int}, sizes))
        claims.append(name)
    return value.shape is not None and (
        len(claims) != array.ndim
        or any(a not in (None, b) for a, b in zip(claims, array.shape, strict=True))
    )


@pytest.mark.slow
def test_no_size_is_claimed_that_a_run_contradicts() -> None:
    chance = random.Random(0)
    wrong, known, axes = [], 0, 0
    for case in cases():
        m = ir.from_proto(case.model)
        inputs, outputs = case.data_sets[0]
        sizes = hide(m, list(inputs), chance)
        Infer().run(m)
        if Infer().run(m):
            wrong.append((case.name, "a second run changes something"))
        for value, array in zip(m.graph.outputs, outputs, strict=False):
            if contradicts(value, array, sizes):
                wrong.append((case.name, value.name))
            dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]
            known, axes = known + len(dims) - dims.count(None), axes + len(dims)
    assert not wrong
    assert known > 0.7 * axes


@pytest.mark.slow
def test_every_model_of_the_standard_passes_the_check() -> None:
    assert len(cases()) > 1000
    for case in cases():
        check(ir.from_proto(case.model))


def test_unknown_lengths_of_attention_are_no_fault() -> None:
    case = next(c for c in cases() if c.name == "test_attention_4d_with_past_and_present_qk_matmul")
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    m = ir.from_proto(proto)
    m.graph.inputs[4].shape = ir.Shape([2, 3, "past", 8])
    check(m)
