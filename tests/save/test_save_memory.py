"""Memory and descriptors stay bounded, whatever the size and the number of tensors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

SCRIPT = """
import json, resource, sys
import numpy as np
import onnx_ir as ir
from pathlib import Path
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import as_weight, cast, transpose
from vlmpass.ir_tools.graph.walk import tensor_slots

folder, how, layout = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10

ROWS, COLUMNS, COUNT = 16384, 4096, 3
with (folder / "w.data").open("wb") as file:
    file.truncate(ROWS * COLUMNS * 2 * COUNT)
values = []
for i in range(COUNT):
    tensor = ir.ExternalTensor("w.data", i * ROWS * COLUMNS * 2, ROWS * COLUMNS * 2,
        ir.DataType.BFLOAT16, shape=ir.Shape([ROWS, COLUMNS]), name=f"w{i}", base_dir=folder)
    values.append(ir.Value(name=f"w{i}", const_value=tensor))
graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 17}, name="g")
model = load(ir.Model(graph, ir_version=10))
for value in model.graph.initializers.values():
    weight = as_weight(value.const_value)
    if how == "cast":
        value.const_value = cast(weight, ir.DataType.FLOAT)
    elif how == "transpose":
        value.const_value = transpose(weight, (1, 0))
before = peak()
limit = None if layout == "inline" else "300MB"
report = save(model, folder / "m.onnx", layout=layout, shard_size=limit, weights="copy", jobs=4)
print(json.dumps({"grown": peak() - before, "nbytes": report.nbytes}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("how", "layout"),
    [("as it is", "default"), ("cast", "default"), ("transpose", "hf"), ("as it is", "inline")],
)
def test_memory_does_not_grow_with_the_weights(tmp_path, how, layout):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), how, layout],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["nbytes"] > (800 if how == "cast" else 400) * 10**6
    assert found["grown"] < 150 << 20
    for path in tmp_path.iterdir():
        path.unlink()


MANY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np, onnx_ir as ir
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save

folder = Path(sys.argv[1])
for i in range(100):
    (folder / f"d{i}").write_bytes(b"x" * 1024 * 30)
values = []
for i in range(3000):
    name = f"d{i % 100}"
    tensor = ir.ExternalTensor(name, i // 100 * 1024, 1024, ir.DataType.UINT8,
        shape=ir.Shape([32, 32]), name=f"w{i}", base_dir=folder)
    values.append(ir.Value(name=f"w{i}", const_value=tensor))
graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 17}, name="g")
save(load(ir.Model(graph, ir_version=10)), folder / "m.onnx", weights="copy")
load(folder / "m.onnx")
"""


def test_many_tensors_in_many_files_need_few_descriptors(tmp_path):
    subprocess.run([sys.executable, "-c", MANY, str(tmp_path)], check=True)
    assert (tmp_path / "m.onnx.data").stat().st_size == 3000 * 1024
