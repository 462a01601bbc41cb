"""Modules of PyTorch become models that compute what they do, or nothing is written.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass

torch = pytest.importorskip("torch", reason="the step 'export from PyTorch' runs these")
VARIES = torch.export.Dim.DYNAMIC


class Tower(torch.nn.Module):
    """Tokens that are masked, and an image brought to one size; arguments by place and by name."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 16)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, ids, mask=None, *, image):
        hidden = self.norm(torch.nn.functional.gelu(self.embed(ids))) * mask[..., None]
        sized = torch.nn.functional.interpolate(
            image, size=(10, 10), mode="bicubic", antialias=True, align_corners=False
        )
        return {"hidden": hidden, "more": (sized, ids + 1)}


@pytest.fixture(scope="module")
def call():
    torch.manual_seed(0)
    args = (torch.randint(0, 50, (2, 7)), torch.ones(2, 7))
    axes = {0: VARIES, 1: VARIES}
    dynamic = {"ids": axes, "mask": axes, "image": {2: VARIES, 3: VARIES}}
    return Tower().eval(), args, {"image": torch.randn(1, 3, 9, 11)}, dynamic


@pytest.mark.parametrize(
    "asked",
    [
        {"opset": 17},
        {"target": "ort-cpu"},
        {"pipeline": vlmpass.Pipeline(dtype="float16")},
        {"exporter": "torchscript", "opset": 14},
    ],
)
def test_a_module_is_compared_at_two_sizes(tmp_path, call, asked):
    module, args, kwargs, dynamic = call
    report = vlmpass.export(
        module, args, tmp_path / "m.onnx", kwargs=kwargs, dynamic=dynamic,
        output_names=["hidden", "sized", "next"], **asked,
    )  # fmt: skip
    told = [note for note in report.notes if note.startswith("computes what the module does at")]
    assert len(told) == 2
    assert "=7" in told[0]
    assert "=8" in told[1]
    model = vlmpass.load(tmp_path / "m.onnx")
    assert [each.name for each in model.graph.outputs] == ["hidden", "sized", "next"]
    assert model.opset_imports[""] == asked.get("opset", model.opset_imports[""])


def test_weights_of_bfloat16_stay_what_they_are(tmp_path):
    torch.manual_seed(1)
    module = torch.nn.Linear(8, 8).to(torch.bfloat16).eval()
    x = torch.randn(2, 8, dtype=torch.bfloat16)
    report = vlmpass.export(module, (x,), tmp_path / "m.onnx", target="ort-cpu")
    assert any("computes what the module does" in note for note in report.notes)
    held = [v.const_value.numpy() for v in report.model.graph.initializers.values()]
    wanted = module.weight.detach().float().numpy()
    assert any(a.shape == (8, 8) and np.isin(a.astype(np.float32), wanted).all() for a in held)


class _Draws(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, training=True)


class _Decides(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class _Fixed(torch.nn.Module):
    def forward(self, x):
        assert x.shape[0] != 3
        return x * 2


class _DecidesWell(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.shape[0] > 1 else x - 1


_TRACED = {"args": (torch.linspace(-1, 3, 6).reshape(2, 3),), "exporter": "torchscript"}
REFUSED = {
    "traced": (
        lambda: _Decides().eval(),
        _TRACED,
        r"one outcome of what the module decides in 1 places, such as test_door_export.py:\d+; "
        "it computes something else than the module with numbers of the other sign",
    ),
    "traced size": (
        lambda: _DecidesWell().eval(),
        {**_TRACED, "args": (torch.ones(1, 3),), "dynamic": {"x": {0: VARIES}}},
        "computes something else than the module at x_0=2",
    ),
    "exporter": (lambda: _Fixed().eval(), {"exporter": "jit"}, "exporter takes dynamo, torch"),
    "axes": (
        lambda: _Fixed().eval(),
        {**_TRACED, "dynamic": ({2: VARIES},)},
        "x has 2 axes, not 3",
    ),
    "axes of nothing": (
        lambda: _Fixed().eval(),
        {**_TRACED, "dynamic": ()},
        "dynamic says nothing that fits x",
    ),
    "no axes": (lambda: _Fixed().eval(), {**_TRACED, "dynamic": (3,)}, "takes dimensions by axis"),
    "training": (_Fixed, {}, "is in training mode, in which it may draw at random"),
    "random": (lambda: _Draws().eval(), {}, "gives other numbers when it runs once more"),
    "decides": (lambda: _Decides().eval(), {}, "PyTorch's exporter does not take the _Decides"),
    "no module": (lambda: 3, {}, "module takes a torch.nn.Module, not 3"),
    "args": (lambda: _Fixed().eval(), {"args": 3}, "args takes a tuple of arguments"),
    "kwargs": (lambda: _Fixed().eval(), {"kwargs": 3}, "kwargs takes arguments by name"),
    "no tensor": (lambda: _Fixed().eval(), {"args": (1,)}, "no tensor is among the arguments"),
    "pipeline": (lambda: _Fixed().eval(), {"pipeline": 3}, "pipeline takes a Pipeline"),
    "both": (
        lambda: _Fixed().eval(),
        {"pipeline": vlmpass.Pipeline(), "opset": 17},
        "a pipeline says everything",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_what_was_there(tmp_path, case):
    path = tmp_path / "m.onnx"
    make, given, said = REFUSED[case]
    with pytest.raises(vlmpass.VlmpassError, match=said):
        vlmpass.export(make(), **{"args": (torch.ones(2, 40),), "path": path, **given})
    assert list(tmp_path.iterdir()) == []


def test_what_a_trace_keeps_is_told(tmp_path):
    report = vlmpass.export(_DecidesWell().eval(), path=tmp_path / "m.onnx", **_TRACED)
    assert any(note.startswith("the trace keeps one outcome") for note in report.notes)


class _Nested(torch.nn.Module):
    """Takes what models of transformers take: tensors in lists, and what is no tensor."""

    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(4, 4)

    def forward(self, x, cache, flag=True, mask=None):
        return {"y": self.out(x) + cache[0][0] * mask, "cache": [[each * 2 for each in cache[0]]]}


@pytest.mark.parametrize("dim", [VARIES, "batch", torch.export.Dim("batch", max=9)])
def test_a_trace_names_what_it_takes(tmp_path, dim):
    torch.manual_seed(3)
    args = (torch.randn(2, 4), [[torch.randn(2, 4), torch.randn(2, 4)]], False)
    axes = {"x": {0: dim}, "cache": [[{0: dim}, (dim, None)]]}
    report = vlmpass.export(
        _Nested().eval(), args, tmp_path / "m.onnx", dynamic=axes, exporter="torchscript",
        kwargs={"mask": torch.randn(4)},
    )  # fmt: skip
    graph = report.model.graph
    assert [each.name for each in graph.inputs] == ["x", "cache_0_0", "cache_0_1", "mask"]
    assert {"out.weight", "out.bias"} <= set(graph.initializers)
    first = graph.inputs[0].shape[0].value
    assert first == ("x_0" if dim is VARIES else "batch")


class _Scaled(torch.nn.Module):
    """A resize that the older exporter has no operator for, and what is made of its result."""

    def __init__(self, mode, scales):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.asked = {"mode": mode, "scale_factor": scales, "antialias": True}

    def forward(self, x):
        found = self.conv(torch.nn.functional.interpolate(x, **self.asked))
        return found, found.flatten(2).transpose(1, 2), x * 2


def _scaled(path, seed):
    dice = random.Random(seed)
    mode = dice.choice(["bilinear", "bicubic"])
    scales = tuple(dice.choice([0.5, 0.77, 1.5, 2.0]) for _ in range(2))
    axes = ({2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)},)
    x = torch.randn(2, 3, dice.randint(5, 9), dice.randint(5, 9))
    return vlmpass.export(
        _Scaled(mode, scales).eval(), (x,), path, dynamic=axes, exporter="torchscript"
    )


def test_a_trace_declares_no_sizes_of_its_one_call(tmp_path):
    declared = [each.shape for each in _scaled(tmp_path / "m.onnx", 4).model.graph.outputs]
    fixed = [[at for at, dim in enumerate(shape) if isinstance(dim, int)] for shape in declared]
    assert fixed == [[0, 1], [0, 2], [0, 1]]


def test_sizes_of_one_call_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vlmpass.torch_exporters, "forget_traced", lambda model: None)
    with pytest.raises(vlmpass.VlmpassError, match=r"it declares output .*module gives"):
        _scaled(tmp_path / "m.onnx", 5)
    assert not (tmp_path / "m.onnx").exists()


def test_operators_that_exporters_refuse(tmp_path):
    import exported_operators as operators

    for name, exporter, opset in random.Random(16).sample(operators.CASES, 3):
        assert operators.off_by(name, exporter, opset, tmp_path / "m.onnx") < 1e-5


def test_a_size_that_a_module_does_not_take_is_passed_over(tmp_path):
    x = torch.ones(2, 5)
    report = vlmpass.export(_Fixed().eval(), (x,), tmp_path / "m.onnx", dynamic=({0: VARIES},))
    told = [note for note in report.notes if "module" in note]
    assert "=2" in told[0]
    assert "=4" in told[1]


@pytest.mark.parametrize("asked", [{}, {"quantize": "int8"}], ids=str)
def test_an_export_that_computes_something_else_is_refused(tmp_path, monkeypatch, asked):
    module = torch.nn.Linear(64, 64).eval()
    export = torch.onnx.export

    def wrong(*args, **kwargs):
        program = export(*args, **kwargs)
        weight = next(iter(program.model.graph.initializers.values()))
        weight.const_value = ir.tensor(weight.const_value.numpy() + 0.01, name=weight.name)
        return program

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(vlmpass.VlmpassError, match="computes something else than the module"):
        vlmpass.export(
            module, (torch.ones(2, 64),), tmp_path / "m.onnx", pipeline=vlmpass.Pipeline(**asked)
        )
    assert list(tmp_path.iterdir()) == []


def test_what_rounding_weights_costs_is_told(tmp_path):
    torch.manual_seed(2)
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)).eval()
    report = vlmpass.export(
        module,
        (torch.randn(3, 64),),
        tmp_path / "m.onnx",
        pipeline=vlmpass.Pipeline(quantize="int8"),
    )
    assert any(n.startswith("with rounded weights") and "off by" in n for n in report.notes)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "docs" / "pytorch.md"
    code = page.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})
    assert "computes what the module does at batch=2" in capsys.readouterr().out
    assert (tmp_path / "tower.onnx").is_file()
