"""Exporters that do not stand beside transformers 5 run for real, and vlmpass in their slots.

The step "exporters in a folder of their own" of .ci/run installs tests/door/packages.txt and says
so by VLMPASS_PACKAGES: what is not there then, or does not import, is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from door_tools import listing, page_block

import vlmpass

if "VLMPASS_PACKAGES" not in os.environ:
    pytest.skip("the step 'exporters in a folder of their own' runs these", allow_module_level=True)

import door_torchvision  # noqa: F401
import torch

os.environ.update(YOLO_OFFLINE="1", HF_HUB_OFFLINE="1", YOLO_AUTOINSTALL="0")
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 60,
}  # fmt: skip


def nodes(model):
    return len(vlmpass.load(model).graph)


def recorded(function, given):
    """The function; what it gives is kept."""

    def kept(*args, **kwargs):
        given.append(function(*args, **kwargs))
        return given[-1]

    return kept


@pytest.fixture
def taken(monkeypatch):
    """The slots of onnxslim and onnxsim hold vlmpass; what it gives them, in their order."""
    import onnxsim
    import onnxslim

    given = []
    for module, name in ((onnxslim, "slim"), (onnxsim, "simplify")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back at the end
        monkeypatch.setattr(vlmpass, name, recorded(getattr(vlmpass, name), given))
    page_block("take_over")()
    return given


def close(path, image, wanted):
    """Whether a file computes the first output of PyTorch, to a part of its largest value."""
    session = onnxruntime.InferenceSession(str(path))
    (found, *_) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return np.abs(found - wanted.numpy()).max() <= 1e-5 * np.abs(wanted.numpy()).max()


def test_ultralytics(tmp_path, monkeypatch, taken):
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml")
    path = model.export(format="onnx", imgsz=64, simplify=True, verbose=False)
    (slimmed,) = taken  # what slim raises, it logs, and keeps the file as it was
    assert nodes(path) == len(slimmed.graph.node)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = model.model.float().eval()(image)[0]
    assert close(path, image, wanted)


def test_yolov5(tmp_path, monkeypatch, taken):
    from yolov5 import export
    from yolov5.models.yolo import DetectionModel

    legacy = torch.onnx.export  # which that exporter was written for
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **kwargs: legacy(*args, dynamo=False, **kwargs)
    )
    monkeypatch.setattr(export, "check_requirements", lambda *_, **__: None)  # would install
    torch.manual_seed(0)
    model = DetectionModel(Path(export.__file__).parent / "models" / "yolov5n.yaml").eval()
    model.model[-1].export = True
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = model(image)[0]
    export.export_onnx(model, image, tmp_path / "yolo.pt", 17, False, True)
    ((simplified, equal),) = taken
    assert equal
    assert nodes(tmp_path / "yolo.onnx") == len(simplified.graph.node)
    assert close(tmp_path / "yolo.onnx", image, wanted)


def test_optimum_after_its_files_are_written(tmp_path):
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    bert = BertModel(BertConfig(**SIZES)).eval()
    asked = {"task": "feature-extraction", "opset": 18, "do_validation": True}
    onnx_export_from_model(bert, tmp_path / "default", **asked)
    page_block("ConvertedBert")
    onnx_export_from_model(bert, tmp_path / "ours", **asked)
    default, ours = (tmp_path / each / "model.onnx" for each in ("default", "ours"))
    assert nodes(ours) < nodes(default)
    assert vlmpass.verify(default, ours).ok
    ids = np.arange(10).reshape(2, 5)
    feed = {"input_ids": ids, "attention_mask": ids**0, "token_type_ids": ids * 0}
    (found, *_) = onnxruntime.InferenceSession(str(ours)).run(None, feed)
    with torch.no_grad():
        wanted = bert(**{name: torch.tensor(value) for name, value in feed.items()})
    assert np.abs(found - wanted.last_hidden_state.numpy()).max() < 1e-5


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, **SIZES)).eval()


def exported(model, folder, **asked):
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(model, folder, task="text-generation-with-past", opset=18, **asked)
    return folder / "model.onnx"


def test_optimum_with_slim(tmp_path, taken):
    model = llama()
    slimmed = exported(model, tmp_path / "ours", slim=True, do_validation=True)
    assert len(taken) == 1
    default = exported(model, tmp_path / "default", do_validation=False)
    assert nodes(slimmed) < nodes(default)
    assert vlmpass.verify(default, slimmed).ok


def genai_folder(path, model, end):
    """The folder that ONNX Runtime GenAI reads, around an exported decoder and its last token."""
    config, layer = model.config, "%d"
    past, present = f"past_key_values.{layer}.", f"present.{layer}."
    decoder = {
        "filename": path.name, "session_options": {}, "hidden_size": config.hidden_size,
        "head_size": config.head_dim, "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "inputs": {
            **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
            "past_key_names": f"{past}key", "past_value_names": f"{past}value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": f"{present}key", "present_value_names": f"{present}value",
        },
    }  # fmt: skip
    made = {
        "type": "llama", "context_length": 32, "vocab_size": config.vocab_size, "decoder": decoder,
        "bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    search = {"max_length": 16, "do_sample": False, "past_present_share_buffer": False}
    (path.parent / "genai_config.json").write_text(json.dumps({"model": made, "search": search}))
    return path.parent


def generated(folder, prompt, count):
    """The tokens that GenAI adds to a prompt."""
    import onnxruntime_genai as genai

    model = genai.Model(str(folder))
    generator = genai.Generator(model, genai.GeneratorParams(model))
    generator.append_tokens(np.array(prompt, np.int32))
    for _ in range(count):
        generator.generate_next_token()
    return list(generator.get_sequence(0))


def test_a_folder_of_genai(tmp_path):
    model, prompt = llama(), [3, 14, 15, 9, 26]
    wanted = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            wanted.append(int(model(torch.tensor([wanted])).logits[0, -1].argmax()))
    end = min(set(range(model.config.vocab_size)) - set(wanted))
    path = exported(model, tmp_path / "llama", do_validation=False)
    folder, before = genai_folder(path, model, end), nodes(path)
    assert generated(folder, prompt, 8) == wanted
    names = set(listing(folder))
    vlmpass.convert_genai(folder, vlmpass.Pipeline(target="ort-cpu"))
    assert nodes(path) < before
    assert set(listing(folder)) - {"model.onnx.data"} == names
    assert generated(folder, prompt, 8) == wanted


MNN = """
import importlib.util, sys, types
from pathlib import Path

here = Path(next(iter(importlib.util.find_spec("llmexport").submodule_search_locations)))
sys.path.insert(0, str(here))  # its modules import each other from there
import door_torchvision
import numpy as np, onnxruntime, torch
from door_tools import page_block
import vlmpass
from llmexport import LlmExporter
from utils.custom_op import FakeLinear
from utils.torch_utils import onnx_export

torch.manual_seed(0)
first, second = torch.nn.Linear(16, 32), torch.nn.Linear(32, 4, bias=False)
middle = torch.nn.GELU()
module = torch.nn.Sequential(
    torch.nn.LayerNorm(16), FakeLinear(16, 32, True, "/a"), middle,
    FakeLinear(32, 4, False, "/b"), torch.nn.Identity(),
).eval()
x, path = torch.randn(3, 16), sys.argv[1]
onnx_export(module, (x,), path, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}})
before, calls, ours = len(vlmpass.load(path).graph), [], vlmpass.slim
vlmpass.slim = lambda *args, **kwargs: calls.append(args) or ours(*args, **kwargs)
page_block("take_over")()
exporter = types.SimpleNamespace(unloaded_ops={"/a": first, "/b": second})
LlmExporter.slim_onnx(exporter, path)
assert len(calls) == 1, calls
assert len(vlmpass.load(path).graph) < before
LlmExporter.onnx_load_param(exporter, path)
(found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
with torch.no_grad():
    wanted = second(middle(first(module[0](x))))
assert np.abs(found - wanted.numpy()).max() < 1e-6
"""


def test_the_exporter_of_mnn(tmp_path):
    """In a process of its own, ended in time: its spinner waits for ever where slim raises."""
    command = [sys.executable, "-c", MNN, str(tmp_path / "llm.onnx")]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    places = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=240, env=places
    )
    assert done.returncode == 0, done.stderr
