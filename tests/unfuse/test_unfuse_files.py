"""Files as ONNX Runtime's own tools write them, converted without its operators."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from unfuse.cases import Array, left
from unfuse.decoder_files import decoder, first_feed, next_feed
from vlmpass import Pipeline

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def on_onnxruntime(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, dict(feed)), strict=True))


def on_openvino(path: Path) -> Run:
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.Core().compile_model(str(path), "CPU", exact)
    names = [each.any_name for each in compiled.outputs]
    return lambda feed: {
        n: np.asarray(x) for n, x in zip(names, compiled(feed).values(), strict=True)
    }


def converted(model: onnx.ModelProto, tmp_path: Path) -> tuple[Path, Path]:
    """Return the file of a model, and of what a conversion makes of it."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    Pipeline("unfuse").convert(source, target, verify=False)
    assert left(onnx.load(target)) == []
    return source, target


def same_steps(
    one: Run, other: Run, model: onnx.ModelProto, batch: int, room: int, far: float
) -> None:
    """Assert that a prompt and 16 tokens after it come out the same, each with its own caches."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 50, (batch, 5))
    feeds = [first_feed(model, ids, room)] * 2
    for _ in range(17):
        wanted, found = one(feeds[0]), other(feeds[1])
        for name, x in wanted.items():
            assert found[name].shape == x.shape, name
            assert np.abs(found[name] - x).max() <= far * max(1, np.abs(x).max()), name
        ids = wanted["logits"][:, -1:].argmax(-1).astype(np.int64)
        pairs = zip(feeds, (wanted, found), strict=True)
        feeds = [next_feed(feed, made, ids) for feed, made in pairs]


@pytest.mark.parametrize(
    ("bits", "opset", "room", "batch"),
    [(4, 21, 0, 1), (4, 14, 0, 2), (8, 21, 40, 2), (0, 23, 0, 1), (0, 17, 40, 1), (2, 21, 0, 1)],
)
def test_a_decoder_computes_the_same_for_a_prompt_and_16_tokens(
    bits: int, opset: int, room: int, batch: int, tmp_path: Path
) -> None:
    """A09: nothing of ONNX Runtime's own is left, and prompt and decoding stay what they are."""
    model = decoder(3, bits=bits, opset=opset)
    source, target = converted(model, tmp_path)
    same_steps(on_onnxruntime(source), on_onnxruntime(target), model, batch, room, 1e-4)


@pytest.mark.parametrize(("bits", "opset", "room"), [(4, 21, 0), (4, 17, 24), (0, 17, 0)])
def test_a_decoder_loads_in_openvino_and_computes_the_same(
    bits: int, opset: int, room: int, tmp_path: Path
) -> None:
    model = decoder(3, bits=bits, opset=opset)
    source, target = converted(model, tmp_path)
    same_steps(on_onnxruntime(source), on_openvino(target), model, 1, room, 1e-3)


def _optimized(name: str) -> Callable[[Path], onnx.ModelProto]:
    """Return what runs ONNX Runtime's optimiser of transformers over a file."""

    def run(path: Path) -> onnx.ModelProto:
        from onnxruntime.transformers import optimizer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = optimizer.optimize_model(str(path), model_type=name, opt_level=0)
            made.save_model_to_file(str(path))
        return onnx.load(path)

    return run


def _at_its_level(path: Path, *, quantised: bool = False) -> onnx.ModelProto:
    """Return what ONNX Runtime makes of a model when it loads it, numbers quantised before."""
    source, target = path, path.with_name("loaded.onnx")
    if quantised:
        from onnxruntime.quantization import quantize_dynamic

        source = path.with_name("quantised.onnx")
        quantize_dynamic(path, source)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return onnx.load(target)


def _quantised(path: Path) -> onnx.ModelProto:
    return _at_its_level(path, quantised=True)


def _in_bits(path: Path) -> onnx.ModelProto:
    """Return a model whose products ONNX Runtime's tool packed in blocks of 4 bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    tool = MatMulNBitsQuantizer(onnx.load(path), block_size=32, is_symmetric=False)
    tool.process()
    return tool.model.model


def _in_table(path: Path) -> onnx.ModelProto:
    """Return a model whose products its tool packed in blocks of NF4, as bitsandbytes does."""
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    tool = MatMulBnb4Quantizer(onnx.load(path), MatMulBnb4Quantizer.NF4, block_size=32)
    tool.process()
    return tool.model.model


FILES: list[tuple[str, str, Callable[[Path], onnx.ModelProto], set[str]]] = [
    ("text.float32", "ts14", _optimized("bert"), {"EmbedLayerNormalization", "BiasGelu"}),
    ("text.float32", "dyn18", _optimized("bert"), {"SkipLayerNormalization"}),
    ("vision.float32", "ts17", _optimized("vit"), {"SkipLayerNormalization"}),
    ("decoder.float32", "ts17", _optimized("bert"), {"SkipSimplifiedLayerNormalization"}),
    ("text.float32", "ts17", _at_its_level, {"BiasGelu"}),
    ("vision.float32", "dyn18", _at_its_level, {"FusedMatMul"}),
    ("text.float32", "ts17", _quantised, {"DynamicQuantizeMatMul"}),
    ("decoder.float32", "ts14", _in_bits, {"MatMulNBits"}),
    ("vision.float32", "ts13", _in_bits, {"MatMulNBits"}),
    ("decoder.float32", "ts14", _in_table, {"MatMulBnb4"}),
    ("vision.float32", "dyn18", _in_table, {"MatMulBnb4"}),
]


@pytest.mark.parametrize(("name", "exporter", "tool", "operators"), FILES)
def test_what_its_tools_made_of_a_file_is_said_without_its_operators(
    name: str,
    exporter: str,
    tool: Callable[[Path], onnx.ModelProto],
    operators: set[str],
    tmp_path: Path,
) -> None:
    model = tool(shutil.copy(EXPORTS / f"{name}.{exporter}.onnx", tmp_path / "export.onnx"))
    assert operators <= set(left(model)), left(model)
    source, target = converted(model, tmp_path)
    given = np.load(EXPORTS / f"{name}.npz")
    feed = {each.name: given[f"in:{each.name}"] for each in model.graph.input}
    wanted, found = on_onnxruntime(source)(feed), on_onnxruntime(target)(feed)
    for output, x in wanted.items():
        assert np.abs(found[output] - x).max() <= 1e-4 * max(1, np.abs(x).max()), output


@pytest.mark.parametrize("export", sorted(EXPORTS.glob("*.float32.*.onnx")), ids=lambda p: p.stem)
def test_what_fusing_made_is_said_without_its_operators(export: Path, tmp_path: Path) -> None:
    fused, target = tmp_path / "fused.onnx", tmp_path / "target.onnx"
    Pipeline("fuse{emit=ort}").convert(export, fused, verify=False)
    Pipeline("unfuse").convert(fused, target, verify=False)
    assert left(onnx.load(target)) == []
    given = np.load(EXPORTS / f"{export.name.rsplit('.', 2)[0]}.npz")
    feed = {each.name: given[f"in:{each.name}"] for each in onnx.load(export).graph.input}
    wanted, found = on_onnxruntime(export)(feed), on_onnxruntime(target)(feed)
    for output, x in wanted.items():
        assert np.abs(found[output] - x).max() <= 1e-4 * max(1, np.abs(x).max()), output
