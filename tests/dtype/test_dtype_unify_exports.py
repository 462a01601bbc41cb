"""unify-dtype on exports: nothing narrow left, PyTorch's float32 numbers, and the fewest Casts."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
import pytest
from dtype_tools import (
    casts,
    check,
    dtypes_left,
    elementwise_error,
    export,
    relative_error,
    run,
)

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.types import solve
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType
NARROW = {D.BFLOAT16, D.FLOAT16}
COMPARED = [
    "decoder.bfloat16.ts17",
    "decoder.bfloat16.dyn18",
    "decoder.bfloat16.dyn23",
    "decoder.float16.ts17",
    "vision.bfloat16.ts17",
    "vision.bfloat16.dyn18",
    "text.float16.ts17",
]
# The exporter computes shifts with Pow and Div, which sign-extends: PyTorch's numbers are others.
EXPORTED = [*COMPARED, "quant_mod.float16.ts17", "quant_shift.float16.ts18"]


def unified(name: str) -> ir.Model:
    model = export(name)[0]
    RepairTypes().run(model)  # one export has Cast(to=COMPLEX128)
    assert UnifyDtype().run(model)
    return model


def weights(model: ir.Model) -> set[str]:
    """The names of initializers; numbers that the exporter rounded are other ones afterwards."""
    return {name for name, value in model.graph.initializers.items() if value.const_value.size > 1}


def between(name: str) -> Counter[tuple[str, str]]:
    """The Casts of an export, by the names of the types."""
    model = export(name)[0]
    typing = solve(model)
    return Counter(
        (str(typing.dtype(node.inputs[0])), str(typing.dtype(node.outputs[0])))
        for node in all_nodes(model)
        if node.op_type in ("Cast", "CastLike")
    )


@pytest.mark.parametrize("name", EXPORTED)
def test_unify_exported_models(name: str) -> None:
    source = export(name)[0]
    model = unified(name)
    check(model)
    assert not dtypes_left(model) & (NARROW | {D.COMPLEX128})
    for before, after in ((source.graph.inputs, model.graph.inputs),
                          (source.graph.outputs, model.graph.outputs)):  # fmt: skip
        assert [v.name for v in after] == [v.name for v in before]
    assert weights(model) == weights(source)
    for node in model.graph:
        if node.op_type == "Cast":
            sides = {node.inputs[0].dtype, node.outputs[0].dtype}
            assert any(not side.is_floating_point() for side in sides)
    left = casts(model)
    assert not UnifyDtype().run(model)
    assert casts(model) == left


@pytest.mark.parametrize("name", COMPARED)
def test_unify_exported_models_compute_what_pytorch_does(name: str) -> None:
    """Every element is right to 1e-4 of its own size, and to 1e-5 of the largest.

    An element much smaller than its output's others counts as a tenth of their root mean square:
    it is a difference of large numbers, and PyTorch's own last bits are in it.
    """
    _, feeds, wanted = export(name)
    model = unified(name)
    results = run(model, {v.name: feeds[v.name] for v in model.graph.inputs})
    for key, reference in wanted.items():
        assert elementwise_error(results[key], reference) < 1e-4
        assert relative_error(results[key], reference) < 1e-5


@pytest.mark.parametrize("name", COMPARED)
def test_unify_without_restoring_is_off_by_what_the_exporter_rounded(name: str) -> None:
    _, feeds, wanted = export(name)
    model = export(name)[0]
    RepairTypes().run(model)
    UnifyDtype(restore_constants=False).run(model)
    assert set(model.graph.initializers) == set(export(name)[0].graph.initializers)
    results = run(model, {v.name: feeds[v.name] for v in model.graph.inputs})
    worst = max(relative_error(results[key], reference) for key, reference in wanted.items())
    assert 4e-5 < worst < 2e-4


def test_unify_minimum_of_a_decoder() -> None:
    """28 Casts; one must stay.

    - 11 from INT64 to INT64 do nothing.
    - 7 times a value becomes FLOAT and its result BFLOAT16 again: 5 norms, 2 softmaxes. In float32
      both ends are FLOAT already: 14 go.
    - 2 bring cos and sin from FLOAT to BFLOAT16: they go.
    - 1 brings the position ids from INT64 to FLOAT. They are an input, so that it cannot be done
      beforehand, and MatMul takes them with FLOAT frequencies only: it stays.
    """
    assert between("decoder.bfloat16.ts17") == {
        ("INT64", "INT64"): 11,
        ("BFLOAT16", "FLOAT"): 7,
        ("FLOAT", "BFLOAT16"): 7 + 2,
        ("INT64", "FLOAT"): 1,
    }
    model = unified("decoder.bfloat16.ts17")
    (left,) = (node for node in model.graph if node.op_type == "Cast")
    assert [user.op_type for user, _ in left.outputs[0].uses()] == ["MatMul"]
    assert (left.inputs[0].dtype, left.outputs[0].dtype) == (D.INT64, D.FLOAT)


def test_unify_minimum_of_a_vision_encoder() -> None:
    """8 Casts; two must stay.

    - 4 from INT64 to INT64 do nothing.
    - 2, one a layer, bring a size computed from the input's shape from INT64 to FLOAT for
      Pow(size, -0.5), a fraction: they stay.
    - 2 bring that to COMPLEX128, which Mul does not take: the exporter's mistake. What Mul takes
      with it is FLOAT now, as the power is: they go.
    """
    assert between("vision.bfloat16.ts17") == {
        ("INT64", "INT64"): 4,
        ("INT64", "FLOAT"): 2,
        ("FLOAT", "COMPLEX128"): 2,
    }
    left = [node for node in unified("vision.bfloat16.ts17").graph if node.op_type == "Cast"]
    assert [user.op_type for node in left for user, _ in node.outputs[0].uses()] == ["Pow", "Pow"]


def test_unify_minimum_of_a_quantised_layer() -> None:
    """5 Casts; all must stay.

    - 2 bring packed words from INT32 to INT64 for Mod by 2 ** 32, which INT32 does not hold.
    - 2 bring shifts from INT32 to INT64: they are the exponents of a Pow whose result divides those
      words, and Div takes one type.
    - 1 brings the unpacked number to the type of its scale, whichever float that is.
    """
    assert between("quant_mod.float16.ts17") == {("INT32", "INT64"): 4, ("INT64", "FLOAT16"): 1}
    left = [node for node in unified("quant_mod.float16.ts17").graph if node.op_type == "Cast"]
    made = [(node.inputs[0].dtype, node.outputs[0].dtype) for node in left]
    assert made == [(D.INT32, D.INT64)] * 4 + [(D.INT64, D.FLOAT)]
    modulus = [constant_of(v) for n in left for u, _ in n.outputs[0].uses() for v in u.inputs]
    assert any(t is not None and t.numpy().max() == 2**32 for t in modulus)


def test_unify_minimum_of_a_decoder_of_the_newer_exporter() -> None:
    """13 Casts; one must stay.

    - 5 norms take a value to FLOAT and bring their result back to BFLOAT16: 10 go.
    - 2 bring cos and sin from FLOAT to BFLOAT16: they go.
    - 1 brings the position ids, an input, from INT64 to FLOAT for MatMul: it stays.
    """
    assert between("decoder.bfloat16.dyn18") == {
        ("BFLOAT16", "FLOAT"): 5,
        ("FLOAT", "BFLOAT16"): 5 + 2,
        ("INT64", "FLOAT"): 1,
    }
    (left,) = (node for node in unified("decoder.bfloat16.dyn18").graph if node.op_type == "Cast")
    assert (left.inputs[0].dtype, left.outputs[0].dtype) == (D.INT64, D.FLOAT)
    assert [user.op_type for user, _ in left.outputs[0].uses()] == ["MatMul"]
