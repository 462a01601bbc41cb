"""What vlmpass gains in the slots of other exporters, against what each does by default.

    python benchmarks/exporters.py ultralytics yolov5 optimum olive mobius transformers pytorch
    python benchmarks/exporters.py --rows rows.jsonl --page docs/exporters.md

The first form runs what the packages of this environment allow, with random weights and offline,
and appends a row for each to a file; docs/exporters.md says what each needs. The code is that of
the page: its blocks are run as they stand there. Latency is that of ONNX Runtime on one thread,
the least of runs that take turns. Status 1 if a result computes something else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import vlmpass
from vlmpass.ir_tools.graph.walk import all_nodes

PAGE = Path(__file__).parents[1] / "docs" / "exporters.md"
HEAD = """| in | model | its own default: nodes, ms | vlmpass: nodes, ms | off by |
|---|---|---|---|---|
"""
os.environ.update(OLIVE_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", YOLO_OFFLINE="1")


def block(name: str) -> Any:
    """Return what the page defines under a name, its block run as it stands there."""
    found: dict[str, Any] = {}
    blocks = PAGE.read_text("utf-8").split("```python\n")[1:]
    codes = (each.partition("```")[0] for each in blocks)
    code = next(code for code in codes if f"def {name}(" in code or f"class {name}(" in code)
    exec(compile(code, str(PAGE), "exec"), found)
    return found[name]


def ultralytics(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """YOLO11n, whose exporter calls onnxslim where it is asked to simplify."""
    import onnxslim
    import torch
    from ultralytics import YOLO

    made = {}
    slim = onnxslim.slim
    for label in ("default", "vlmpass"):
        torch.manual_seed(0)
        if label == "vlmpass":
            block("take_over")()
        model = YOLO("yolo11n.yaml")
        path = Path(model.export(format="onnx", imgsz=320, simplify=True, verbose=False))
        made[label] = path.rename(folder / f"{label}.onnx")
    onnxslim.slim = slim
    yield "ultralytics", "YOLO11n, 320 pixels", made["default"], made["vlmpass"]


def yolov5(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """YOLOv5n, whose exporter calls onnxsim."""
    import onnxsim
    import torch
    from yolov5 import export
    from yolov5.models.yolo import DetectionModel

    legacy = torch.onnx.export  # which that exporter was written for
    torch.onnx.export = lambda *args, **kwargs: legacy(*args, dynamo=False, **kwargs)
    export.check_requirements = lambda *args, **kwargs: None  # would install packages
    made = {}
    simplify = onnxsim.simplify
    for label in ("default", "vlmpass"):
        torch.manual_seed(0)
        if label == "vlmpass":
            block("take_over")()
        model = DetectionModel(Path(export.__file__).parent / "models" / "yolov5n.yaml").eval()
        model.model[-1].export = True
        image, file = torch.zeros(1, 3, 320, 320), folder / f"{label}.pt"
        model(image)
        export.export_onnx(model, image, file, 17, False, True)
        made[label] = folder / f"{label}.onnx"
    onnxsim.simplify, torch.onnx.export = simplify, legacy
    yield "yolov5", "YOLOv5n, 320 pixels", made["default"], made["vlmpass"]


def optimum(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """BERT and a Llama with its cache, which optimum-onnx compares with PyTorch itself."""
    import onnxslim
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    bert = BertModel(BertConfig(num_hidden_layers=4, hidden_size=384, num_attention_heads=6)).eval()
    task = "feature-extraction"
    asked: dict[str, Any] = {"task": task, "opset": 18, "do_validation": True}
    onnx_export_from_model(bert, folder / "default", slim=True, **asked)
    block("ConvertedBert")
    onnx_export_from_model(bert, folder / "converted", **asked)
    pair = (folder / "default" / "model.onnx", folder / "converted" / "model.onnx")
    yield "optimum-onnx, `post_process_exported_models`", "BERT, 4 layers", *pair
    llama = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=2, vocab_size=1000,
        )
    ).eval()  # fmt: skip
    asked["task"], slim = "text-generation-with-past", onnxslim.slim
    onnx_export_from_model(llama, folder / "slimmed", slim=True, **asked)
    block("take_over")()
    onnx_export_from_model(llama, folder / "taken", slim=True, **asked)
    onnxslim.slim = slim
    pair = (folder / "slimmed" / "model.onnx", folder / "taken" / "model.onnx")
    yield "optimum-onnx, `--slim`", "Llama with cache, 4 layers", *pair


def olive(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """ViT as PyTorch exports it, through Olive's passes and through ours."""
    import torch

    vit, image = _vit()
    source = folder / "vit.onnx"
    torch.onnx.export(
        vit, (image,), source, dynamo=True, verbose=False, input_names=["pixel_values"],
        external_data=False,
    )  # fmt: skip
    run = block("optimized")
    default = run(source, folder / "default", {"type": "OrtTransformersOptimization"})
    ours = run(source, folder / "ours", {"type": "Vlmpass", "config": {"target": "ort-cpu"}})
    yield "Olive", "ViT, 4 layers", Path(default), Path(ours)


def mobius(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """A Qwen2 that mobius builds for ONNX Runtime's CPU."""
    from mobius import ArchitectureConfig, ModelPackage, build_from_module
    from mobius.models.base import CausalLMModel

    config = ArchitectureConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, head_dim=32, hidden_act="silu",
        max_position_embeddings=256, pad_token_id=0, rope_type="default",
    )  # fmt: skip
    package = build_from_module(CausalLMModel(config), config)
    rng = np.random.default_rng(0)
    for value in package["model"].graph.initializers.values():
        if value.const_value is None:
            array = (rng.standard_normal(value.shape.numpy()) / 16).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
    assert isinstance(package, ModelPackage)
    package.save(str(folder / "default"), progress_bar=False)
    block("converted_package")(package, "ort-cpu").save(str(folder / "ours"), progress_bar=False)
    pair = (folder / "default" / "model.onnx", folder / "ours" / "model.onnx")
    yield "mobius", "decoder with cache, 4 layers", *pair


def transformers(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """ViT from the ONNX exporter of transformers 5."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    vit, image = _vit()
    inputs = {"pixel_values": image}
    default = OnnxExporter().export(vit, inputs, config=OnnxConfig()).components["model"]
    vlmpass.save(default.program, folder / "default.onnx")
    ours = block("export_for")(vit, inputs, "ort-cpu").components["model"]
    vlmpass.save(ours.program, folder / "ours.onnx")
    yield "transformers", "ViT, 4 layers", folder / "default.onnx", folder / "ours.onnx"


def pytorch(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """A layer of PyTorch's own transformer from `torch.onnx.export`, which simplifies, too."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True, activation="gelu")
    module = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).eval()
    program = torch.onnx.export(module, (torch.randn(1, 128, 384),), dynamo=True, verbose=False)
    program.save(folder / "default.onnx")
    block("converted")(program, program.model.opset_imports[""]).save(folder / "ours.onnx")
    yield "`ONNXProgram`", "encoder, 4 layers", folder / "default.onnx", folder / "ours.onnx"


SLOTS: dict[str, Callable[[Path], Iterator[tuple[str, str, Path, Path]]]] = {
    each.__name__: each
    for each in (ultralytics, yolov5, optimum, olive, mobius, transformers, pytorch)
}
PACKAGES = {"optimum": "optimum-onnx", "olive": "olive-ai", "mobius": "mobius-onnx",
            "pytorch": "torch"}  # fmt: skip


def _vit() -> tuple[Any, Any]:
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=6
    )
    return ViTModel(config, add_pooling_layer=False).eval(), torch.randn(1, 3, 224, 224)


def _feed(path: Path) -> dict[str, np.ndarray]:
    """Return inputs of a size that tells: 1 for what is open first, 128 for lengths."""
    rng, feed = np.random.default_rng(0), {}
    for value in vlmpass.load(path).graph.inputs:
        open_sizes = {"batch": 1, "batch_size": 1}
        past = 64 if "past" in value.name else 128
        total = 192 if "mask" in value.name and len(_pasts(path)) else past
        shape = [n if isinstance(n, int) else open_sizes.get(str(n), total) for n in value.shape]
        kind = value.dtype.numpy()
        if "mask" in value.name:
            feed[value.name] = np.ones(shape, kind)
        elif np.issubdtype(kind, np.integer):
            feed[value.name] = rng.integers(0, 2 if "type" in value.name else 100, shape).astype(
                kind
            )
        else:
            feed[value.name] = rng.standard_normal(shape).astype(kind)
    return feed


def _pasts(path: Path) -> list[str]:
    return [each.name for each in vlmpass.load(path).graph.inputs if "past" in each.name]


def _nodes(path: Path) -> int:
    """Count the nodes of a file, Constants aside, which no runtime runs."""
    model = vlmpass.load(path)
    return sum(node.op_type != "Constant" for node in all_nodes(model))


def _latency(paths: list[Path], rounds: int) -> list[float]:
    """Return the least milliseconds of every model; they take turns."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    sessions = [onnxruntime.InferenceSession(str(path), options) for path in paths]
    feed, times = _feed(paths[0]), [[] for _ in paths]
    for number in range(rounds + 2):
        for session, taken in zip(sessions, times, strict=True):
            start = time.thread_time()
            session.run(None, feed)
            if number > 1:
                taken.append(1e3 * (time.thread_time() - start))
    return [min(taken) for taken in times]


def rows(name: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Run a slot and yield what it gains."""
    before, package = Path.cwd(), PACKAGES.get(name, name)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            for slot, model, default, ours in SLOTS[name](Path(place)):
                found = vlmpass.verify(default, ours)
                yield {
                    "slot": f"{slot} ({package} {version(package)})",
                    "model": model,
                    "nodes": [_nodes(default), _nodes(ours)],
                    "ms": _latency([default, ours], rounds) if rounds else None,
                    "off": found.max_rel,
                    "ok": found.ok,
                }
        finally:
            os.chdir(before)


def _line(row: dict[str, Any]) -> str:
    default, ours = (f"{n}, {ms:.2f}" for n, ms in zip(row["nodes"], row["ms"], strict=True))
    return f"| {row['slot']} | {row['model']} | {default} | {ours} | {row['off']:.1e} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slots", nargs="*", choices=[[], *SLOTS], help="what to run")
    parser.add_argument("--rows", type=Path, default=Path("rows.jsonl"))
    parser.add_argument("--rounds", type=int, default=40, help="how often each model runs")
    parser.add_argument("--page", type=Path, help="write the table of all rows into a page")
    asked = parser.parse_args()
    kept_in = asked.rows.absolute()  # slots run in a folder of their own
    fine = True
    for name in asked.slots:
        for row in rows(name, asked.rounds):
            fine &= row["ok"]
            print(json.dumps(row), flush=True)
            with kept_in.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if asked.page is not None:
        kept = [json.loads(line) for line in kept_in.read_text().splitlines()]
        latest = {(row["slot"], row["model"]): row for row in kept}
        start, rest = asked.page.read_text("utf-8").split("<!-- gains -->\n", 1)
        end = rest.partition("<!-- end -->\n")[2]
        made = HEAD + "".join(_line(row) for row in latest.values())
        asked.page.write_text(f"{start}<!-- gains -->\n{made}<!-- end -->\n{end}", "utf-8")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
