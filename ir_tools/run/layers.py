"""Where two models come apart: the values inside both, matched and compared in order.

What one model computes lies in files until the other one has been run, segment by segment: memory
holds one value of each. So does what the modules inside a PyTorch module take and give.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.comparison import Comparison
from vlmpass.ir_tools.run.kept_values import Layer
from vlmpass.ir_tools.run.layer_runs import of_models
from vlmpass.ir_tools.run.leaving import Leaving
from vlmpass.ir_tools.run.matched import varying_values
from vlmpass.ir_tools.run.module_layers import of_module
from vlmpass.ir_tools.run.participants import Norms, Restore, let_round, sides_of
from vlmpass.ir_tools.run.request import (
    EmulatedIn,
    Inputs,
    emulated_side,
    emulated_type,
    given_inputs,
)
from vlmpass.ir_tools.run.sizes import Shapes, refuse_both
from vlmpass.ir_tools.run.torch_program import Module
from vlmpass.ir_tools.system.arguments import callable_or_none
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Layer", "LayerComparison", "compare_layers"]


@dataclass(frozen=True)
class LayerComparison:
    """All values that two models have in common, in the order in which the second makes them.

    Attributes:
        layers: The values.
        first: Index of the first that diverges; None if none does.
        leaving: The first value whose elements the narrow type that is emulated cannot hold; None
            if there is none, or nothing was emulated.
        unmatched: How many values of the second model the first has not.
        seconds: Wall time.
        closed: Normalisations that could not be looked into.
        apart: Values that differ from what a module gives, but not what is computed of them: they
            are something else, as where a conversion moved work from one module to the next.
    """

    layers: tuple[Layer, ...]
    first: int | None
    leaving: Leaving | None
    unmatched: int
    seconds: float
    closed: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing that was compared diverges: outputs are another question."""
        return self.first is None


def compare_layers(
    expected: Source | Module,
    actual: Source | Module,
    *,
    inputs: Inputs | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    emulated: ir.DataType | str | None = None,
    emulated_in: EmulatedIn | None = None,
    norms: Norms | None = None,
    restore: Restore | None = None,
    allowance: Allowance | None = None,
    changes: NumberChanges = EXACT,
) -> LayerComparison:
    """Run two models on the same inputs and compare every value that both have.

    Of a PyTorch module these are what the modules inside it take and give.

    Args:
        expected: The reference: anything that `load` takes, or a PyTorch module.
        actual: What is judged; a module, too, where the reference is none.
        inputs, shapes, seed, tolerance, emulated, emulated_in, norms, restore, allowance, changes:
            As for `verify`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        VerifyError: They do not take the same inputs, or one of them does not run here.
    """
    rounded, where = emulated_type(emulated), emulated_side(emulated_in)
    callable_or_none("restore", restore)
    callable_or_none("norms", norms)
    bounds = bounds_of(allowance)
    refuse_both(inputs, shapes)

    def comparison(held: NumberChanges, restore: Restore | None) -> Comparison:
        sides = sides_of(expected, actual, bounds)
        let_round(sides, rounded, where, norms)
        return Comparison(*sides, "basic", seed, tolerance, False, restore, held, shapes=shapes)

    plain = comparison(changes, None)
    fed = None if inputs is None else given_inputs(inputs, plain.a.model)
    found = _compared(plain, fed)
    if found.ok or restore is None or plain.a.program is not None:
        return found
    told = plain.a.restorable(restore)
    if not told:
        return found
    held = changes | NumberChanges((Effect.RESTORES,), told)
    exact = _compared(comparison(held, restore), fed)
    return exact if exact.ok else found


def _compared(compared: Comparison, fed: Feed | None) -> LayerComparison:
    start = time.perf_counter()
    a, b = compared.a, compared.b
    bound = compared.choose_arithmetic()
    every = len(varying_values((b if b.program is None else a).model))
    with ExitStack() as stack:
        folder = WorkFolder()
        stack.callback(folder.remove)
        look = of_models if a.program is None and b.program is None else of_module
        inside = look(stack, compared, fed, bound, folder.path)
    layers = inside.layers
    wrong = (index for index, each in enumerate(layers) if not each.difference.ok)
    return LayerComparison(
        layers,
        next(wrong, None),
        inside.leaving,
        every - len(layers) - len(inside.apart),
        time.perf_counter() - start,
        (*a.closed, *b.closed),
        inside.apart,
    )
