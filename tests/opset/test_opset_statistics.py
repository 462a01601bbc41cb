"""What LayerNormalization gives out of its statistics keeps its type, whatever is computed in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from vlmpass import Pipeline
from vlmpass.ir_tools.load import load

KINDS = {"double": np.float64, "float": np.float32, "float16": np.float16}
PLAIN = """<ir_version: 8, opset_import: ["": 17]>
g ({kind}[2,3,4] x, {kind}[4] s) => ({kind}[2,3,4] y, float[2,3,1] m, float[2,3,1] d)
{{ y, m, d = LayerNormalization <axis=-1> (x, s) }}"""
CALLED = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
g ({kind}[2,3,4] x, {kind}[4] s) => ({kind}[2,3,4] y, float[2,3,1] m, float[2,3,1] d)
{{ y, m, d = local.F (x, s) }}
<domain: "local", opset_import: ["": 17]>
F (a, b) => (c, e, f) {{ c, e, f = LayerNormalization <axis=-1> (a, b) }}"""


@pytest.mark.parametrize("opset", [11, 13, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [PLAIN, CALLED], ids=["plain", "in a function"])
def test_statistics_keep_their_type(text: str, kind: str, opset: int) -> None:
    source = onnx.parser.parse_model(text.format(kind=kind))
    made = Pipeline(f"convert-opset{{to={opset}}}").run(load(source), verify=False).proto()
    onnx.checker.check_model(made, full_check=True)
    rng = np.random.default_rng(opset)
    shapes = {"x": (2, 3, 4), "s": (4,)}
    feed = {name: rng.standard_normal(shape).astype(KINDS[kind]) for name, shape in shapes.items()}
    wanted, got = (ReferenceEvaluator(each).run(None, feed) for each in (source, made))
    # The evaluator itself gives statistics out in the type of its input.
    assert [each.dtype for each in got] == [KINDS[kind], np.float32, np.float32]
    for one, other in zip(wanted, got, strict=True):
        bound = 5e-3 if kind == "float16" else 1e-5
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound)
