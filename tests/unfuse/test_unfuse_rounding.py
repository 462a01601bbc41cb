"""Products that may round their input to 8 bits compute in floats, and are compared with that."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from unfuse.cases import left
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.passes.unfusing.unfuse import Unfuse

K, N, BLOCK = 64, 8, 32


def products(*levels: int, told: bool = False) -> onnx.ModelProto:
    """Return a chain of products with 4-bit weights, the last beside a g_idx and zero points."""
    rng = np.random.default_rng(3)
    nodes, weights = [], []
    for index, level in enumerate(levels):
        inputs = [f"v{index}", f"w{index}", f"s{index}"]
        weights += [
            numpy_helper.from_array(rng.integers(0, 256, (K, K // BLOCK, 16), np.uint8), inputs[1]),
            numpy_helper.from_array(
                rng.uniform(0.005, 0.02, (K, K // BLOCK)).astype(np.float32), inputs[2]
            ),
        ]
        if told and index == len(levels) - 1:
            inputs += ["z", "g"]
            weights += [
                numpy_helper.from_array(rng.integers(0, 256, (K, 1), np.uint8), "z"),
                numpy_helper.from_array((np.arange(K) // BLOCK).astype(np.int32), "g"),
            ]
        node = helper.make_node(
            "MatMulNBits", inputs, [f"v{index + 1}"], domain="com.microsoft",
            K=K, N=K, bits=4, block_size=BLOCK, accuracy_level=level,
        )  # fmt: skip
        nodes.append(node)
    names = ("v0", f"v{len(levels)}")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [N, K]) for name in names]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def test_a_result_is_compared_with_the_source_in_floats() -> None:
    report = Pipeline("unfuse").run(products(0, 4, 4), verify=True)
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok
    assert left(report.proto()) == []
    assert any("2 products rounded their input" in note for note in report.notes)


def test_what_stays_rounds_as_before_on_both_sides() -> None:
    report = Pipeline("unfuse").run(products(4, 4, told=True), verify=True)
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok
    assert left(report.proto()) == ["MatMulNBits"]


@pytest.mark.parametrize(("target", "stays"), [("onnx-standard", []), ("ort-cpu", ["MatMulNBits"])])
def test_what_a_target_lacks_is_compared_in_floats(target: str, stays: list[str]) -> None:
    report = Pipeline(f"legalize{{target={target}}}").run(products(4), verify=True)
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok
    assert left(report.proto()) == stays


def test_without_that_the_rounding_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unfuse, "mending", lambda self: None)
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline("unfuse").run(products(4), verify=True)
