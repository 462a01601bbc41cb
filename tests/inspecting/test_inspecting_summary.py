import numpy as np
import onnx_ir as ir
import pytest

from tests.run.run_models import EXPORTS, text_model, with_initializer
from vlmpass.ir_tools.inspecting import Facts, inspect_model, macs_of, module_of
from vlmpass.ir_tools.load import load


def macs(body, opset=23, **arrays):
    model = text_model(body, opset, 10)
    for name, array in arrays.items():
        with_initializer(model, name, array)
    return inspect_model(model).macs


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "g (float[b, s, 8] x, float[8, 5] w) => (float[b, s, 5] y) { y = MatMul(x, w) }",
            "40*b*s",
        ),
        (
            "g (float[8, m] x, float[5, 8] w) => (float[m, 5] y) "
            "{ y = Gemm<transA = 1, transB = 1>(x, w) }",
            "40*m",
        ),
        (
            "g (float[b, 4, h, w] x, float[6, 2, 3, 3] k) => (float[b, 6, p, q] y) "
            "{ y = Conv<group = 2>(x, k) }",
            "108*b*p*q",
        ),
        (
            "g (float[b, 4, h, w] x, float[4, 2, 3, 3] k) => (float[b, 2, p, q] y) "
            "{ y = ConvTranspose(x, k) }",
            "72*b*h*w",
        ),
        (
            "g (float[b, 2, s, 8] q, float[b, 2, t, 8] k, float[b, 2, t, 4] v) "
            "=> (float[b, 2, s, 4] y) { y = Attention(q, k, v) }",
            "24*b*s*t",
        ),
        (
            "g (float[b, i, k] x, float[b, k, j] z) => (float[b, i, j] y) "
            '{ y = Einsum<equation = "bik,bkj->bij">(x, z) }',
            "1*b*i*j*k",
        ),
        (
            "g (float[s, b, 6] x, float[1, 20, 6] w, float[1, 20, 5] r) => (float[s, 1, b, 5] y) "
            "{ y = LSTM<hidden_size = 5>(x, w, r) }",
            "220*b*s",
        ),
        (
            "g (float[b, s, 64] x, uint8[32, 2, 16] q, float[64] c) => (float[b, s, 32] y) "
            "{ y = com.microsoft.MatMulNBits<K = 64, N = 32>(x, q, c) }",
            "2048*b*s",
        ),
        ("g (float[n] x) => (float[n] y) { y = Relu(x) }", "0"),
    ],
)
def test_macs_by_formula(body, text):
    assert macs(body).text == text


def test_macs_at_sizes_and_of_expressions():
    found = macs(
        "g (float[b, s, 8] x, float[b, 8, t] z) => (float[b, s, t] y) { y = MatMul(x, z) }"
    )
    assert found.at({"b": 2, "s": 3, "t": 5}) == 240
    assert found.at({"b": 2}) is None
    model = text_model("g (float[a, b] x, float[b, c] z) => (float[a, c] y) { y = MatMul(x, z) }")
    (node,) = model.graph
    node.inputs[0].shape = ir.Shape((4, "seq + past"))
    node.outputs[0].shape = ir.Shape((4, "past + seq"))
    found = macs_of(node)
    assert found.text == "4*(past + seq)*(past + seq)"
    assert found.at({"past": 1, "seq": 2}) == 36


def test_unknown_shapes_are_counted_not_guessed():
    model = text_model("g (float[a, b] x, float[b, c] z) => (float[a, c] y) { y = MatMul(x, z) }")
    model.graph.outputs[0].shape = None
    found = inspect_model(model).macs
    assert (found.unknown, found.text) == (1, "0")


def test_modules_from_both_exporters():
    legacy = load(EXPORTS / "decoder.float32.ts17.onnx")
    dynamo = load(EXPORTS / "decoder.float32.dyn18.onnx")
    for model in (legacy, dynamo):
        modules = {module.path: module for module in inspect_model(model).modules}
        assert any(path.startswith("layers.0") for path in modules)
        assert sum(module.nodes for module in modules.values()) == Facts.of(model).nodes
    node = ir.node("Relu", [None], name="/model/layers.3/mlp/Relu_1")
    assert module_of(node) == "model.layers.3.mlp"
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'a', 'a.b', 'relu']"
    assert module_of(node) == "a.b"
    node.metadata_props["pkg.torch.onnx.name_scopes"] = "broken["
    assert module_of(node) is None
    assert module_of(ir.node("Relu", [None], name="plain")) is None


def test_weights_files_ties_and_facts(tmp_path):
    table = np.zeros((300, 64), np.float32)
    model = text_model(
        """g (int64[n] ids, float[300, 64] table) => (float[n, 300] y) {
            e = Gather(table, ids)
            t = Transpose<perm = [1, 0]>(table)
            y = MatMul(e, t)
        }"""
    )
    with_initializer(model, "table", table)
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    found = inspect_model(load(tmp_path / "m.onnx"))
    assert found.facts.operators == {"Gather": 1, "MatMul": 1, "Transpose": 1}
    assert found.facts.opset == 17
    assert found.facts.elements == table.size
    assert found.facts.nbytes == table.nbytes
    (file,) = found.files
    assert (file.used, file.tensors) == (table.nbytes, 1)
    assert found.largest[0].name == "table"
    assert found.largest[0].file == "m.data"
    (tie,) = found.ties
    assert tie.names == ("table",)
    assert len(tie.users) == 2
    assert found.dynamic == ("n",)
    assert found.inline_bytes == 0


def test_packed_types_and_foreign_operators_are_counted():
    model = text_model("g (float[n] x) => (float[n] y) { y = com.microsoft.Gelu(x) }")
    model.graph.register_initializer(
        ir.Value(
            name="q",
            type=ir.TensorType(ir.DataType.INT4),
            shape=ir.Shape((6,)),
            const_value=ir.tensor([1, 2, 3, -1, -2, -3], dtype=ir.DataType.INT4, name="q"),
        )
    )
    facts = Facts.of(model)
    assert facts.operators == {"com.microsoft::Gelu": 1}
    assert (facts.dtypes["int4"].elements, facts.dtypes["int4"].nbytes) == (6, 3)
    assert facts.opsets == {"ai.onnx": 17, "com.microsoft": 1}


def test_no_weight_is_read(tmp_path, monkeypatch):
    model = load(EXPORTS / "decoder.float32.ts17.onnx")
    monkeypatch.setattr(ir.Tensor, "numpy", lambda self: pytest.fail("a weight was read"))
    assert inspect_model(model).facts.nodes > 100
