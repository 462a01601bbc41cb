"""What says the same in operators that more runtimes have."""

from vlmpass.ir_tools.rewrite import Rule
from vlmpass.rewriter_rules.substitute.approximate import APPROXIMATE
from vlmpass.rewriter_rules.substitute.counted import COUNTED
from vlmpass.rewriter_rules.substitute.ordered import ORDERED
from vlmpass.rewriter_rules.substitute.ranks import RANKS
from vlmpass.rewriter_rules.substitute.respelled import RESPELLED
from vlmpass.rewriter_rules.substitute.selected import SELECTED
from vlmpass.rewriter_rules.substitute.shifting import SHIFTING
from vlmpass.rewriter_rules.substitute.standardized import STANDARDIZED
from vlmpass.rewriter_rules.substitute.tokens import TOKENS

__all__ = ["SUBSTITUTE", "TOGETHER", "roots"]

SUBSTITUTE = (
    TOKENS
    + RANKS
    + RESPELLED
    + COUNTED
    + SELECTED
    + ORDERED
    + SHIFTING
    + STANDARDIZED
    + APPROXIMATE
)
"""In order of preference; those that are not exact come last, and on request alone."""

TOGETHER = (TOKENS, RANKS)
"""Those that say several nodes at once, by what they are about."""


def roots(rule: Rule) -> frozenset[str]:
    """Return the standard operators that a rule stands something in for."""
    names = {name for root in rule.plan.root_ops for domain, name in root.ops if domain == ""}
    return frozenset(names)
