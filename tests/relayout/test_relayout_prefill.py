"""A pair of prefill and decode: what a decoder says, from one file of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from rewrite.support import parse, run

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused, VerifyError
from vlmpass.passes.relayout.prefill import Prefill

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
CACHE = """<ir_version: 10, opset_import: ["": 21]> g(float[b,2,p,4] past_k, float[b,2,s,4] k)
    => (float[b,2,t,4] present_k, int64[4] sizes) {
    present_k = Concat<axis=2>(past_k, k) sizes = Shape(past_k) }"""
STEPS = 6


def _outside(name: str, folder: Path) -> Path:
    """Write a decoder whose weights lie in a file of their own."""
    model = onnx.load(EXPORTS / f"decoder.float32.{name}.onnx")
    path = folder / "decoder.onnx"
    onnx.save(model, path, save_as_external_data=True, location="decoder.data", size_threshold=512)
    return path


def _locations(path: Path) -> set[str]:
    model = onnx.load(path, load_external_data=False)
    return {each.value for x in model.graph.initializer for each in x.external_data
            if each.key == "location"}  # fmt: skip


def _step(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {each.name: feed[each.name] for each in session.get_inputs()}))


@pytest.mark.parametrize(
    ("export", "tokens"),
    [("ts17", "seq"), pytest.param("dyn18", "s70", marks=pytest.mark.slow)],
)
def test_a_pair_says_the_same_tokens_from_one_file_of_weights(
    export: str, tokens: str, tmp_path: Path
) -> None:
    source = _outside(export, tmp_path)
    before = hashlib.sha256((tmp_path / "decoder.data").read_bytes()).hexdigest()
    first, later = tmp_path / "prefill.onnx", tmp_path / "decode.onnx"
    for path, text in ((first, "prefill"), (later, f"set-dims{{{tokens}=1}}")):
        report = Pipeline(text).convert(source, path)
        assert report.checked.numbers is not None
        assert report.checked.numbers.ok
        assert _locations(path) == {"decoder.data"}
    assert hashlib.sha256((tmp_path / "decoder.data").read_bytes()).hexdigest() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "decode.onnx", "decoder.data", "decoder.onnx", "prefill.onnx",
    ]  # fmt: skip
    _same_tokens(source, first, later)


def _same_tokens(source: Path, first: Path, later: Path) -> None:
    """Two sequences, of which one is padded: a prompt, then a token after the other."""
    rng = np.random.default_rng(2)
    ids, mask = rng.integers(3, 96, (2, 7)), np.ones((2, 7), np.int64)
    mask[1, :3] = 0
    names = [f"past_{kind}_{layer}" for layer in range(2) for kind in ("key", "value")]
    past = [np.zeros((2, 2, 0, 8), np.float32)] * 4
    for step in range(1 + STEPS):
        places = np.maximum(np.cumsum(mask, 1) - 1, 0)[:, -ids.shape[1] :]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        feed |= dict(zip(names, past, strict=True))
        wanted, got = _step(source, feed), _step(later if step else first, feed)
        for one, two in zip(wanted, got, strict=True):
            assert np.allclose(one, two, atol=1e-5)
        ids, past = wanted[0][:, -1:].argmax(-1), wanted[1:]
        mask = np.concatenate([mask, np.ones((2, 1), np.int64)], 1)


def test_a_cache_without_tokens() -> None:
    model = parse(CACHE)
    assert Prefill().run(model)
    assert not Prefill().run(model)
    assert [each.name for each in model.graph.inputs] == ["k"]
    new = np.random.default_rng(0).standard_normal((3, 2, 5, 4)).astype(np.float32)
    got, sizes = run(model, {"k": new})
    assert np.array_equal(got, new)
    assert sizes.tolist() == [3, 2, 0, 4]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (CACHE.replace("float[b,2,s,4] k", "float[c,2,s,4] k"), "no other input has an axis"),
        (CACHE.replace("t,4] present_k", "t,4] present_k, float[b,2,p,4] past_k"), "an output"),
    ],
)
def test_what_cannot_be_empty_is_refused(model: str, reason: str) -> None:
    before = parse(model)
    with pytest.raises(Refused, match=reason):
        Prefill().run(before)
    assert [each.name for each in before.graph.inputs] == ["past_k", "k"]


@pytest.mark.parametrize("seed", range(12))
def test_caches_of_all_types_at_all_opsets_are_empty_or_refused(seed: int) -> None:
    """Both ways of making them, of which one is what the other is compared with, are valid."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["float", "bfloat16", "float16", "int8", "double", "uint8"])
    opset = int(rng.integers(13 if kind == "bfloat16" else 7, 25))
    order = rng.permutation(4)
    axes = np.array(["b", "2", "p", "4"])[order]
    past, new, both = (",".join(axes).replace("p", each) for each in "pst")
    text = f"""<ir_version: 10, opset_import: ["": {opset}]> g({kind}[{past}] pk, {kind}[{new}] k)
        => ({kind}[{both}] present) {{ present = Concat<axis={list(axes).index("p")}>(pk, k) }}"""
    for each in (Prefill(), Prefill().mending()):
        model = parse(text, opset)
        if axes[0] == "p":
            assert not each.run(model)
        elif opset < 10:
            with pytest.raises(Refused, match="from opset 10 on"):
                each.run(model)
        else:
            assert each.run(model)
            check(model)


def test_buffers_of_a_length_that_stays_are_left() -> None:
    assert not Prefill().run(parse(CACHE.replace("[b,2,p,4]", "[b,2,7,4]")))


def test_a_cache_of_a_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is given caches that are made in another way."""
    made = Prefill._made

    def one(self: Prefill, tape: object, sizes: list, axis: int, dtype: ir.DataType) -> ir.Value:
        return made(self, tape, [size or 1 for size in sizes], axis, dtype)  # type: ignore[arg-type]

    monkeypatch.setattr(Prefill, "_made", one)
    with pytest.raises(VerifyError):
        Pipeline("prefill").run(EXPORTS / "decoder.float32.ts17.onnx", verify=True)
