"""Small models on disk, and what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WIDTH = 32
BYTES = WIDTH * WIDTH * 4


def within(layout: str, limit: int | str) -> int | str | None:
    """A limit of every file, for layouts that have one."""
    return None if layout in ("single", "inline") else limit


def weights(layers: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Return one matrix per layer."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 4 for _ in range(layers)]


def external(
    name: str,
    array: np.ndarray,
    location: str,
    offset: int,
    *,
    data_type: int = TensorProto.FLOAT,
    length: int | None = None,
) -> TensorProto:
    """Return a tensor whose data lie in a file."""
    proto = TensorProto(name=name, data_type=data_type, dims=array.shape)
    proto.data_location = TensorProto.EXTERNAL
    entries = {
        "location": location,
        "offset": str(offset),
        "length": str(array.nbytes if length is None else length),
    }
    for key, value in entries.items():
        proto.external_data.add(key=key, value=value)
    return proto


def model_of(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[TensorProto] = (),
    *,
    functions: Sequence[onnx.FunctionProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model from x [n, WIDTH] to y [n, WIDTH]."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH]), *inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        initializer=initializers,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def chain(layers: int) -> list[onnx.NodeProto]:
    """Return nodes that multiply x by w0, w1 and so on, in turn."""
    return [
        helper.make_node(
            "MatMul",
            ["x" if i == 0 else f"h{i - 1}", f"w{i}"],
            ["y" if i == layers - 1 else f"h{i}"],
            name=f"layer{i}",
        )
        for i in range(layers)
    ]


def write_chain(
    path: Path, layers: int = 4, *, data: str | None = None, seed: int = 0, scale: float = 1.0
) -> Path:
    """Write a chain whose weights lie packed in one data file, without vlmpass."""
    name = data or f"{path.name}.data"
    arrays = [scale * w for w in weights(layers, seed)]
    (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / name).write_bytes(b"".join(w.tobytes() for w in arrays))
    tensors = [external(f"w{i}", w, name, i * w.nbytes) for i, w in enumerate(arrays)]
    path.write_bytes(model_of(chain(layers), tensors).SerializeToString())
    return path


def write_inline(path: Path, layers: int = 4, seed: int = 0) -> Path:
    """Write a chain whose weights lie in the model file."""
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights(layers, seed))]
    path.write_bytes(model_of(chain(layers), tensors).SerializeToString())
    return path


def compute(path: Path, **more: np.ndarray) -> np.ndarray:
    """Return what ONNX Runtime makes of a fixed input."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)
    (y,) = session.run(None, {"x": x, **more})
    return y


def names(folder: Path) -> list[str]:
    """Return the names of everything in a folder."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder and below, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def references(path: Path) -> dict[str, tuple[str, int, int]]:
    """Return location, offset and length of every external initializer of a binary model file."""
    found = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            found[tensor.name] = (
                entries["location"],
                int(entries["offset"]),
                int(entries["length"]),
            )
    return found
