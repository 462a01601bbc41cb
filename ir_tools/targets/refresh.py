"""Make a profile anew from the runtime that is installed, and say what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.system.runtime import Runtime, require_runtime, runtime_version
from vlmpass.ir_tools.targets.found import profile, profile_file
from vlmpass.ir_tools.targets.kernels import Kernels
from vlmpass.ir_tools.targets.probe import Sessions, facts, newest
from vlmpass.ir_tools.targets.profile_text import operators_text
from vlmpass.ir_tools.targets.refresh_tried import differences, heir_text, tried, types_apart
from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["PROBED", "Probed", "probe"]

PROBED: Mapping[str, Runtime] = {
    "ort-cpu": "onnxruntime",
    "openvino": "openvino",
    "ort-web-wasm": "ort-web-wasm",
    "iree": "iree",
}
"""The targets whose runtime can be asked, and what it is."""

_TABLES = re.compile(r"^\[sets\]\n.*?(?=^(?:#[^\n]*\n)*\[limits\]|\Z)", re.MULTILINE | re.DOTALL)
_PROBED = re.compile(r"^probed = .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Probed:
    """A profile made anew.

    Attributes:
        before: What the profile was made with.
        wheel: What it is made with now.
        opset: The newest opset that the runtime reads.
        ir_version: The newest version of the file format that it reads.
        sessions: How many models were loaded or run.
        text: The profile.
        added: Operators that are new in it.
        changed: Those of which something else is said.
        lost: Those of which nothing is said any more, or that do not run any more.
        apart: Tests whose outcome is not what the profile says, each with both in a line.
    """

    before: str
    wheel: str
    opset: int
    ir_version: int
    sessions: int
    text: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    lost: tuple[str, ...]
    apart: tuple[str, ...] = ()


def probe(name: str, sample: int | None = None, seed: int = 0) -> Probed:
    """Ask the installed runtime of a target what it takes, in a child process.

    What is written by hand stays: the head of the profile and its limits. Where a runtime has no
    registry of kernels, onnx's tests of single nodes are run on it, and what is found is an heir of
    the profile that says what differs.

    Args:
        name: The target.
        sample: How many tests are run; None for all.
        seed: Which of them.

    Raises:
        PipelineError: Nothing here can ask the runtime of that target.
        VerifyError: It is not installed.
    """
    if name not in PROBED:
        remedy = f"probe {' or '.join(PROBED)}; other profiles are written by hand"
        raise PipelineError(f"nothing here can ask the runtime of {name}", remedy=remedy)
    require_runtime(PROBED[name])
    if name != "ort-cpu":
        return _tried(profile(name), PROBED[name], sample, seed)
    old, text = profile(name), profile_file(name).read_text(encoding="utf-8")
    sessions = Sessions()
    try:
        found = facts(Kernels.installed(), sessions, old.opset)
        opset, ir_version = newest(sessions)
    finally:
        sessions.close()
    wheel = runtime_version(PROBED[name])
    text = _PROBED.sub(f'probed = "{wheel}"\n', text)
    text = _TABLES.sub(lambda _: operators_text(found) + "\n", text)
    changes = _changes(old, _read(text))
    return Probed(old.probed or "", wheel, opset, ir_version, sessions.count, text, *changes)


def _tried(target: Profile, runtime: Runtime, sample: int | None, seed: int) -> Probed:
    wheel = runtime_version(runtime)
    found = list(tried(target, runtime, sample, seed))
    runs, lost = differences(found)
    apart = types_apart(found)
    return Probed(
        target.probed or "",
        wheel,
        target.opset,
        target.ir_version,
        len(found),
        heir_text(target, wheel, runs, lost, apart),
        tuple(sorted(runs)),
        tuple(sorted({name for name, _ in apart})),
        tuple(sorted(lost)),
        tuple(each.line for each in found if not each.agrees),
    )


def _read(text: str) -> Profile:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new.toml"
        path.write_text(text, encoding="utf-8")
        return profile(str(path))


def _changes(
    old: Profile, new: Profile
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    def spelled(keys: set[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(sorted(".".join(filter(None, key)) for key in keys))

    before, after = old.operators, new.operators
    both = before.keys() & after.keys()
    changed = {key for key in both if before[key] != after[key]}
    return (
        spelled(after.keys() - before.keys()),
        spelled(changed),
        spelled(before.keys() - after.keys()),
    )
