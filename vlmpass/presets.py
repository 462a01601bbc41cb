"""An intent as pipeline text."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import onnx_ir as ir

from vlmpass.intent import ROUNDED, Intent
from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.ir_tools.targets import Profile
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.kinds import write_word
from vlmpass.passes.pipeline.text import parse

__all__ = ["SIMPLIFY", "pipeline_text"]

SIMPLIFY = (
    "infer,shape-arithmetic,fold,dead-branches,cse,simplify,fold,shape-arithmetic,cse,"
    "move-transposes,simplify,remove-unused,dedupe-initializers"
)
"""Fewer nodes, same values: what decides shapes first, and once more what that laid open.

Shapes come before folding, so that what leaves a stored tensor as it is goes away, and the tensor
keeps its name; folded, it would have the name of the result.
"""


_SUBSTITUTED_AT = 13
"""What stands for a foreign node is written at this opset or later."""


def pipeline_text(intent: Intent, model: ir.Model) -> str:
    """Return the pipeline that brings a model there, all the way: run again, it does nothing.

    Packed weights come first, while they are as exported, at an opset that has their form, and
    fusion last, when the opset has all it will have. Constants are folded before types narrow,
    and after they widen. What comes after the first simplification leaves something to
    simplify, and nodes whose shapes follow only now. Outputs that nobody declared are inferred
    in any case. The opset is put right before all of that.
    """
    intent = _with_quant(intent, model)
    parts = ["mend-shifts"] if intent.mend_shifts else []
    foreign = any(_has_substitute(node) for node in all_nodes(model))
    if foreign and min(_source_opsets(intent, model), default=0) >= _SUBSTITUTED_AT:
        parts.append("substitute")  # first, so that all else sees operators that it knows
        foreign = False
    if intent.quant is not None and not _widens_before_quant(intent):
        parts += _quant_parts(intent, model)
    if intent.dtype == "float32":
        parts.append(_dtype_part(intent, intent.dtype))
    if _widens_before_quant(intent):
        parts += _quant_parts(intent, model)
    simplified = intent.simplify or intent.profile is not None
    if simplified:
        parts.append(_simplify_part(intent))
    first = len(parts)
    if intent.dtype not in (None, "float32"):
        parts.append(_dtype_part(intent, str(intent.dtype)))
    parts += _opset_parts(intent, model, foreign=foreign)
    fuse, legalize = _fuse_part(intent), _legalize_part(intent)
    parts += [*fuse, *legalize]
    if simplified and parts[first:]:
        # What legalising spells out may fuse to something else that the target has.
        parts += [_simplify_part(intent), *(fuse if legalize else []), *legalize]
    if rounding := _rounding_parts(intent, model):
        parts += [*rounding, *legalize]
    text = ",".join(parts)
    if any(isinstance(each, Pass) and each.needed(model) for each in parse(text)):
        text = f"{text},infer"  # what the last of them wrote has shapes too
    needy = any(each.type is None or each.shape is None for each in model.graph.outputs)
    if needy and not text.startswith("infer"):
        text = f"infer,{text}".rstrip(",")
    return f"restamp,{text}".rstrip(",") if intent.restamp else text


def _source_opset(intent: Intent, model: ir.Model) -> int | None:
    """Return the opset that the passes start from."""
    with contextlib.suppress(Refused):
        if intent.restamp:
            from vlmpass.rewriter_rules.opset.restamp import nearest_valid

            return nearest_valid(model)
    return default_opset(model.opset_imports)


def _with_quant(intent: Intent, model: ir.Model) -> Intent:
    """Ask for another form of packed weights where a target does not run what unpacks them.

    Products with few bits, where it has them; else weights as floats, which every target has.
    """
    target = intent.profile
    if target is None or intent.quant or not target.says_operators:
        return intent
    from vlmpass.passes.legalize.planning import LegalPlanner

    if not LegalPlanner(model, target).left:
        return intent
    has = ("com.microsoft", "MatMulNBits") in target.operators
    return replace(intent, quant="matmul-nbits" if has else "float")


def _widens_before_quant(intent: Intent) -> bool:
    """Whether weights are written out as float32: then they are not rounded on the way."""
    return intent.quant == "float" and intent.dtype == "float32"


def _quant_parts(intent: Intent, model: ir.Model) -> list[str]:
    from vlmpass.rewriter_rules.quant.emit import BLOCKED_OPSET

    parts = [f"quant-linear{{to={intent.quant}}}"]
    has = _source_opset(intent, model)
    if intent.quant == "dequantize-linear" and has is not None and has < BLOCKED_OPSET:
        needed = intent.opset if isinstance(intent.opset, int) else BLOCKED_OPSET
        parts.insert(0, f"convert-opset{{to={needed}}}")
    return parts


def _rounding_parts(intent: Intent, model: ir.Model) -> list[str]:
    """Round weights last, when they are what products multiply with."""
    if intent.quantize is None:
        return []
    bits, needed = ROUNDED[intent.quantize]
    has = intent.opset if isinstance(intent.opset, int) else _source_opset(intent, model)
    up = has is not None and has < needed and intent.opset is None
    raised = [f"convert-opset{{to={needed}}}"] if up else []
    return [*raised, f"quantize-weights{{bits={bits}}}" if bits != 8 else "quantize-weights"]


def _dtype_part(intent: Intent, dtype: str) -> str:
    options = [f"to={dtype}", *(["keep-io=true"] if intent.keep_io else [])]
    if dtype != "float32":
        options.append(f"calibrate={write_word(intent.calibrate or 'auto')}")
    name = "unify-dtype" if dtype == "float32" else "mixed-precision"
    return f"repair-types,{name}{{{' '.join(options)}}}"


def _opset_parts(intent: Intent, model: ir.Model, *, foreign: bool) -> list[str]:
    parts: list[str] = []
    opset = intent.opset
    if intent.profile is not None and opset in (None, "auto"):
        opset = _opset_read(intent, intent.profile, model)
    if opset is not None:
        wider = " interface=wider" if intent.widen_io else ""
        parts.append(f"convert-opset{{to={opset}{wider}}}")
    if foreign:
        early = opset == "lowest" or (isinstance(opset, int) and opset < _SUBSTITUTED_AT)
        parts.insert(len(parts) - 1 if early else len(parts), "substitute")
    return parts


def _simplify_part(intent: Intent) -> str:
    """Simplify, and for a target not to what it does not run, which would come back each time."""
    target = intent.profile
    if target is None or not target.says_nodes:
        return SIMPLIFY
    here = f"simplify{{target={write_word(target.asked)}}}"
    return ",".join(here if each == "simplify" else each for each in SIMPLIFY.split(","))


def _fuse_part(intent: Intent) -> list[str]:
    """Fuse to what is asked for, and of that to what the target has; to all of that by default."""
    target, emit = intent.profile, intent.fuse
    if target is None or not target.says_operators:
        return [] if emit is None else [f"fuse{{emit={emit}}}"]
    return [f"fuse{{emit={emit or target.fuses} target={write_word(target.asked)}}}"]


def _legalize_part(intent: Intent) -> list[str]:
    """Return the passes for a target of which it is known what nodes it runs."""
    if intent.profile is None or not intent.profile.says_nodes:
        return []
    options = f"target={write_word(intent.profile.asked)}"
    if intent.widen_io and intent.profile.interface is not None:
        options += " interface=wider"
    if intent.allow is not None:
        options += f" allow={intent.allow}"
    return ["repair-types", f"legalize{{{options}}}"]


def _opset_read(intent: Intent, target: Profile, model: ir.Model) -> int | str | None:
    """Return the opset to ask for where a target decides: what is asked for if it reads that."""
    if intent.opset == "auto":
        from vlmpass.passes.convert_opset import AUTO_OPSET

        nearest = target.nearest(AUTO_OPSET)
        return "auto" if nearest == AUTO_OPSET else nearest
    has = _source_opset(intent, model)
    read = all(target.nearest(each) == each for each in _source_opsets(intent, model))
    if has is None:
        return None
    if not read:
        return target.nearest(has)
    from vlmpass.passes.legalize.planning import better_opset

    return better_opset(model, target)


def _source_opsets(intent: Intent, model: ir.Model) -> set[int]:
    """Return all opsets that the passes start from, those of functions included."""
    from vlmpass.rewriter_rules.opset.stamp import imported_opsets

    has = _source_opset(intent, model)
    found = {has, *imported_opsets(model)} if has is None or not intent.restamp else {has}
    return {opset for opset in found if opset is not None}


def _has_substitute(node: ir.Node) -> bool:
    """Whether `substitute` has something for a node; its rules are imported for such ones."""
    if node.domain in ("", "ai.onnx"):
        if node.op_type not in ("Cast", "CumSum", "Transpose"):
            return False
        from vlmpass.rewriter_rules.substitute.misspelled import is_misspelled

        return is_misspelled(node)
    from vlmpass.rewriter_rules.substitute.aten_operators import is_left_behind

    return is_left_behind(node)
