"""Defects planted into the rules that substitute: random graphs find each of them."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType

import pytest
from rules.catalogue import HINTS, RULES
from rules.trials import check_rule

from vlmpass.ir_tools.rewrite import Rule

# module, rule, what its source says, and what it says in error
PLANTED = [
    ("counted", "cumsum-to-sums", "op.Less(before, after) if exclusive else ", ""),
    ("counted", "cumsum-to-sums", 'if integer(node, "reverse") else', "if False else"),
    ("counted", "cumsum-to-sums", "normalized(int(at.reshape(-1)[0]), rank(x))", "0"),
    ("counted", "one-hot-to-comparison", 'integer(node, "axis", -1)', "-1"),
    ("counted", "one-hot-to-comparison", "for index in (0, 1))", "for index in (1, 0))"),
    ("counted", "eye-like-to-comparison", "if shift else row", "if shift > 0 else row"),
    ("counted", "range-to-places", "op.Sign(delta)", "op.const(1)"),
    ("counted", "range-to-places", "op.Mul(index, delta)", "op.Mul(index, op.Abs(delta))"),
    ("ordered", "last-index-to-reversed", "op.Sub(last, found)", "found"),
    ("ordered", "arg-extreme-to-topk", "int(largest)", "1"),
    (
        "ordered",
        "smallest-to-largest",
        "op.GatherElements(x, indices, axis=axis)",
        "op.GatherElements(negative, indices, axis=axis)",
    ),
    ("shifting", "bit-shift-to-power", '== "RIGHT"', '!= "LEFT" and kind.bitwidth < 32'),
    ("tokens", "merging-to-where", "op.Sub(number, op.const(1))", "number"),
    ("tokens", "rows-of-nonzero-to-sum", "op.Cast(cast(op, mask, _D.BOOL)", "op.Cast(mask"),
]


def planted(module: str, name: str, said: str, wrong: str) -> Rule:
    """Return a rule of a module whose source says something else."""
    original = importlib.import_module(f"vlmpass.rewriter_rules.substitute.{module}")
    source = inspect.getsource(original)
    assert source.count(said) == 1, (module, said, source.count(said))
    copy = ModuleType(f"planted_{module}")
    sys.modules[copy.__name__] = copy
    exec(compile(source.replace(said, wrong), original.__file__ or "", "exec"), copy.__dict__)
    del sys.modules[copy.__name__]
    return next(v for v in vars(copy).values() if isinstance(v, Rule) and v.name == name)


@pytest.mark.parametrize(("module", "name", "said", "wrong"), PLANTED)
def test_a_planted_defect_is_found(module: str, name: str, said: str, wrong: str) -> None:
    assert name in {each.name for each in RULES}
    with pytest.raises(AssertionError, match=name):
        check_rule(planted(module, name, said, wrong), HINTS[name], tries=600)
