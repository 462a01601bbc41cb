"""Packed weights in text, for wherever a graph may have them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from quant_tools import numbers, pack

from vlmpass.ir_tools.load import load

K, N, BLOCK = 64, 16, 32
RNG = np.random.default_rng(3)
VALUES = RNG.integers(0, 16, (2, K, N))
ZEROS = RNG.integers(0, 16, (2, K // BLOCK, N))
SCALES = RNG.integers(1, 64, (K // BLOCK, N)) / 64
GROUPS = np.arange(K) // BLOCK
FEEDS = {"x": RNG.standard_normal((3, K)).astype(np.float32)}
WEIGHTS = [((VALUES[i] - ZEROS[i][GROUPS]) * SCALES[GROUPS]).astype(np.float32) for i in range(2)]

UNPACK = f"""
    one = Constant<value = int64[1] {{1}}>() two = Constant<value = int64[1] {{2}}>()
    down = Constant<value = uint32[1,8,1] {numbers(np.arange(8) * 4)}>()
    across = Constant<value = uint32[1,1,8] {numbers(np.arange(8) * 4)}>()
    mask = Constant<value = uint32 {{15}}>()
    wshape = Constant<value = int64[2] {{{K}, {N}}}>()
    zshape = Constant<value = int64[2] {{{K // BLOCK}, {N}}}>()
    g_idx = Constant<value = int64[{K}] {numbers(GROUPS)}>()
    a = Unsqueeze(qweight, one) b = Cast<to=12>(a) c = BitShift<direction="RIGHT">(b, down)
    e = BitwiseAnd(c, mask) w = Reshape(e, wshape)
    f = Unsqueeze(qzeros, two) h = Cast<to=12>(f) i = BitShift<direction="RIGHT">(h, across)
    l = BitwiseAnd(i, mask) z = Reshape(l, zshape) zg = Gather(z, g_idx) sg = Gather(scales, g_idx)
    wi = Cast<to=6>(w) zi = Cast<to=6>(zg) s = Sub(wi, zi) t = Cast<to=1>(s) u = Mul(sg, t)"""
QWEIGHT, QZEROS = f"int32[{K // 8},{N}]", f"int32[{K // BLOCK},{N // 8}]"
SCALE = f"float[{K // BLOCK},{N}]"


def packed(index: int) -> tuple[str, str]:
    return numbers(pack(VALUES[index], 4, 0)), numbers(pack(ZEROS[index], 4, 1))


def constants(index: int, suffix: str = "") -> str:
    qweight, qzeros = packed(index)
    return f"{QWEIGHT} qweight{suffix} = {qweight}, {QZEROS} qzeros{suffix} = {qzeros}"


SCALE_INITIALIZER = f"{SCALE} scales = {numbers(SCALES)}"


def model(text: str) -> ir.Model:
    return load(ir.to_proto(ir.from_onnx_text(text)))


def called(first: int, second: int) -> ir.Model:
    """A function with packed weights as inputs, called twice."""
    return model(f"""<ir_version: 10, opset_import: ["": 21, "local": 1]>
    g (float[m,{K}] x) => (float[m,{N}] y, float[m,{N}] z)
    <{constants(first)}, {constants(second, "_2")}, {SCALE_INITIALIZER}> {{
        y = local.linear(x, qweight, qzeros, scales)
        xx = Mul(x, x) z = local.linear(xx, qweight_2, qzeros_2, scales) }}
    <domain: "local", opset_import: ["": 21]>
    linear (x, qweight, qzeros, scales) => (y) {{ {UNPACK} y = MatMul(x, u) }}""")


def single(middle: str, extra: str = "", *, inputs: str = "") -> ir.Model:
    return model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,{K}] x{inputs}) => (float[m,{N}] y)
    <{constants(0)}, {SCALE_INITIALIZER}{extra}> {{ {UNPACK} {middle} }}""")
