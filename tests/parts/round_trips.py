"""Models cut out, cut up and joined: outputs stay, bit for bit.

python tests/parts/round_trips.py MODEL.onnx[=INPUTS.npz] ...
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import vlmpass
from vlmpass.ir_tools.run import Runner, generate_inputs, read_inputs
from vlmpass.ir_tools.worker.transport import Feed

WAYS: dict[str, dict[str, object]] = {
    "layers": {"layers": 1},
    "budget": {"budget": "200KB"},
    "shared": {"layers": 1, "share": True},
}


def outputs(path: object, feed: Feed) -> dict[str, bytes]:
    """Return what a model gives, as bytes by name; nothing is optimised, as in the parts."""
    with Runner(str(path), optimization="none") as runner:
        return {name: np.asarray(value).tobytes() for name, value in runner.run(feed).items()}


def tried(path: Path, given: Path | None, folder: Path) -> dict[str, bool]:
    """Return for each way whether the whole, run in parts and joined again, gives the same."""
    model = vlmpass.load(path)
    feed = generate_inputs(model) if given is None else read_inputs(given, model)
    whole, found = outputs(path, feed), {}
    names = [str(value.name) for value in model.graph.outputs]
    vlmpass.extract(path, folder / "out.onnx", outputs=names)
    found["extract"] = outputs(folder / "out.onnx", feed) == whole
    for way, options in WAYS.items():
        parts = folder / way
        count = len(vlmpass.split(path, parts, **options).parts)  # type: ignore[arg-type]
        made = {
            n: np.asarray(v).tobytes()
            for n, v in vlmpass.run_parts(parts, feed, optimization="none").items()
        }
        found[f"{way}, {count} parts run"] = made == whole
        vlmpass.compose(parts, folder / f"{way}.onnx")
        found[f"{way}, joined"] = outputs(folder / f"{way}.onnx", feed) == whole
    return found


def main(*models: str) -> int:
    """Try models; print what was seen."""
    right = True
    for text in models:
        path, _, given = text.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            found = tried(Path(path), Path(given) if given else None, Path(folder))
        right &= all(found.values())
        told = ", ".join(f"{way} {'equal' if ok else 'OTHER'}" for way, ok in found.items())
        print(f"{Path(path).name}: {told}", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
