"""Which targets there are: those that come along, those of other packages, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.system.paths import path_text

if TYPE_CHECKING:
    from vlmpass.ir_tools.targets.toml_profile import File, Folder, Profile

__all__ = ["GROUP", "names", "profile", "profile_file", "profiles"]

GROUP = "vlmpass.targets"
"""The entry points of other packages: a target's name, and the package that holds NAME.toml."""

_OWN = Path(__file__).parent / "profiles"


def profiles() -> dict[str, Profile]:
    """Return every target that is known by name, in order of names.

    Raises:
        PipelineError: A package has one that is no profile.
    """
    return {name: profile(name) for name in names()}


def names() -> tuple[str, ...]:
    """Return the targets that are known by name."""
    return tuple(sorted(_known()))


def _known() -> dict[str, Path | EntryPoint]:
    own = {path.stem: path for path in _OWN.glob("*.toml")}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **own}


def profile(name: str) -> Profile:
    """Return a target's profile.

    Args:
        name: A known name, or the path of a TOML file, which ends in ``.toml``.

    Raises:
        PipelineError: There is no such target, or its file is not a profile.
    """
    from vlmpass.ir_tools.targets.toml_profile import read_profile  # which needs onnx

    path, folder = _place(name, Path())
    return read_profile(path, name, partial(_inherited, (_identity(path),), folder))


def profile_file(name: str) -> File:
    """Return the file of a target.

    Raises:
        PipelineError: There is no such target.
    """
    return _place(name, Path())[0]


def _place(name: str, beside: Folder) -> tuple[File, Folder]:
    """Return the file of a target, and the folder that files it names are looked for in."""
    if name.endswith(".toml"):
        path = beside / path_text(name, PipelineError, "the target")
        return path, path.parent if isinstance(path, Path) else beside
    known = _known()
    if name not in known:
        raise PipelineError(
            f"there is no target {name}",
            remedy=f"choose {' or '.join(sorted(known))}, or give a .toml profile of your own",
        )
    found = known[name]
    if not isinstance(found, EntryPoint):
        return found, _OWN
    try:
        return files(found.value) / f"{name}.toml", files(found.value)
    except ImportError as error:
        raise PipelineError(
            f"the target {name} is in the package {found.value}: {error}",
            remedy="install that package again",
        ) from None


def _identity(path: File) -> str:
    """Return what is the same for one file, however it is named."""
    return os.path.realpath(str(path))


def _inherited(seen: tuple[str, ...], beside: Folder, name: str) -> Mapping[str, Any]:
    from vlmpass.ir_tools.targets.toml_profile import settings

    path, folder = _place(name, beside)
    if _identity(path) in seen:
        raise PipelineError(
            f"the target {name} inherits from itself", remedy="remove an inherits line"
        )
    return settings(path, partial(_inherited, (*seen, _identity(path)), folder))
