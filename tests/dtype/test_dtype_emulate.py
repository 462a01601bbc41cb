"""vlmpass verify --emulate: overflow that ONNX Runtime hides is shown, and islands cure it."""

import json
import random
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import EXPORTS, NORM, RESIDUAL, large_input, parse, text_of

import vlmpass
from vlmpass.cli.app import run
from vlmpass.ir_tools.errors import Refused, VerifyError
from vlmpass.ir_tools.run import participants, verify
from vlmpass.ir_tools.run.allowance import UNBOUNDED
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.passes.dtype.mixed_precision import MixedPrecision
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

F16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
HALVE = UnifyDtype(to="float16", from_=("float32",), keep_io=True)


@pytest.fixture
def command(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def write(folder: Path, text: str, pass_=None) -> Path:
    model = parse(text)
    if pass_ is not None:
        pass_.run(model)
    path = folder / f"{'source' if pass_ is None else pass_.name}.onnx"
    ir.save(model, path)
    return path


def test_emulate_shows_an_overflow_in_a_norm_and_its_repair(command, tmp_path):
    source = write(tmp_path, NORM)
    np.savez(tmp_path / "in.npz", x=large_input())
    given = ("--inputs", tmp_path / "in.npz")
    narrow, islands = write(tmp_path, NORM, HALVE), write(tmp_path, NORM, MixedPrecision())
    assert command("verify", source, narrow, *given)[0] == 0  # the CPU hides it
    code, out, err = command("verify", source, narrow, *given, "--emulate", "float16")
    assert (code, err) == (1, "")
    assert "every value rounded to float16" in " ".join(out.split())
    code, out, _ = command("verify", source, islands, *given, "--emulate", "float16", "--json")
    data = json.loads(out)
    assert (code, data["ok"]) == (0, True)
    assert data["expected_ran"] == "ONNX Runtime"
    assert data["outputs"][0]["max_rel"] < 2e-3
    assert data["outputs"][0]["tolerance"] == pytest.approx(8e-2)
    # The half-precision model serves as its own reference, computed in float32.
    assert command("verify", narrow, narrow, *given, "--emulate", "float16")[0] == 1


def test_emulate_shows_where_a_residual_overflows_and_its_repair(command, tmp_path):
    source = write(tmp_path, RESIDUAL)
    x = np.random.default_rng(2).standard_normal((1, 8)).astype(np.float32) * 9000
    np.savez(tmp_path / "in.npz", x=x)
    given = ("--inputs", tmp_path / "in.npz", "--emulate", "float16")
    static = write(tmp_path, RESIDUAL, MixedPrecision(keep_io=True))
    code, out, _ = command("verify", source, static, *given, "--json")
    data = json.loads(out)
    assert code == 1
    assert data["outputs"][0]["nan"][1] + data["outputs"][0]["inf"][1] > 0
    (note,) = data["notes"]
    assert "beyond float16's range" in note
    first = note.split("'")[1]
    assert text_of(ir.load(static), first) == "tensor(float16)"
    wide = MixedPrecision(keep_io=True, calibrate=str(tmp_path / "in.npz"))
    code, out, _ = command("verify", source, write(tmp_path, RESIDUAL, wide), *given)
    assert code == 0, out


@pytest.mark.parametrize("name", ["decoder.float16.ts17", "decoder.bfloat16.ts17"])
def test_emulate_keeps_right_exports_right(name):
    dtype = BF16 if "bfloat16" in name else F16
    path = EXPORTS / f"{name}.onnx"
    found = verify(path, path, emulated=dtype)
    assert found.ok, found.outputs
    assert "computed in float32" in found.expected_ran
    assert found.max_rel > 1e-4  # it was rounded


def test_emulate_leaves_the_other_half_precision_to_float32():
    model = parse(
        """g (float16[2] x, bfloat16[2] z) => (float16[2] y, bfloat16[2] w) {
        a = Mul(x, x) y = Sqrt(a) b = Mul(z, z) w = Sqrt(b) }"""
    )
    numbers = np.float32([300, 3])
    feeds = {"x": numbers.astype(np.float16), "z": numbers.astype(ml_dtypes.bfloat16)}
    found = verify(model, model, inputs=feeds, emulated=F16)
    y, w = found.outputs
    assert not y.ok
    assert y.inf == (0, 1)
    assert w.ok
    assert w.max_rel < 1e-2
    assert "'a' reaches 9e+04" in found.notes[0]


def test_emulate_reaches_casts_that_stand_before_their_users():
    model = parse(
        """g (float16[2] x) => (float[2] y, float16[2] z) {
        a = Add(x, x) c = Cast<to=10>(a) w = Cast<to=1>(a) y = Sqrt(w) z = Mul(c, a) }"""
    )
    assert verify(model, model, emulated=F16).ok


def test_emulate_refuses_what_it_cannot_round(command, tmp_path):
    source = write(tmp_path, NORM)
    code, _, err = command("verify", source, source, "--emulate", "float16")
    assert code == 2
    assert "no float16 in it" in err
    assert "convert --dtype float16" in err
    code, _, err = command("verify", source, source, "--emulate", "flot16")
    assert code == 2
    assert "did you mean 'float16'?" in err
    model = parse("g (float16[2] x, float[2] z) => (float[2] y) { y = Add(x, z) }")
    with pytest.raises(Refused, match="Add"):
        verify(model, model, emulated=F16)
    with pytest.raises(VerifyError, match="no bfloat16"):
        verify(parse(NORM), parse(NORM), emulated=BF16)


STEPS = {
    "Add": np.add,
    "Mul": np.multiply,
    "Sub": np.subtract,
    "Max": np.maximum,
    "MatMul": np.matmul,
    "Abs": np.abs,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
}


def brain_chain(seed):
    """A chain of operators in bfloat16, an input, and what numpy gives that rounds each result."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    weight = rng.integers(-8, 9, (8, 8)).astype(ml_dtypes.bfloat16)
    x = rng.integers(-16, 17, (3, 8)).astype(ml_dtypes.bfloat16)
    values, lines = [x], []
    for index in range(8):
        operator = draw.choice([*STEPS])
        at = draw.randrange(len(values))
        last, other = values[at], draw.randrange(len(values))
        name = "x" if at == 0 else f"v{at}"
        wide = last.astype(np.float32)
        if operator in ("Abs", "Neg"):
            taken, made = name, STEPS[operator](wide)
        elif operator == "Sqrt":
            lines.append(f"a{index} = Abs({name})")
            taken, made = f"a{index}", np.sqrt(np.abs(wide))
        elif operator == "MatMul":
            # Whole numbers, so that the order of additions is of no account.
            lines += [f"r{index} = Floor({name})", f"c{index} = Clip(r{index}, low, high)"]
            small = np.clip(np.floor(wide), -64, 64)
            taken, made = f"c{index}, w", small @ weight.astype(np.float32)
        else:
            taken = f"{name}, {'x' if other == 0 else f'v{other}'}"
            made = STEPS[operator](wide, values[other].astype(np.float32))
        values.append(made.astype(ml_dtypes.bfloat16))
        lines.append(f"v{index + 1} = {operator}({taken})")
    # All of them are outputs.
    outputs = ", ".join(f"bfloat16[3, 8] v{index + 1}" for index in range(8))
    inner = "\n".join(lines)
    model = parse(f"g (bfloat16[3, 8] x, bfloat16[8, 8] w, bfloat16 low, bfloat16 high) => "
                  f"({outputs}) {{ {inner} }}")  # fmt: skip
    for name, array in (("w", weight), ("low", np.array(-64)), ("high", np.array(64))):
        value = next(each for each in model.graph.inputs if each.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array.astype(ml_dtypes.bfloat16), name=name)
        model.graph.register_initializer(value)
    return model, x, values[1:]


@pytest.mark.parametrize("seed", range(3))
def test_a_bfloat16_reference_is_rounded_after_every_operator_in_segments_too(seed, monkeypatch):
    model, x, expected = brain_chain(seed)
    made = {}
    for how, most in (("whole", 1 << 40), ("segments", 1)):
        monkeypatch.setattr(participants, "ONE_SESSION", most)
        monkeypatch.setattr(participants, "SegmentRunner", partial(SegmentRunner, budget=1))
        reference, judged = participants.sides_of(model, model, UNBOUNDED)
        participants.let_round((reference, judged), BF16, "reference", None)
        with reference.open("none") as runner:
            made[how] = list(runner.run(cast_all({"x": x}, reference.takes())).values())
            assert ("in segments" in reference.how) == (how == "segments")
        for number, (got, wanted) in enumerate(zip(made[how], expected, strict=True)):
            np.testing.assert_array_equal(got, wanted.astype(np.float32), f"{how}, {number}")


def test_a_bfloat16_source_is_rounded_whose_opset_has_no_such_operators():
    source = EXPORTS / "vision.bfloat16.dyn18.onnx"  # Conv takes bfloat16 from opset 22 on
    found = verify(source, source, emulated=BF16, emulated_in="reference")
    assert found.ok
    assert found.max_rel > 1e-4
    assert "every value rounded to bfloat16" in found.expected_ran


def test_which_of_two_models_is_rounded(tmp_path, command):
    source = EXPORTS / "decoder.bfloat16.ts17.onnx"
    wide = tmp_path / "wide.onnx"
    vlmpass.Pipeline(dtype="float32").convert(source, wide, verify=False)
    found = verify(source, wide, emulated=BF16)
    assert found.ok
    assert found.max_rel > 1e-4  # it was rounded
    assert "every value rounded to bfloat16" in found.expected_ran
    assert "rounded" not in found.actual_ran
    both = verify(source, source, emulated=BF16, emulated_in="both")
    assert both.ok
    assert both.max_rel == 0
    for where, said in (("reference", "the reference model has no bfloat16"), ("b", "no model to")):
        code, _, err = command(
            "verify", wide, source, "--emulate", "bfloat16", "--emulate-in", where
        )
        assert code == 2
        assert said in err
    code, _, err = command("verify", wide, source, "--emulate-in", "both")
    assert code == 2
    assert "give --emulate bfloat16 too" in err
