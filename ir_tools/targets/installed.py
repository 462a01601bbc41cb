"""Whether the runtime that is installed is newer than the one that a profile was made with."""

from __future__ import annotations

import re

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.system.runtime import RUNTIMES, runtime_version
from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["newer"]


def newer(target: Profile) -> str:
    """Return what is to be said where a newer runtime is installed than was probed; else nothing.

    Args:
        target: With the runtime that its facts were asked of, and the version.
    """
    if target.probed is None:
        return ""
    name, _, version = target.probed.partition(" ")
    for runtime in RUNTIMES:
        try:
            installed = runtime_version(runtime)
        except VerifyError:
            continue
        if installed.partition(" ")[0] == name and _parts(installed) > _parts(version):
            return (
                f"{installed} is installed, and the profile is of {version}:"
                f" vlmpass targets probe {target.asked} says what differs"
            )
    return ""


def _parts(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version.rpartition(" ")[2])]
