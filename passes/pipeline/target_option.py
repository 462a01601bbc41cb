"""The option by which passes are told what is to run a model."""

from __future__ import annotations

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.targets import Profile, profile
from vlmpass.passes.pipeline.base import OptionError

__all__ = ["target_of"]


def target_of(name: str) -> Profile:
    """Return the target that an option names.

    Args:
        name: A known one, or the path of a .toml file.

    Raises:
        OptionError: There is none, or the file is no profile.
    """
    try:
        return profile(name)
    except PipelineError as error:
        raise OptionError("target", error.problem, remedy=error.remedy) from None
