"""One whole job of a peer, as a command: `python peers.py PEER SOURCE TARGET`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def copy(source: Path, target: Path) -> None:
    """Copy the model and its data files as they are, and wait for the disk."""
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copyfile(file, target.parent / file.name)
        with (target.parent / file.name).open("rb+") as handle:
            os.fsync(handle.fileno())


def write_twice(source: Path, target: Path) -> None:
    """Write twice the bytes of the model's data files, from memory, and wait for the disk."""
    block = memoryview(os.urandom(16_000_000))
    left = 2 * sum(file.stat().st_size for file in source.parent.glob(f"{source.name}?*"))
    number = 0
    while left:
        with (target.parent / f"plain{number}").open("wb", buffering=0) as handle:
            room = min(left, 2_000_000_000)
            left -= room
            while room:
                room -= handle.write(block[:room])
            os.fsync(handle.fileno())
        number += 1


def onnx_ir(source: Path, target: Path) -> None:
    """Load and save with onnx_ir, weights in shards."""
    import onnx_ir as ir

    ir.save(
        ir.load(source),
        target,
        external_data=f"{target.name}.data",
        max_shard_size_bytes=2_000_000_000,
    )


def onnxscript(source: Path, target: Path) -> None:
    """Convert to opset 18 with onnxscript and save with onnx_ir."""
    import onnx_ir as ir
    from onnxscript import version_converter

    model = ir.load(source)
    version_converter.convert_version(model, 18)
    ir.save(model, target, external_data=f"{target.name}.data", max_shard_size_bytes=2_000_000_000)


PEERS = {"copy": copy, "write_twice": write_twice, "onnx_ir": onnx_ir, "onnxscript": onnxscript}

if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
