"""A folder for random command lines: good models, faulty ones, and what is no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from door_tools import mlp_model

__all__ = ["furnish"]


def furnish(folder: Path) -> None:
    """Put models into a folder: good ones, faulty ones, and what is no model."""
    (folder / "d").mkdir()
    mlp = onnx.load(mlp_model(folder))
    onnx.save(mlp, folder / "one.onnx")
    onnx.save(mlp, folder / "d" / "ü →.onnx")
    onnx.save(mlp, folder / "m.json", format="json")
    for name, text in _TEXTS.items():
        model = onnx.parser.parse_model(text)
        onnx.save(model, folder / f"{name}.onnx")
    half = onnx.parser.parse_model(_HALF)
    half.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float16), "w"))
    onnx.save(half, folder / "half.onnx")
    data = (folder / "one.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(data[:-40])
    (folder / "notes.onnx").write_text("just some notes\n")
    (folder / "empty.onnx").touch()
    (folder / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "w.pt").write_bytes(b"PK\x03\x04")
    (folder / "lost.onnx").write_bytes(
        (folder / "mlp.onnx").read_bytes().replace(b".data", b".lost")
    )
    np.savez(folder / "in.npz", x=np.ones((2, 32), np.float32))


_HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y)'
_TEXTS = {
    "gelu": f"""{_HEAD} <float r = {{1.4142135}}, float one = {{1.0}}, float half = {{0.5}}> {{
        a = Div(x, r)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, half)
    }}""",
    "invalid": f"{_HEAD} {{ a = Nonsense(x)  y = Relu(a) }}",
    "cyclic": f"{_HEAD} {{ a = Add(x, b)  b = Relu(a)  y = Relu(b) }}",
    "custom": f"{_HEAD.replace('17', '17, @mine@: 1')} {{ y = mine.Op(x) }}".replace("@", '"'),
}
_HALF = """<ir_version: 8, opset_import: ["": 17]>
    g (float16[n, 2] x) => (float16[n, 2] y) { a = Mul(x, w)  y = Softmax(a) }"""
