"""The arguments of one of PyTorch's operators that an exporter left, by PyTorch's names.

Whatever is given and not understood is refused: a scale that is dropped moves every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.rewriter_rules.opset.queries import known_or_none
from vlmpass.rewriter_rules.opset.table import CannotConvert

__all__ = ["Arguments"]

_NUMBERS = (ir.AttributeType.INT, ir.AttributeType.FLOAT)


class Arguments:
    """The arguments of a node by PyTorch's names.

    Args:
        node: The node.
        names: Those of its parameters, in order; one that ends with ``=`` is no input.

    Raises:
        CannotConvert: An attribute is none of these, or is known to the caller of a function only.
    """

    def __init__(self, node: ir.Node, names: Sequence[str]) -> None:
        self.node = node
        read = {name.removesuffix("=") for name in names} | {"operator", "overload_name"}
        for name, given in node.attributes.items():
            if given.is_ref():
                raise CannotConvert(
                    f"its {name} is a parameter of the function around it; inline-functions first"
                )
            if name not in read:
                raise CannotConvert(f"its {name} is given as an attribute, which none reads")
        free = [name for name in names if name not in node.attributes and not name.endswith("=")]
        self._inputs = dict(zip(free, node.inputs, strict=False))
        self.rest = list(node.inputs[len(free) :])

    @property
    def overload(self) -> str:
        """Which of PyTorch's overloads it is, empty where that is not said."""
        said = self.node.attributes.get("overload_name")
        if said is not None:
            return said.as_string()
        operator = self.node.attributes.get("operator")
        return "" if operator is None else operator.as_string().partition(".")[2]

    def value(self, name: str) -> ir.Value | None:
        """Return an argument that is an input, None where it is left out or a number.

        Raises:
            CannotConvert: It is given in another way.
        """
        given = self.node.attributes.get(name)
        if given is not None and given.type not in _NUMBERS:
            raise CannotConvert(f"its {name} is given as an attribute")
        return self._inputs.get(name)

    def needed(self, name: str) -> ir.Value:
        """Return an argument that is an input.

        Raises:
            CannotConvert: It is left out.
        """
        value = self._inputs.get(name)
        if value is None:
            raise CannotConvert(f"its {name} is left out")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number that is known before.

        Raises:
            CannotConvert: It is known at run time only.
        """
        given, value = self.node.attributes.get(name), self.value(name)
        if given is not None:
            return float(given.value)
        known = None if value is None else known_or_none(value)
        if value is not None and (known is None or known.size != 1):
            raise CannotConvert(f"its {name} is known at run time only")
        return default if known is None else float(known.reshape(-1)[0])

    def scales(self, count: int) -> list[ir.Value]:
        """Return the scales of all axes that are resized, as one vector or one by one, or none.

        Args:
            count: How many axes are.

        Raises:
            CannotConvert: Some axes have a scale and others none.
        """
        held = [value for value in self.rest if value is not None]
        known = known_or_none(held[0]) if len(held) == 1 else None
        if held and (len(held) < len(self.rest) or len(held) not in (1, count)):
            raise CannotConvert("scales are given for some of its axes")
        if known is not None and known.size != count:
            raise CannotConvert("scales are given for some of its axes")
        return held
