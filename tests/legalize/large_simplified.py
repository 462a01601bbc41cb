"""A model of layers whose weights lie in one file, simplified by the command line: time and memory.

As a script at the size of the case, weights of 2.4 GB:

    python -m tests.legalize.large_simplified [--layers 36] [--width 4096] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import parser

MOST_SECONDS, MOST_BYTES = 15, 300_000_000
"""What simplifying may take: CPU seconds, and memory of the largest of its processes."""

_LAYER = """
  s{i} = Shape(h{i}) b{i} = Gather(s{i}, zero) u{i} = Unsqueeze(b{i}, axis)
  t{i} = Concat<axis=0>(u{i}, rest) r{i} = Reshape(h{i}, t{i}) d{i} = Dropout(r{i})
  p{i} = Transpose<perm=[1,0]>(d{i}) q{i} = Transpose<perm=[1,0]>(p{i}) m{i} = MatMul(q{i}, w{i})
  k{i} = Identity(m{i}) c{i} = Cast<to=1>(k{i}) h{n} = Add(c{i}, h{i})"""
_CHILD = """
import json, resource, sys
from vlmpass.cli.app import run

code = run(["convert", *sys.argv[1:], "--simplify", "--no-verify", "--weights", "copy"])
used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
seconds = sum(each.ru_utime + each.ru_stime for each in used)
print(json.dumps([code, seconds, max(peak, used[1].ru_maxrss) << 10]), file=sys.stderr)
"""


@dataclass(frozen=True)
class Simplified:
    """What a run took, in CPU seconds and bytes, and how many nodes there are before and after."""

    seconds: float
    peak: int
    before: int
    after: int


def write(path: Path, layers: int, width: int, block: bytes = b"") -> int:
    """Write a model of so many layers of squares of float32; return how many nodes it has.

    Args:
        path: Of the model; the weights lie beside it.
        layers: How many.
        width: Of each square.
        block: What weights are filled with, over and over; a hole in the file where it is empty.
    """
    text = "".join(_LAYER.format(i=i, n=i + 1) for i in range(layers))
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 17]> g (float[n,{width}] h0) => (float[n,{width}] y)'
        f" <int64 zero = {{0}}, int64[1] axis = {{0}}, int64[1] rest = {{{width}}}>"
        f" {{ {text} y = Identity(h{layers}) }}"
    )
    size = width * width * 4
    with path.with_suffix(".data").open("wb") as file:
        for _ in range(layers * size // len(block) if block else 0):
            file.write(block)
        file.truncate(layers * size)
    for index in range(layers):
        weight = model.graph.initializer.add(name=f"w{index}", data_type=1, dims=[width, width])
        weight.data_location = onnx.TensorProto.EXTERNAL
        where = {"location": path.with_suffix(".data").name, "offset": index * size, "length": size}
        for key, value in where.items():
            weight.external_data.add(key=key, value=str(value))
    onnx.save(model, path)
    return len(model.graph.node)


def simplified(folder: Path, layers: int, width: int, block: bytes = b"") -> Simplified:
    """Simplify such a model in a process of its own, its weights copied."""
    source, out = folder / "source.onnx", folder / "out.onnx"
    before = write(source, layers, width, block)
    command = [sys.executable, "-c", _CHILD, str(source), str(out)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    code, seconds, peak = json.loads(said.splitlines()[-1])
    assert code == 0, said
    result = onnx.load(out, load_external_data=False)
    assert sum(each.name.startswith("w") for each in result.graph.initializer) == layers
    return Simplified(seconds, peak, before, len(result.graph.node))


def main() -> int:
    parser_ = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser_.add_argument("--layers", type=int, default=36)
    parser_.add_argument("--width", type=int, default=4096)
    parser_.add_argument("--folder", type=Path)
    asked = parser_.parse_args()
    with TemporaryDirectory(dir=asked.folder) as folder:
        block = bytes(range(256)) * 4096
        found = simplified(Path(folder), asked.layers, asked.width, block)
    print(found)
    return int(found.seconds > MOST_SECONDS or found.peak > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
