"""What operators are: one kind each, total over the installed onnx and the contrib operators.

The table is `traits.txt` beside this file. `tests/operators` holds it total (a new onnx with a new
operator fails there, and here it is of no kind, which promises nothing) and holds each operator to
the definitions below by running it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the door asks for names before anything heavy is imported
    import onnx_ir as ir

__all__ = [
    "Kind",
    "Traits",
    "broadcasting",
    "combining",
    "commutes",
    "complete",
    "hands_on",
    "is_exact",
    "jumping",
    "keeping_order",
    "keeping_shape",
    "named",
    "rearranging",
    "rounding",
    "traits_of",
    "whole",
]

_ONNX = (1, 23)  # the newest that the table was held to


class Kind(enum.Enum):
    """What an operator does to the elements of its operands; every operator is of one kind."""

    MOVE = "move"
    """Every element of a result is an element of an operand, chosen by position and by operands
    that hold positions, sizes or conditions."""
    FILL = "fill"
    """As MOVE, and the other elements of the result are one number that an attribute or operand
    gives."""
    SCATTER = "scatter"
    """Elements of one operand take the places of another's; with a reduction they are combined."""
    CAST = "cast"
    """Elements keep their places and change their type."""
    ELEMENTWISE = "elementwise"
    """An element of the result depends on the operands' elements at that place alone, after
    broadcasting; attributes hold for all places alike."""
    REDUCTION = "reduction"
    """Elements along axes are combined into one."""
    CUMULATION = "cumulation"
    """Elements along an axis are combined with all before them."""
    NORMALIZATION = "normalization"
    """Elements along axes are brought to a common scale; the result has the operand's shape."""
    PRODUCT = "product"
    """Sums of products of two operands' elements."""
    POOL = "pool"
    """Elements in windows are combined into one."""
    RESAMPLING = "resampling"
    """Elements are interpolated at computed places."""
    ATTENTION = "attention"
    """Queries, keys and values; rotations of them; state-space mixtures of a sequence."""
    RECURRENCE = "recurrence"
    """A state goes along an axis."""
    QUANTIZATION = "quantization"
    """Numbers to and from integers with scales, alone or around another operator."""
    GENERATOR = "generator"
    """The result is made of attributes and of operands that are numbers and sizes."""
    SHAPE = "shape"
    """The result depends on extents of operands alone."""
    ORDER = "order"
    """The result is places or sizes that depend on how elements compare."""
    RANDOM = "random"
    """The result is drawn."""
    CONTROL = "control"
    """Graphs decide the result."""
    SEQUENCE = "sequence"
    """Sequences and optionals are made, taken apart or asked."""
    TRANSFORM = "transform"
    """Linear algebra and signals: determinants, inverses, Fourier transforms."""
    LOSS = "loss"
    """A prediction against a target."""
    TEXT = "text"
    """Strings, tokens and encoded images."""
    MODEL = "model"
    """A whole model of classical machine learning, or a network of experts, in one node."""
    TRAINING = "training"
    """Gradients and optimisers."""
    SEARCH = "search"
    """Generation by a model held in attributes."""
    FOREIGN = "foreign"
    """What a vendor's library computes."""


@dataclass(frozen=True)
class Traits:
    """What is known of an operator.

    Attributes:
        kind: What it does to elements.
        commutative: Whether the first two operands may change places; the result is the same.
        associative: Whether ``f(f(a, b), c)`` is ``f(a, f(b, c))`` for integers and booleans.
        selects: Whether every element of its first result is an element of an operand, picked by
            how elements compare.
        broadcasts: Whether operands of any shapes take one shape, as numpy broadcasts them.
        exact: Whether any wider type that holds its operands gives the same results (cast back, of
            the least integer too). Kinds MOVE, FILL, SCATTER, SHAPE and ORDER are, said or not,
            as long as a Scatter does not combine.
        jumps: Whether the least change of a number may change a result by 1, or turn it round.
        keeps_all: Whether its result has all elements of its first operand, and no other, unless
            it is empty. What keeps their order does.
        keeps_order: Whether its result has all elements of its first operand, in the same order.
        keeps_shape: Whether its first result has the shape of its first operand. Kinds CAST,
            SCATTER, CUMULATION and NORMALIZATION do, and ELEMENTWISE where it does not broadcast.
        rounds: Whether its results are whole numbers of its operands' type, whatever these are.
        whole: Whether its results are whole numbers where its operands are. What rounds does.
        sizes: Positions of operands that are read as sizes, extents, conditions or places along
            axes, not as numbers to compute with.
    """

    kind: Kind
    commutative: bool = False
    associative: bool = False
    selects: bool = False
    broadcasts: bool = False
    exact: bool = False
    jumps: bool = False
    keeps_all: bool = False
    keeps_order: bool = False
    keeps_shape: bool = False
    rounds: bool = False
    whole: bool = False
    sizes: tuple[int, ...] = ()


def traits_of(domain: str, op_type: str) -> Traits | None:
    """Return an operator's traits; None for an operator that nobody has described.

    Args:
        domain: Such as ``""`` (``ai.onnx``), ``ai.onnx.ml`` or ``com.microsoft``.
        op_type: Its name.
    """
    return _table().get(("" if domain == "ai.onnx" else domain, op_type))


@cache
def named(*kinds: Kind) -> frozenset[str]:
    """Return the names of the standard domain's operators of some kinds."""
    return _flagged(lambda traits: traits.kind in kinds)


def complete() -> bool:
    """Whether the table holds every operator of the onnx that is installed; without importing it.

    The tests hold it to the newest one.
    """
    installed = metadata.version("onnx").split(".")
    return (int(installed[0]), int(installed[1])) <= _ONNX


def _flagged(flag: Callable[[Traits], bool]) -> frozenset[str]:
    """Return the names of the standard domain's operators whose traits satisfy a condition."""
    return frozenset(
        name for (domain, name), traits in _table().items() if not domain and flag(traits)
    )


@cache
def keeping_order() -> frozenset[str]:
    """Return the names of the standard domain's operators that at most write another shape."""
    return _flagged(lambda traits: traits.keeps_order)


@cache
def rearranging() -> frozenset[str]:
    """Return the names of the standard domain's operators that keep all their elements, moved."""
    return _flagged(lambda traits: traits.keeps_all)


@cache
def keeping_shape() -> frozenset[str]:
    """Return the names of the standard domain's operators that keep their first operand's shape."""
    return _flagged(lambda traits: traits.keeps_shape)


@cache
def broadcasting() -> frozenset[str]:
    """Return the names of the standard domain's operators that broadcast all their operands."""
    return _flagged(lambda traits: traits.broadcasts)


@cache
def combining() -> frozenset[str]:
    """Return the names of the standard domain's operators that add, multiply or bound numbers."""
    return broadcasting() & whole() & named(Kind.ELEMENTWISE) - jumping()


@cache
def jumping() -> frozenset[str]:
    """Return the names of the standard domain's operators that compare or round numbers."""
    return _flagged(lambda traits: traits.jumps) | named(Kind.ORDER)


@cache
def rounding() -> frozenset[str]:
    """Return the names of the standard domain's operators that make whole numbers of any."""
    return _flagged(lambda traits: traits.rounds)


def is_exact(node: ir.Node) -> bool:
    """Whether any wider type that holds a node's operands gives the same results.

    Elements are moved, compared or selected; a Scatter that adds computes.
    """
    traits = traits_of(node.domain, node.op_type)
    combines = node.attributes.get("reduction")
    if combines is not None and (combines.is_ref() or combines.as_string() != "none"):
        return False
    return traits is not None and (traits.exact or traits.kind in _EXACT)


_KEEP = (Kind.CAST, Kind.SCATTER, Kind.CUMULATION, Kind.NORMALIZATION)
_EXACT = (Kind.MOVE, Kind.FILL, Kind.SCATTER, Kind.SHAPE, Kind.ORDER)


@cache
def whole() -> frozenset[str]:
    """Return the names of the standard domain's operators that make whole numbers of such."""
    return named(Kind.MOVE) | _flagged(lambda traits: traits.whole)


def hands_on(node: ir.Node, position: int) -> bool:
    """Whether the elements of an operand are moved to the results, and none of them changed."""
    traits = None if node.domain not in ("", "ai.onnx") else traits_of("", node.op_type)
    return traits is not None and traits.kind is Kind.MOVE and position not in traits.sizes


def commutes(domain: str, op_type: str) -> bool:
    """Whether the first two operands of an operator may change places."""
    traits = traits_of(domain, op_type)
    return traits is not None and traits.commutative


@cache
def _table() -> Mapping[tuple[str, str], Traits]:
    text = resources.files(__package__).joinpath("traits.txt").read_text(encoding="utf-8")
    found: dict[tuple[str, str], Traits] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        kind, names = line.split(":", 1)
        for word in names.split():
            domain, slash, described = word.rpartition("/")
            name, *flags = described.split("+")
            found[domain if slash else "", name] = _traits(Kind(kind.strip()), flags)
    return found


def _traits(kind: Kind, flags: list[str]) -> Traits:
    alone = kind is Kind.ELEMENTWISE and "broadcasts" not in flags
    keeps = alone or kind in _KEEP or "keeps-shape" in flags
    sizes = next((flag[1:-1] for flag in flags if flag.startswith("(")), "")
    return Traits(
        kind,
        commutative="commutative" in flags,
        associative="associative" in flags,
        selects="selects" in flags,
        broadcasts="broadcasts" in flags,
        exact="exact" in flags,
        jumps="jumps" in flags,
        keeps_all="keeps-all" in flags or "keeps-order" in flags,
        keeps_order="keeps-order" in flags,
        keeps_shape=keeps,
        rounds="rounds" in flags,
        whole="whole" in flags or "rounds" in flags,
        sizes=tuple(int(index) for index in sizes.split(",") if index),
    )
