"""What runtimes take, as data: a profile for each, read from TOML."""

from vlmpass.ir_tools.targets.found import names, profile, profiles
from vlmpass.ir_tools.targets.profile import Profile

__all__ = ["Profile", "names", "profile", "profiles"]
