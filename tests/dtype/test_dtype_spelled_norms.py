"""Norms that are spelled out load on ONNX Runtime in float16, which fuses over Casts: a sample.

All of them: `PYTHONPATH=tests python -m dtype.test_dtype_spelled_norms`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

import onnx_ir as ir
import onnxruntime
import pytest

from vlmpass import Pipeline
from vlmpass.passes.dtype import islands

KINDS = {
    "layer": "m = {mean}(x{axes}) d = Sub(x, m) p = Pow(d, two) v = {mean}(p{axes})"
    " h = Add(v, eps) r = Sqrt(h) q = Div(d, r)",
    "root": "p = Pow(x, two) v = {mean}(p{axes}) h = Add(v, eps) r = Sqrt(h) q = Div(x, r)",
    "reciprocal": "p = Mul(x, x) v = {mean}(p{axes}) h = Add(v, eps) s = Sqrt(h)"
    " r = Reciprocal(s) q = Mul(x, r)",
}
BIASES = ("o = Add(n, c)", "o = Add(c, n)", "o = Identity(n)")
WEIGHTS = ("n = Mul(w, q)", "n = Mul(q, w)")
STARTS = (
    "x = Gather(t, i)",
    "e = Gather(t, i) x = MatMul(e, z)",
    "e = Gather(t, i) f = Gather(t, i) x = Add(e, f)",
)
OPSETS = (14, 17, 18, 21)
HEAD = """<ir_version: 8, opset_import: ["": {opset}]> g (int64[b,s] i) => (float[b,s,4] y)
<float[3,4] t = {{1, 2, 3, 4, 5, 7, 6, 8, 9, 2, 1, 5}}, float two = {{2}}, float eps = {{0.0001}},
 float[4] w = {{1, 2, 3, 4}}, float[4] c = {{3, 2, 1, 0.5}}, int64[1] last = {{-1}},
 float[4,4] z = {{1, 0, 2, 1, 0, 3, 1, 2, 1, 1, 0, 1, 2, 1, 1, 0}}> {{
 {nodes} y = MatMul(o, z) }}"""
ALL = list(itertools.product(KINDS, BIASES, WEIGHTS, STARTS, OPSETS, (False, True)))
KEEPING = ("layer", BIASES[0], WEIGHTS[0], STARTS[0], 17, False)
"""What did not load."""


def refused(cases: Iterable[tuple[str, str, str, str, int, bool]]) -> Iterator[str]:
    for kind, bias, weight, start, opset, kept in cases:
        newer = opset >= 18
        mean = "ReduceMean" if newer else "ReduceMean <axes = [-1]> "
        norm = KINDS[kind].format(mean=mean, axes=", last" if newer else "")
        text = HEAD.format(opset=opset, nodes=" ".join((start, norm, weight, bias)))
        made = Pipeline(dtype="float16", keep_io=kept).run(ir.from_onnx_text(text), verify=False)
        try:
            onnxruntime.InferenceSession(made.proto().SerializeToString())
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class
            yield f"{kind}, {bias}, {weight}, {start}, {opset}: {error}"


def test_a_sample_loads() -> None:
    assert not list(refused([KEEPING, *random.Random(7).sample(ALL, 10)]))


def test_a_weight_left_outside_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(islands._Growth, "_weigh", lambda *_: None)
    (told,) = refused([KEEPING])
    assert "LayerNormalization" in told


if __name__ == "__main__":
    print(*refused(ALL), len(ALL), sep="\n")
