"""All that a conversion can be asked for: what the result is, is held to, and is written as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast, get_args

from vlmpass.intent import Intent
from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.save import parse_size
from vlmpass.ir_tools.save.layout import Layout, Weights, layout_of, refuse_contradiction, way_of
from vlmpass.ir_tools.save.size import SHARD_LIMIT
from vlmpass.ir_tools.system.arguments import flag, number, seconds
from vlmpass.options import Given, option, settle, told

__all__ = ["Comparing", "ConvertOptions", "Writing"]

_T = TypeVar("_T")


def _truth(name: str, value: object) -> bool | None:
    return None if value is None else flag(name, value)


def _size(name: str, value: object) -> int | None:
    return parse_size(value) if isinstance(value, str) else number(name, value, 1)


def _needs_comparing(given: Given) -> PipelineError | None:
    if given["verify"] is False and given["verify_seconds"] is not None:
        return PipelineError(
            "a time for comparing was given, and that nothing is compared",
            remedy="leave one of them out",
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """What the result is held to."""

    verify: bool | None = option(
        None,
        "Compare the result's numbers with the source's on ONNX Runtime, however long it takes; by"
        " default for two minutes. Types are always checked, and what is for a target is loaded.",
        _truth,
    )
    verify_seconds: float | None = option(
        None,
        "How long comparing may take.",
        seconds,
        "SECONDS",
        word="verify-time",
        kind=float,
        least=0.0,
        refuse=_needs_comparing,
    )
    memory: int | str | None = option(
        None,
        "What ONNX Runtime may take beside the weights to load and compare, as 8GB; by default a"
        " quarter of the memory, 4GB at most.",
        _size,
        "SIZE",
    )

    def __post_init__(self) -> None:
        settle(self, Comparing)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How the result is written."""

    shard_size: int | str | None = option(
        None,
        "No file is larger, as 500MB or 2GiB; by default 2GB.",
        _size,
        "SIZE",
    )
    layout: Layout | str = option(
        "default",
        "default, hf (transformers.js), single, inline or safetensors.",
        lambda _, value: layout_of(cast(str, value)),
        "NAME",
        among=lambda: [each.value for each in Layout],
    )
    weights: Weights = option(
        "auto",
        "Data files that need no change: keep, copy, or auto.",
        lambda _, value: way_of(cast(str, value)),
        "HOW",
        among=lambda: get_args(Weights),
    )
    jobs: int | None = option(
        None,
        "Threads that write.",
        lambda name, value: number(name, value, 1),
        "N",
        kind=int,
        least=1,
    )
    force: bool = option(False, "Replace an output that is not a model.", flag)

    def __post_init__(self) -> None:
        settle(self, Writing)
        refuse_contradiction(self.laid_out, self.weights, limited=self.shard_size is not None)

    @property
    def most_bytes(self) -> int:
        """The most bytes of a file, in layouts that limit it."""
        return parse_size(SHARD_LIMIT if self.shard_size is None else self.shard_size)

    @property
    def laid_out(self) -> Layout:
        """The layout; `layout` may name it."""
        return layout_of(self.layout)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Writing, Comparing, Intent):
    """All options of a conversion."""

    def __post_init__(self) -> None:
        Intent.__post_init__(self)
        Comparing.__post_init__(self)
        Writing.__post_init__(self)

    def part(self, group: type[_T]) -> _T:
        """Return those of one group, such as `Writing`."""
        return group(**told(self, group))
