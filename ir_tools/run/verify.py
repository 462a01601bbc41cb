"""Do two models compute the same? Both run on the same generated inputs, at two sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.comparison import Comparison
from vlmpass.ir_tools.run.participants import (
    Norms,
    Restore,
    let_round,
    sides_of,
)
from vlmpass.ir_tools.run.request import (
    EmulatedIn,
    Inputs,
    emulated_side,
    emulated_type,
    given_inputs,
    level,
    runtime,
)
from vlmpass.ir_tools.run.second_looks import by_the_standard, unoptimized
from vlmpass.ir_tools.run.sizes import Shapes, refuse_both
from vlmpass.ir_tools.run.torch_program import Module, is_module
from vlmpass.ir_tools.run.verdict import Verification
from vlmpass.ir_tools.system.arguments import callable_or_none, flag, number, seconds, wrong
from vlmpass.ir_tools.system.runtime import Optimization, Runtime

__all__ = ["verify"]


def verify(
    expected: Source | Module,
    actual: Source | Module,
    *,
    inputs: Inputs | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    optimization: Optimization | None = None,
    as_is: bool = False,
    emulated: ir.DataType | str | None = None,
    on: Runtime = "onnxruntime",
    hard: bool = False,
    emulated_in: EmulatedIn | None = None,
    norms: Norms | None = None,
    restore: Restore | None = None,
    allowance: Allowance | None = None,
    changes: NumberChanges = EXACT,
) -> Verification:
    """Run two models on the same inputs and compare their outputs.

    The inputs are generated from the first model, at two sizes of every dynamic dimension; an
    assignment of sizes that the first model refuses says nothing and is replaced by another.
    bfloat16, which ONNX Runtime's CPU cannot compute in, is computed in float32, and so is float16
    where the second model no longer computes in it. Two bfloat16 models are held to the tolerance
    of float16. Where numbers are exact again in the second which the first has rounded to a narrow
    type, the tolerance is of that type; then they are restored in the first too, and both are
    compared once more without it. The tolerance is a half precision's, too, where only the
    second casts to it, or the first does not as it is computed, even if nothing computes in it.

    Args:
        expected: The reference: anything that `load` takes, or a PyTorch module. A module is given
            the inputs of the other model, as arguments of their names or else by place.
        actual: What is judged; a module, too, where the reference is none.
        inputs: The user's own inputs, used instead of generated ones: arrays by name, or an
            ``.npz`` file.
        shapes: Sizes of the generated inputs: by dimension, or shapes by input.
        seed: Of the generated inputs.
        tolerance: Largest relative error of floating-point outputs; by default that of the
            narrowest type either model computes in, and twice that for an emulated one.
        optimization: ONNX Runtime's graph optimisation level; by default ``basic``, and where
            models differ then, ``none`` before it is said: the runtime's own rewriting may differ.
        as_is: Whether ONNX Runtime must run the second model as it is, or it does not count.
        emulated: FLOAT16 or BFLOAT16: every value of that type in one of the models is rounded, as
            hardware does that computes in it, and the other is computed in float32. ONNX Runtime's
            CPU hides overflow, because it rounds only where it must.
        on: What runs the second model as it is: ``openvino``, with the numbers of float32 where it
            might take fewer, ``iree`` or ``ort-web-wasm``; what it does not run counts as
            different.
        hard: Whether generated inputs include what is hard on narrow types: long sequences, rows
            that are masked throughout, large activations.
        emulated_in: Which of the two is rounded, ``judged``, ``reference`` or ``both``; by default
            the second where it has values of the type, and else the first: a bfloat16 source as
            its hardware computes it.
        norms: Spells the normalisations of an emulated type in operators of that type, for hardware
            that has no wider one inside; by default they compute in float32, as the standard lets
            them.
        restore: Restores rounded numbers of a model that computes in float32, and tells which. Two
            models that differ are compared so as well.
        allowance: What running each model may take; by default `default_memory`, and no bound of
            time.
        changes: What was done to numbers from the first to the second, as a report has it. Where
            values or constants were rounded to a narrow type, as the first rounds them when it
            runs, the tolerance is of that type; by default nothing was.

    Raises:
        ArgumentError: An argument is of a wrong type.
        RunError: If a model takes more than it may.
        CheckError: If the first model has a cycle.
        VerifyError: If the first model cannot be run here, or on no input set, or the second has
            nothing of the emulated type.
        Refused: If one is to be emulated and not well typed.
    """
    seed, tolerance = number("seed", seed, 0) or 0, seconds("tolerance", tolerance)
    as_is = flag("as_is", as_is)
    optimization, rounded_type = level(optimization), emulated_type(emulated)
    emulated_in = emulated_side(emulated_in)
    callable_or_none("restore", restore)
    callable_or_none("norms", norms)
    elsewhere = _is_elsewhere(on, rounded_type, actual)
    if not isinstance(changes, NumberChanges):
        raise wrong("changes", changes, "NumberChanges")
    bounds = bounds_of(allowance)
    refuse_both(inputs, shapes)
    fed = None
    if inputs is not None:
        fed = given_inputs(inputs, sides_of(expected, actual, bounds)[0].model)

    def comparison(level: Optimization, held: NumberChanges, restore: Restore | None) -> Comparison:
        sides = sides_of(expected, actual, bounds)
        let_round(sides, rounded_type, emulated_in, norms)
        sides[1].runtime = on
        whole = as_is or elsewhere
        return Comparison(*sides, level, seed, tolerance, whole, restore, held, hard, shapes)

    def run(held: NumberChanges, restore: Restore | None = None) -> tuple[Verification, Comparison]:
        compared = comparison(optimization or "basic", held, restore)
        found = compared.run(fed)
        if elsewhere:
            return found, compared
        if optimization is None and not found.ok and not found.findings:
            found = unoptimized(found, comparison("none", held, restore), fed)
        if not found.ok and not found.findings and compared.a.program is None:
            found = by_the_standard(found, comparison("none", held, restore), fed)
        return found, compared

    plain = changes.without(Effect.ROUNDS_CONSTANTS)
    found, compared = run(plain)
    if found.findings or (not found.ok and not compared.a.widened):
        return found
    if not found.ok and plain != changes:
        found, _ = run(changes)
    if restore is None or tolerance is not None:
        return found
    if Effect.RESTORES in changes.effects:
        return run(plain, restore)[0] if found.ok else found
    return found if found.ok else _with_restored(found, compared, restore, plain, run)


def _is_elsewhere(on: object, emulated: ir.DataType | None, judged: object) -> bool:
    """Whether another runtime than ONNX Runtime is to run the second model, as it is."""
    found = runtime("on", on)
    if is_module(judged) and (emulated is not None or found != "onnxruntime"):
        raise VerifyError("a module is run by PyTorch, and nothing in it can be rounded")
    if found != "onnxruntime" and emulated is not None:
        raise VerifyError(f"what is emulated runs on ONNX Runtime, and {found} is to run it")
    return found != "onnxruntime"


def _with_restored(
    found: Verification,
    compared: Comparison,
    restore: Restore,
    plain: NumberChanges,
    run: Callable[[NumberChanges, Restore | None], tuple[Verification, Comparison]],
) -> Verification:
    """Return a comparison with numbers restored in the first model, where that finds them equal.

    As they are, the models must be equal to the tolerance of the type that they were rounded to.
    """
    told = compared.a.restorable(restore)
    if not told:
        return found
    held = plain | NumberChanges((Effect.RESTORES,), told)
    if not run(held, None)[0].ok:
        return found
    exact = run(held, restore)[0]
    note = f"equal with numbers restored in the reference: {told}"
    return replace(exact, notes=(*exact.notes, note)) if exact.ok else found
