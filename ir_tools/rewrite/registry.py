"""All rules there are: those of vlmpass and of every package that offers some."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType

from vlmpass.ir_tools.errors import RuleError
from vlmpass.ir_tools.rewrite.rule import Rule, RuleSet
from vlmpass.ir_tools.system.rule_names import GROUP, no_rule

__all__ = ["all_rules", "rule_named"]


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{package.__name__}."):
        yield importlib.import_module(found.name)


def _rules_in(thing: object) -> Iterator[Rule]:
    if isinstance(thing, Rule):
        yield thing
    elif isinstance(thing, RuleSet):
        yield from thing
    elif isinstance(thing, ModuleType):
        for module in _modules(thing):
            yield from (value for value in vars(module).values() if isinstance(value, Rule))


def all_rules() -> list[Rule]:
    """Return every rule behind the entry points `vlmpass.rules`, by file and line.

    An entry point names a rule, a rule set, or a module or package whose rules all count.

    Raises:
        RuleError: Two rules have one name.
    """
    found: dict[str, Rule] = {}
    points = entry_points(group=GROUP)
    for point in sorted(points, key=lambda point: point.name):
        for rule in _rules_in(point.load()):
            other = found.setdefault(rule.name, rule)
            if other is not rule:
                places = f"{other.file}:{other.line} and {rule.file}:{rule.line}"
                raise RuleError(f"two rules are named {rule.name}: {places}")
    return sorted(found.values(), key=lambda rule: (rule.file, rule.line))


def rule_named(name: str) -> Rule:
    """Return a rule by its name.

    Raises:
        RuleError: There is none; the message suggests the closest names.
    """
    rules = {rule.name: rule for rule in all_rules()}
    if name not in rules:
        raise no_rule(name, rules)
    return rules[name]
