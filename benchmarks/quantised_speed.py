"""How long results of 8 bits take on ONNX Runtime, beside those of its own quantizers.

    python benchmarks/quantised_speed.py --page docs/quantising.md

A vision tower of random weights at the width of ViT-S, four layers, 197 tokens, on one thread. The
models take turns, so that what else the machine does falls on all of them; a row has the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic
from quantised import static

import vlmpass

WIDTH, HEADS, LAYERS, SIDE = 384, 6, 4, 224
HEAD = "| products | vlmpass, ms | theirs, ms | float, ms |\n|---|---|---|---|"


class Tower:
    """Writes nodes and weights of a tower."""

    def __init__(self) -> None:
        self.dice = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else WIDTH)
        array = (self.dice.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x: str, width: int, out: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(width, out)), self.weight(out))

    def norm(self, x: str) -> str:
        ones = self.constant(np.ones(WIDTH, np.float32))
        return self.op("LayerNormalization", x, ones, self.weight(WIDTH), axis=-1)

    def attention(self, x: str) -> str:
        shape = self.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))
        q, k, v = (self.op("Reshape", self.linear(x, WIDTH, WIDTH), shape) for _ in range(3))
        q, v = (self.op("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 2, 3, 1]))
        scale = self.constant(np.array((WIDTH // HEADS) ** -0.5, np.float32))
        weights = self.op("Softmax", self.op("Mul", scores, scale), axis=-1)
        joined = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        back = self.op("Reshape", joined, self.constant(np.array([0, 0, WIDTH])))
        return self.linear(back, WIDTH, WIDTH)

    def gelu(self, x: str) -> str:
        root, one, half = (self.constant(np.array(n, np.float32)) for n in (2**0.5, 1, 0.5))
        erf = self.op("Add", self.op("Erf", self.op("Div", x, root)), one)
        return self.op("Mul", self.op("Mul", x, erf), half)

    def model(self) -> onnx.ModelProto:
        x = self.op("Conv", "x", self.weight(WIDTH, 3, 16, 16), self.weight(WIDTH),
                    kernel_shape=[16, 16], strides=[16, 16])  # fmt: skip
        x = self.op("Reshape", x, self.constant(np.array([0, WIDTH, -1])))
        x = self.op("Transpose", x, perm=[0, 2, 1])
        for _ in range(LAYERS):
            x = self.op("Add", x, self.attention(self.norm(x)))
            inner = self.gelu(self.linear(self.norm(x), WIDTH, 4 * WIDTH))
            x = self.op("Add", x, self.linear(inner, 4 * WIDTH, WIDTH))
        self.nodes.append(helper.make_node("Identity", [self.norm(x)], ["y"], name="last"))
        ends = [helper.make_tensor_value_info("x", 1, [1, 3, SIDE, SIDE])]
        made = [helper.make_tensor_value_info("y", 1, [1, (SIDE // 16) ** 2, WIDTH])]
        graph = helper.make_graph(self.nodes, "tower", ends, made, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def medians(paths: list[Path], rounds: int) -> list[float]:
    """Return milliseconds of each, taken in turns."""
    opened = [session(path) for path in paths]
    image = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    taken: list[list[float]] = [[] for _ in paths]
    for at in range(rounds + 2):
        for each, kept in zip(opened, taken, strict=True):
            start = time.perf_counter()
            each.run(None, {"x": image})
            if at > 1:
                kept.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(each) for each in taken]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    rows = [HEAD]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, calibrate = folder / "tower.onnx", folder / "calibrate"
        calibrate.mkdir()
        onnx.save(Tower().model(), source)
        dice = np.random.default_rng(2)
        for number in range(2):
            image = dice.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
            np.savez(calibrate / f"{number}.npz", x=image)
        theirs = {each: folder / f"theirs.{each}.onnx" for each in ("dynamic", "static")}
        quantize_dynamic(
            source, theirs["dynamic"], ["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
        )  # fmt: skip
        onnx.save(static(CalibrationMethod.MinMax, symmetric=False)(source), theirs["static"])
        passes = {
            "dynamic": "quantize-dynamic",
            "static": f'quantize-static{{calibrate="{calibrate}"}}',
        }
        for kind, text in passes.items():
            ours = folder / f"ours.{kind}.onnx"
            vlmpass.Pipeline(text).convert(source, ours, layout="inline", verify=False)
            mine, other, plain = medians([ours, theirs[kind], source], given.rounds)
            rows.append(f"| quantize-{kind} | {mine:.1f} | {other:.1f} | {plain:.1f} |")
            print(rows[-1], flush=True)
    if given.page is not None:
        start, rest = given.page.read_text("utf-8").split("<!-- speed -->\n", 1)
        end = rest.partition("<!-- end of speed -->\n")[2]
        table = "\n".join(rows)
        text = f"{start}<!-- speed -->\n{table}\n<!-- end of speed -->\n{end}"
        given.page.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
