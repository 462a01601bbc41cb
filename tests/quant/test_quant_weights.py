"""quantize-weights: what comes out computes the model with rounded weights, in every form."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from quant_chains import chain, weight

import vlmpass
from vlmpass.acceptance import Acceptance
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.weights.boxes import extent
from vlmpass.ir_tools.weights.evaluate import evaluate
from vlmpass.ir_tools.weights.leaves import Held
from vlmpass.passes import Pass
from vlmpass.passes.quantize_weights import QuantizeWeights
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales, Zeros

MODELS = 40


def options(seed: int) -> tuple[int, str, str]:
    choose = random.Random(seed)
    form = choose.choice(["dequantize-linear", "matmul-nbits"])
    bits = choose.choice([4, 8])
    blocks = [16, 32] if form == "matmul-nbits" else [0, 16, 32, 20]
    block = choose.choice(blocks)
    low = 21 if form == "dequantize-linear" and (bits == 4 or block) else 13
    opset = choose.choice([each for each in (13, 17, 19, 21, 23) if each >= low])
    words = {
        "bits": bits, "form": form, "block": block, "at-least": 1,
        "symmetric": choose.choice(["true", "false"]), "search": choose.choice(["true", "false"]),
    }  # fmt: skip
    dtype = choose.choice(["float", "float", "float16"])
    return opset, dtype, " ".join(f"{name}={value}" for name, value in words.items())


@pytest.mark.parametrize("seed", range(MODELS))
def test_what_comes_out_computes_with_rounded_weights(seed):
    opset, dtype, words = options(seed)
    model = chain(seed, opset, dtype)
    report = Pipeline(f"quantize-weights{{{words}}}").run(model, verify=True)
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok
    assert not any(
        node.op_type in ("MatMul", "Gemm") and node.inputs[1].const_value is not None
        for node in report.model.graph
    )
    again = Pipeline(f"quantize-weights{{{words}}}").run(report.model)
    assert again.proto() == report.proto()


@pytest.mark.parametrize("spoilt", ["scales", "numbers", "zeros"])
def test_a_wrong_constant_is_found(monkeypatch, spoilt):
    from vlmpass.rewriter_rules.quant import written

    real = {"scales": Scales, "numbers": Numbers, "zeros": Zeros}[spoilt]

    class Wrong(real):
        def read(self, box, tally=None):
            found = super().read(box, tally)
            return (found.astype(np.float32) * 0.5).astype(found.dtype)

    monkeypatch.setattr(written, spoilt.title(), Wrong)
    model = chain(3, 21, "float")
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline("quantize-weights{block=16 symmetric=false at-least=1}").run(model, verify=True)


class Instead(Pass):
    """Puts an operator in the place of the nodes of another one."""

    name = "instead"

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def run(self, model: ir.Model) -> bool:
        for node in model.graph:
            if node.op_type == self._old:
                node.op_type, node.domain = self._new, ""
        return True


ROUNDING = QuantizeWeights(bits=8, at_least=1)


def test_what_goes_wrong_before_the_rounding_is_found(tmp_path):
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline([Instead("Relu", "Neg"), ROUNDING]).run(chain(2, 21, "float"), verify=True)


@pytest.mark.parametrize("rounding", [[], [ROUNDING]], ids=["plain", "rounded"])
def test_what_cannot_be_compared_before_the_rounding_is_not_called_equal(tmp_path, rounding):
    model = chain(2, 21, "float")
    assert model.graph.node[-1].op_type == "Relu"
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Unheard", "of"
    model.opset_import.append(helper.make_opsetid("of", 1))
    report = Pipeline([Instead("Unheard", "Relu"), *rounding]).convert(model, tmp_path / "o.onnx")
    assert report.checked.numbers is None
    assert "nothing here runs the model" in report.checked.reason


def test_three_comparisons_take_one_time(monkeypatch):
    ends = []
    real = Acceptance._compare

    def compare(self, result, until, *rest):
        ends.append(until)
        return real(self, result, until, *rest)

    monkeypatch.setattr(Acceptance, "_compare", compare)
    passes = [Instead("Nothing", "Relu"), ROUNDING]
    Pipeline(passes).run(chain(1, 21, "float"), verify=None, verify_seconds=300)
    assert len(ends) == 2
    assert len(set(ends)) == 1


GRIDS = [
    Grid(bits, axis, block, symmetric, search, ir.DataType.FLOAT)
    for bits in (2, 4, 8)
    for axis in (0, 1)
    for block in (5, 16, 33)
    for symmetric in (True, False)
    for search in (True, False)
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_any_part_of_a_rounded_weight_is_that_part(grid):
    dice = np.random.default_rng(7)
    array = dice.standard_normal((33, 33)).astype(np.float32)
    array[:, 3] = 0
    source = Held.of(ir.Tensor(array))
    numbers = Numbers(ir.DataType.UINT8, array.shape, source, grid)
    rounded = Rounded(ir.DataType.FLOAT, array.shape, source, grid)
    scales = evaluate(Scales(ir.DataType.FLOAT, grid.count(array.shape), source, grid))
    zeros = evaluate(Zeros(ir.DataType.UINT8, grid.count(array.shape), source, grid))
    whole = evaluate(numbers)
    assert whole.max() < 1 << grid.bits
    spread = [np.repeat(each, grid.block, grid.axis)[:33, :33] for each in (scales, zeros)]
    back = (whole.astype(np.float32) - spread[1].astype(np.float32)) * spread[0]
    assert np.array_equal(evaluate(rounded), back)
    steps = spread[0] * (1.5 if grid.search or grid.symmetric else 0.51)
    assert grid.search or (np.abs(back - array) <= steps).all()
    for _ in range(6):
        ends = [sorted(dice.choice(34, 2, replace=False).tolist()) for _ in range(2)]
        box = tuple((first, last) for first, last in ends)
        part = numbers.prepared().read(box)
        assert part.shape == extent(box)
        assert np.array_equal(part, whole[ends[0][0] : ends[0][1], ends[1][0] : ends[1][1]])


@pytest.mark.parametrize("rows", [32, 64, 256])
@pytest.mark.parametrize("symmetric", [True, False])
def test_four_bits_are_as_near_as_those_of_onnxruntime(symmetric, rows):
    """Its blocks are those of MatMulNBits, rounded to the nearest; one may be a whole column."""
    from onnxruntime.capi._pybind_state import quantize_matmul_4bits

    dice = np.random.default_rng(1)
    array = (dice.uniform(-1, 1, (rows, 64)) * dice.gamma(1, 1, (1, 64))).astype(np.float32)
    count = rows // 32
    packed = np.zeros((64, count, 16), np.uint8)
    scales, zeros = np.zeros(64 * count, np.float32), np.zeros((64, (count + 1) // 2), np.uint8)
    quantize_matmul_4bits(packed, array, scales, zeros.reshape(-1), 32, 64, rows, symmetric)
    numbers = np.stack([packed & 15, packed >> 4], -1).reshape(64, count, 32).astype(np.float32)
    middles = np.stack([zeros & 15, zeros >> 4], -1).reshape(64, -1)[:, :count, None]
    theirs = (numbers - (8.0 if symmetric else middles)) * scales.reshape(64, count, 1)
    grid = Grid(4, 0, 32, symmetric, True, ir.DataType.FLOAT, mirrored=symmetric)
    ours = evaluate(Rounded(ir.DataType.FLOAT, array.shape, Held.of(ir.Tensor(array)), grid))
    off = np.square(ours - array).sum(), np.square(theirs.reshape(64, rows).T - array).sum()
    assert off[0] <= off[1]


def run(text: str, passes: str):
    model = onnx.parser.parse_model(text)
    return Pipeline(passes).run(model, verify=True)


HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def test_tied_embeddings_stay_tied():
    model = onnx.parser.parse_model(
        HEAD + "g (int64[n] i) => (float[n,40] y) { e = Gather(t, i)  y = MatMul(e, u) }"
    )
    dice = np.random.default_rng(0)
    model.graph.initializer.append(weight(dice, "t", 40, 32))
    model.graph.node.insert(0, helper.make_node("Transpose", ["t"], ["u"], perm=[1, 0]))
    report = Pipeline("quantize-weights{bits=4}").run(model)
    assert "no product has a float weight to round" in " ".join(report.notes)


def test_what_else_uses_a_weight_keeps_it():
    model = onnx.parser.parse_model(
        HEAD + "g (float[n,32] x) => (float[n,40] y, float[32] s)"
        " { y = MatMul(x, w)  s = ReduceMax<keepdims=0>(w, a) }"
    )
    dice = np.random.default_rng(0)
    model.graph.initializer.append(weight(dice, "w", 32, 40))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "a"))
    report = Pipeline("quantize-weights").run(model)
    assert "DequantizeLinear" not in {node.op_type for node in report.model.graph}


def test_a_convolution_has_a_scale_for_each_channel():
    model = onnx.parser.parse_model(
        HEAD + "g (float[1,3,9,9] x) => (float[1,20,7,7] y) { y = Conv(x, w) }"
    )
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 20, 3, 3, 3))
    report = Pipeline("quantize-weights{at-least=1}").run(model, verify=True)
    (node,) = (node for node in report.model.graph if node.op_type == "DequantizeLinear")
    assert [tuple(each.shape) for each in node.inputs] == [(20, 3, 3, 3), (20,)]
    left = Pipeline("quantize-weights{bits=4 at-least=1}").run(model)
    assert "no product has a float weight to round" in " ".join(left.notes)


def test_products_in_branches_and_functions_are_rounded():
    text = """<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
    g (float[n,32] x, bool c) => (float[n,32] y) {
        a = f.layer(x)
        y = If (c) <
            then_branch = t () => (float[n,32] p) { p = MatMul(a, w) },
            else_branch = e () => (float[n,32] q) { q = MatMul(x, w) }
        >
    }
    <domain: "f", opset_import: ["" : 21]>
    layer (x) => (y) {
        k = Constant <value = float[2,2] {1, 2, 3, 4}> ()
        s = Constant <value_ints = [16, 16]> ()
        w = Tile(k, s)
        y = Identity(x)
    }"""
    model = onnx.parser.parse_model(text)
    dice = np.random.default_rng(0)
    model.graph.initializer.append(weight(dice, "w", 32, 32))
    function = model.functions[0]
    held = helper.make_node("Constant", [], ["w"], value=weight(dice, "w", 32, 32))
    del function.node[:]
    function.node.extend([held, helper.make_node("MatMul", ["x", "w"], ["y"])])
    report = Pipeline("quantize-weights").run(model, verify=True)
    assert report.checked.numbers.ok
    kinds = [node.op_type for function in report.model.functions.values() for node in function]
    assert "DequantizeLinear" in kinds
    branches = next(node for node in report.model.graph if node.op_type == "If")
    for attribute in branches.attributes.values():
        assert "DequantizeLinear" in [node.op_type for node in attribute.as_graph()]


def test_the_cost_of_rounding_is_told_and_excluded_products_are_left():
    model = chain(5, 21, "float")
    report = Pipeline("quantize-weights{at-least=1 exclude=[v1$]}").run(model, verify=True)
    assert any("1 stay, excluded" in note for note in report.notes)
    assert any("rounding the weights changes output 'y' by" in note
               for note in report.checked.numbers.notes)  # fmt: skip
    assert next(node for node in report.model.graph if node.outputs[0].name == "v1").op_type != (
        "DequantizeLinear"
    )


@pytest.mark.parametrize(
    ("passes", "says"),
    [
        ("quantize-weights{bits=3}", "3 bits are not offered"),
        ("quantize-weights{at-least=0}", "has an element at least"),
        ("quantize-weights{block=-1}", "cannot have -1 numbers"),
        ("quantize-weights{form=matmul-nbits block=20}", "MatMulNBits has no blocks of 20"),
        ("quantize-weights{exclude=['(']}", "exclude"),
        ("quantize-weights{bits=4 at-least=1}", "from opset 21 on; put convert-opset{to=21}"),
    ],
)
def test_what_cannot_be_is_refused(passes, says):
    with pytest.raises(VlmpassError) as raised:
        Pipeline(passes).run(chain(0, 17, "float"))
    assert says in str(raised.value)


def test_a_gemm_with_factors_is_no_matmul_nbits():
    model = onnx.parser.parse_model(
        HEAD + "g (float[n,32] x) => (float[n,40] y) { y = Gemm<alpha=0.5>(x, w) }"
    )
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 32, 40))
    with pytest.raises(VlmpassError, match="MatMulNBits has no factors"):
        Pipeline("quantize-weights{form=matmul-nbits}").run(model)
    assert Pipeline("quantize-weights").run(model, verify=True).checked.numbers.ok


def test_a_weight_that_is_not_finite_is_refused(tmp_path):
    model = chain(0, 21, "float")
    spoilt = model.graph.initializer[0]
    array = numpy_helper.to_array(spoilt).copy()
    array[0, 0] = np.nan
    spoilt.CopyFrom(numpy_helper.from_array(array, spoilt.name))
    onnx.save(model, tmp_path / "in.onnx")
    for passes in ("quantize-weights{at-least=1}", "quantize-weights{at-least=1 block=16}"):
        for source in (model, tmp_path / "in.onnx"):
            for verify in (False, None):
                with pytest.raises(VlmpassError, match=f"weight {spoilt.name} is not finite"):
                    Pipeline(passes).convert(source, tmp_path / "out.onnx", verify=verify)
    assert [each.name for each in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize("words", ["", "bits=4", "bits=4 symmetric=false block=0", "block=7"])
def test_a_weight_without_elements_is_left(words):
    model = onnx.parser.parse_model(
        HEAD + "g (float[2,64] x) => (float[2,8] y) { a = MatMul(x, w)  y = MatMul(a, v) }"
    )
    for name, shape in (("w", (64, 0)), ("v", (0, 8))):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    report = Pipeline(f"quantize-weights{{at-least=1 {words}}}").run(model, verify=True)
    assert [node.op_type for node in report.model.graph] == ["MatMul", "MatMul"]


@pytest.mark.parametrize("asked", [{"quantize": "int8"}, {"quantize": "int4", "simplify": True}])
def test_the_option_brings_the_opset_that_it_needs(asked, tmp_path):
    source, first, second = (tmp_path / f"{name}.onnx" for name in "abc")
    onnx.save(chain(11, 13, "float"), source)
    assert "rounded" not in Pipeline(**asked).convert(source, first).pipeline
    Pipeline(**asked).convert(first, second)
    assert second.read_bytes() == first.read_bytes()
    assert vlmpass.load(first).opset_imports[""] == (21 if asked["quantize"] == "int4" else 13)
    with pytest.raises(VlmpassError, match="int4 weights need opset 21, and 17 is asked for"):
        Pipeline(quantize="int4", opset=17)


def test_its_text_is_read_back():
    made = QuantizeWeights(bits=4, block=64, exclude=("head",))
    assert str(made) == "quantize-weights{bits=4 block=64 exclude=[head]}"
