"""Inputs and outputs of types that a target binds no values of: refused, or wider if asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner, verify
from vlmpass.ir_tools.targets import profile
from vlmpass.ir_tools.targets.findings import assess
from vlmpass.passes.legalize.interface import widen_interface

WEB = "ort-web-wasm"
HALVES = """<ir_version: 8, opset_import: ["": 18]>
g (bfloat16[n, 4] x, int64[n] i) => (bfloat16[n, 4] y, int64[n] j, bfloat16[n, 4] z) {
    y = Tanh(x)
    j = Neg(i)
    z = Identity(x)
}"""
NIBBLES = """<ir_version: 10, opset_import: ["": 21]>
g (int4[4] x) => (float[4] y) { y = Cast <to = 1> (x) }"""


def written(folder: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(text), folder / "m.onnx")
    return folder / "m.onnx"


def types(path: Path) -> dict[str, int]:
    graph = onnx.load(path).graph
    return {
        each.name: each.type.tensor_type.elem_type
        for values in (graph.input, graph.output)
        for each in values
    }


def test_it_is_refused_with_their_names_and_the_remedy(tmp_path: Path) -> None:
    source = written(tmp_path, HALVES)
    with pytest.raises(Refused, match=r"no bfloat16 values .* outputs: x, y, z.*widen-io"):
        Pipeline(target=WEB).convert(source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    (found,) = assess(load(source), [profile(WEB)])
    assert next(each.fact for each in found.findings if not each.nodes) == "reads.interface"


def test_it_takes_and_gives_wider_types_under_the_same_names(tmp_path: Path) -> None:
    source, result = written(tmp_path, HALVES), tmp_path / "out.onnx"
    Pipeline(target=WEB, widen_io=True).convert(source, result)
    wide = {"x": TensorProto.FLOAT, "y": TensorProto.FLOAT, "z": TensorProto.FLOAT}
    assert types(result) == {**wide, "i": TensorProto.INT64, "j": TensorProto.INT64}
    assert verify(source, result).ok
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    with Runner(result) as runner:
        z = runner.run({"x": x, "i": np.arange(3)})["z"]
    rounded = ir.tensor(x).numpy().astype(ir.DataType.BFLOAT16.numpy()).astype(np.float32)
    np.testing.assert_array_equal(z, rounded)  # what comes in is rounded as a caller had to
    again = tmp_path / "again.onnx"
    Pipeline(target=WEB, widen_io=True).convert(result, again)
    assert again.read_bytes() == result.read_bytes()


def test_types_below_a_byte_take_a_whole_one(tmp_path: Path) -> None:
    source, result = written(tmp_path, NIBBLES), tmp_path / "out.onnx"
    Pipeline(target=WEB, widen_io=True).convert(source, result)
    assert types(result) == {"x": TensorProto.INT8, "y": TensorProto.FLOAT}


def test_nothing_changes_where_every_type_is_bound(tmp_path: Path) -> None:
    model = load(written(tmp_path, HALVES))
    assert not widen_interface(model, profile("ort-cpu"))
    assert widen_interface(model, profile(WEB))
    assert not widen_interface(model, profile(WEB))


def test_a_sequence_has_no_wider_type(tmp_path: Path) -> None:
    text = HALVES.replace("bfloat16[n, 4] z", "seq(float[n, 4]) z").replace(
        "z = Identity(x)", "f = Cast <to = 1> (x) z = SequenceConstruct(f)"
    )
    with pytest.raises(Refused, match="no such values to inputs and outputs: z"):
        Pipeline(target=WEB, widen_io=True).convert(
            written(tmp_path, text), tmp_path / "out.onnx", verify=False
        )
