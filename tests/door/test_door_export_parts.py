"""A module of PyTorch is written apart by modules, and what the files make is what it computes.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import vlmpass

torch = pytest.importorskip("torch", reason="the step 'export from PyTorch' runs these")
VARIES = torch.export.Dim.DYNAMIC
PARTS = {"vision": "vpm", "resampler": "resampler", "decoder": "llm"}
WIDTH = 16


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.norm = torch.nn.Conv2d(3, WIDTH, 4, 4), torch.nn.LayerNorm(WIDTH)

    def forward(self, image):
        return self.norm(self.patches(image).flatten(2).transpose(1, 2))


class Resampler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(1, 2, WIDTH))
        self.keys = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, seen):
        keys = self.keys(seen)
        return torch.softmax(self.queries @ keys.transpose(1, 2), -1) @ seen


class Decoder(torch.nn.Module):
    """One layer of attention over what it is given now, and over what was before."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(30, WIDTH)
        self.qkv, self.head = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, 30)

    def forward(self, hidden, past_key, past_value):
        query, key, value = self.qkv(hidden).chunk(3, -1)
        key, value = torch.cat([past_key, key], 1), torch.cat([past_value, value], 1)
        mixed = torch.softmax(query @ key.transpose(1, 2) / WIDTH**0.5, -1) @ value
        return self.head(torch.nn.functional.gelu(hidden + mixed)), key, value


class Vlm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vpm, self.resampler, self.llm = Tower(), Resampler(), Decoder()

    def forward(self, image, ids, past_key, past_value):
        seen = self.resampler(self.vpm(image))
        hidden = torch.cat([seen, self.llm.embed(ids)], 1)
        return self.llm(hidden, past_key, past_value)


@pytest.fixture(scope="module")
def call():
    torch.manual_seed(0)
    args = (
        torch.randn(1, 3, 8, 12), torch.randint(0, 30, (1, 5)),
        torch.randn(1, 4, WIDTH), torch.randn(1, 4, WIDTH),
    )  # fmt: skip
    past = torch.export.Dim("past")
    return Vlm().eval(), args, (None, {1: torch.export.Dim("length")}, {1: past}, {1: past})


def run_apart(folder, values):
    """Run the files one after the other, by what the manifest says of them and nothing else."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["parts"]:
        session = onnxruntime.InferenceSession(folder / part["file"])
        found = session.run(part["outputs"], {name: values[name] for name in part["inputs"]})
        values.update(zip(part["outputs"], found, strict=True))
    return [values[name] for name in manifest["outputs"]], manifest


@pytest.mark.parametrize("asked", [{"target": "ort-cpu"}, {"exporter": "torchscript"}])
def test_the_parts_compute_what_the_module_does(tmp_path, call, asked):
    module, args, dynamic = call
    if "exporter" in asked:
        dynamic = None
    report = vlmpass.export(
        module, args, tmp_path / "parts", parts=PARTS, dynamic=dynamic,
        input_names=["image", "ids", "past_key", "past_value"], **asked,
    )  # fmt: skip
    assert [each.name for each in report.split.parts] == list(PARTS)
    others = (args[0], torch.randint(0, 30, (1, 8)), *(torch.randn(1, 7, WIDTH) for _ in range(2)))
    for given in (args,) if dynamic is None else (args, others):
        names = ("image", "ids", "past_key", "past_value")
        values = {name: each.numpy() for name, each in zip(names, given, strict=True)}
        found, manifest = run_apart(tmp_path / "parts", values)
        with torch.no_grad():
            wanted = module(*given)
        for one, other in zip(wanted, found, strict=True):
            assert np.abs(one.numpy() - other).max() < 1e-5
    first = next(each for each in manifest["parts"] if each["name"] == "vision")
    assert first["inputs"] == ["image"]
    assert any("computes what the module does" in note for note in report.notes)
    assert report.model.graph.outputs[0].name == manifest["outputs"][0]


def test_what_the_parts_make_is_judged_before_they_take_their_places(tmp_path, call, monkeypatch):
    module, args, _ = call
    parts_of = vlmpass.parts._parts

    def wrong(lifter, places):
        named = parts_of(lifter, places)
        weight = next(v for v in named[0].model.graph.initializers.values() if v.shape.rank() == 4)
        weight.const_value = ir.tensor(2 * weight.const_value.numpy(), name=weight.name)
        return named

    monkeypatch.setattr(vlmpass.parts, "_parts", wrong)
    with pytest.raises(vlmpass.VlmpassError, match="something else than the module"):
        vlmpass.export(module, args, tmp_path / "parts", parts=PARTS, exporter="torchscript")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "parts names nothing"),
        (["vpm"], "modules by the names of the parts"),
        ({"vision": ""}, "parts names nothing"),
        ({"vision": 3}, "a module of parts"),
        ({"vision": "vmp"}, "no module 'vmp'; did you mean 'vpm'"),
        ({"a": "vpm", "b": "vpm.norm"}, "share"),
    ],
)
def test_parts_that_are_not_there_are_refused(tmp_path, call, parts, said):
    module, args, _ = call
    with pytest.raises(vlmpass.VlmpassError, match=said):
        vlmpass.export(module, args, tmp_path / "parts", parts=parts, exporter="torchscript")
    assert list(tmp_path.iterdir()) == []


def test_the_page_runs(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "parts.md"
    code = page.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "page"})
    names = {"01-vision.onnx", "02-resampler.onnx", "03-decoder.onnx", "manifest.json"}
    assert names <= {path.name for path in (tmp_path / "parts").iterdir()}
