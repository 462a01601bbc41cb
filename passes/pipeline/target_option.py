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
    """Return what keeps rules from nodes that a target does not run."""

    def reason(made: Sequence[ir.Node], _: Sequence[ir.Node], why: _Reason) -> str:
        return next(filter(None, map(why, made)), "")

    return _unwanted(model, target, reason)


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
