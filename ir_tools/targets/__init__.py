"""What runtimes take, as data: a profile for each, read from TOML, and what it says of a node."""

from vlmpass.ir_tools.targets.found import names, profile, profiles
from vlmpass.ir_tools.targets.judge import Context, why_not
from vlmpass.ir_tools.targets.profile import Profile
from vlmpass.ir_tools.targets.support import Support, Verdict

__all__ = ["Context", "Profile", "Support", "Verdict", "names", "profile", "profiles", "why_not"]
