"""What an operator on windows can do besides: pad its operand."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.read_attributes import ints_of, text_of
from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import normal, rank

__all__ = ["WINDOWS"]


def _borders(pads: tuple[int, ...], axes: tuple[int, ...] | None, size: int) -> list[int] | None:
    """Return what a Pad adds before and after each axis; None if that is not known."""
    places = range(size) if axes is None else normal(axes, size)
    if places is None or len(pads) != 2 * len(places):
        return None
    found = [0] * 2 * size
    for at, axis in enumerate(places):
        found[axis], found[size + axis] = pads[at], pads[len(places) + at]
    return found


@rule(
    P.Conv(
        P.Pad("x", pads="pads", constant_value="value", axes="axes", mode="mode").shared,
        ...,
        _node="conv",
    )
)
def pad_of_conv(
    op: Tape,
    x: Value,
    pads: tuple[int, ...],
    value: float | None,
    axes: tuple[int, ...] | None,
    mode: str,
    conv: Node,
) -> Replacement:
    """Conv(Pad(x, 0), w) -> Conv(x, w) with more pads, of zeros around the windowed axes."""
    size = rank(x)
    added = None if size is None else _borders(pads, axes, size)
    if size is None or added is None or mode != "constant" or value not in (None, 0.0):
        return refuse("{} is not known to be padded with zeros alone", x)
    if min(added) < 0 or any(added[at] for at in (0, 1, size, size + 1)):
        return refuse("{} are no pads of a Conv", pads)
    how = text_of(conv, "auto_pad", "NOTSET")
    if how not in ("NOTSET", "VALID"):
        return refuse("{} says itself how much it pads", conv)
    own = list(ints_of(conv, "pads", ())) or [0] * 2 * (size - 2)
    more = added[2:size] + added[size + 2 :]
    if len(own) != len(more) or (how == "VALID" and any(own)):
        return refuse("{} pads other axes than {} has", conv, x)
    total = [one + two for one, two in zip(own, more, strict=True)]
    kept = {name: each for name, each in conv.attributes.items() if name != "auto_pad"}
    return op.node("Conv", [x, *conv.inputs[1:]], {**kept, "pads": total})[0]


WINDOWS = RuleSet((pad_of_conv,))
