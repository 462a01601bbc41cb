"""What goes into data files, what stays inside, and that nothing is lost or changed on the way."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from save_models import (
    BYTES,
    WIDTH,
    chain,
    compute,
    external,
    model_of,
    names,
    references,
    weights,
    write_chain,
    write_inline,
)

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.save.staged import Staged
from vlmpass.ir_tools.weights import as_weight, cast, rows, scale


def all_references(model: onnx.ModelProto) -> list[tuple[str, int, int]]:
    """Return every reference of a model file, wherever it is."""
    text = str(model)
    return [part for part in text.split("external_data") if '"location"' in part]


def constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def function_with_constant(array: np.ndarray) -> onnx.FunctionProto:
    nodes = [constant("w", array), helper.make_node("MatMul", ["a", "w"], ["b"])]
    return helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def scattered_model() -> onnx.ModelProto:
    """Return a model with a weight in every kind of place."""
    w = weights(4)
    then_branch = helper.make_graph(
        [helper.make_node("MatMul", ["h0", "inner"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["n", WIDTH])],
        initializer=[numpy_helper.from_array(w[1], "inner")],
    )
    else_branch = helper.make_graph(
        [constant("k", w[2]), helper.make_node("MatMul", ["h0", "k"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["n", WIDTH])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h0"]),
        helper.make_node("If", ["flag"], ["h1"], then_branch=then_branch, else_branch=else_branch),
        helper.make_node("F", ["h1"], ["y"], domain="local"),
    ]
    return model_of(
        nodes,
        [numpy_helper.from_array(w[0], "w0")],
        functions=[function_with_constant(w[3])],
        inputs=[helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
    )


@pytest.mark.parametrize("flag", [True, False])
def test_weights_in_subgraphs_constants_and_functions_move_out(tmp_path, flag):
    source = tmp_path / "in.onnx"
    source.write_bytes(scattered_model().SerializeToString())
    (tmp_path / "o").mkdir()
    out = tmp_path / "o" / "m.onnx"
    save(load(source), out)
    proto = onnx.load(out, load_external_data=False)
    assert len(all_references(proto)) == 4
    assert out.stat().st_size < 2000
    onnx.checker.check_model(out, full_check=True)
    feed = {"flag": np.array(flag)}
    np.testing.assert_array_equal(compute(out, **feed), compute(source, **feed))
    # Nothing dangles when what was external everywhere moves to another folder.
    (tmp_path / "p").mkdir()
    moved = tmp_path / "p" / "m.onnx"
    save(load(out), moved)
    assert names(tmp_path / "p") == ["m.onnx", "m.onnx.data"]
    np.testing.assert_array_equal(compute(moved, **feed), compute(source, **feed))


def test_small_tensors_and_shapes_stay_inside_strings_too(tmp_path):
    arrays = {
        "small": np.ones(255, np.float32),
        "large": np.ones(256, np.float32),
        "shape": np.arange(500, dtype=np.int64),
        "indices": np.arange(2000, dtype=np.int64),
        "table": np.arange(500, dtype=np.int64).reshape(5, 100),
        "words": np.array(["word" * 100] * 20, dtype=object),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    (tmp_path / "in.onnx").write_bytes(
        model_of([helper.make_node("Identity", ["x"], ["y"])], tensors).SerializeToString()
    )
    save(load(tmp_path / "in.onnx"), tmp_path / "m.onnx")
    assert set(references(tmp_path / "m.onnx")) == {"large", "indices", "table"}
    for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), arrays[tensor.name])


def test_small_external_tensors_move_inside(tmp_path):
    array = np.arange(3, dtype=np.int64)
    (tmp_path / "d").write_bytes(array.tobytes())
    proto = model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [external("s", array, "d", 0, data_type=TensorProto.INT64)],
    )
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "o").mkdir()
    save(load(tmp_path / "in.onnx"), tmp_path / "o" / "m.onnx")
    assert names(tmp_path / "o") == ["m.onnx"]
    back = onnx.load(tmp_path / "o" / "m.onnx").graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(back), array)


def test_attributes_of_other_operators_stay_where_their_kernels_look(tmp_path):
    array = np.ones((64, 64), np.float32)
    (tmp_path / "d").write_bytes(array.tobytes())
    nodes = [
        helper.make_node(
            "Inside", ["x"], ["h"], domain="local", table=numpy_helper.from_array(array)
        ),
        helper.make_node(
            "Outside", ["h"], ["y"], domain="local", table=external("", array, "d", 0)
        ),
    ]
    (tmp_path / "in.onnx").write_bytes(model_of(nodes).SerializeToString())
    (tmp_path / "o").mkdir()
    save(load(tmp_path / "in.onnx"), tmp_path / "o" / "m.onnx")
    inside, outside = (
        node.attribute[0].t
        for node in onnx.load(tmp_path / "o" / "m.onnx", load_external_data=False).graph.node
    )
    assert inside.raw_data == array.tobytes()
    assert outside.data_location == TensorProto.EXTERNAL
    assert (tmp_path / "o" / "m.onnx.data").read_bytes() == array.tobytes()


def test_default_of_a_function_attribute_does_not_dangle(tmp_path):
    array = np.ones((64, 64), np.float32)
    (tmp_path / "d").write_bytes(array.tobytes())
    default = helper.make_attribute("table", external("", array, "d", 0))
    function = helper.make_function(
        "local", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])],
        [helper.make_opsetid("", 17)], [], [default],
    )  # fmt: skip
    proto = model_of([helper.make_node("F", ["x"], ["y"], domain="local")], functions=[function])
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "o").mkdir()
    model = load(tmp_path / "in.onnx")
    save(model, tmp_path / "o" / "m.onnx")
    back = onnx.load(tmp_path / "o" / "m.onnx", load_external_data=False)
    assert back.functions[0].attribute_proto[0].t.data_location == TensorProto.EXTERNAL
    assert (tmp_path / "o" / "m.onnx.data").read_bytes() == array.tobytes()


def shared_ranges(tmp_path):
    """Write a model in which a and b are one range, c lies inside it and d reaches over its end."""
    data = np.arange(3 * WIDTH * WIDTH, dtype=np.float32)
    (tmp_path / "d").write_bytes(data.tobytes())
    one = data[: WIDTH * WIDTH].reshape(WIDTH, WIDTH)
    half = one[: WIDTH // 2]
    tensors = [
        external("a", one, "d", 0),
        external("b", one, "d", 0),
        external("c", half, "d", BYTES // 4),
        external("d", one, "d", BYTES // 2),
        external("e", one, "d", 2 * BYTES),
    ]
    proto = model_of([helper.make_node("Identity", ["x"], ["y"])], tensors)
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    return tmp_path / "in.onnx"


def test_shared_ranges_stay_shared(tmp_path):
    source = shared_ranges(tmp_path)
    (tmp_path / "o").mkdir()
    out = tmp_path / "o" / "m.onnx"
    save(load(source), out)
    found = references(out)
    assert found["a"] == found["b"]
    assert found["c"][1] - found["a"][1] == BYTES // 4
    assert found["d"][1] - found["a"][1] == BYTES // 2
    assert (tmp_path / "o" / "m.onnx.data").stat().st_size < 2.6 * BYTES
    assert [t.raw_data for t in onnx.load(out).graph.initializer] == [
        t.raw_data for t in onnx.load(source).graph.initializer
    ]


@pytest.mark.parametrize("case", ["safetensors", "limit"])
def test_overlaps_are_written_apart_where_they_cannot_stay(tmp_path, case):
    source = shared_ranges(tmp_path)
    (tmp_path / "o").mkdir()
    out = tmp_path / "o" / "m.onnx"
    if case == "safetensors":
        save(load(source), out, layout="safetensors")
    else:
        save(load(source), out, shard_size=BYTES + 100)
    assert references(out)["a"] == references(out)["b"]
    assert [t.raw_data for t in onnx.load(out).graph.initializer] == [
        t.raw_data for t in onnx.load(source).graph.initializer
    ]


def test_equal_expressions_and_tied_tensors_are_written_once(tmp_path):
    source = write_chain(tmp_path / "in.onnx", 1)
    model = load(source)
    stored = as_weight(model.graph.initializers["w0"].const_value)
    held = ir.tensor(np.ones((WIDTH, WIDTH), np.float32), name="held")
    for name, tensor in {
        "a": cast(stored, ir.DataType.FLOAT16),
        "b": cast(stored, ir.DataType.FLOAT16),
        "c": held,
        "d": held,
        "top": rows(stored, 0, WIDTH // 2),
    }.items():
        model.graph.register_initializer(ir.Value(name=name, const_value=tensor))
    (tmp_path / "o").mkdir()
    save(model, tmp_path / "o" / "m.onnx")
    found = references(tmp_path / "o" / "m.onnx")
    assert found["a"] == found["b"]
    assert found["c"] == found["d"]
    assert found["top"][:2] == found["w0"][:2]
    assert (tmp_path / "o" / "m.onnx.data").stat().st_size == 2 * BYTES + BYTES // 2
    # The tensor that two values share has the name it had.
    assert held.name == "held"


def test_the_callers_model_is_as_it_was(tmp_path):
    (tmp_path / "in.onnx").write_bytes(scattered_model().SerializeToString())
    model = load(tmp_path / "in.onnx")
    before = [(slot.where, slot.tensor) for slot in tensor_slots(model)]
    text = ir.to_proto(model).SerializeToString()
    for layout in ("default", "inline", "safetensors"):
        save(model, tmp_path / "m.onnx", layout=layout)
        after = [(slot.where, slot.tensor) for slot in tensor_slots(model)]
        assert all(a == b and s is t for (a, s), (b, t) in zip(before, after, strict=True))
    assert ir.to_proto(model).SerializeToString() == text


@pytest.mark.parametrize("layout", ["default", "inline"])
def test_the_callers_model_stays_what_it_is_while_it_is_serialised(tmp_path, layout):
    (tmp_path / "in.onnx").write_bytes(scattered_model().SerializeToString())
    model = load(tmp_path / "in.onnx")
    before = [slot.tensor for slot in tensor_slots(model)]
    seen: list[bool] = []

    def read() -> ir.Tensor:
        now = [slot.tensor for slot in tensor_slots(model)]
        seen.append(all(tensor in now for tensor in before))
        return ir.tensor(np.ones(3, np.float32))

    watcher = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape([3]), name="its own")
    model.graph.register_initializer(ir.Value(name="watcher", const_value=watcher))
    save(model, tmp_path / "m.onnx", layout=layout)
    assert seen
    assert all(seen)
    assert watcher.name == "its own"


def test_a_model_that_cannot_be_serialised_is_as_it_was(tmp_path):
    model = load(write_chain(tmp_path / "in.onnx"))
    node = next(iter(model.graph))
    node.attributes["odd"] = ir.Attr("odd", ir.AttributeType.INT, 2**70)
    before = [slot.tensor for slot in tensor_slots(model)]
    with pytest.raises(SaveError, match="cannot be written as a protobuf"):
        save(model, tmp_path / "m.onnx")
    assert [slot.tensor for slot in tensor_slots(model)] == before
    assert names(tmp_path) == ["in.onnx", "in.onnx.data"]


def test_names_docs_metadata_and_value_infos_survive(tmp_path):
    proto = model_of(
        chain(2), [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights(2))]
    )
    proto.doc_string, proto.graph.doc_string = "model", "graph"
    proto.producer_name, proto.producer_version, proto.model_version = "maker", "3", 7
    proto.metadata_props.add(key="k", value="v")
    proto.graph.metadata_props.add(key="g", value="v")
    proto.graph.node[0].metadata_props.add(key="n", value="v")
    proto.graph.node[0].doc_string = "node"
    for tensor in proto.graph.initializer:
        tensor.doc_string = f"doc of {tensor.name}"
        tensor.metadata_props.add(key="t", value=tensor.name)
    small = numpy_helper.from_array(np.ones(3, np.float32), "small")
    small.metadata_props.add(key="t", value="small")
    proto.graph.initializer.append(small)
    proto.graph.value_info.add().CopyFrom(
        helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["n", WIDTH])
    )
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    for layout in ("default", "inline"):
        save(load(tmp_path / "in.onnx"), tmp_path / "m.onnx", layout=layout)
        back = onnx.load(tmp_path / "m.onnx")
        for tensor in back.graph.initializer:
            tensor.ClearField("data_location")
        assert list(back.graph.initializer) == list(proto.graph.initializer)
        del back.graph.initializer[:]
        bare = onnx.ModelProto()
        bare.CopyFrom(proto)
        del bare.graph.initializer[:]
        infos = {info.name for info in back.graph.value_info} - {"h0"}
        assert infos <= {"w0", "w1", "small"}
        del back.graph.value_info[:], bare.graph.value_info[:]
        assert back == bare


def test_casts_are_tallied_by_tensor(tmp_path):
    model = load(write_chain(tmp_path / "in.onnx"))
    for name, factor in (("w0", 1e6), ("w1", 1e-9), ("w2", 1.0)):
        value = model.graph.initializers[name]
        scaled = scale(as_weight(value.const_value), np.array(factor, np.float32))
        value.const_value = cast(scaled, ir.DataType.FLOAT16)
    bias = ir.tensor(np.array([1e6, 1.0], np.float32), name="bias")
    model.graph.register_initializer(
        ir.Value(name="bias", const_value=cast(as_weight(bias), ir.DataType.FLOAT16))
    )
    report = save(model, tmp_path / "m.onnx")
    assert set(report.tallies) == {"w0", "w1", "bias"}
    assert report.tallies["bias"].overflowed == 1
    assert report.tallies["w0"].overflowed > WIDTH
    assert report.tallies["w1"].underflowed > WIDTH
    kinds = {file.name: file.how for file in report.files}
    assert kinds == {"m.onnx": "written", "in.onnx.data": "kept", "m.onnx.data": "written"}


def test_progress_counts_up_to_all_bytes(tmp_path):
    calls = []
    report = save(
        load(write_inline(tmp_path / "in.onnx")),
        tmp_path / "m.onnx",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls
    assert calls[-1] == (4 * BYTES, 4 * BYTES)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert report.files[1].nbytes == 4 * BYTES


@pytest.mark.parametrize("layout", ["default", "hf", "inline", "safetensors"])
@pytest.mark.parametrize("mode", ["auto", "copy"])
def test_an_output_is_judged_as_it_was_written_before_it_takes_its_place(tmp_path, layout, mode):
    source = write_chain(tmp_path / "in.onnx")
    model = load(source)
    value = model.graph.initializers["w0"]
    value.const_value = scale(as_weight(value.const_value), np.array(2, np.float32))
    seen = []

    def judge(staged: Staged) -> None:
        staged.check()
        written = staged.load()
        assert names(tmp_path)[1:] == ["in.onnx", "in.onnx.data"]
        for i, array in enumerate(weights(4)):
            tensor = written.graph.initializers[f"w{i}"].const_value
            np.testing.assert_array_equal(tensor.numpy(), array * (2 if i == 0 else 1))
        seen.append(written)
        if len(seen) == 1:
            raise ValueError("not good enough")

    with pytest.raises(ValueError, match="not good enough"):
        save(model, tmp_path / "m.onnx", layout=layout, weights=mode, before_commit=judge)
    assert names(tmp_path) == ["in.onnx", "in.onnx.data"]
    save(model, tmp_path / "m.onnx", layout=layout, weights=mode, before_commit=judge)
    assert len(seen) == 2
    np.testing.assert_allclose(compute(tmp_path / "m.onnx"), 2 * compute(source), rtol=1e-6)
