"""What is not exact stands only where that is asked for, is told, and off by what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from tests.legalize.agreement import told
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize
from vlmpass.rewriter_rules.substitute import approximate

HEAD = '<ir_version: 8, opset_import: ["" : 18]> '
LACKING = 'inherits = "onnx-standard"\nabout = "a"\nsource = "b"\n[operators]\n'
ERF = np.vectorize(math.erf)
# operator: what it is in float64, where it is tried, whether errors are relative, how far it is off
FUNCTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple[float, float], bool, float]] = {
    "Erf": (ERF, (-6, 6), False, 5e-7),
    "Sinh": (np.sinh, (-89.4, 89.4), True, 1e-6),
    "Cosh": (np.cosh, (-89.4, 89.4), True, 1e-6),
    "Tan": (np.tan, (-1.5, 1.5), True, 1e-6),
    "Asinh": (np.arcsinh, (-1e20, 1e20), False, 1e-6),
    "Acosh": (np.arccosh, (1, 1e20), False, 1e-6),
    "Atanh": (np.arctanh, (-0.999, 0.999), False, 1e-6),
}


def grid(low: float, high: float) -> np.ndarray:
    """Return numbers between two, evenly and by magnitude, the ends among them."""
    even = np.linspace(max(low, -100), min(high, 100), 4001)
    sizes = np.geomspace(1e-30, max(abs(low), abs(high)), 2000)
    both = np.concatenate([even, sizes, -sizes, [low, high, 0.0, 88.8, -88.8]])
    kept = both[(both >= low) & (both <= high)].astype(np.float32)
    return kept[(kept >= low) & (kept <= high)]


def session(model: ir.Model) -> ort.InferenceSession:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


def off(operator: str) -> float:
    """Return by how much a function that is said nearly is off at most."""
    function, ends, relative, _ = FUNCTIONS[operator]
    model = ir.from_onnx_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = {operator}(x) }}")
    assert apply_rules(model, approximate.APPROXIMATE, fast_math=True)
    assert operator not in {node.op_type for node in model.graph}
    x = grid(*ends)
    wanted = function(x.astype(np.float64))
    error = np.abs(session(model).run(None, {"x": x})[0] - wanted)
    scale = np.maximum(np.abs(wanted), 1e-30) if relative else np.maximum(np.abs(wanted), 1)
    return float((error / scale).max())


@pytest.mark.parametrize("operator", FUNCTIONS)
def test_a_function_is_off_by_what_its_rule_says(operator: str) -> None:
    limit = FUNCTIONS[operator][-1]
    assert off(operator) <= limit
    (rule,) = (each for each in approximate.APPROXIMATE if operator in each.formula.split("(")[0])
    assert f"within {limit:.0e}".replace("e-0", "e-") in rule.formula


def test_what_is_no_number_stays_none() -> None:
    model = ir.from_onnx_text(f"{HEAD} g (float[n] x) => (float[n] y) {{ y = Acosh(x) }}")
    assert apply_rules(model, approximate.APPROXIMATE, fast_math=True)
    x = np.array([-1e5, -5000, -2, 0.5], np.float32)
    assert np.isnan(session(model).run(None, {"x": x})[0]).all()


PLANTED = {
    "Erf": ("_ERF", (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254828592)),
    "Sinh": ("_SINH", (1 / 72, 1 / 42, 1 / 20.1, 1 / 6)),
    "Asinh": ("_LARGE", 1e25),
    "Acosh": ("_LARGE", 10.0),
}


@pytest.mark.parametrize("operator", PLANTED)
def test_a_planted_defect_is_found(operator: str) -> None:
    name, new = PLANTED[operator]
    with patch.object(approximate, name, new):
        assert not off(operator) <= FUNCTIONS[operator][-1]


def loaded(text: str) -> ir.Model:
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    return model


GELU = "g (float[n] x) => (float[n] y) { y = Gelu(x) }"


def test_gelu_where_there_is_no_erf(tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    path.write_text(LACKING + 'Erf = "unsupported"\nGelu = "unsupported"\n')
    model = ir.from_onnx_text('<ir_version: 9, opset_import: ["" : 20]> ' + GELU)
    Infer().run(model)
    with pytest.raises(Refused, match="--allow approximate says it nearly"):
        Legalize(str(path)).run(model)
    x = np.linspace(-5, 5, 400, dtype=np.float32)
    before = session(model).run(None, {"x": x})[0]
    assert Legalize(str(path), allow="approximate").run(model)
    assert not {"Erf", "Gelu"} & {node.op_type for node in model.graph}
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], before, atol=2e-6)
    assert not Legalize(str(path), allow="approximate").run(model)


@pytest.mark.parametrize("count", [1, 2])
def test_doubles_in_float32_between_casts(
    tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "target.toml"
    path.write_text(LACKING + 'Add = "float"\nMul = "float"\n')
    body = "a = Add(x, x) y = Mul(a, x)" if count == 2 else "y = Mul(x, x)"
    text = f"g (double[n] x) => (double[n] y) {{ {body} }}"
    with pytest.raises(Refused, match="double"):
        Legalize(str(path)).run(loaded(text))
    model = loaded(text)
    assert Legalize(str(path), allow="approximate").run(model)
    assert [node.op_type for node in model.graph].count("Cast") == 2
    assert "Mul by cast-to-narrower (1)" in caplog.text
    x = np.random.default_rng(0).standard_normal(9)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], count * x * x, rtol=1e-6)


def test_integers_that_are_computed_in_doubles_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    path.write_text(LACKING + 'Div = "float int64"\nFloor = "float"\n')
    text = """g (int64[n] x) => (int64[n] y) { d = Cast<to=11>(x) three = Cast<to=11>(t)
      q = Div(d, three) f = Floor(q) y = Cast<to=7>(f) }"""
    text = text.replace("d = Cast", "t = Constant<value_int=3>() d = Cast")
    with pytest.raises(Refused, match="Div"):
        Legalize(str(path), allow="approximate").run(loaded(text))


def test_convert_says_what_is_nearly_so_and_by_how_much(tmp_path: Path) -> None:
    source, out = tmp_path / "source.onnx", tmp_path / "out.onnx"
    onnx.save(
        parser.parse_model(HEAD + "g (float[4,8] x) => (float[4,8] y) { y = Tan(x) }"), source
    )
    code, text = told("convert", source, out, "--target", "coreml")
    assert code == 2
    assert "tan-to-sin-and-cos is not exact" in text
    assert "--allow approximate says it nearly" in " ".join(text.split())
    assert not out.exists()
    said = told("check", source, "--target", "coreml")[1]
    assert "--allow approximate" in " ".join(said.split())
    code, text = told("convert", source, out, "--target", "coreml", "--allow", "approximate")
    assert code == 0, text
    assert "computed nearly: Tan by tan-to-sin-and-cos (1)" in " ".join(text.split())
    assert "relative error" in text or "e-0" in text
    assert told("check", out, "--target", "coreml")[0] == 0


def test_approximations_are_about_a_target() -> None:
    with pytest.raises(PipelineError, match="allow is about a target"):
        Pipeline(opset=18, allow="approximate")
