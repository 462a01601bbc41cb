"""quant-linear on a large layer: it is unpacked and packed again in pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from quant_tools import numbers

K, N, BLOCK = 2048, 8192, 128
ROOM = 24 << 20
"""As float16 the weight has 32 MB, and on the way the graph has it several times in int32."""

SCRIPT = """
import json, sys
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.passes.quant_linear import QuantLinear

def peak():
    with open("/proc/self/status") as status:
        return int(status.read().split("VmHWM:")[1].split()[0]) << 10

source, target, to = sys.argv[1:]
before = peak()
model = load(source)
QuantLinear(to=to).run(model)
save(model, target)
print(json.dumps([before, peak()]))
"""


def write_layer(folder: Path, groups: np.ndarray) -> np.ndarray:
    """Write a layer with external data; return its packed words."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (K // 8, N), np.uint32)
    with (folder / "q.bin").open("wb") as file:
        file.write(words.tobytes())
        file.write(rng.integers(0, 2**32, (K // BLOCK, N // 8), np.uint32).tobytes())
        file.write((1 + rng.integers(0, 64, (K // BLOCK, N))).astype(np.float16).tobytes())
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float16[m,{K}] x) => (float16[m,{N}] y)
    <int64[1] one = {{1}}, int64[1] two = {{2}}, uint32 mask = {{15}},
     uint32[1,8,1] down = {numbers(np.arange(8) * 4)}, int64[{K}] g_idx = {numbers(groups)},
     uint32[1,1,8] across = {numbers(np.arange(8) * 4)},
     int64[2] wshape = {{{K}, {N}}}, int64[2] zshape = {{{K // BLOCK}, {N}}},
     int32[1,1] qweight = {{0}}, int32[1,1] qzeros = {{0}}, float16[1,1] scales = {{0}}> {{
        a = Unsqueeze(qweight, one) b = Cast<to=12>(a) c = BitShift<direction="RIGHT">(b, down)
        e = BitwiseAnd(c, mask) w = Reshape(e, wshape)
        f = Unsqueeze(qzeros, two) h = Cast<to=12>(f) i = BitShift<direction="RIGHT">(h, across)
        l = BitwiseAnd(i, mask) z = Reshape(l, zshape)
        zg = Gather(z, g_idx) sg = Gather(scales, g_idx) wi = Cast<to=6>(w) zi = Cast<to=6>(zg)
        s = Sub(wi, zi) t = Cast<to=10>(s) u = Mul(sg, t) y = MatMul(x, u) }}""")
    offset = 0
    for name, rows, columns in (
        ("qweight", K // 8, N),
        ("qzeros", K // BLOCK, N // 8),
        ("scales", K // BLOCK, N),
    ):
        value = model.graph.initializers[name]
        size = rows * columns * value.dtype.itemsize
        value.const_value = ir.ExternalTensor(
            "q.bin", int(offset), int(size), value.dtype,
            shape=ir.Shape([rows, columns]), name=name, base_dir=folder,
        )  # fmt: skip
        value.shape = ir.Shape([rows, columns])
        offset += size
    ir.save(model, folder / "m.onnx")
    return words


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("to", "order"),
    [("matmul-nbits", False), ("matmul-nbits", True), ("dequantize-linear", False)],
    ids=["matmul-nbits", "matmul-nbits of act-order", "dequantize-linear"],
)
def test_quant_memory_of_a_large_layer(tmp_path: Path, to: str, order: bool) -> None:
    groups = np.arange(K) // BLOCK
    if order:
        groups = np.random.default_rng(1).permutation(groups)
    words = write_layer(tmp_path, groups)
    target = tmp_path / "out" / "m.onnx"
    target.parent.mkdir()
    script = [sys.executable, "-c", SCRIPT, str(tmp_path / "m.onnx"), str(target), to]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert after - before <= ROOM
    sizes = [sum(f.stat().st_size for f in each.glob("*.*")) for each in (tmp_path, target.parent)]
    assert sizes[1] <= 1.1 * sizes[0]
    written = ir.load(target)
    nodes = {node.op_type: node for node in written.graph}
    rows = nodes["Gather"].inputs[1].const_value.numpy() if order else np.arange(K)
    assert (np.diff(groups[rows].reshape(-1, BLOCK)) == 0).all()
    node = nodes.get("MatMulNBits") or nodes["DequantizeLinear"]
    held = node.inputs[0 if to == "dequantize-linear" else 1].const_value.numpy()
    for column in (0, 1, 4097, N - 1):
        wanted = (words[:, column, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).reshape(-1)
        if to == "dequantize-linear":
            found = held[:, column].astype(np.int64)
        else:
            found = np.stack([held[column] & 15, held[column] >> 4], -1).reshape(-1)
        np.testing.assert_array_equal(found, wanted[rows])
