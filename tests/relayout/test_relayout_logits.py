"""Logits of the last token: cut as far up as each token is by itself, and never further."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import parse, run

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused, VerifyError
from vlmpass.passes.infer import Infer
from vlmpass.passes.relayout import logits as last_logits
from vlmpass.passes.relayout.logits import Logits

HEAD = """<ir_version: 8, opset_import: ["": 17]> g(float[b,s,4] x, float[s,1] place, float[4] row)
    => (float[b,s,6] logits) <float[4,6] w = {W}, float[4,4] v = {V}, float[4] one = {1,1,1,1}> {"""
STEPS = [
    "Y = Relu(X)", "Y = Add(X, row)", "Y = Mul(row, X)", "Y = MatMul(X, v)", "Y = Tanh(X)",
    "Y = LayerNormalization(X, one)", "Y = LayerNormalization<axis=2>(X, one, row)",
    "Y = Softmax<axis=-1>(X)", "Y = Softmax<axis=1>(X)", "Y = Add(X, place)", "Y = Add(X, X)",
    "Y = LayerNormalization<axis=1>(X, x)", "tY = Relu(X) Y = Mul(tY, X)",
    "tY = Transpose<perm=[0,2,1]>(X) uY = Softmax(tY) Y = Transpose<perm=[0,2,1]>(uY)",
    "tY = ReduceMean<axes=[1]>(X) Y = Sub(X, tY)", "Y = Sub(X, x)", "Y = Cast<to=1>(X)",
]  # fmt: skip


def drawn(rng: np.random.Generator) -> str:
    """Return a model that ends in a head, after steps of which some look at other tokens."""
    numbers = {name: ",".join(f"{n:.3f}" for n in rng.standard_normal(size))
               for name, size in (("{W}", 24), ("{V}", 16))}  # fmt: skip
    text, value = HEAD, "x"
    for name, listed in numbers.items():
        text = text.replace(name, "{" + listed + "}")
    for number in range(int(rng.integers(1, 6))):
        step = STEPS[int(rng.integers(len(STEPS)))]
        text += step.replace("Y", f"a{number}").replace("X", value) + " "
        value = f"a{number}"
    return text + f"logits = MatMul({value}, w) }}"


def wrong(seed: int) -> tuple[bool, bool]:
    """Return whether something above the head was cut too, and whether the result is wrong."""
    rng = np.random.default_rng(seed)
    text = drawn(rng)
    before, model = parse(text), parse(text)
    Infer().run(model)
    assert Logits().run(model)
    batch, tokens = int(rng.integers(1, 3)), int(rng.integers(1, 5))
    sizes = {"x": (batch, tokens, 4), "place": (tokens, 1), "row": (4,)}
    feed = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    (wanted,), (got,) = run(before, feed), run(model, feed)
    cut = next(node for node in model.graph if node.op_type == "Gather")
    (user,) = [use.node for use in cut.outputs[0].uses()]
    same = got.shape == (batch, 1, 6) and np.allclose(got, wanted[:, -1:], atol=1e-5)
    return user.op_type != "MatMul", not same


def test_what_looks_at_other_tokens_is_not_cut() -> None:
    found = [wrong(seed) for seed in range(150)]
    assert not any(each for _, each in found)
    assert sum(above for above, _ in found) > 40


PLANTED: list[tuple[str, Callable[..., object]]] = [
    ("_same_for_all", lambda value: value is None or len(value.shape or ()) < 3),
    ("_tokens_of", lambda node: 0),
]


@pytest.mark.parametrize(("part", "fault"), PLANTED)
def test_planted_faults_are_seen(
    part: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_logits, part, fault)
    for seed in range(300):
        try:
            if wrong(seed)[1]:
                return
        except Exception:  # noqa: BLE001  a fault may show in any way
            return
    raise AssertionError(f"nobody sees {part} planted")


def test_a_second_run_changes_nothing() -> None:
    model = parse(drawn(np.random.default_rng(1)))
    Infer().run(model)
    assert Logits().run(model)
    assert not Logits().run(model)
    assert not Logits(last=False).run(model)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("g(float[b,s,4] x) => (float[b,s,4] y) { y = Relu(x) }", "no output has that name, but y"),
        ("g(float[b,4] x) => (float[b,4] logits) { logits = Relu(x) }", "it is of shape"),
    ],
)
def test_what_is_no_output_of_tokens_is_refused(model: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Logits().run(parse(model, 17))


def test_an_output_that_others_use_is_cut_itself() -> None:
    text = """g(float[b,s,4] x) => (float[b,s,4] logits, int64[b,s,k] best) {
        logits = Relu(x) best = ArgMax<axis=-1>(logits) }"""
    model = parse(text, 17)
    Infer().run(model)
    assert Logits().run(model)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    got, best = run(model, {"x": x})
    assert np.array_equal(got, np.maximum(x, 0)[:, -1:])
    assert best.shape == (2, 3, 1)
    assert [each.name for each in model.graph.outputs] == ["logits", "best"]
    assert isinstance(model, ir.Model)


@pytest.mark.parametrize(
    "norm",
    ["LayerNormalization(x, k)", "com.microsoft.SkipLayerNormalization(x, k, one)"],
)
def test_a_norm_with_numbers_for_each_token_is_not_cut(norm: str) -> None:
    text = f"""g(float[b,3,4] x) => (float[b,3,4] logits) <float[4] one = {{1,1,1,1}},
        float[3,4] k = {{0,1,2,3,4,5,6,7,8,9,10,11}}> {{ n = {norm} logits = Relu(n) }}"""
    before, model = parse(text, 17), parse(text, 17)
    Infer().run(model)
    assert Logits().run(model)
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    if "Skip" in norm:
        assert [node.op_type for node in model.graph] == [
            "SkipLayerNormalization", "Gather", "Relu",
        ]  # fmt: skip
    else:
        assert np.allclose(run(model, {"x": x})[0], run(before, {"x": x})[0][:, -1:], atol=1e-6)


def test_a_result_is_not_compared_with_what_the_pass_itself_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "g(float[b,s,4] x) => (float[b,s,4] logits) { n = Softmax<axis=1>(x) logits = Relu(n) }"
    Pipeline("logits").run(parse(text, 17), verify=True)
    monkeypatch.setattr(last_logits, "_tokens_of", lambda node: 0)
    with pytest.raises(VerifyError, match="does not compute what the source"):
        Pipeline("logits").run(parse(text, 17), verify=True)


@pytest.mark.parametrize("opset", [9, 17])
def test_the_first_token_is_not_the_last(opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "g(float[b,s,4] x) => (float[b,s,4] logits) { n = Relu(x) logits = Tanh(n) }"
    Pipeline("logits").run(parse(text, opset), verify=True)
    first = staticmethod(lambda tape, value: tape.Gather(value, tape.const([0]), axis=1))
    monkeypatch.setattr(Logits, "_last", first)
    with pytest.raises(VerifyError, match="does not compute what the source"):
        Pipeline("logits").run(parse(text, opset), verify=True)
