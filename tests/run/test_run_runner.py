import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from run_models import EXPORTS, mlp, saved, text_model, with_initializer

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import RunError, Runner, generate_inputs
from vlmpass.ir_tools.run import runner as runner_module
from vlmpass.ir_tools.run.materialize import stage
from vlmpass.ir_tools.weights import cast
from vlmpass.ir_tools.worker.transport import pack, unpack


def test_values_survive_the_way_to_the_child_and_back(tmp_path):
    values = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "i4": np.array([1, -8], ml_dtypes.int4),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "words": np.array([["a", "ü"]], dtype=object),
        "many": [np.ones(2), np.zeros((1, 0))],
        "none": None,
    }
    back = unpack(pack(values, tmp_path / "x"), tmp_path / "x")
    assert back["none"] is None
    assert [item.shape for item in back["many"]] == [(2,), (1, 0)]
    for name in ("f", "b", "i4", "scalar", "empty", "turned", "words"):
        assert type(back[name]) is np.ndarray  # the reference evaluator takes no other class
        assert back[name].dtype == values[name].dtype
        assert back[name].shape == values[name].shape
        np.testing.assert_array_equal(back[name], values[name])


@pytest.mark.parametrize("backend", ["onnxruntime", "reference"])
def test_a_path_and_a_model_in_memory_give_the_same(tmp_path, backend):
    model = mlp(ir.DataType.FLOAT)
    path = saved(model, tmp_path / "m.onnx")
    feed = generate_inputs(model)
    results = []
    for source in (path, model, load(path)):
        with Runner(source, backend=backend) as runner:
            results.append(np.array(runner.run(feed)["y"]))
            assert runner.peak_rss > 0
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.fixture(params=["lent", "huge"])
def way(request, monkeypatch):
    """How ONNX Runtime comes to data files; weights above 2 GB are not lent to it."""

    def huge(*args, **kwargs):
        return replace(stage(*args, **kwargs), largest=1 << 31)

    if request.param == "huge":
        monkeypatch.setattr(runner_module, "stage", huge)


@pytest.mark.usefixtures("way")
def test_weights_are_run_from_where_they_lie_also_when_they_must_be_evaluated(tmp_path):
    model = mlp(ir.DataType.FLOAT)
    tmp_path = tmp_path / "a folder, 模型"
    tmp_path.mkdir()
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    opened = load(tmp_path / "m.onnx")
    feed = generate_inputs(model)
    with Runner(tmp_path / "m.onnx") as runner:
        expected = np.array(runner.run(feed)["y"])
    with Runner(opened) as runner:
        np.testing.assert_array_equal(expected, runner.run(feed)["y"])
    for value in opened.graph.initializers.values():
        narrow = cast(value.const_value, ir.DataType.FLOAT8E4M3FN)
        value.const_value = cast(narrow, ir.DataType.FLOAT)
    with Runner(opened) as runner:
        actual = runner.run(feed)["y"]
    assert 0 < np.abs(expected - actual).max() < 1


@pytest.mark.usefixtures("way")
def test_a_model_from_a_cache_of_links_runs(tmp_path):
    model = mlp(ir.DataType.FLOAT)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    ir.save(model, blobs / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    for name in ("m.onnx", "m.data"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    with Runner(load(snapshot / "m.onnx")) as runner:
        assert runner.run(generate_inputs(model))["y"].shape == (2, 8)


def test_a_refusal_at_load_names_the_runtime_and_its_reason(tmp_path):
    path = saved(mlp(ir.DataType.BFLOAT16), tmp_path / "m.onnx")
    with pytest.raises(RunError, match="ONNX Runtime does not load the model: NOT_IMPL") as caught:
        Runner(path)
    assert caught.value.is_limit
    assert caught.value.stage == "load"
    bad = text_model("g (float[n] x) => (float[n] y) { y = Nonsense(x) }")
    with pytest.raises(RunError, match="Nonsense") as caught:
        Runner(bad)
    assert not caught.value.is_limit


def test_a_refusal_at_run_leaves_the_runner_usable(tmp_path):
    with Runner(saved(mlp(ir.DataType.FLOAT), tmp_path / "m.onnx")) as runner:
        with pytest.raises(RunError, match="does not run") as caught:
            runner.run({"x": np.ones((2, 3), np.float32)})
        assert caught.value.stage == "run"
        assert runner.run({"x": np.ones((2, 16), np.float32)})["y"].shape == (2, 8)


def test_a_death_of_the_child_is_a_finding(tmp_path):
    with Runner(saved(mlp(ir.DataType.FLOAT), tmp_path / "m.onnx")) as runner:
        runner._child._process.kill()
        with pytest.raises(RunError, match="it ended with") as caught:
            runner.run({"x": np.ones((2, 16), np.float32)})
    assert caught.value.stage == "crash"


def test_outputs_stay_readable_after_stop_and_leave_no_files(tmp_path):
    model = mlp(ir.DataType.FLOAT)
    runner = Runner(model)
    folder = runner._folder.path
    outputs = runner.run(generate_inputs(model))
    runner.stop()
    assert np.isfinite(outputs["y"]).all()
    runner.close()
    import pathlib

    assert not pathlib.Path(folder).exists()


def test_bfloat16_goes_in_and_out_of_onnx_runtime():
    model = text_model("g (bfloat16[n] x) => (bfloat16[n] y) { y = Identity(x) }")
    with Runner(model) as runner:
        x = np.array([1.5, -3e38], ml_dtypes.bfloat16)
        y = runner.run({"x": x})["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(x, y)


def test_strings_sequences_and_booleans():
    model = text_model(
        "g (string[n] x, bool[n] b) => (string[n] y, bool[n] c) { y = Identity(x) c = Not(b) }"
    )
    with Runner(model) as runner:
        made = runner.run({"x": np.array(["a", "b"], dtype=object), "b": np.array([True, False])})
    assert made["y"].tolist() == ["a", "b"]
    assert made["c"].tolist() == [False, True]
    split = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 2] x) => (seq(float[1, 2]) ys) { ys = SplitToSequence<axis = 0>(x) }"""
    )
    with Runner(split) as runner:
        made = runner.run({"x": np.ones((3, 2), np.float32)})
    assert [item.shape for item in made["ys"]] == [(1, 2)] * 3


def test_the_evaluator_refuses_what_would_not_fit(monkeypatch):
    monkeypatch.setattr("vlmpass.ir_tools.run.runner._INLINE_LIMIT", 1000)
    with pytest.raises(VerifyError, match="too large for the reference evaluator"):
        Runner(mlp(ir.DataType.FLOAT), backend="reference")


def test_functions_run_in_the_evaluator():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[n] x) => (float[n] y) { y = f.outer(x) }
        <domain: "f", opset_import: ["": 17, "f": 1]> outer (a) => (b) { b = f.inner(a) }
        <domain: "f", opset_import: ["": 17]> inner (a) => (b) { b = Neg(a) }"""
    )
    with Runner(model, backend="reference") as runner:
        np.testing.assert_array_equal(runner.run({"x": np.ones(3, np.float32)})["y"], -np.ones(3))


def test_a_missing_runtime_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VerifyError, match=r'pip install "vlmpass\[runtime\]"'):
        Runner(EXPORTS / "decoder.float32.ts17.onnx")


@pytest.mark.parametrize("given", [False, True])
def test_tensors_of_functions_and_calls_are_found(given):
    weight = np.arange(1024, dtype=np.float32).reshape(32, 32)
    tensor = ir.AttrTensor("weight", ir.tensor(weight))
    value = ir.RefAttr("value", "weight", ir.AttributeType.TENSOR)
    constant = ir.node("Constant", [], {"value": value if given else ir.tensor(weight)})
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 32])
    x, y = (ir.Value(name=name, type=kind, shape=shape) for name in "xy")
    inner = ir.Value(name="x")
    product = ir.node("MatMul", [inner, constant.outputs[0]])
    body = ir.Graph([inner], product.outputs, nodes=[constant, product], opset_imports={"": 18})
    parameters = [ir.Attr("weight", ir.AttributeType.TENSOR, None)] if given else []
    function = ir.Function("local", "F", graph=body, attributes=parameters)
    call = ir.Node("local", "F", [x], [tensor] if given else [], outputs=[y])
    graph = ir.Graph([x], [y], nodes=[call], opset_imports={"": 18, "local": 1}, name="g")
    feed = np.ones((2, 32), np.float32)
    with Runner(ir.Model(graph, ir_version=9, functions=[function])) as runner:
        np.testing.assert_allclose(runner.run({"x": feed})["y"], feed @ weight, rtol=1e-6)


@pytest.mark.usefixtures("way")
def test_weights_of_a_branch_are_read_whether_files_are_lent_or_not(tmp_path):
    """ONNX Runtime looks for those of a subgraph on disk only."""
    rng = np.random.default_rng(0)
    v, w = (rng.standard_normal((64, 64)).astype(np.float32) for _ in "vw")
    text = """g (bool c, float[2, 64] x, float[64, 64] v) => (float[2, 64] y) {
        m = MatMul(x, v)
        y = If (c) <
            then_branch = t () => (float[2, 64] p) <float[64, 64] w = {0}> { p = MatMul(m, w) },
            else_branch = e () => (float[2, 64] q) { q = Identity(m) }
        >
    }""".replace("{0}", "{" + ", ".join(["0.0"] * 4096) + "}")
    model = with_initializer(text_model(text), "v", v)
    branch = model.graph[1].attributes["then_branch"].as_graph()
    branch.initializers["w"].const_value = ir.tensor(w, name="w")
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    feed = {"c": np.array(True), "x": np.ones((2, 64), np.float32)}
    for source in (model, load(tmp_path / "m.onnx")):
        with Runner(source) as runner:
            np.testing.assert_allclose(
                runner.run(feed)["y"], feed["x"] @ v @ w, rtol=1e-4, atol=1e-3
            )
