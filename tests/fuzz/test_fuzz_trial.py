"""How results are judged where runtime and standard differ, and where texts spell numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from .runtime import RUNTIME
from .trial import Trial


def model_of(text: str, opset: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


LOG_SUM = "g (float16[2] x) => (float16 y) { y = ReduceLogSumExp <keepdims = 0> (x) }"


def test_of_nan_and_infinity_the_standard_decides() -> None:
    """ONNX Runtime has no float16 kernel at 18; its kernel differs from the function's body."""
    source, feeds = model_of(LOG_SUM, 18), {"x": np.array([np.inf, np.nan], np.float16)}
    (narrow,) = RUNTIME.run(source, feeds) or ()
    (other,) = RUNTIME.run(model_of(LOG_SUM, 21), feeds) or ()
    assert np.isnan(narrow)
    assert np.isposinf(other)
    trial = Trial(source, feeds)
    assert not list(trial.through("infer,convert-opset{to=21},infer"))
    assert not list(trial.through("unify-dtype{to=float32}"))


def test_and_what_is_wrong_by_the_standard_is_found() -> None:
    source = model_of("g (float[2] x) => (float[2] y) { y = Abs (x) }", 18)
    result = model_of("g (float[2] x) => (float[2] y) { y = Sub (x, x) }", 18)
    trial = Trial(source, {"x": np.array([np.nan, np.inf], np.float32)})
    assert [each.kind for each in trial._judged("simplify", result)] == ["wrong"]


def test_numbers_spelled_from_a_narrow_type_keep_its_digits() -> None:
    text = "g (float[3] x) => (string[3] y) { b = Cast <to = 16> (x) y = Cast <to = 8> (b) }"
    feeds = {"x": np.array([1.23456789, 3.14159, 7], np.float32)}
    trial = Trial(model_of(text, 18), feeds)
    (spelled,) = trial.expected or ()
    assert spelled.tolist() == ["1.234375", "3.140625", "7"]
    for pipeline in ("unify-dtype{to=float32}", "infer,convert-opset{to=13},infer"):
        assert not list(trial.through(pipeline))
        assert not trial.refused
