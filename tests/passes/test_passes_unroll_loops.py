"""Bodies of Loops and Scans written out: the same numbers, shapes that may grow, and a bound."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.passes.looped import judged
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.passes.control import iterations
from vlmpass.passes.control.dead_branches import DeadBranches
from vlmpass.passes.control.unroll_loops import UnrollLoops
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

GROWING = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,2] x) => (float[m,2] y, float[3,k,2] z) {
  t = Constant<value_int=3>()
  y, z = Loop(t, , x) <body = b (int64 i, bool c, float[r,2] s)
    => (bool d, float[q,2] w, float[1,2] v) {
    d = Identity(c) f = Cast<to=1>(i) a = Add(x, f) o = Constant<value_ints=[0]>()
    v = ReduceMax<keepdims=1>(a, o) w = Concat<axis=0>(s, v) }> }"""
WHILE = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2] x, int64 k) => (float[2] y) {
  t = Constant<value_int=5>()
  y = Loop(t, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] w) {
    d = Less(i, k) w = Add(s, x) }> }"""


def loaded(text: str) -> ir.Model:
    model = ir.from_onnx_text(text)
    Infer().run(model)
    return model


def run(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)


@pytest.mark.parametrize("first", [0, 15, 30])
def test_random_bodies_compute_the_same_written_out(first: int) -> None:
    kinds = [judged(seed) for seed in range(first, first + 15)]
    assert set(kinds) <= {"equal", "left", "some stay"}
    assert kinds.count("equal") > 4


def _made(change: Callable[..., object]) -> Callable[..., object]:
    original = iterations._Writing._ints
    return lambda self, name, count: change(name, list(original(self, name, count)))


PLANTED: dict[str, tuple[str, Callable[..., object]]] = {
    "a Scan goes forwards": (
        "_ints",
        _made(lambda name, found: [0] * len(found) if name == "scan_input_directions" else found),
    ),
    "a Scan's results are in order": (
        "_ints",
        _made(lambda name, found: [0] * len(found) if name == "scan_output_directions" else found),
    ),
    "a Scan's results are along the first axis": (
        "_ints",
        _made(lambda name, found: [0] * len(found) if name == "scan_output_axes" else found),
    ),
    "a Scan is along the first axis": (
        "_ints",
        _made(lambda name, found: [0] * len(found) if name == "scan_input_axes" else found),
    ),
    "iterations are counted from one": (
        "_constant",
        lambda self, array, *, _old=iterations._Writing._constant: _old(
            self, array + 1 if array.dtype == np.int64 and array.ndim == 0 else array
        ),
    ),
    "every iteration takes what the first did": (
        "_given",
        lambda self, number, states, *, _old=iterations._Writing._given: _old(
            self, number, [each for each in self._node.inputs if each][-len(states) :] or states
        ),
    ),
    "results are joined from the last": (
        "_joined",
        lambda self, place, parts, *, _old=iterations._Writing._joined: _old(
            self, place, parts[::-1]
        ),
    ),
}


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found(defect: str) -> None:
    def shows(seed: int) -> bool:
        try:
            return judged(seed) not in ("equal", "left", "some stay", "does not run")
        except Exception:  # noqa: BLE001 - however it shows
            return True

    name, new = PLANTED[defect]
    with patch.object(iterations._Writing, name, new):
        assert any(shows(seed) for seed in range(60))


def test_what_grows_has_no_size_of_an_earlier_iteration() -> None:
    model = loaded(GROWING)
    assert UnrollLoops().run(model)
    Infer().run(model)
    check(model)
    assert "Loop" not in {node.op_type for node in model.graph}
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    for a, b in zip(run(model, x=x), run(loaded(GROWING), x=x), strict=True):
        assert a.shape == b.shape
        assert (a == b).all()


def test_a_condition_that_may_end_it_keeps_a_loop() -> None:
    assert not UnrollLoops().run(loaded(WHILE))


SEEDED = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2] x) => (float[2] y) {
  t = Constant<value_int=3>()
  y = Loop(t, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] w) {
    d = Identity(c) r = RandomUniformLike<seed=1.0>(x) w = Add(s, r) }> }"""
VECTORS = """<ir_version: 8, opset_import: ["" : 18]>
g (int64 x) => (int64 y) {
  t = Constant<value_int=TIMES>()
  y = Loop(t, , x) <body = b (int64[1] i, bool[1] c, int64 s) => (bool[1] d, int64 w) {
    d = Identity(c) e = Shape(i) r = Size(e) w = Add(s, r) }> }"""


def test_what_draws_from_a_seed_is_not_copied() -> None:
    assert not UnrollLoops().run(loaded(SEEDED))


@pytest.mark.parametrize("times", [1, 3])
def test_a_body_that_takes_vectors_of_one_is_left(times: int) -> None:
    model = loaded(VECTORS.replace("TIMES", str(times)))
    assert not UnrollLoops().run(model)
    assert not DeadBranches().run(model)


@pytest.mark.parametrize("bound", [{"most": 2}, {"nodes": 17}])
def test_a_bound_keeps_a_loop(bound: dict[str, int]) -> None:
    assert not UnrollLoops(**bound).run(loaded(GROWING))


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(PipelineError, match="nothing is written out 0 times"):
        UnrollLoops(most=0)


def test_a_target_without_loops_gets_them_written_out_or_named() -> None:
    model = loaded(WHILE.replace("d = Less(i, k)", "d = Identity(c)"))
    assert Legalize("ort-webgpu").run(model)
    check(model)
    assert {node.op_type for node in model.graph} == {"Add"}
    x = np.array([1.5, -2], np.float32)
    assert (run(model, x=x, k=np.array(1))[0] == 6 * x).all()
    with pytest.raises(Refused, match="Loop"):
        Legalize("ort-webgpu").run(loaded(WHILE))


@pytest.mark.parametrize(
    "name", ["scan_input_directions", "scan_output_directions", "scan_input_axes"]
)
def test_what_calls_say_of_a_scan_is_not_taken_for_the_default(name: str) -> None:
    model = loaded(f"""<ir_version: 8, opset_import: ["": 18, "l": 1]>
    g (float[3] s, float[3,3] x) => (float[3] y, float[3,3] z) {{ y, z = l.f<d=[1]>(s, x) }}
    <domain: "l", opset_import: ["": 18]> f <d> (s, x) => (y, z) {{
      y, z = Scan<body = b (float[3] h, float[3] e) => (float[3] t, float[3] u) {{
        k = Tanh(h) t = Add(k, e) u = Mul(h, e) }},
        {name}: ints = @d, num_scan_inputs = 1>(s, x) }}""")
    assert not UnrollLoops().run(model)
