"""check() passes what is valid, and reads no large weight."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from check_models import EXPORTS, HFN, model, said

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.check.full import beside_standard
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.ir_tools.save import save

# what is valid


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
        " a = SimplifiedLayerNormalization<axis = -1>(x, s)  z = Relu(a) }",
        "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
        " a, b, c, d = SkipSimplifiedLayerNormalization<epsilon = 0.1>(x, x, s)  z = Relu(d) }",
        "g (float[2,8] x, float[8] s) => (float[2,8] z) { z = Relu(x) }",
        "g (float[2] x) => (float[2] x) { a = Relu(x) }",
        "g (float[2] x) => (float[2] w) <float[2] w = {1,2}> { a = Relu(x) }",
        'g (float[2] x) => (float[2] z) { z, "" = Dropout(x) }',
    ],
)
def test_odd_but_valid_models_pass(text: str) -> None:
    check(model(text))


def test_layer_normalization_below_its_opset_passes_as_runtimes_have_it() -> None:
    check(
        model(
            "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
            " a = LayerNormalization(x, s, s)  z = Relu(a) }",
            '<ir_version: 8, opset_import: ["" : 14]>\n',
        )
    )


@pytest.mark.parametrize(
    ("opset", "node", "told"),
    [
        (14, "LayerNormalization(x, s, s)", "no operator of opset 14: *; --opset 17 has it"),
        (
            17,
            "SimplifiedLayerNormalization(x, s)",
            "no operator of opset 17: *does not; *opset 23*",
        ),
        (
            18,
            "GroupNormalization<num_groups=2>(x, s, s)",
            "deprecated in opset 18: *; --opset 21 *",
        ),
        (17, "LayerNormalization(x, s, s)", None),
    ],
)
def test_what_passes_beside_the_standard_is_told(opset: int, node: str, told: str | None) -> None:
    text = f"g (float[2,8] x, float[8] s) => (float[2,8] z) {{ a = {node}  z = Relu(a) }}"
    lines = beside_standard(model(text, f'<ir_version: 8, opset_import: ["" : {opset}]>\n'))
    assert len(lines) == (told is not None)
    assert all(fnmatch(line, f"* (1 node) is {told}*") for line in lines)


def test_unknown_domains_pass_with_their_declared_types() -> None:
    text = "g (float[2] x) => (float[2] z) <{}[2] a> {{ a = com.Any<k = 1>(x)  z = Add(a, x) }}"
    header = '<ir_version: 8, opset_import: ["" : 17, "com" : 1]>\n'
    check(model(text.format("float"), header))
    assert "bound to different types: 'a' float16[2], 'x' float[2]" in said(
        model(text.format("float16"), header)
    )


@pytest.mark.parametrize(
    "path", sorted(EXPORTS.glob("*.onnx")), ids=lambda path: path.name.removesuffix(".onnx")
)
def test_real_exports_pass_but_for_bfloat16_convolutions(path: Path) -> None:
    m = load(path)
    before = skeleton(m, inline).SerializeToString(deterministic=True)
    if path.name.startswith("vision.bfloat16") and m.opset_imports[""] < 22:
        assert "(Conv): its X may not be bfloat16" in said(m)
    else:
        check(m)
    assert skeleton(m, inline).SerializeToString(deterministic=True) == before


def test_small_values_shape_the_check_wherever_they_lie(tmp_path: Path) -> None:
    m = model("g (float[2,8] x) => (float[4,4] z) <int64[2] s = {4,5}> { z = Reshape(x, s) }")
    assert "it makes 5 in dimension 1, but 4 is declared" in said(m)
    (tmp_path / "data").write_bytes(np.array([4, 5], "<i8").tobytes())
    m.graph.initializers["s"].const_value = ir.ExternalTensor(
        "data", 0, 16, ir.DataType.INT64, shape=ir.Shape([2]), name="s", base_dir=tmp_path
    )
    assert "it makes 5 in dimension 1, but 4 is declared" in said(m)
    (tmp_path / "data").unlink()
    m.graph.initializers["s"].const_value = ir.ExternalTensor(
        "data", 0, 16, ir.DataType.INT64, shape=ir.Shape([2]), name="s", base_dir=tmp_path
    )
    assert "its shape depends on the values of 's', which cannot be read" in said(m)


HUGE = """
import sys
import numpy as np
import onnx_ir as ir
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.check.full import beside_standard
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.system.memory import peak_rss
m = load(sys.argv[1])
check(m)
before = peak_rss()
for _ in range(2):
    check(m)
m.graph[2].outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
try:
    check(m)
except CheckError as error:
    assert "makes float" in str(error), error
else:
    raise AssertionError("not found")
print(peak_rss() - before)
"""


def test_a_model_of_four_gigabytes_is_checked_without_its_weights(tmp_path: Path) -> None:
    """Sparse data files in graph, subgraph, function and attribute, none of it ever read."""
    rows = 1 << 29  # 2 GiB of float32
    with (tmp_path / "w.data").open("wb") as file:
        file.truncate(rows * 4)
    text = """g (float[4] x, bool c) => (float[4] z) <float[1] w = {0}> {
        i = Constant<value_ints = [0, 1, 2, 3]>()  a = Gather(w, i)  b = Add(a, x)
        d = If(c) <then_branch = t () => (float[4] y) <float[1] v = {0}> {
                       k = Gather(v, i)  y = Add(k, b) },
                   else_branch = e () => (float[4] u) { u = Neg(b) }>
        z = l.f(d, i) }
        <domain: "l", opset_import: ["" : 17]> f (p, q) => (r) {
            t = Constant<value = float[1] {1.0}>()  s = Gather(t, q)  r = Add(s, p) }"""
    m = model(text, HFN)

    def huge(name: str) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            "w.data", 0, rows * 4, ir.DataType.FLOAT, shape=ir.Shape([rows]), name=name
        )

    for graph in m.graphs():
        for name, value in graph.initializers.items():
            value.const_value, value.shape = huge(name), ir.Shape([rows])
    constant = m.functions["l", "f", ""][0]
    constant.attributes["value"] = ir.AttrTensor("value", huge("t"))
    (tmp_path / "m.onnx").write_bytes(skeleton(m, huge_or_inline).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path / "m.onnx")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < 20_000_000


def huge_or_inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor if isinstance(tensor, ir.ExternalTensor) else inline(tensor)


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    check(model("g (float[2] x) => (float[n] z) { z = Relu(x) }"))
    said(model("g (float[2] x) => (float16[2] z) { z = Relu(x) }"))
    assert os.listdir(tmp_path) == []


def test_weights_saved_and_loaded_are_checked(tmp_path: Path) -> None:
    m = model("g (float[2] x) => (float[n] z) { z = MatMul(x, w2) }".replace("w2", "x"))
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((2, 999), np.float32)))
    m.graph.register_initializer(weight)
    m.graph[0].replace_input_with(1, weight)
    save(m, tmp_path / "m.onnx")
    check(load(tmp_path / "m.onnx"))
