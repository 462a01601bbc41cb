from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from safetensors import safe_open
from save_models import (
    compute,
    contents,
    model_of,
    names,
    references,
    weights,
    within,
    write_inline,
)
from save_scaled import LIMIT

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import Layout, save


@pytest.mark.parametrize(
    ("layout", "limit", "data"),
    [
        ("default", "2GB", ["m.onnx.data"]),
        ("default", LIMIT, ["m-00001-of-00002.onnx.data", "m-00002-of-00002.onnx.data"]),
        ("hf", "2GB", ["m.onnx_data"]),
        ("hf", LIMIT, ["m.onnx_data", "m.onnx_data_1"]),
        ("single", LIMIT, ["m.onnx.data"]),
        ("inline", LIMIT, []),
        ("safetensors", "2GB", ["m.safetensors"]),
        ("safetensors", LIMIT, ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]),
    ],
)
def test_names_limit_and_results(source, tmp_path, layout, limit, data):
    out = tmp_path / "o" / "m.onnx"
    report = save(load(source), out, layout=layout, shard_size=within(layout, limit))
    assert names(out.parent) == sorted(["m.onnx", *data])
    np.testing.assert_array_equal(compute(out), compute(source))
    onnx.checker.check_model(out, full_check=True)
    if layout not in ("single", "inline"):
        assert all(len(content) <= 2 * 10**9 for content in contents(out.parent).values())
        assert limit == "2GB" or all(len(c) <= LIMIT for c in contents(out.parent).values())
    assert [(file.name, file.nbytes) for file in report.files] == [
        (name, (out.parent / name).stat().st_size) for name in ["m.onnx", *data]
    ]
    assert report.nbytes == sum(file.nbytes for file in report.files)
    assert {file.how for file in report.files[1:]} <= {"copied"}


def test_layout_may_be_given_as_a_value(source, tmp_path):
    save(load(source), tmp_path / "o" / "m.onnx", layout=Layout.HF)
    assert (tmp_path / "o" / "m.onnx_data").exists()


def test_unknown_layout_names_the_known_ones(source, tmp_path):
    with pytest.raises(SaveError, match=r"no layout 'hff'; did you mean 'hf'"):
        save(load(source), tmp_path / "o" / "m.onnx", layout="hff")


@pytest.mark.parametrize("layout", list(Layout))
def test_same_bytes_whatever_the_number_of_threads(source, tmp_path, layout):
    for jobs in (1, 4):
        (tmp_path / str(jobs)).mkdir()
        out = tmp_path / str(jobs) / "m.onnx"
        save(load(source), out, layout=layout, shard_size=within(layout.value, LIMIT), jobs=jobs)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_large_tensors_start_where_runtimes_can_map_them(tmp_path):
    shapes = {"a": (5,), "b": (400,), "c": (600, 700), "d": (33, 1000), "e": (3, 5)}
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="g"), ir_version=10)
    for name, shape in shapes.items():
        tensor = ir.tensor(np.ones(shape, np.float32), name=name)
        model.graph.register_initializer(ir.Value(name=name, const_value=tensor))
    save(model, tmp_path / "m.onnx")
    found = references(tmp_path / "m.onnx")
    assert set(found) == {"b", "c", "d"}
    assert found["b"][1] % 64 == 0
    assert found["c"][1] % 65536 == 0
    assert found["d"][1] % 4096 == 0
    data = (tmp_path / "m.onnx.data").read_bytes()
    covered = np.zeros(len(data), bool)
    for _, offset, length in found.values():
        assert not covered[offset : offset + length].any()
        covered[offset : offset + length] = True
    assert not np.frombuffer(data, np.uint8)[~covered].any()


def test_safetensors_files_are_read_by_safetensors(source, tmp_path):
    out = tmp_path / "o" / "m.onnx"
    save(load(source), out, layout="safetensors", shard_size=LIMIT)
    found = {}
    for path in sorted(out.parent.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            found.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    assert set(found) == {f"w{i}" for i in range(4)}
    for i, array in enumerate(weights()):
        np.testing.assert_array_equal(found[f"w{i}"], array)
    assert all(offset % 4096 == 0 for _, offset, _ in references(out).values())


DTYPES = {
    "FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16, "BOOL": np.bool_,
    "BFLOAT16": ml_dtypes.bfloat16, "INT8": np.int8, "UINT16": np.uint16, "INT64": np.int64,
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn, "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "INT4": ml_dtypes.int4, "UINT4": ml_dtypes.uint4,
    "INT2": ml_dtypes.int2, "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
    "COMPLEX64": np.complex64,
}  # fmt: skip
SAFETENSORS_NAMES = {
    "FLOAT": "F32", "DOUBLE": "F64", "FLOAT16": "F16", "BOOL": "BOOL", "BFLOAT16": "BF16",
    "INT8": "I8", "UINT16": "U16", "INT64": "I64", "FLOAT8E4M3FN": "F8_E4M3",
    "FLOAT8E5M2": "F8_E5M2",
}  # fmt: skip


def typed_model() -> tuple[ir.Model, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 25}, name="g")
    arrays = {}
    for name, dtype in DTYPES.items():
        array = rng.integers(0, 2, (67, 131)).astype(np.float32).astype(dtype)
        arrays[name] = array
        tensor = ir.Tensor(array, dtype=ir.DataType[name], name=name)
        graph.register_initializer(ir.Value(name=name, const_value=tensor))
    return ir.Model(graph, ir_version=13), arrays


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("again", [False, True])
def test_every_type_survives_every_layout(tmp_path, layout, again):
    model, arrays = typed_model()
    save(model, tmp_path / "m.onnx", layout=layout)
    if again:
        save(load(tmp_path / "m.onnx"), tmp_path / "n.onnx", layout=layout, weights="copy")
    back = load(tmp_path / ("n.onnx" if again else "m.onnx"))
    assert set(back.graph.initializers) == set(arrays)
    for name, array in arrays.items():
        tensor = back.graph.initializers[name].const_value
        assert tensor is not None
        assert tensor.dtype == ir.DataType[name]
        np.testing.assert_array_equal(
            tensor.numpy().astype(np.complex64), array.astype(np.complex64), err_msg=name
        )


def test_types_that_safetensors_lacks_are_stored_as_bytes(tmp_path):
    model, arrays = typed_model()
    save(model, tmp_path / "m.onnx", layout="safetensors")
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        for name, array in arrays.items():
            view = file.get_slice(name)
            assert view.get_dtype() == SAFETENSORS_NAMES.get(name, "U8"), name
            if name in SAFETENSORS_NAMES:
                assert view.get_shape() == list(array.shape)


def test_text_forms_are_chosen_by_suffix_and_load_again(source, tmp_path):
    for suffix, start in (("textproto", b"ir_version"), ("json", b"{"), ("onnxtxt", b"<")):
        out = tmp_path / "o" / f"m.{suffix}"
        report = save(load(source), out)
        assert out.read_bytes().lstrip().startswith(start)
        assert report.files[1].name == f"m.{suffix}.data"
        back = tmp_path / "o" / "back.onnx"
        save(load(out), back)
        np.testing.assert_array_equal(compute(back), compute(source))


def test_a_text_form_that_cannot_hold_the_model_is_refused(source, tmp_path):
    model = load(source)
    quantised = ir.tensor(np.array([1, -2, 3], np.int8).astype(ml_dtypes.int4), name="q")
    model.graph.register_initializer(ir.Value(name="q", const_value=quantised))
    with pytest.raises(SaveError, match=r"onnxtxt form cannot hold this model; write \.textproto"):
        save(model, tmp_path / "o" / "m.onnxtxt")
    assert names(tmp_path / "o") == []


def test_what_onnxtxt_has_no_place_for_is_reported(source, tmp_path):
    model = load(source)
    next(iter(model.graph)).doc_string = "first"
    report = save(model, tmp_path / "o" / "m.onnxtxt")
    assert report.notes == (".onnxtxt holds no doc_string or metadata_props",)


def test_large_weights_inside_the_model_file_equal_plain_protobuf(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"w{i}": rng.standard_normal((200, 150 + i)).astype(np.float32) for i in range(3)}
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(
                rng.standard_normal((300, 100)).astype(np.float32))),
            helper.make_node("ReduceSum", ["c"], ["t"], keepdims=0),
        ],
        "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [])],
    )  # fmt: skip
    nodes = [
        helper.make_node("If", ["flag"], ["s"], then_branch=body, else_branch=body),
        helper.make_node("Mul", ["x", "s"], ["y"]),
    ]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    proto = model_of(nodes, tensors, inputs=[flag])
    (tmp_path / "plain.onnx").write_bytes(proto.SerializeToString())
    save(load(tmp_path / "plain.onnx"), tmp_path / "m.onnx", layout="inline")
    back = onnx.load(tmp_path / "m.onnx")
    assert {t.name: t.raw_data for t in back.graph.initializer} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert names(tmp_path) == ["m.onnx", "plain.onnx"]
    yes = {"flag": np.array(True)}
    np.testing.assert_array_equal(
        compute(tmp_path / "m.onnx", **yes), compute(tmp_path / "plain.onnx", **yes)
    )


def test_weights_move_out_of_and_back_into_the_model_file(tmp_path):
    source = write_inline(tmp_path / "in.onnx")
    save(load(source), tmp_path / "out.onnx")
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    save(load(tmp_path / "out.onnx"), tmp_path / "out.onnx", layout="inline")
    assert names(tmp_path) == ["in.onnx", "out.onnx"]
    np.testing.assert_array_equal(compute(tmp_path / "out.onnx"), compute(source))
