"""What runtimes take, as data: a profile for each, read from TOML, and what it says of a node."""

from typing import TYPE_CHECKING

from vlmpass.ir_tools.system.lazy_imports import lazy

if TYPE_CHECKING:
    from vlmpass.ir_tools.targets.found import names, profile, profiles
    from vlmpass.ir_tools.targets.judge import Context, why_not
    from vlmpass.ir_tools.targets.support import Support, Verdict
    from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["Context", "Profile", "Support", "Verdict", "names", "profile", "profiles", "why_not"]

__getattr__ = lazy(
    __name__,
    {
        "Context": "judge",
        "Profile": "toml_profile",
        "Support": "support",
        "Verdict": "support",
        "names": "found",
        "profile": "found",
        "profiles": "found",
        "why_not": "judge",
    },
)
