"""An output is checked as it lies in the temporary folder, and not the graph it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.save.prepare import Output
from vlmpass.ir_tools.save.staged import Staged

Damage = Callable[[onnx.ModelProto], None]


def model() -> ir.Model:
    """A matrix that goes outside, a small one that does not, and sizes a Reshape reads."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=[2, 64])
    large = ir.val("large", const_value=ir.tensor(np.ones((64, 64), np.float32), name="large"))
    sizes = ir.val("sizes", const_value=ir.tensor(np.array([4, 32], np.int64), name="sizes"))
    product = ir.node("MatMul", [x, large])
    shaped = ir.node("Reshape", [product.outputs[0], sizes])
    y = shaped.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([4, 32])
    product.outputs[0].name = "product"
    graph = ir.Graph(
        [x], [y], nodes=[product, shaped], initializers=[large, sizes],
        opset_imports={"": 18}, name="g",
    )  # fmt: skip
    return ir.Model(graph, ir_version=9)


def checked(staged: Staged) -> None:
    staged.check()


def unknown_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nobody"


def other_shape(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5


def other_type(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def other_sizes(proto: onnx.ModelProto) -> None:
    sizes = next(each for each in proto.graph.initializer if each.name == "sizes")
    sizes.raw_data = np.array([3, 32], np.int64).tobytes()


def beyond_its_file(proto: onnx.ModelProto) -> None:
    large = next(each for each in proto.graph.initializer if each.name == "large")
    next(each for each in large.external_data if each.key == "offset").value = "4096"


def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


@pytest.mark.parametrize(
    "damage",
    [unknown_input, other_shape, other_type, other_sizes, beyond_its_file, no_opset],
    ids=lambda each: each.__name__,
)
def test_what_goes_wrong_on_the_way_to_the_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    right = Output.model_bytes

    def model_bytes(self: Output, names: list[str]) -> tuple[bytes, str | None]:
        proto = onnx.ModelProto.FromString(right(self, names)[0])
        damage(proto)
        return proto.SerializeToString(), None

    monkeypatch.setattr(Output, "model_bytes", model_bytes)
    with pytest.raises(VlmpassError):
        save(model(), tmp_path / "m.onnx", before_commit=checked)
    assert list(tmp_path.iterdir()) == []


def test_a_data_file_that_is_cut_short_is_found(tmp_path: Path) -> None:
    def cut(staged: Staged) -> None:
        (staged.folder / "0").write_bytes(b"")
        staged.check()

    with pytest.raises(VlmpassError, match="which has 0"):
        save(model(), tmp_path / "m.onnx", before_commit=cut)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["default", "single", "inline", "safetensors"])
@pytest.mark.parametrize("name", ["m.onnx", "m.textproto", "m.json"])
def test_what_is_sound_passes_in_every_form(tmp_path: Path, layout: str, name: str) -> None:
    save(model(), tmp_path / name, layout=layout, before_commit=checked)
    check(load(tmp_path / name))


def test_the_fault_is_told_of_the_node_by_its_name(tmp_path: Path) -> None:
    broken = model()
    broken.graph.node(0).name = "product of x"
    broken.graph.inputs[0].dtype = ir.DataType.INT64
    with pytest.raises(CheckError, match="product of x"):
        save(broken, tmp_path / "m.onnx", before_commit=checked)


def test_small_integers_in_a_data_file_decide_shapes_as_they_do_inside(tmp_path: Path) -> None:
    """Sizes with two axes go outside from a kilobyte on; inference still needs to read them."""
    wide = model()
    long = np.zeros((1, 256), np.int64)
    held = ir.val("long", const_value=ir.tensor(long, name="long"))
    wide.graph.register_initializer(held)
    node = ir.node("Reshape", [held, wide.graph.initializers["sizes"]])
    sizes = np.array([16, 16], np.int64)
    wide.graph.initializers["sizes2"] = ir.val("sizes2", const_value=ir.tensor(sizes))
    node.replace_input_with(1, wide.graph.initializers["sizes2"])
    node.outputs[0].name = "z"
    wide.graph.append(node)
    save(wide, tmp_path / "m.onnx", before_commit=checked)
    assert (tmp_path / "m.onnx.data").stat().st_size > long.nbytes


def test_tensors_that_the_calls_of_a_function_give_are_none_of_its_own(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 18, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.Add <t = float[2] {1, 2}> (x) }
        <opset_import: ["": 18], domain: "local">
        Add <t> (a) => (b) { c = Constant <value: tensor = @t> ()  b = Add(a, c) }"""
    save(ir.from_onnx_text(text), tmp_path / "m.onnx", before_commit=checked)
    (node, _) = onnx.load(tmp_path / "m.onnx").functions[0].node
    assert not node.attribute[0].HasField("t")
