"""Which targets there are: those that come along, those of other packages, and files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.targets.profile import File, Profile, read_profile, settings

__all__ = ["GROUP", "names", "profile", "profiles"]

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


def _known() -> dict[str, File | EntryPoint]:
    own = {path.stem: path for path in _OWN.glob("*.toml")}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **own}


def profile(name: str) -> Profile:
    """Return a target's profile.

    Args:
        name: A known name, or the path of a TOML file, which ends in ``.toml``.

    Raises:
        PipelineError: There is no such target, or its file is not a profile.
    """
    return read_profile(_file(name), name, partial(_inherited, (name,)))


def _file(name: str) -> File:
    if name.endswith(".toml"):
        return Path(name)
    known = _known()
    if name not in known:
        raise PipelineError(
            f"there is no target {name}",
            remedy=f"choose {' or '.join(sorted(known))}, or give a .toml profile of your own",
        )
    found = known[name]
    if not isinstance(found, EntryPoint):
        return found
    try:
        return files(found.value) / f"{name}.toml"
    except ImportError as error:
        raise PipelineError(
            f"the target {name} is in the package {found.value}: {error}",
            remedy="install that package again",
        ) from None


def _inherited(seen: tuple[str, ...], name: str) -> Mapping[str, Any]:
    if name in seen:
        raise PipelineError(
            f"the target {name} inherits from itself", remedy="remove an inherits line"
        )
    return settings(_file(name), partial(_inherited, (*seen, name)))
