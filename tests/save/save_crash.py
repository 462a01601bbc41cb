"""Kill a save at every change it makes to a folder, or at random moments, and look at what is left.

Run as a script: it imports everything once and forks a child for each attempt. What it finds is
printed as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from save_models import WIDTH, names

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import commit, save
from vlmpass.ir_tools.weights import as_weight, scale

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def grow(source: Path, output: Path, options: dict[str, object]) -> None:
    """Save a model with every weight doubled."""
    model = load(source)
    for value in model.graph.initializers.values():
        value.const_value = scale(as_weight(value.const_value), np.array(2, np.float32))
    save(model, output, **options)


def die_at(change: int, folder: Path) -> None:
    """Kill this process just before it changes something in a folder for the n-th time."""
    left = change

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        writing = event == "open" and isinstance(args[2], int) and args[2] & 3
        if (event in CHANGES or writing) and str(folder) in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def value_of(path: Path) -> float:
    """Return by how much every weight of a model is multiplied, as two loaders see it."""
    factors = set()
    for i in range(len(load(path).graph.initializers)):
        tensor = load(path).graph.initializers[f"w{i}"].const_value
        factors.update((tensor.numpy() / (i + 1)).reshape(-1).tolist())
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((1, WIDTH), np.float32)})
    (factor,) = factors
    return factor


def read_by_onnx(path: Path) -> bool:
    """Return whether onnx reads a model with its data, which it does not where these have links."""
    try:
        onnx.load(path)
    except onnx.checker.ValidationError as error:
        if "hard link" not in str(error):
            raise
        return False
    return True


def attempt(source: Path, output: Path, options: dict[str, object], kill: object) -> bool:
    """Fork a save and kill it; return whether it ended by itself."""
    child = os.fork()
    if child == 0:
        if isinstance(kill, int):
            die_at(kill, output.parent)
        grow(source, output, options)
        os._exit(0)
    if isinstance(kill, float):
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def look(folder: Path, output: Path, kill: object, ended: bool) -> dict[str, object]:
    return {
        "kill": kill,
        "ended": ended,
        "value": value_of(output) if output.exists() else None,
        "onnx": not output.exists() or read_by_onnx(output),
        "names": names(folder),
    }


def main(job: dict[str, object]) -> list[dict[str, object]]:
    """Make the attempts and tell what each left, and what the next complete run leaves."""
    start, folder = Path(job["start"]), Path(job["folder"])
    source, output = folder / job["source"], folder / job["output"]
    options = job["options"]
    if job["links"]:
        commit._SMALL = -1
        commit._shares_blocks = lambda path, copy: False
    found = []
    rng = random.Random(job["seed"])
    took = 0.0
    for number in range(1, 1000):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        kill = number if not job["moments"] else rng.uniform(0, 1.2 * took)
        if job["moments"] and number == 1:
            begun = time.perf_counter()
            attempt(source, output, options, None)
            took = time.perf_counter() - begun
            continue
        ended = attempt(source, output, options, kill)
        result = look(folder, output, kill, ended)
        if not ended:
            attempt(source, output, options, None)
            result["next"] = look(folder, output, None, True)
        found.append(result)
        if number > job["moments"] and (ended or job["moments"]):
            return found
    raise RuntimeError("it never ended by itself")


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
