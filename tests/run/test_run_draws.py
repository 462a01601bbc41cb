"""Models that draw at random are compared where both draw alike, and refused where they cannot."""

import onnx_ir as ir
import pytest
from run_models import text_model

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import verify

DRAWS = """g (float[64,8] x) => (float[64,8] y) {
    u = RandomUniformLike(x) p = Constant<value_float = 0.5>() k = Less(u, p) m = Cast<to = 1>(k)
    a = Mul(x, m) v = RandomNormalLike(a) i = Identity(v) y = Add(a, i) }"""


def test_what_is_drawn_at_random_is_drawn_alike():
    """Prenets of speech models drop out while they run: two runs of one model differ."""
    source = text_model(DRAWS)
    for intent in ({"simplify": True}, {"opset": 13}, {"opset": 18, "fuse": "ort"}):
        report = Pipeline(**intent).run(source, verify=True)
        assert report.checked.numbers is not None
        assert report.checked.numbers.ok
        assert all("seed" not in node.attributes for node in report.result.graph)
    other = text_model(DRAWS.replace("0.5", "0.6"))
    assert not verify(source, other).ok


@pytest.mark.parametrize(
    ("inputs", "node"),
    [
        ("float[64,8] x", "RandomUniformLike(x)"),
        ("float[64,8] x", "RandomNormalLike<seed = 3.0>(x)"),
        ("float[64,8] x", "RandomUniform<shape = [64, 8]>()"),
        ("float[64,8] x", "RandomNormal<shape = [64, 8]>()"),
    ],
)
def test_other_engines_draw_other_numbers(inputs: str, node: str) -> None:
    """ONNX Runtime has kernels for these up to opset 21, and the evaluator runs the source."""
    source = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 22]>
        g ({inputs}) => (float[64,8] y) {{ u = {node} y = Add(u, x) }}"""
    )
    result = Pipeline(opset=21).run(source).result
    with pytest.raises(VerifyError, match=r"draw at random.*reference evaluator.*ONNX Runtime"):
        verify(source, result)
