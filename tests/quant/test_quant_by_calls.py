"""Products whose attributes calls of a function give, each call others: they stay as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import difference, parse, run

from vlmpass.passes.pipeline.text import parse as pipeline

NBITS = "quantize-weights{at-least=1,form=matmul-nbits,block=16,bits="
ASKED = (
    "quantize-dynamic{at-least=1}",
    "quantize-weights{at-least=1}",
    NBITS + "8}",
    NBITS + "4,symmetric=false,algorithm=hqq}",
)
SIZE = 8


def _drawn(rng: np.random.Generator) -> str:
    """Two calls of a Gemm: they differ in one of what it may be given by reference."""
    kinds = {"transA": "int", "transB": "int", "alpha": "float", "beta": "float"}
    name = str(rng.choice([*kinds]))
    numbers = (0, 1) if kinds[name] == "int" else (1.0, float(rng.integers(2, 5)))
    order = rng.permutation(2)
    one, other = (numbers[at] for at in order)
    weight = ", ".join(f"{each:.3f}" for each in rng.standard_normal(SIZE * SIZE))
    return f"""<ir_version: 10, opset_import: ["": 21, "l": 1]>
    g(float[{SIZE},{SIZE}] x) => (float[i,j] y, float[i,j] z) {{
        y = l.f<a={one}>(x) z = l.f<a={other}>(x) }}
    <domain: "l", opset_import: ["": 21]> f <a> (x) => (y) {{
        w = Constant<value = float[{SIZE},{SIZE}] {{{weight}}}>()
        c = Constant<value = float[{SIZE}] {{1, 2, 3, 4, 5, 6, 7, 8}}>()
        y = Gemm<{name}: {kinds[name]} = @a>(x, w, c) }}"""


@pytest.mark.parametrize("seed", range(4))
def test_what_calls_say_of_a_product_is_not_taken_for_the_default(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = parse(_drawn(rng), 21)
    feed = {"x": rng.standard_normal((SIZE, SIZE)).astype(np.float32)}
    expected = run(source, feed)
    for text in ASKED:
        made = ir.serde.from_proto(ir.to_proto(source))
        for each in pipeline(text):
            each.run(made)
        assert not difference(expected, run(made, feed)), text
