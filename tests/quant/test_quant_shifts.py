"""mend-shifts: what exporters write for `>>` unpacks PyTorch's numbers again.

A seeded generator draws words, bits and spellings; `VLMPASS_SHIFTS=5000` draws as many.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from quant_tools import numbers, run
from test_quant_layers import KINDS, LAYERS, decoded, right

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.load import load
from vlmpass.passes.mend_shifts import MendShifts
from vlmpass.passes.quant_linear import QuantLinear
from vlmpass.rewriter_rules.quant import shifts

COUNT = int(os.environ.get("VLMPASS_SHIFTS", "60"))
BROKEN = [f"{n}.{e}" for n, k in KINDS.items() for e in k["exports"] if not right(f"{n}.{e}")]


@dataclass(frozen=True)
class Spelling:
    """How a graph divides words: the divisor, the width it goes through, what it masks with."""

    bits: int
    power: bool
    narrow: bool
    through_float: bool
    negative: bool

    def text(self, words: np.ndarray) -> str:
        each = 32 // self.bits
        shift, top = np.arange(each) * self.bits, (1 << self.bits) - 1
        kind, number = ("int64", 7) if self.through_float else ("int32", 6)
        power = f"""f = Cast<to=1>(shift) two = Constant<value_float=2.0>() p = Pow(two, f)
                    d = Cast<to={number}>(p)"""
        held = "" if self.power else f", {kind}[{each},1] d = {numbers(1 << shift)}"
        narrow = {2: 3, 4: 3, 8: 5}[self.bits] if self.narrow else number
        mask = {3: "int8", 5: "int16", 6: "int32", 7: "int64"}[narrow]
        divided = "q = Div(w, d)"
        if self.through_float:
            divided = f"""a = Cast<to=1>(w) b = Cast<to=1>(d) c = Div(a, b) e = Floor(c)
                          q = Cast<to={number}>(e)"""
        return f"""<ir_version: 10, opset_import: ["": 18]> g (float[1] x) => ({mask}[n,m] y) <
            int32[1,{len(words)}] words = {numbers(words)},
            int64[{each},1] shift = {numbers(shift)}, {mask} top = {{{top}}}{held}> {{
            w = Cast<to={number}>(words) {power if self.power else ""} {divided}
            r = Cast<to={narrow}>(q) y = BitwiseAnd(r, top) }}"""

    def wanted(self, words: np.ndarray) -> np.ndarray:
        shift = np.arange(32 // self.bits)[:, None] * self.bits
        return (words[None].astype(np.int64) >> shift) & ((1 << self.bits) - 1)


def drawn(seed: int) -> tuple[Spelling, np.ndarray]:
    rng = np.random.default_rng(seed)
    flags = [bool(flag) for flag in rng.integers(0, 2, 4)]
    spelling = Spelling(int(rng.choice([2, 4, 8])), *flags)
    low = -(2**31) if spelling.negative else 0
    return spelling, rng.integers(low, 2**31, int(rng.integers(1, 9)))


def unpacked(model: ir.Model) -> np.ndarray:
    return run(model, {"x": np.zeros(1, np.float32)})[0].astype(np.int64)


def mends_right(seed: int) -> bool:
    spelling, words = drawn(seed)
    model = ir.from_onnx_text(spelling.text(words.astype(np.int32)))
    was_right = np.array_equal(unpacked(model), spelling.wanted(words))
    changed = MendShifts().run(model)
    check(model)
    wrong = not np.array_equal(unpacked(model), spelling.wanted(words))
    return not wrong and (changed or was_right) and not MendShifts().run(model)


def test_quant_shifts_of_any_spelling_give_the_numbers_of_pytorch() -> None:
    assert [seed for seed in range(COUNT) if not mends_right(seed)] == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rounds_down", lambda tape, shift: tape.Div(shift.words, shift.divisor)),
        ("rounds_down", lambda tape, shift: tape.Div(tape.Abs(shift.words), shift.divisor)),
        ("rounds_down", lambda tape, shift: tape.Sub(shift.words, shift.divisor)),
        ("rounds_down", lambda tape, shift: tape.Mod(shift.words, shift.divisor)),
    ],
)
def test_quant_shifts_planted_faults_are_caught(name, fault, monkeypatch) -> None:
    monkeypatch.setattr("vlmpass.passes.mend_shifts." + name, fault)
    assert not all(mends_right(seed) for seed in range(20))


@pytest.mark.parametrize("name", ["_truncated", "_through_float"])
def test_quant_shifts_that_are_not_found_are_caught(name, monkeypatch) -> None:
    monkeypatch.setattr(shifts, name, lambda *given: None)
    assert not all(mends_right(seed) for seed in range(20))


@pytest.mark.parametrize("export", BROKEN)
def test_quant_shifts_of_exported_layers(export: str, caplog: pytest.LogCaptureFixture) -> None:
    name = export.split(".")[0]
    model = load(LAYERS / f"{export}.onnx")
    assert QuantLinear(to="float").run(model)
    assert "are those of the graph, not PyTorch's" in caplog.text
    mended = load(LAYERS / f"{export}.onnx")
    assert MendShifts().run(mended)
    assert QuantLinear(to="float").run(mended)
    weights = [
        next(v.const_value.numpy() for v in each.graph.initializers.values() if v.shape.rank() == 2)
        for each in (model, mended)
    ]
    np.testing.assert_array_equal(weights[1], decoded(name))
    assert (weights[0] != weights[1]).any()


def test_quant_shifts_mended_are_compared_with_the_source_mended(tmp_path: Path) -> None:
    source = LAYERS / "gptq4_act.ts18.onnx"
    for quant in ("matmul-nbits", "dequantize-linear", "float"):
        pipeline = Pipeline(quant=quant, mend_shifts=True)
        report = pipeline.convert(source, tmp_path / f"{quant}.onnx")
        assert report.checked.numbers is not None
        assert report.checked.numbers.ok
        assert any("source mended likewise" in note for note in report.notes)


def test_quant_shifts_mended_differ_from_the_source_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MendShifts, "mends_source", False)
    with pytest.raises(VerifyError, match="does not compute what the source computes"):
        Pipeline(mend_shifts=True).convert(LAYERS / "gptq4_act.ts18.onnx", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "y = Div(x, d)",  # what varies is no packed word
        "q = Div(w, three) y = BitwiseAnd(q, d)",
        "q = Div(w, d) y = Add(q, x)",  # a division that truncates may be meant
        "q = Div(p, d) y = BitwiseAnd(q, d)",  # nothing to round
        "q = Div(w, one) y = BitwiseAnd(q, d)",
        "q = Div(w, minus) y = BitwiseAnd(q, d)",
    ],
)
def test_quant_shifts_look_alikes_stay(body: str) -> None:
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["": 18]>
        g (int32[2] x) => (int32[2] y) <int32[2] w = {{-7, 9}}, int32[2] d = {{1, 4}},
        int32[2] three = {{3, 4}}, int32[2] p = {{7, 9}}, int32 one = {{1}}, int32 minus = {{-4}}>
        {{ {body} }}""")
    assert not MendShifts().run(model)
