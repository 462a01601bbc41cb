"""Mutants of model files through loading, checking, inspecting and converting, in one process.

Any exception but the library's own is a failure, and so are a refusal of many lines, a hang, memory
beyond a bound, and a result that onnx's checker refuses or that has lost something. As a script:

    python -m tests.fuzz.files --count 100000 [--seed N] [--case SEED-NUMBER] [--seconds S]

A nightly run takes 100 000.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from vlmpass import Pipeline
from vlmpass.cli.shaped import shaped
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import ModelError, PassFailed, VlmpassError
from vlmpass.ir_tools.inspecting import inspect_model
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.worker.bounded import NativeError, check_model

from .canonical import lost
from .file_mutants import mutant
from .trial import quiet

INTENTS: tuple[dict[str, object], ...] = (
    {},
    {"opset": 18},
    {"opset": 13},
    {"simplify": True},
    {"dtype": "float16"},
    {"opset": 21, "simplify": True, "fuse": "standard"},
)
HANG_SECONDS = 60
_BUSY = 10
"""How much longer than its own time something may take: others use the machine, too."""
MOST_BYTES = 400 << 20
_ADDRESSES = 16 << 30


@dataclass(frozen=True)
class Finding:
    """What a mutant brought to light: `raw`, `lines`, `hang`, `memory`, `invalid` or `lost`."""

    kind: str
    step: str
    text: str


class HangError(BaseException):
    """Raised in the midst of what takes too long; no `except Exception` stops it."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Limit the time of what is done within, where signals arrive, and address space."""

    def stop(*_: object) -> None:
        raise HangError

    before = {each: signal.signal(each, stop) for each in (signal.SIGPROF, signal.SIGALRM)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)  # of its own time: machines may be busy
    signal.setitimer(signal.ITIMER_REAL, _BUSY * HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Trial:
    """One mutant in a folder of its own, through everything.

    Args:
        folder: An empty folder.
        data: The model file.
        files: What lies beside it.
        share: How much of what loads is converted and inspected, from 0 to 1.
    """

    def __init__(
        self, folder: Path, data: bytes, files: dict[str, bytes], name: str, share: float = 1
    ) -> None:
        self.path, self.out = folder / "model.onnx", folder / "written.onnx"
        self.path.write_bytes(data)
        for each, content in files.items():
            (folder / each).write_bytes(content)
        self.dice = random.Random(name)
        self.share = share
        self.reached = "refused"
        self.findings: list[Finding] = []

    def run(self) -> list[Finding]:
        """Return what was found, at most one thing for each step."""
        before = peak()
        with watched():
            if self.step("load", lambda: load(self.path)):
                self.reached = "loaded"
                self.step("check", lambda: check(load(self.path)))
                if self.dice.random() < self.share:
                    self.step("inspect", self.inspect)
                if self.dice.random() < self.share:
                    self.step("save", self.saved)
                if self.dice.random() < self.share:
                    self.step("convert", self.converted)
        if peak() - before > MOST_BYTES:
            self.add("memory", "all", f"{(peak() - before) >> 20} MB")
        return self.findings

    def add(self, kind: str, step: str, text: str) -> None:
        self.findings.append(Finding(kind, step, text))

    def step(self, name: str, action: object) -> bool:
        """Return whether an action came to its end; note what it raises but should not."""
        try:
            action()  # type: ignore[operator]
        except VlmpassError as error:
            if isinstance(error, PassFailed) and not isinstance(error.cause, VlmpassError):
                self.add("raw", name, place_of(error.cause))
            if "cannot be written as a protobuf" in str(error):
                self.add("unwritable", name, str(error))  # and was loaded from one
            if isinstance(error, ModelError) and "\n" in str(error):
                self.add("lines", name, str(error))
        except HangError:
            self.add("hang", name, f"more than {HANG_SECONDS} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            self.add("raw", name, place_of(error))
        else:
            return True
        return False

    def inspect(self) -> None:
        model = load(self.path)
        with contextlib.redirect_stderr(io.StringIO()):
            inspect_model(model, shaped=shaped(model, "inline-functions,infer"))

    def saved(self) -> None:
        """What loads is written with all that it says."""
        save(load(self.path), self.out)
        source = onnx.ModelProto.FromString(self.path.read_bytes())
        written = onnx.load(self.out, load_external_data=False)
        if difference := lost(source, written, self.path.parent):
            self.add("lost", "save", difference)

    def converted(self) -> None:
        """What is converted with success is valid, unless onnx says the same of the source."""
        intent = self.dice.choice(INTENTS)
        report = Pipeline(**intent).convert(self.path, self.out, verify=False)  # type: ignore[arg-type]
        self.reached = "converted"
        onnx.load(self.out)
        told = any("onnx's checker does not" in note for note in report.notes)
        problem = "" if told else invalid(self.out)
        if problem and invalid(self.path) != problem:
            self.add("invalid", f"convert {intent}", problem)


def invalid(path: Path) -> str:
    """Return what onnx's checker says against a file, nothing if it is valid."""
    try:
        check_model(path)
    except NativeError as error:
        return error.said
    return ""


def place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    where = ours[-1] if ours else None
    at = f"{Path(where.filename).name}:{where.name}" if where else ""
    return f"{type(error).__name__}: {str(error)[:300]} at {at}"


def trials(seed: int, numbers: range, share: float = 1) -> Iterator[tuple[str, Trial]]:
    """Yield mutants by name, ready to run; each has its folder until the next one comes."""
    for number in numbers:
        kind, data, files = mutant(seed, number)
        with tempfile.TemporaryDirectory(prefix="files-") as folder:
            name = f"{seed}-{number}"
            yield f"{name} ({kind})", Trial(Path(folder), data, files, name, share)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="one mutant by name, such as 0-17")
    parser.add_argument("--share", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    quiet()
    numbers = range(arguments.first, arguments.first + arguments.count)
    if arguments.case:
        arguments.seed, number = map(int, arguments.case.split("-"))
        numbers = range(number, number + 1)
    until = time.monotonic() + arguments.seconds
    reached: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for name, trial in trials(arguments.seed, numbers, arguments.share):
        if time.monotonic() > until:
            break
        for finding in trial.run():
            kinds[finding.kind] += 1
            text = finding.text.replace("\n", "\n    ")
            print(f"{name}: {finding.kind} by {finding.step}: {text}", flush=True)
        reached[trial.reached] += 1
    print(f"{reached.total()} mutants: {dict(reached)}; findings: {dict(kinds) or 'none'}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
