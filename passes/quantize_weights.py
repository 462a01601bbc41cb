"""The pass that rounds the weights of products to few bits."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_dead, remove_unused_constant
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, tensor_slots
from vlmpass.ir_tools.run.calibration import calibration_feeds
from vlmpass.ir_tools.run.input_squares import Doubles, input_squares
from vlmpass.ir_tools.save import format_size
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.measuring_once import measures
from vlmpass.rewriter_rules.opset import raise_ir_version
from vlmpass.rewriter_rules.quant.emit import NBITS_BLOCKS
from vlmpass.rewriter_rules.quant.excluded import excludes, fault_of, unmatched
from vlmpass.rewriter_rules.quant.few_bits import Grid
from vlmpass.rewriter_rules.quant.gptq import Squares, solutions
from vlmpass.rewriter_rules.quant.plain import Left, Multiplied, multiplied, taken_by
from vlmpass.rewriter_rules.quant.solved import Solved
from vlmpass.rewriter_rules.quant.tied import TiedTable, tied_tables
from vlmpass.rewriter_rules.quant.tied_blocks import TiedBlocks
from vlmpass.rewriter_rules.quant.written import (
    Parts,
    dequantized,
    nbits_product,
    needed_opset,
    rounded,
    scale_type,
    why_not_nbits,
)

__all__ = ["QuantizeWeights"]

_LOG = logging.getLogger(__name__)
_BLOCK = 32
_BITS = (2, 4, 8)


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Round the weights of MatMul, Gemm and Conv to 8, 4 or 2 bits.

    A weight of 8 bits has one scale for each output unless `block` says otherwise, one of fewer has
    a scale for each 32 numbers. A weight that something else uses too, such as the table of tied
    embeddings, stays as it is. A result is compared with the source whose weights are rounded
    likewise, and how far rounding takes its outputs is said.
    """

    name: ClassVar[str] = "quantize-weights"
    nothing: ClassVar[str] = "no product has a float weight to round"
    rounds: ClassVar[str] = "the weights"

    bits: int = 8
    """Bits of each number: 8, 4 or 2."""

    form: Literal["dequantize-linear", "matmul-nbits"] = "dequantize-linear"
    """What holds them: the standard operator before the product, or ONNX Runtime's own product."""

    block: int | None = None
    """Numbers with one scale, along the axis that is summed; 0 for one scale for each output."""

    symmetric: bool = True
    """Whether zero is in the middle of the numbers, so that there are no zero points."""

    algorithm: Literal["nearest", "hqq", "gptq"] = "nearest"
    """How: to the nearest, with zero points that are numbers of as many bits; with zero points
    that are floats, sought in half-quadratic steps, as MatMulNBits takes them; or so that later
    numbers make good what rounding the earlier ones costs on inputs of `calibrate`."""

    calibrate: str = ""
    """For algorithm=gptq, inputs to run with: an .npz file, a folder of them, or `random`.

    The model runs in segments of bounded weights, so that it may be larger than memory."""

    damping: float = 0.01
    """With algorithm=gptq, the share of the mean square of inputs that is added to each."""

    search: bool = True
    """Whether blocks are scaled for the least squares of errors, rather than by their extremes."""

    tied: bool = False
    """Whether a table of embeddings that is the output's matrix, too, is rounded: to 8 bits, with
    form=matmul-nbits to 4. It stays one, and no more of it is made floats than is looked up."""

    exclude: tuple[str, ...] = ()
    """Operators, and regular expressions that find names: such products keep their weights."""

    at_least: int = 1024
    """Elements that a weight must have."""

    def __post_init__(self) -> None:
        """Check numbers and expressions."""
        super().__post_init__()
        if self.bits not in _BITS:
            raise OptionError("bits", f"{self.bits} bits are not offered", remedy="8, 4 or 2")
        if self.block is not None and self.block < 0:
            raise OptionError("block", f"a block cannot have {self.block} numbers")
        if self.form == "matmul-nbits" and self._block not in NBITS_BLOCKS:
            sizes = ", ".join(map(str, NBITS_BLOCKS))
            remedy = f"choose one of {sizes}"
            raise OptionError("block", f"MatMulNBits has no blocks of {self._block}", remedy=remedy)
        if self.algorithm == "hqq" and self.form != "matmul-nbits":
            what = "DequantizeLinear has no zero points between numbers"
            raise OptionError("algorithm", what, remedy="choose form=matmul-nbits")
        if self.algorithm == "hqq" and (self.symmetric or self.bits == 8):
            what = "hqq seeks zero points of fewer than 8 bits"
            raise OptionError("algorithm", what, remedy="say symmetric=false and bits=4 or bits=2")
        self._check_gptq()
        self._check_tied()
        if self.at_least < 1:
            raise OptionError("at-least", "a weight to round has an element at least")
        if fault := fault_of(self.exclude):
            raise OptionError("exclude", fault)

    def _check_tied(self) -> None:
        if not self.tied:
            return
        if self.form == "matmul-nbits" and (self.bits == 2 or not self.symmetric):
            what = "a tied table in blocks has 4 or 8 bits, and zero in the middle"
            raise OptionError("tied", what, remedy="say bits=4, and leave out symmetric")
        if self.form != "matmul-nbits" and (self.bits != 8 or self._block):
            what = "a tied table that is dequantised has 8 bits and a scale for each row"
            raise OptionError("tied", what, remedy="say form=matmul-nbits, or bits=8 and no block")

    def _check_gptq(self) -> None:
        if self.algorithm == "gptq" and not self.calibrate:
            remedy = "name an .npz file or a folder of them, or say random"
            raise OptionError("calibrate", "gptq needs inputs to measure with", remedy=remedy)
        if self.algorithm != "gptq" and self.calibrate:
            remedy = "say algorithm=gptq, or leave it out"
            raise OptionError("calibrate", f"{self.algorithm} measures nothing", remedy=remedy)
        if not 0 < self.damping <= 1:
            what = f"{self.damping} is no share of what is there"
            raise OptionError("damping", what, remedy="give 0 < damping <= 1")

    @property
    def _block(self) -> int:
        if self.block is not None:
            return self.block
        return 0 if self.bits == 8 and self.form == "dequantize-linear" else _BLOCK

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place; every weight is looked at before the first one is touched."""
        found = list(multiplied(model, self.at_least, self._is_excluded))
        self._tell_unmatched(model)
        weights = [each for each in found if isinstance(each, Multiplied) and self._suits(each)]
        refusals = [each for weight in weights for each in self._refusals(weight)]
        if refusals:
            raise Refused(str(self), refusals)
        tables = self._tables(model)
        chosen = [each for each in weights if may_apply(self.name, each.value.name or "")]
        writer = _Writer(self, model, self._solved(model, chosen))
        for weight in chosen:
            writer.write(weight)
        for table in tables:
            if isinstance(table, TiedBlocks):
                writer.write_blocks(table)
            else:
                writer.write_table(table)
        left = Counter(each.reason for each in found if isinstance(each, Left))
        if chosen or tables:
            raise_ir_version(model)
            self._tell([*chosen, *tables], left, len(writer.solved))
        return bool(chosen or tables)

    def round_likewise(self, model: ir.Model, done: set[ir.Value]) -> None:
        """Let weights be what is left of them, as floats: what a result is held against."""
        slots = {slot.value: slot for slot in tensor_slots(model) if slot.value is not None}
        for table in self._tables(model):
            slots[table.value].replace(table.rounded())
            done.add(table.value)
        found = list(multiplied(model, self.at_least, self._is_excluded))
        weights = [each for each in found if isinstance(each, Multiplied) and self._suits(each)]
        weights = [each for each in weights if each.value not in done]
        solved = self._solved(model, weights)
        for each in weights:
            floats = rounded(each, self.grid(each), solved.get(each.value))
            slots[each.value].replace(LazyWeight(expressions.reshaped(floats, each.shape)))
            done.add(each.value)

    def _solved(self, model: ir.Model, weights: list[Multiplied]) -> dict[ir.Value, Solved]:
        """Return what weights are rounded to by the inputs of their products, where those say it.

        Raises:
            VerifyError: The model does not run.
        """
        if self.algorithm != "gptq":
            return {}
        known = measures()
        found = known.solved.setdefault(str(self), {})
        by_name = {str(each.value.name): each for each in weights if taken_by(model, each)}

        def take(name: str, sums: Doubles, rows: int) -> None:
            matrix, grid = by_name[name].matrix, self.grid(by_name[name])
            few.extend([name] if rows < len(sums) else [])
            made = solutions(matrix, grid, Squares.of(sums, self.damping))
            found[name] = Solved.of(grid, matrix.shape, made, known.home)

        few: list[str] = []
        wanted = {name: taken_by(model, each) for name, each in by_name.items()}
        if missing := {name: taken for name, taken in wanted.items() if name not in found}:
            input_squares(model, missing, calibration_feeds(self.calibrate, model), take)
        if few:
            _LOG.warning(
                "%s: calibrate: %d weights have more inputs than were measured, and suit those "
                "alone, which more of them or a larger damping mends: %s",
                self.name, len(few), listed(few),
            )  # fmt: skip
        return {each.value: found[name] for name, each in by_name.items() if name in found}

    def _tables(self, model: ir.Model) -> list[TiedTable | TiedBlocks]:
        """Return the tied tables that are rounded."""
        found = list(tied_tables(model, self.at_least, self._is_excluded)) if self.tied else []
        chosen = [each for each in found if may_apply(self.name, each.value.name or "")]
        blocks = self.form == "matmul-nbits"
        tables = [TiedBlocks(each, self._table_grid(each)) if blocks else each for each in chosen]
        refused = [(each, each.why_not) for each in tables]
        refusals = [Refusal(f"table {each.value.name}", *why) for each, why in refused if why]
        if refusals:
            raise Refused(str(self), refusals)
        return tables

    def _table_grid(self, table: TiedTable) -> Grid:
        """Return how the rows of a table are rounded in blocks."""
        search, kind = self.search and self.bits < 8, table.matrix.dtype
        name = table.value.name or ""
        return Grid(self.bits, 1, self._block, True, search, kind, mirrored=search, weight=name)

    def grid(self, weight: Multiplied) -> Grid:
        """Return how a weight is rounded."""
        whole = weight.matrix.shape[weight.axis]
        blocked = self._block and not _is_conv(weight)
        search = self.search and self.bits < 8 and bool(blocked)
        block = self._block if blocked else whole
        opset = min(scope.opsets.get("", 1) for scope, _ in weight.users)
        standard = self.form == "dequantize-linear"
        kind = scale_type(weight.matrix.dtype, opset) if standard else weight.matrix.dtype
        mirrored = search and self.symmetric and not standard
        name = weight.value.name or ""
        return Grid(
            self.bits, weight.axis, block, self.symmetric, search, kind, mirrored, name,
            free=self.algorithm == "hqq",
        )  # fmt: skip

    def _suits(self, weight: Multiplied) -> bool:
        """Whether the form has such a product; of a Conv, fewer than 8 bits lose too much."""
        standard = self.form == "dequantize-linear"
        return standard and self.bits == 8 if _is_conv(weight) else True

    def _is_excluded(self, node: ir.Node) -> bool:
        return excludes(self.exclude, node)

    def _refusals(self, weight: Multiplied) -> list[Refusal]:
        label = f"weight {weight.value.name}"
        if self.form == "matmul-nbits":
            reasons = {why_not_nbits(weight, node) for _, node in weight.users} - {None}
            advice = "exclude it, or choose form=dequantize-linear"
            return [Refusal(label, str(reason), advice) for reason in sorted(map(str, reasons))]
        needed = needed_opset(self.grid(weight), weight.matrix.shape)
        has = min(scope.opsets.get("", 1) for scope, _ in weight.users)
        if has >= needed:
            return []
        what = f"DequantizeLinear has this form of {self.bits} bits from opset {needed} on"
        return [Refusal(label, what, f"put convert-opset{{to={needed}}} before it")]

    def _tell_unmatched(self, model: ir.Model) -> None:
        for each in unmatched(self.exclude, model):
            _LOG.warning("%s: exclude: no node is named like '%s'", self.name, each)

    def _tell(
        self, chosen: list[Multiplied | TiedTable | TiedBlocks], left: Counter[str], solved: int
    ) -> None:
        before = sum(each.matrix.nbytes for each in chosen)
        elements = sum(each.matrix.size for each in chosen)
        after = format_size(elements * self.bits // 8)
        rest = "".join(f"; {n} stay, {reason}" for reason, n in sorted(left.items()))
        if self.algorithm == "gptq" and solved < len(chosen):
            rest = f"; {len(chosen) - solved} to the nearest, whose inputs are not measured{rest}"
        _LOG.warning(
            "%s: %d weights of %s are numbers of %d bits now, %s and their scales%s",
            self.name, len(chosen), format_size(before), self.bits, after, rest,
        )  # fmt: skip


def _is_conv(weight: Multiplied) -> bool:
    return weight.users[0][1].op_type == "Conv"


@dataclass
class _Writer:
    """Puts rounded weights into a model."""

    asked: QuantizeWeights
    model: ir.Model
    solved: dict[ir.Value, Solved]
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names.of(self.model)

    def write(self, weight: Multiplied) -> None:
        """Let every product of a weight multiply with it rounded."""
        grid, solved = self.asked.grid(weight), self.solved.get(weight.value)
        held: dict[int, Parts] = {}
        for scope, node in weight.users:
            tape = Tape(self.names, scope.opsets, node.name or self.asked.name)
            parts = held.setdefault(id(scope.graph), Parts(tape, weight, grid, solved))
            result = self._product(parts.on(tape), scope, node)
            splice(tape, [node], [(node.outputs[0], result)], in_function=scope.in_function)
        remove_unused_constant(weight.value)

    def write_table(self, table: TiedTable) -> None:
        """Let lookups and products share a table that is rounded."""
        users = [*table.lookups, *table.heads]
        first = min(users, key=list(self.model.graph).index)
        stored: tuple[ir.Value, ir.Value] | None = None
        opsets = self.model.graph.opset_imports
        for node in (first, *(each for each in users if each is not first)):
            tape = Tape(self.names, opsets, node.name or self.asked.name)
            stored = stored or table.stored(tape)
            if node in table.lookups:
                made = table.looked_up(tape, node.inputs[1], *stored)
            else:
                whole = table.whole(tape, *stored)
                inputs = [whole if each is table.value else each for each in node.inputs]
                made = tape.node(node.op_type, inputs, node.attributes)[0]
            splice(tape, [node], [(node.outputs[0], made)], in_function=False)
        remove_unused_constant(table.value)

    def write_blocks(self, blocks: TiedBlocks) -> None:
        """Let lookups and products share a table that lies in blocks."""
        table, graph = blocks.table, self.model.graph
        graph.opset_imports.setdefault("com.microsoft", 1)
        products = set(blocks.products())
        stored: tuple[ir.Value, ir.Value] | None = None
        for node in sorted((*table.lookups, *products), key=list(graph).index):
            tape = Tape(self.names, graph.opset_imports, node.name or self.asked.name)
            stored = stored or blocks.stored(tape)
            if node in products:
                made = blocks.multiplied(tape, node, *stored)
            else:
                rows = node.inputs[1]
                assert rows is not None
                made = blocks.looked_up(tape, rows, *stored)
            splice(tape, [node], [(node.outputs[0], made)], in_function=False)
        remove_dead([each for each in table.heads if each not in products])
        remove_unused_constant(table.value)

    def _product(self, parts: Parts, scope: Scope, node: ir.Node) -> ir.Value:
        if self.asked.form == "matmul-nbits":
            for owner in (scope.owner, self.model.graph):
                owner.opset_imports.setdefault("com.microsoft", 1)
            return nbits_product(parts, node)
        inputs = [node.inputs[0], dequantized(parts), *node.inputs[2:]]
        return parts.tape.node(node.op_type, inputs, node.attributes)[0]
