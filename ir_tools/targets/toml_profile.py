"""A profile of a target, and how it is read from TOML, with errors that point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.ir_tools.system.runtime import RUNTIMES as INSTALLABLE
from vlmpass.ir_tools.system.runtime import Runtime
from vlmpass.ir_tools.targets.operator_facts import KINDS, OperatorFacts, Types, types_of
from vlmpass.ir_tools.targets.operator_table import Operators, operator_table
from vlmpass.ir_tools.targets.rounding import ACTIVATIONS, ROUNDED, Rounding, rounding_of
from vlmpass.ir_tools.targets.support import Support

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

__all__ = ["File", "Folder", "Profile", "read_profile", "settings"]

RUNTIMES = ("onnxruntime",)
"""What can load a result and run it before it is written."""

LOADERS = tuple(each for each in INSTALLABLE if each not in RUNTIMES)
"""What can load a result besides, where it is installed."""

FUSES = ("standard", "ort")
"""Whose operators fusion may make."""

_NONE = "none"
"""What an heir says where it inherits from a target that something here runs."""

_NEWEST = 2**31 - 1
"""The largest version that a file can hold."""


class File(Protocol):
    """A file on a disk or in a package."""

    def read_text(self, encoding: str) -> str:
        """Return what is in it."""


class Folder(Protocol):
    """A folder on a disk or in a package."""

    def __truediv__(self, name: str, /) -> File:
        """Return a file in it; one that has an absolute path, where that is the name."""


@dataclass(frozen=True)
class Profile:
    """What a target takes.

    Attributes:
        name: What it is called.
        asked: How it is asked for: by its name or its file.
        about: What it is, in a line.
        source: Where the facts are from, and of which version.
        lowest_opset: The lowest opset of the default domain that it reads.
        opset: The highest one.
        ir_version: The highest version of the file format that it reads.
        runtime: What loads every result of a conversion for it before the result is written;
            None where nothing here can.
        loader: The runtime that loads such a result too where it is installed; None where `runtime`
            does, or none is known.
        probed: The runtime that the facts were asked of, with its version; None where none was.
        preferred_opset: The opset that it runs the most operators of; None where no one says.
        file_size: The most bytes of one model file; None where there is no limit that is known.
        part_size: The most bytes of weights of a part that it takes, where another target runs the
            rest; None where there is no limit that is known.
        part_helps: What helps where a part has more; None where nothing is known.
        static: Whether every shape must be static.
        fallback: The target that runs what this one does not take; None where nothing does.
        interface: The types that inputs and outputs of a model may have; None where no one says.
        types: How well operands of each type are run, whatever the operator; None where only the
            operators' own lines say.
        functions: How well calls of a model's own functions are run.
        operators: What is said of each operator, by domain and name.
        fuses: Whose operators fusion may make for it where it is known to run them: ``standard``,
            or ``ort`` for ONNX Runtime's own too.
        slower: Operators that take it longer than the nodes that fusion makes them of, and what is
            known of that, by domain and name: fusion makes none of them.
        unlisted: What holds for what is not listed: ``operators`` of a domain of which some are,
            ``domains`` of which none is, ``versions`` and ``types`` of an operator that is.
        rounds: How it takes products of rounded operands; None where no one says.
    """

    name: str
    asked: str
    about: str
    source: str
    lowest_opset: int
    opset: int
    ir_version: int
    runtime: str | None
    loader: Runtime | None = None
    probed: str | None = None
    preferred_opset: int | None = None
    file_size: int | None = None
    part_size: int | None = None
    part_helps: str | None = None
    static: bool = False
    fallback: str | None = None
    interface: Types | None = None
    types: Types | None = None
    functions: Support = Support.UNKNOWN
    fuses: str = FUSES[0]
    operators: Mapping[tuple[str, str], OperatorFacts] = field(default_factory=dict, repr=False)
    slower: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)
    unlisted: Mapping[str, Support] = field(default_factory=dict)
    rounds: Rounding | None = None

    def without_facts(self, what: str) -> Support:
        """Return what holds for what is not listed, see `unlisted`."""
        return self.unlisted.get(what, Support.UNKNOWN)

    def binds_type(self, dtype: ir.DataType) -> bool:
        """Whether inputs and outputs of a model may have an element type."""
        return self._binds(spell(ir.TensorType(dtype)))

    def binds(self, value: ir.Value) -> bool:
        """Whether an input or output of a model may have the type that it has; yes, if unknown."""
        return value.type is None or self._binds(spell(value.type))

    def _binds(self, kind: str | None) -> bool:
        if self.interface is None or kind is None:
            return True
        others = self.interface.others or Support.UNSUPPORTED
        return self.interface.kinds.get(kind, others) is not Support.UNSUPPORTED

    @property
    def says_operators(self) -> bool:
        """Whether anything is said of operators: then silence about one of them means something."""
        return bool(self.operators) or self.without_facts("operators") is not Support.UNKNOWN

    @property
    def says_nodes(self) -> bool:
        """Whether anything is said that may keep a node from running."""
        others = (self.functions, self.without_facts("domains"))
        said = any(each is not Support.UNKNOWN for each in others)
        return self.says_operators or self.types is not None or said

    def nearest(self, opset: int) -> int:
        """Return an opset if the target reads it, and else the nearest one that it reads."""
        return max(self.lowest_opset, min(opset, self.opset))

    def hold(self, opset: int) -> None:
        """Hold an opset to what the target reads.

        Raises:
            PipelineError: It does not read it.
        """
        nearest = self.nearest(opset)
        if nearest != opset:
            bound = "most" if opset > nearest else "least"
            raise PipelineError(
                f"{self.name} reads opset {nearest} at {bound}, not {opset}",
                remedy=f"ask for opset {nearest}",
            )


_OPERATORS = "operators"
_TYPES = ("types", "interface")
"""Keys of lists of types in `reads`."""

Parent = Callable[[str], "Mapping[str, Any]"]
"""Returns the settings of a target by its name."""

_Check = Callable[[object], str]
"""Says what is expected of a value that is not as it should be, nothing of one that is."""


def _is_line(value: object) -> str:
    good = isinstance(value, str) and bool(value.strip()) and "\n" not in value
    return "" if good else "one line of text"


def _is_runtime(value: object) -> str:
    return "" if value in (*RUNTIMES, _NONE) else f'"{RUNTIMES[0]}", "none", or no such line'


def _is_loader(value: object) -> str:
    return "" if value in (*LOADERS, _NONE) else " or ".join((*LOADERS, _NONE))


def _is_count(value: object) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return "" if good else "a whole number from 1 on"


def _is_version(value: object) -> str:
    good = isinstance(value, int) and not _is_count(value) and value <= _NEWEST
    return "" if good else f"a whole number from 1 to {_NEWEST}"


def _is_range(value: object) -> str:
    versions = value if isinstance(value, list) and len(value) == 2 else [0]
    good = not any(map(_is_version, versions)) and versions[0] <= versions[-1]
    return "" if good else "[lowest, highest]"


def _is_kind(value: object) -> str:
    return "" if value in KINDS else " or ".join(KINDS)


def _is_fusing(value: object) -> str:
    return "" if value in FUSES else " or ".join(FUSES)


def _is_rounded(value: object) -> str:
    return "" if value in ACTIVATIONS else " or ".join(ACTIVATIONS)


def _is_switch(value: object) -> str:
    return "" if isinstance(value, bool) else "true or false"


_UNLISTED = ("operators", "domains", "versions", "types")
_KEYS: Mapping[str, _Check] = {
    "inherits": _is_line,
    "about": _is_line,
    "source": _is_line,
    "runtime": _is_runtime,
    "loader": _is_loader,
    "probed": _is_line,
    "reads.opset": _is_range,
    "reads.ir-version": _is_version,
    "reads.preferred-opset": _is_version,
    "reads.file-size": _is_count,
    "reads.part-size": _is_count,
    "reads.part-helps": _is_line,
    "reads.functions": _is_kind,
    **{f"reads.{name}": _is_line for name in _TYPES},
    "reads.static": _is_switch,
    "fallback": _is_line,
    "fuses": _is_fusing,
    **{f"rounds.{name}": _is_line for name in ROUNDED},
    "rounds.activations": _is_rounded,
    **{f"unlisted.{name}": _is_kind for name in _UNLISTED},
}
_NEEDED = ("about", "source", "reads.opset", "reads.ir-version")


def read_profile(path: File, asked: str, parent: Parent) -> Profile:
    """Read a profile.

    Args:
        path: A TOML file.
        asked: How the target is asked for: its name, or the path of its file.
        parent: Returns the settings of the target that the profile inherits from.

    Raises:
        PipelineError: The file cannot be read, or is not a profile; names the line or the key.
    """
    found = settings(path, parent)
    missing = next((key for key in _NEEDED if key not in found), None)
    if missing is not None:
        raise PipelineError(
            f"the target in {path} has no {missing}",
            remedy=f"add it, {_KEYS[missing](None)}, or inherit from a target that has it",
        )
    lowest, highest = found["reads.opset"]
    return Profile(
        Path(asked).stem if asked.endswith(".toml") else asked,
        asked,
        found["about"],
        found["source"],
        lowest,
        highest,
        found["reads.ir-version"],
        _named(found.get("runtime")),
        _named(found.get("loader")),
        found.get("probed"),
        found.get("reads.preferred-opset"),
        found.get("reads.file-size"),
        found.get("reads.part-size"),
        found.get("reads.part-helps"),
        found.get("reads.static", False),
        found.get("fallback"),
        found.get("interface"),
        found.get("types"),
        KINDS[found.get("reads.functions", "unknown")],
        found.get("fuses", FUSES[0]),
        found[_OPERATORS].facts,
        found[_OPERATORS].slower,
        {name: KINDS[found.get(f"unlisted.{name}", "unknown")] for name in _UNLISTED},
        rounding_of(found),
    )


def _named(runtime: str | None) -> Any:
    return None if runtime == _NONE else runtime


def settings(path: File, parent: Parent) -> dict[str, Any]:
    """Return what a file says by dotted key, upon what it inherits.

    Args:
        path: A TOML file.
        parent: Returns the settings of a target by name.

    Raises:
        PipelineError: As for `read_profile`.
    """
    said, tables = _parsed(path)
    for key, value in said.items():
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"a target has {', '.join(_KEYS)}"
            problem = f"the target in {path} has {key}, which means nothing"
            raise PipelineError(problem, remedy=remedy)
        expected = _KEYS[key](value)
        if expected:
            problem = f"{key} of the target in {path} is {value!r}"
            raise PipelineError(problem, remedy=f"give {expected}")
    inherited = dict(parent(said["inherits"])) if "inherits" in said else {}
    if tables:
        inherited.pop("probed", None)  # the heir's own facts were asked of nothing
    upon: Operators = inherited.get(_OPERATORS, Operators({}, {}, {}))
    try:
        operators = operator_table(tables, upon)
        for name in _TYPES:
            if f"reads.{name}" in said:
                said[name] = types_of(said[f"reads.{name}"], operators.sets)
    except ValueError as error:
        problem = f"the target in {path}: {error}"
        raise PipelineError(
            problem, remedy="correct it there; docs/targets.md has the form"
        ) from None
    return {**inherited, **said, _OPERATORS: operators}


def _parsed(path: File) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is said by dotted key, and the tables that `operator_table` reads."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        kept = ("operators", "limits", "slower", "sets")
        tables: dict[str, Any] = {key: said.pop(key) for key in kept if key in said}
        return dict(_flat(said)), tables
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}"
        raise PipelineError(problem, remedy="give another file") from None
    except (ValueError, RecursionError) as error:  # no text, no TOML, too many digits, too deep
        raise PipelineError(f"{path} is not TOML: {error}", remedy="correct it there") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        inner = isinstance(value, dict) and bool(value)
        found += _flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return found
