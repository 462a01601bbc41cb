"""Caches in another form: what a decoder says stays; what does not fit is an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import RUNTIME_ERRORS, parse, run

from relayout.greedy import FORMS, greedy, laid_out, same
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import PipelineError, Refused, VerifyError
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.passes.pipeline.text import parse as pipeline
from vlmpass.passes.relayout import cache
from vlmpass.passes.relayout.cache import Cache
from vlmpass.passes.relayout.cached import Cached

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
CACHE = """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]> g(float[b,2,p,4] past_k,
    float[b,2,s,4] k) => (float[b,2,t,4] present_k, int64[4] sizes) {
    present_k = Concat<axis=AXIS>(past_k, k) sizes = Shape(past_k) }"""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("export", ["ts17", "dyn18"])
def test_tokens_stay(export: str, form: str) -> None:
    assert same(EXPORTS / f"decoder.float32.{export}.onnx", form, tokens=5) == ""


def test_tokens_tell_a_cache_that_is_off_by_one() -> None:
    """What is compared would show it."""
    path = EXPORTS / "decoder.float32.ts17.onnx"
    model = laid_out(path, "static")
    length = next(each for each in model.graph.inputs if each.name == "past_length")
    wrong = ir.node("Max", [length, ir.Value(name="one", const_value=ir.tensor([2], name="one"))])
    model.graph.insert_before(model.graph[0], wrong)
    one = wrong.inputs[1]
    assert one is not None
    one.type, one.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
    model.graph.register_initializer(one)
    wrong.outputs[0].name = "wrong"
    for node, at in list(length.uses()):
        if node is not wrong:
            node.replace_input_with(at, wrong.outputs[0])
    ids = np.array([[5]])
    said = greedy(laid_out(path, "last logits"), ids, (0,), 6)[1]
    with contextlib.suppress(RUNTIME_ERRORS):
        assert not np.allclose(said, greedy(model, ids, (0,), 6)[1], atol=1e-6)


def test_a_cache_of_any_content_behind_what_counts() -> None:
    model = parse(CACHE.replace("AXIS", "-2"))
    assert Cache(form="static", length=5).run(model)
    rng = np.random.default_rng(0)
    past, new = (rng.standard_normal((1, 2, n, 4)).astype(np.float32) for n in (5, 2))
    feed = {"past_k": past, "k": new, "past_length": np.array([3])}
    got, sizes = run(model, feed)
    assert np.array_equal(got, np.concatenate([past[:, :, :3], new], 2))
    assert sizes.tolist() == [1, 2, 3, 4]
    feed["past_length"] = np.array([1])
    assert np.array_equal(run(model, feed)[0][:, :, 3:], past[:, :, 3:])


def _drawn(seed: int) -> tuple[ir.Model, dict[str, np.ndarray], int, int]:
    """Return a cache, what it is run with as a buffer, where tokens lie, and of which size."""
    rng = np.random.default_rng(seed)
    axis, opset = int(rng.integers(1, 4)), int(rng.choice([21, 23, 24]))
    past, new, free = (int(x) for x in rng.integers(0, 4, 3))
    sizes, names = [int(x) for x in rng.integers(1, 4, 4)], ["b", "h", "w", "x"]
    size = past + new + free + 1
    texts = [[*names[:axis], each, *names[axis + 1 :]] for each in ("p", "s", "t")]
    held, given = ([*sizes[:axis], each, *sizes[axis + 1 :]] for each in (size, new))
    model = parse(f"""<ir_version: 10, opset_import: ["": {opset}]> g(float[{",".join(texts[0])}] c,
        float[{",".join(texts[1])}] k) => (float[{",".join(texts[2])}] t) {{
        t = Concat<axis={axis - int(rng.choice([0, 4]))}>(c, k) }}""")
    feed = {"c": rng.random(held, np.float32), "k": rng.random(given, np.float32)}
    return model, feed | {"past_length": np.array([past])}, axis, size


def _misplaced(seed: int) -> bool:
    """Return whether a buffer is not what it was, but for the new tokens behind what counts."""
    model, feed, axis, size = _drawn(seed)
    assert Cache(form="static", length=size).run(model)
    written = model.graph.opset_imports[""] >= 24
    assert any(node.op_type == "TensorScatter" for node in model.graph) == written
    first, count = int(feed["past_length"][0]), feed["k"].shape[axis]
    wanted = feed["c"].copy()
    np.moveaxis(wanted, axis, 0)[first : first + count] = np.moveaxis(feed["k"], axis, 0)
    (got,) = run(model, feed)
    assert Cache(form="dynamic").run(model)
    grown = {"c": np.take(feed["c"], range(first), axis), "k": feed["k"]}
    same = np.array_equal(run(model, grown)[0], np.concatenate([*grown.values()], axis))
    return not (np.array_equal(got, wanted) and same)


def test_new_tokens_lie_behind_what_counts() -> None:
    assert not [seed for seed in range(40) if _misplaced(seed)]


def _one_further(old: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
    def held(tape: Tape, cache: Cached, length: ir.Value, size: int) -> ir.Value:
        return old(tape, cache, tape.Add(length, tape.const([1])), size)

    return held


@pytest.mark.parametrize(
    ("part", "fault"),
    [("_held", _one_further(cache._held)), ("_written", lambda node: None)],
)
def test_planted_faults_of_writing_are_seen(
    part: str, fault: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, part, fault)
    with pytest.raises(AssertionError):
        test_new_tokens_lie_behind_what_counts()


@pytest.mark.parametrize("opset", [21, 24])
def test_what_is_new_may_be_of_another_cache(opset: int) -> None:
    model = parse(f"""<ir_version: 10, opset_import: ["": {opset}]> g(float[b,2,p,4] c,
        float[b,2,p,4] d, float[b,2,s,4] k) => (float[b,2,t,4] x, float[b,2,u,4] y) {{
        x = Concat<axis=2>(c, k) y = Concat<axis=2>(d, c) }}""")
    rng = np.random.default_rng(opset)
    feed = {
        name: rng.random((2, 2, size, 4), np.float32)
        for name, size in zip("cdk", (9, 9, 2), strict=True)
    }
    wanted = [feed["c"].copy(), feed["d"].copy()]
    wanted[0][:, :, 3:5], wanted[1][:, :, 3:6] = feed["k"], feed["c"][:, :, :3]
    assert Cache(form="static", length=9).run(model)
    got = run(model, feed | {"past_length": np.array([3])})
    assert all(map(np.array_equal, got, wanted))


@pytest.mark.parametrize("opset", [21, 24])
def test_more_than_a_buffer_holds_is_an_error(opset: int) -> None:
    model = parse(CACHE.replace("AXIS", "2").replace('"": 21', f'"": {opset}'))
    assert Cache(form="static", length=5).run(model)
    new = np.zeros((1, 2, 2, 4), np.float32)
    past = np.zeros((1, 2, 5, 4), np.float32)
    with pytest.raises(RUNTIME_ERRORS):
        run(model, {"past_k": past, "k": new, "past_length": np.array([4])})


@pytest.mark.parametrize("opset", [21, 24])
@pytest.mark.parametrize("batch", ["b", "1", "2"])
def test_what_was_simplified_grows_again(batch: str, opset: int) -> None:
    text = CACHE.replace("AXIS", "2").replace('"": 21', f'"": {opset}').replace("[b", f"[{batch}")
    model = parse(text)
    for each in pipeline("infer,simplify,cache{form=static length=5},infer,simplify"):
        each.run(model)
    assert Cache(form="dynamic").run(model)
    assert [each.name for each in model.graph.inputs] == ["past_k", "k"]
    past, new = (np.full((1 if batch == "1" else 2, 2, n, 4), n, np.float32) for n in (3, 2))
    got, sizes = run(model, {"past_k": past, "k": new})
    assert np.array_equal(got, np.concatenate([past, new], 2))
    assert sizes.tolist() == [*past.shape]


@pytest.mark.parametrize("opset", [21, 24])
def test_there_and_back_is_as_it_was(opset: int) -> None:
    model = parse(CACHE.replace("AXIS", "2").replace('"": 21', f'"": {opset}'))
    assert Cache(form="static", length=5).run(model)
    assert not Cache(form="static", length=5).run(model)
    assert Cache(form="dynamic").run(model)
    after = parse(CACHE.replace("AXIS", "2"))
    assert [node.op_type for node in model.graph] == [node.op_type for node in after.graph]
    assert not model.graph.initializers
    assert not Cache(form="dynamic").run(model)
    assert [each.name for each in model.graph.inputs] == ["past_k", "k"]


def test_what_is_joined_by_batch_is_no_cache() -> None:
    assert not Cache(form="static", length=5).run(parse(CACHE.replace("AXIS", "0")))


def test_a_length_belongs_to_a_buffer_that_stays() -> None:
    for given in ({"form": "static"}, {"form": "dynamic", "length": 4}, {"length": -1}):
        with pytest.raises(PipelineError, match="length"):
            Cache(**given)  # type: ignore[arg-type]


def test_the_name_of_the_new_input_must_be_free() -> None:
    text = CACHE.replace("AXIS", "2").replace(
        "float[b,2,s,4] k)", "float[b,2,s,4] k, float[n] past_length)"
    )
    with pytest.raises(Refused, match="an input has that name already"):
        Cache(form="static", length=5).run(parse(text))


def test_what_was_compared_with_nothing_is_not_called_the_same() -> None:
    """The source does not take a buffer, and after the same pass it would share its faults."""
    model = parse(CACHE.replace("AXIS", "2"))
    with pytest.raises(VerifyError, match="another interface"):
        Pipeline("cache{form=static length=5}").run(model, verify=True)
    report = Pipeline("cache{form=static length=5}").run(model, verify=None)
    assert report.checked.numbers is None
    assert "another interface" in report.checked.reason


@pytest.mark.parametrize(
    ("inputs", "outputs", "more", "reason"),
    [
        (
            ", float[b,2,n,4] i, float[b,2,s,4] w",
            ", float[b,2,u,4] e",
            "e = Concat<axis=2>(i, w)",
            "one",
        ),
        ("", ", float[b,2,p,4] past_k", "", "it is an output too"),
        ("", "", "past_length = Neg(k) z = Abs(past_length)", "a value has that name already"),
    ],
)
def test_what_one_length_cannot_tell_is_refused(
    inputs: str, outputs: str, more: str, reason: str
) -> None:
    text = CACHE.replace("AXIS", "2").replace(" k)", f" k{inputs})", 1)
    text = text.replace(" sizes)", f" sizes{outputs})").replace("(past_k) }", f"(past_k) {more} }}")
    with pytest.raises(Refused, match=reason):
        Cache(form="static", length=5).run(parse(text))


@pytest.mark.parametrize(
    "model",
    [
        """g(float[b,n] x, float[b,m] y) => (float[b,t] z) { z = Concat<axis=-1>(x, y) }""",
        """g(float[b,n,4] x, float[b,s,4] y) => (float[b,t,4] z) { z = Concat<axis=1>(x, y) }""",
        """g(float[b,2,p,4] x, float[b,2,s,4] k, bool c) => (float[b,2,t,4] z) {
        z = If(c)<then_branch=one () => (float[b,2,t,4] o) {o = Concat<axis=2>(x, k)},
        else_branch=two () => (float[b,2,t,4] o2) {o2 = Identity(k)}> }""",
    ],
)
def test_what_is_no_cache_of_the_graph_stays(model: str) -> None:
    assert not Cache(form="static", length=5).run(parse(model, 21))


@pytest.mark.parametrize("opset", [21, 24])
@pytest.mark.parametrize("name", ["past_k", "past_k/buffer/Slice_output"])
def test_a_buffer_that_others_see_stays(name: str, opset: int) -> None:
    model = parse(CACHE.replace("AXIS", "2").replace('"": 21', f'"": {opset}'))
    assert Cache(form="static", length=5).run(model)
    seen = next(
        value for node in model.graph for value in node.inputs if value and value.name == name
    )
    if seen.producer() is None:
        node = ir.node("Neg", [seen])
        model.graph.append(node)
        seen = node.outputs[0]
    model.graph.outputs.append(seen)
    assert not Cache(form="dynamic").run(model)
