"""Options that are written in a dataclass, as typer takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from vlmpass.cli.completing import among, pipelines
from vlmpass.options import Option, options_of

__all__ = ["takes_options"]

_R = TypeVar("_R")
_TEXTS = {"passes": pipelines}
"""What completes options that take more than a word."""


def takes_options(group: type) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return a decorator that lets a verb's ``**given`` be the options of a dataclass.

    Args:
        group: The dataclass. In the help its options stand before the verb's own.
    """

    def decorate(function: Callable[..., _R]) -> Callable[..., _R]:
        signature = inspect.signature(function, eval_str=True)
        own = [
            each.replace(kind=each.KEYWORD_ONLY)
            for each in signature.parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        first = [each for each in own if _is_argument(each)]
        rest = [each for each in own if not _is_argument(each)]
        shown = [*first, *map(_parameter, options_of(group)), *rest]
        vars(function)["__signature__"] = signature.replace(parameters=shown)
        return function

    return decorate


def _is_argument(parameter: inspect.Parameter) -> bool:
    told = getattr(parameter.annotation, "__metadata__", ())
    return any(isinstance(each, typer.models.ArgumentInfo) for each in told)


def _parameter(option: Option) -> inspect.Parameter:
    """Return an option as a parameter that typer reads: a flag, a pair of flags, or a value."""
    flag, kind, default = f"--{option.word}", option.kind, option.default
    told = typer.Option(flag, help=option.help)
    if option.metavar:
        shown = isinstance(default, str)
        told = typer.Option(
            flag,
            metavar=option.metavar,
            help=option.help,
            min=option.least,
            show_default=shown,
            autocompletion=_TEXTS.get(option.name) or among(option.among),
        )
    elif default is None:
        both = f"{flag}/--no-{option.word}"
        told = typer.Option(both, help=option.help, show_default=False)
    wanted = kind if option.metavar else bool
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[wanted | None if default is None else wanted, told],
    )
