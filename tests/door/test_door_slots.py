"""What takes the place of onnxslim and onnxsim: same calls, same kinds of model back."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from door_tools import listing, mlp_model

import vlmpass
from vlmpass.ir_tools.errors import VerifyError, VlmpassError
from vlmpass.pipeline import Pipeline

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,4] x) => (float[n,4] y) {
    zero = Constant<value_float=0.0>()
    one = Constant<value_float=1.0>()
    a = Add(x, zero)
    b = Mul(a, one)
    y = Relu(b)
}"""


@pytest.fixture
def path(tmp_path):
    model = onnx.parser.parse_model(TEXT)
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_slim_gives_back_what_it_was_given(path):
    proto = onnx.load(path)
    untouched = proto.SerializeToString()
    for source in (path, str(path), proto):
        assert operators(vlmpass.slim(source)) == ["Relu"]
    assert proto.SerializeToString() == untouched
    model = vlmpass.slim(vlmpass.load(path))
    assert isinstance(model, ir.Model)
    assert [node.op_type for node in model.graph] == ["Relu"]


def test_slim_writes_where_it_is_told(path):
    out = path.with_name("out.onnx")
    assert vlmpass.slim(path, out, model_check=True) is None
    assert operators(onnx.load(out)) == ["Relu"]
    assert vlmpass.slim(path, path) is None
    assert operators(onnx.load(path)) == ["Relu"]


def test_slim_writes_weights_inside_unless_they_are_wanted_beside(tmp_path):
    mlp_model(tmp_path, "mlp.onnx")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    vlmpass.slim(tmp_path / "mlp.onnx", tmp_path / "one" / "a.onnx")
    vlmpass.slim(tmp_path / "mlp.onnx", tmp_path / "two" / "a.onnx", save_as_external_data=True)
    assert [each.name for each in (tmp_path / "one").iterdir()] == ["a.onnx"]
    assert len(list((tmp_path / "two").iterdir())) > 1


@pytest.mark.parametrize(
    "shapes", [{"x": [3, 4]}, {"x": (3, -1)}, {"x": np.array([3, 4])}, ["x:3,4"], [3, 4]]
)
def test_sizes_are_fixed(path, shapes):
    for proto in (
        vlmpass.slim(path, input_shapes=shapes),
        vlmpass.simplify(path, overwrite_input_shapes=shapes)[0],
    ):
        dims = proto.graph.output[0].type.tensor_type.shape.dim
        assert [each.dim_value for each in dims] == [3, 4]


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"z": [1]}, "no input is called z, but x"),
        ({"x": [1]}, "x has 2 axes, not 1"),
        ({"x": [1, "n"]}, "input_shapes of x takes a list of integers"),
        ({"x": 3}, "input_shapes of x takes a list of integers"),
        ({"x": [1.5, 4]}, "input_shapes of x takes an integer"),
        ({"x": [True, 4]}, "input_shapes of x takes an integer"),
        ({"x": [float("inf"), 4]}, "input_shapes of x takes an integer"),
        ({"x": [-7, 4]}, "an integer of -1 or more"),
        ({"x": [2**70, 4]}, "input_shapes of x takes a list of integers from -1 on"),
        ({"x": [None, 4]}, "input_shapes of x takes a list of integers"),
        ({"x": b"\3@"}, "input_shapes of x takes a list of integers"),
        ({"x": {3: 1, 64: 2}}, "input_shapes of x takes a list of integers"),
        ({3: [1, 4]}, "no input is called 3"),
        (["x:1,n"], "input_shapes of x takes a list of integers"),
        ({"x": [1, 5]}, "4"),
        ("x:1,4", "input_shapes takes sizes by input"),
        ([], "input_shapes takes sizes by input"),
        (3, "input_shapes takes sizes by input"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(path, shapes, says):
    before = listing(path.parent)
    with pytest.raises(VlmpassError) as raised:
        vlmpass.slim(path, path.with_name("out.onnx"), input_shapes=shapes)
    assert says in str(raised.value)
    assert listing(path.parent) == before


def test_slim_converts_types(path):
    proto = vlmpass.slim(path, dtype="fp16")
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    with pytest.raises(VlmpassError, match="no element type 'fp8'"):
        vlmpass.slim(path, dtype="fp8")


def test_slim_logs_its_report(path, caplog):
    caplog.set_level(logging.INFO, "vlmpass")
    vlmpass.slim(path, verbose=True)
    assert "full type check passed" in caplog.text


def test_simplify_says_whether_it_is_equal(path, monkeypatch):
    proto, equal = vlmpass.simplify(onnx.load(path), check_n=1)
    assert equal
    assert operators(proto) == ["Relu"]
    model, equal = vlmpass.simplify(vlmpass.load(path))
    assert isinstance(model, ir.Model)
    assert equal

    run = Pipeline.run

    def wrong(self, *given, **asked):
        if asked.get("verify"):
            raise VerifyError("y differs")
        return run(self, *given, **asked)

    monkeypatch.setattr(Pipeline, "run", wrong)
    proto, equal = vlmpass.simplify(path, check_n=3)
    assert not equal
    assert len(operators(proto)) == 5
