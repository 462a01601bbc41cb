"""A model of 2.2 GB, down to opset 13 and up to 18 again; of its weights no byte is written anew.

Both files compute what the source does. Most of it are two tables of words that are holes in sparse
files. No protobuf holds the whole.

    python examples/systems/above_2gb.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from shown import furthest, on_onnxruntime, refusal, show

import vlmpass

WORDS, WIDTH, OUT = 65_600, 4096, 64

TEXT = f"""<ir_version: 8, opset_import: ["": 17]>
embeds (int64[b, s] ids, float[{WORDS}, {WIDTH}] words, float[{WORDS}, {WIDTH}] more,
        float[{WIDTH}, {OUT}] head) => (float[b, s, {OUT}] logits) {{
    x = Gather(words, ids)
    y = Gather(more, ids)
    both = Add(x, y)
    axes = Constant<value_ints=[-1]>()
    sums = ReduceSum<keepdims=1>(both, axes)
    centred = Sub(both, sums)
    logits = MatMul(centred, head)
}}"""


def write_source(folder: Path) -> Path:
    """Write the model; of its tables only the first 1 000 rows lie on the disk."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1000, WIDTH)) / 64).astype(np.float32).tobytes()
    head = (rng.standard_normal((WIDTH, OUT)) / 64).astype(np.float32).tobytes()
    model = ir.from_onnx_text(TEXT)
    for value in list(model.graph.inputs)[1:]:
        name, length = f"{value.name}.data", 4 * int(np.prod(value.shape.numpy()))
        with (folder / name).open("wb") as file:
            file.write(head if value.name == "head" else rows)
            file.truncate(length)
        value.const_value = ir.ExternalTensor(
            name, 0, length, ir.DataType.FLOAT,
            shape=value.shape, name=value.name, base_dir=folder,
        )  # fmt: skip
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    onnx.save(ir.to_proto(model), folder / "model.onnx")
    return folder / "model.onnx"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_source(folder)
        # As tools hold a model that know nothing of data files: all its weights in one message.
        before = refusal(lambda: onnx.load(source).SerializeToString())
        low, high = folder / "low.onnx", folder / "high.onnx"
        down = vlmpass.Pipeline(opset=13).convert(source, low, verify=False)
        up = vlmpass.Pipeline(opset=18).convert(low, high, verify=False)
        for report in (down, up):
            assert report.saved is not None
            assert report.saved.nbytes < 100_000
            assert sum(file.how == "kept" for file in report.saved.files) == 3
        assert vlmpass.verify(source, high).ok  # piece by piece, each way in one
        feed = {"ids": np.arange(0, WORDS, 2000)[None]}
        wanted, fine = on_onnxruntime(source, feed)(), True
        for way, report, path in (("down to opset 13", down, low), ("up to 18 again", up, high)):
            run = on_onnxruntime(path, feed)  # which maps the files, and reads some rows
            fine &= show(f"2.2 GB {way}", before, report, furthest(wanted, run()), 0.0, run)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
