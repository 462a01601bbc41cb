"""What `convert --target` writes is what `check --target` takes, for every target that comes along.

A random model of each of so many operator versions is converted for each target. Where that exits
0, `check` of the result exits 0 too, and a second conversion changes no byte. What `check` says of
the source before is held to what became of it: where a conversion exits 0 it knew a remedy for
every node, and what a conversion refuses it promised none for. As a script, over such models or
over those that are named:

    python -m tests.legalize.agreement --count 100 [--seed N] [--targets A,B] [MODEL ...]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from tests.fuzz.trial import quiet
from tests.legalize.lacking import drawn
from tests.opset.versions.models import Case, targets
from vlmpass.cli.app import run
from vlmpass.ir_tools.targets import names
from vlmpass.ir_tools.targets.findings import NONE_KNOWN

OWN = {
    "types": '[reads]\nopset = [7, 26]\nir-version = 13\ntypes = "float int64 unsupported others"\n'
    'functions = "unsupported"\n',
    "small": 'inherits = "onnx-standard"\n[reads]\nfile-size = 700\n',
    "static": 'inherits = "onnx-standard"\n[reads]\nstatic = true\n',
    "young": 'inherits = "ort-cpu"\nruntime = "none"\n[reads]\nopset = [17, 19]\nir-version = 8\n',
}
"""Profiles that say what none of those that come along does, by name."""


def profiles(folder: Path) -> list[str]:
    """Return all targets, those of OWN written into a folder."""
    paths = []
    for name, text in OWN.items():
        path = folder / f"{name}.toml"
        head = f'about = "{name}"\nsource = "made up"\n'
        first, _, rest = text.partition("[")
        path.write_text(f"{first}{head}[{rest}", encoding="utf-8")
        paths.append(str(path))
    return [*names(), *paths]


def told(*arguments: object) -> tuple[int, str]:
    """Return the exit code of a command, and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run([str(each) for each in arguments])
    return code, out.getvalue()


def problem(source: Path, target: str, folder: Path) -> tuple[str, str]:
    """Return ``refused``, ``agrees`` or what is wrong with a conversion for a target, and why."""
    first, second = folder / "first.onnx", folder / "second.onnx"
    for each in folder.glob("*.onnx*"):
        if each != source:
            each.unlink()
    how = ["--target", target, "--no-verify"]
    said = told("check", source, "--target", target, "--json")[1]
    code, text = told("convert", source, first, *how)
    word = broken_promise(said, target, code, text)
    if word:
        return word, text
    if code:
        return ("refused", text) if code == 2 and not first.exists() else ("odd exit", text)
    code, text = told("check", first, "--target", target)
    if code:
        return "check finds something", text
    code, text = told("convert", first, second, *how)
    if code:
        return "a second run fails", text
    same = first.read_bytes() == second.read_bytes().replace(b"second.onnx", b"first.onnx")
    return ("agrees", "") if same else ("a second run changes something", "")


def broken_promise(said: str, target: str, code: int, text: str) -> str:
    """Return how what `check` says of a model differs from what became of it; empty if it does not.

    Args:
        said: What `check --json` printed of the source.
        target: What for.
        code, text: What a conversion exited with and printed.
    """
    if not said.startswith("{"):  # no valid model
        return ""
    (found,) = json.loads(said)["targets"]
    for each in found["findings"]:
        if code == 0 and each["remedy"] == NONE_KNOWN and each["support"] != "unknown":
            return f"check knows no remedy for {each['operator']}"
        named = (node["name"].partition("'")[2].rpartition("'")[0] for node in each["nodes"])
        refused = any(f" {name} (" in text for name in named)
        if code and refused and each["remedy"] == f"vlmpass convert --target {target}":
            return f"check promises a remedy for {each['operator']}"
    return ""


def chosen(count: int, seed: int) -> Iterator[Case]:
    """Yield a model of each of so many operator versions."""
    known = targets()
    places = np.random.default_rng(seed).permutation(len(known))[:count]
    yield from drawn([known[place] for place in sorted(places)], seed, 1)


def disagreements(
    cases: Iterator[Case], folder: Path, asked: Sequence[str], each: int | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield what becomes of cases at targets: which, a word, and why.

    Args:
        cases: The models.
        folder: Where files may be written.
        asked: The targets.
        each: At how many of them a model is tried, in turn; None for all.
    """
    for number, case in enumerate(cases):
        source = folder / "source.onnx"
        onnx.save(case.model, source)
        some = len(asked) if each is None else each
        for index in range(some):
            target = asked[(number * some + index) % len(asked)]
            word, why = problem(source, target, folder)
            yield f"{case} for {Path(target).name}", word, why


def of_files(
    paths: Sequence[Path], folder: Path, asked: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield what becomes of models at targets, as `disagreements` does."""
    for path in paths:
        for target in asked:
            word, why = problem(path, target, folder)
            yield f"{path.stem} for {Path(target).name}", word, why


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int)
    parser.add_argument("--targets", default="")
    asked = parser.parse_args()
    quiet()
    counts: dict[str, int] = {}
    with TemporaryDirectory() as folder:
        known = profiles(Path(folder))
        wanted = asked.targets.split(",") if asked.targets else known
        wanted = [each for each in known if Path(each).stem in wanted or each in wanted]
        cases = chosen(asked.count, asked.seed)
        found = disagreements(cases, Path(folder), wanted, asked.each)
        if asked.models:
            found = of_files(asked.models, Path(folder), wanted)
        for which, word, why in found:
            counts[word] = counts.get(word, 0) + 1
            if word not in ("agrees", "refused"):
                print(f"{which}: {word}: {' '.join(why.split())[-400:]}", flush=True)
    print(dict(sorted(counts.items())))
    return int(bool(set(counts) - {"agrees", "refused"}))


if __name__ == "__main__":
    sys.exit(main())
