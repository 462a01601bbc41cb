"""A PyTorch module is compared with a model, as the reference or as what is judged.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import compare_layers
from vlmpass.ir_tools.run.torch_hooks import watching

torch = pytest.importorskip("torch", reason="the step 'export from PyTorch' runs these")

SOURCE = """
import torch

print("a line of the module's own")


class Block(torch.nn.Module):
    def __init__(self, dtype=torch.float32, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(50, 16, dtype=dtype)
        self.out = torch.nn.Linear(16, 8, dtype=dtype)
        self.factor = factor

    def forward(self, ids, mask, *, image):
        print("and another")
        hidden = self.out(self.embed(ids)) * mask[..., None] * self.factor
        return {"hidden": hidden, "more": (image.mean((2, 3)), ids + 1)}


def make():
    return Block().eval()


def half():
    return Block(torch.bfloat16).eval()


def moved():
    made = Block()
    made.out.bias.data += 0.01
    return made.eval()


def wrong():
    return Block(factor=1.01).eval()


baked = Block().eval()
baked.forward = lambda ids, mask, image: Block.forward(baked, ids[:2], mask[:2], image=image)
number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("module")
    (path / "block.py").write_text(SOURCE)
    held = {}
    exec(SOURCE, held)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    open_image = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    for name, dtype in (("make", torch.float32), ("half", torch.bfloat16)):
        vlmpass.export(
            held[name](),
            (torch.randint(0, 50, (3, 7)), torch.ones(3, 7, dtype=dtype)),
            path / f"{name}.onnx",
            kwargs={"image": torch.randn(1, 3, 9, 11)},
            dynamic={"ids": axes, "mask": axes, "image": open_image},
            input_names=["ids", "mask", "image"],
        )
    return path


def test_a_module_is_either_of_the_two(door, folder):
    module, model = f"{folder}/block.py:make", folder / "make.onnx"
    for order in ((module, model), (model, module)):
        code, out, err = door("verify", *order, "--json")
        data = json.loads(out)
        assert code == 0
        assert "and another" in err
        assert {data["expected_ran"], data["actual_ran"]} == {"PyTorch", "ONNX Runtime"}
        assert len([each for each in data["trials"] if not each["hard"]]) == 2
        assert data["seed"] == 0
        assert len(data["outputs"]) == 3


def test_what_computes_something_else_is_found(door, folder):
    code, out, _ = door("verify", f"{folder}/block.py:wrong", folder / "make.onnx")
    assert code == 1
    assert "not equal: 1 of 3 outputs" in out
    assert "dB above the error" in out


def test_the_module_that_comes_apart_is_named(door, folder):
    module, model = f"{folder}/block.py:moved", folder / "make.onnx"
    for order in ((module, model), (model, module)):
        code, out, err = door("verify", *order, "--layers", "--json")
        assert (code, err.count("and another") > 1) == (1, True)
        found = json.loads(out)["layers"]
        first = found["layers"][found["first"]]
        assert first["module"] == "out"
        assert "out" in (first["name"], first["expected_name"])
        assert first["difference"]["reason"] == "error above the tolerance"
        assert [each["module"] for each in found["layers"]][:2] == ["embed", "out"]
        assert found["apart"] == []
    code, out, _ = door("verify", module, model, "--layers", "--html", folder / "r.html")
    assert code == 1
    assert "module    out" in out
    code, out, _ = door("verify", f"{folder}/block.py:make", model, "--layers")
    assert code == 0
    assert "none diverges" in out


def test_faults_are_named_by_their_modules(tmp_path):
    import module_faults

    told = module_faults.run(1, 7, tmp_path, ["torchscript"], each=3)
    assert [where for where, _ in told] == [found for _, found in told]
    assert len({where for where, _ in told}) > 2


def test_a_border_that_moved_is_no_fault(tmp_path):
    """A factor goes into the weights of what is before it: the value is another, no output is."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    torch.nn.init.uniform_(module[0].weight)
    vlmpass.export(module.eval(), (torch.randn(2, 4),), tmp_path / "m.onnx")
    model = vlmpass.load(tmp_path / "m.onnx")
    tanh = next(node for node in model.graph if node.op_type == "Tanh")
    # The same numbers, halved at the border of one module and doubled in the next.
    half = ir.Value(name="half", const_value=ir.tensor(np.float32(0.5)))
    two = ir.Value(name="two", const_value=ir.tensor(np.float32(2)))
    before, after = ir.node("Mul", [tanh.inputs[0], half]), ir.node("Mul", [tanh.inputs[0], two])
    for node, value, scope in ((before, half, "0"), (after, two, "1")):
        model.graph.register_initializer(value)
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', '{scope}', 'mul']"
        node.outputs[0].name = f"by_{value.name}"
    after.replace_input_with(0, before.outputs[0])
    tanh.replace_input_with(0, after.outputs[0])
    model.graph.insert_before(tanh, [before, after])
    found = compare_layers(module, model)
    assert found.ok
    assert found.apart == ("0",)


def test_a_size_that_only_one_of_them_takes_is_found(door, folder):
    code, out, _ = door(
        "verify", folder / "make.onnx", f"{folder}/block.py:baked", "--shape", "ids=3x5", "--json"
    )
    assert code == 1
    assert json.loads(out)["outputs"][0]["reason"] == "shapes differ"


def test_bfloat16_is_held_to_what_bfloat16_keeps(folder):
    held = {}
    exec(SOURCE, held)
    found = vlmpass.verify(held["half"](), folder / "half.onnx")
    assert found.ok
    assert found.outputs[0].tolerance == 8e-2
    assert not vlmpass.verify(held["half"](), folder / "make.onnx").ok


def test_inputs_are_given_by_place_where_names_differ(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()
    path = tmp_path / "m.onnx"
    vlmpass.export(module, (torch.randn(2, 4),), path, input_names=["pixels"])
    found = vlmpass.verify(module, path, inputs={"pixels": np.ones((2, 4), np.float32)})
    assert found.ok
    assert found.seed is None


class _Draws(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, training=True)


class _Two(torch.nn.Module):
    def forward(self, x):
        return x, x


class _Fails(torch.nn.Module):
    def forward(self, x):
        raise ValueError("not for you")


REFUSED = {
    "training": (torch.nn.Identity, "is in training mode"),
    "random": (lambda: _Draws().eval(), "gives other numbers when it runs once more"),
    "outputs": (lambda: _Two().eval(), "1 outputs, where the program has 2"),
    "fails": (lambda: _Fails().eval(), "PyTorch does not run the model: ValueError: not for you"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused(tmp_path, case):
    make, said = REFUSED[case]
    path = tmp_path / "m.onnx"
    vlmpass.export(torch.nn.Identity().eval(), (torch.randn(2, 40),), path)
    with pytest.raises(VerifyError, match=said):
        vlmpass.verify(make(), path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("block.py:no", "make.onnx"), "has no 'no'"),
        (("block.py:number", "make.onnx"), "is a int, and no torch.nn.Module"),
        (("none.py:make", "make.onnx"), "there is no file"),
        (("block.py:make", "block.py:make"), "one of the two must be a model"),
        (("block.py:make", "make.onnx", "--layers", "--on", "openvino"), "leave one of them out"),
        (("make.onnx", "block.py:make", "--emulate", "float16"), "nothing in it can be rounded"),
    ],
)
def test_what_is_no_module_is_refused(door, folder, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    code, out, err = door("verify", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_what_runs_in_inference_mode_is_seen_inside() -> None:
    class Inner(torch.nn.Sequential):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    inner = Inner(torch.nn.Linear(3, 3), torch.nn.ReLU(inplace=True))
    torch.nn.init.constant_(inner[0].bias, -100)
    seen = {}

    def see(part, array):
        seen[str(part)] = array.copy()

    with torch.no_grad(), watching(inner, see):
        inner(torch.arange(6.0).reshape(2, 3))
    assert (seen["0"] < 0).all(), seen
    assert (seen["1"] == 0).all(), seen
