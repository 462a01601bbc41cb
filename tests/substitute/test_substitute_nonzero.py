"""NonZero at a target that lacks it: what numpy finds, for every type, rank and size.

As a script it draws more:

    python -m tests.substitute.test_substitute_nonzero COUNT [SEED]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.load import load
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

KINDS = (np.bool_, np.float32, np.int32, np.int64, np.uint8)
HEAD = 'inherits = "onnx-standard"\nabout = "lacks it"\nsource = "made up"\n[operators]\n'


def target(folder: Path, more: str = "") -> str:
    path = folder / "target.toml"
    path.write_text(f'{HEAD}NonZero = "unsupported"\n{more}')
    return str(path)


def problem(seed: tuple[int, int], folder: Path) -> str:
    """Return what is wrong with what stands for one NonZero; empty where nothing is."""
    draw = np.random.default_rng(seed)
    sizes = [int(each) for each in draw.integers(0, 5, draw.integers(1, 5))]
    kind = KINDS[draw.integers(len(KINDS))]
    declared = [[*sizes], [f"n{at}" for at in range(len(sizes))], [None] * len(sizes)]
    x = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", x, declared[draw.integers(3)])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [len(sizes), None])],
    )
    opset = int(draw.integers(13, 22))
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = load(source)
    Infer().run(model)
    Legalize(target(folder)).run(model)
    if any(node.op_type == "NonZero" for node in model.graph):
        return "it is still there"
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    data = draw.choice([0, 0, 1, 2, 3], sizes).astype(kind)
    if kind is np.float32 and data.size:
        data.reshape(-1)[:3] = [np.nan, -0.0, 1e-45][: data.size]
    (found,) = ort.InferenceSession(result.SerializeToString()).run(None, {"x": data})
    wanted = np.array(np.nonzero(data), np.int64)
    same = found.shape == wanted.shape and (found == wanted).all()
    return "" if same else f"{seed}: {found.tolist()} for {wanted.tolist()}"


def test_what_is_set_is_found_in_order(tmp_path: Path) -> None:
    found = [problem((1, number), tmp_path) for number in range(25)]
    assert [each for each in found if each] == []


def test_a_target_without_open_lengths_is_refused_by_name(tmp_path: Path) -> None:
    name = target(tmp_path, 'Slice = ["native", "unsupported if computed(ends): ends are fixed"]\n')
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (bool[4] x) => (int64[1,k] y) {y = NonZero(x)}'
    )
    model = load(onnx.parser.parse_model(text))
    with pytest.raises(Refused, match=r"y \(NonZero-13\).*computed\(ends\): ends are fixed"):
        Legalize(name).run(model)


def main() -> int:
    count, seed = int(sys.argv[1]), int([*sys.argv, "1"][2])
    with TemporaryDirectory() as folder:
        found = [problem((seed, number), Path(folder)) for number in range(count)]
    print(*filter(None, found), f"{sum(map(bool, found))} of {count} wrong", sep="\n")
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
