"""The option by which passes are told what is to run a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.rewrite import Unwanted
from vlmpass.ir_tools.targets import Context, Profile, profile, why_not
from vlmpass.passes.pipeline.base import OptionError

__all__ = ["not_run", "target_of", "worse"]


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


def not_run(model: ir.Model, target: Profile) -> Unwanted:
    """Return what keeps rules from nodes that a target does not run, or slower than others."""

    def reason(made: Sequence[ir.Node], gone: Sequence[ir.Node], why: _Reason) -> str:
        found = next(filter(None, map(why, made)), "")
        return found or _slower(made, gone, target)

    return _unwanted(model, target, reason)


def _slower(made: Sequence[ir.Node], gone: Sequence[ir.Node], target: Profile) -> str:
    """Return why one of several new nodes is slower than what it stands for, if it is."""
    before = {(node.domain, node.op_type) for node in gone}
    new = {(node.domain, node.op_type): None for node in made}
    known = [target.slower[each] for each in new if each in target.slower and each not in before]
    return f"{target.name} runs it slower than what it stands for: {known[0]}" if known else ""


def worse(model: ir.Model, target: Profile) -> Unwanted:
    """Return what keeps rules from letting what a target does not run stand for what it runs."""

    def reason(made: Sequence[ir.Node], gone: Sequence[ir.Node], why: _Reason) -> str:
        found = next(filter(None, map(why, made)), "")
        return "" if found and any(map(why, gone)) else found

    return _unwanted(model, target, reason)


_Reason = Callable[[ir.Node], str]


def _unwanted(
    model: ir.Model,
    target: Profile,
    reason: Callable[[Sequence[ir.Node], Sequence[ir.Node], _Reason], str],
) -> Unwanted:
    context = Context.of(model, target)

    def at(opsets: Mapping[str, int]) -> Callable[[Sequence[ir.Node], Sequence[ir.Node]], str]:
        here = context.at(opsets)

        def why(node: ir.Node) -> str:
            verdict = why_not(node, here)
            return "" if verdict.runs or verdict.open else verdict.reason

        return lambda made, gone: reason(made, gone, why)

    return at
