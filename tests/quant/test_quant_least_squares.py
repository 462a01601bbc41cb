"""Scales with the least squares of errors: near the best there is, never worse than extremes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import pytest
from quant_chains import chain

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights.boxes import full
from vlmpass.ir_tools.weights.evaluate import byte_chunks, evaluate
from vlmpass.ir_tools.weights.leaves import Held
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant import kept_fits, least_squares
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales, Zeros

FLOAT = ir.DataType.FLOAT


def case(seed: int):
    """A weight of one of six kinds, and a grid."""
    dice, choose = np.random.default_rng(seed), random.Random(seed)
    shape = choose.choice([33, 64, 96]), choose.choice([1, 40, 70])
    array = dice.standard_normal(shape)
    kinds = array, array**3, np.rint(array), array * 1e30, array * 1e-30, np.abs(array) + 3
    array = kinds[seed % 6].astype(np.float32)
    array[:, 0] = choose.choice([0, 1, -2])
    bits, symmetric, axis = choose.choice([2, 4]), choose.random() < 0.5, choose.choice([0, 1])
    kind = FLOAT if seed % 6 in (3, 4) else choose.choice([FLOAT, ir.DataType.FLOAT16])
    mirrored = symmetric and choose.random() < 0.5
    return array, Grid(bits, axis, choose.choice([16, 32, 20]), symmetric, True, kind, mirrored)


def lost(groups, grid, scales, zeros):
    """Squares of errors of each block, in doubles."""
    numbers = grid.numbers(groups, scales, zeros).astype(np.float64) - zeros[..., None]
    return np.square(numbers * scales[..., None] - groups).sum(-1)


def best(block, grid):
    """The least squares that any of 4000 scales leaves of a block, by definition."""
    w, top = block.astype(np.float64), (1 << grid.bits) - 1
    if not w.any():
        return 0.0
    scales = np.abs(w).max() * np.geomspace(0.01, 2, 4000)[:, None]
    scales = np.concatenate([scales, -scales]) if grid.mirrored else scales
    zeros = [grid.middle] if grid.symmetric else range(top + 1)
    off = [
        np.square((np.clip(np.rint(w / scales) + z, 0, top) - z) * scales - w).sum(1).min()
        for z in zeros
    ]
    return min(off)


@pytest.mark.parametrize("seed", range(24))
def test_no_block_is_further_off_than_by_its_extremes(seed):
    array, grid = case(seed)
    groups = grid.grouped(array, grid.block)
    low, high = groups.min(-1), groups.max(-1)
    found, extremes = grid.fit(groups), grid._spanned(low, high)
    one, two = (lost(groups, grid, *each) for each in (found, extremes))
    assert (one <= two * (1 + 1e-5)).all()
    assert (found[1] == np.clip(np.rint(found[1]), 0, (1 << grid.bits) - 1)).all()
    assert (found[0] == found[0].astype(grid.kind.numpy()).astype(np.float32)).all()
    sizes = np.square(groups.astype(np.float64)).sum(-1)
    if seed % 6 == 0:
        wanted = np.array([[best(b, grid) for b in row[:1]] for row in groups[1:12]])
        assert one[1:12, :1].sum() <= wanted.sum() * 1.25 + 1e-6 * sizes.sum()


def test_numbers_that_a_block_holds_exactly_stay():
    dice = np.random.default_rng(0)
    numbers = dice.integers(-7, 8, (64, 30))
    numbers[::16] = 7
    array = (numbers * np.float32(0.037)).astype(np.float32)
    grid = Grid(4, 0, 16, True, True, FLOAT)
    source = Held.of(ir.Tensor(array))
    assert np.array_equal(evaluate(Rounded(FLOAT, array.shape, source, grid)), array)


def written(array, grid):
    """The three tensors of a weight."""
    source, count = Held.of(ir.Tensor(array)), grid.count(array.shape)
    return (
        Numbers(ir.DataType.UINT4, array.shape, source, grid),
        Scales(FLOAT, count, source, grid),
        Zeros(FLOAT, count, source, grid),
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_kept_between_tensors_changes_nothing(monkeypatch, axis, symmetric):
    monkeypatch.setattr(least_squares, "_PIECE_ELEMENTS", 640)  # some pieces, and their rests
    dice = np.random.default_rng(3)
    array = dice.standard_normal((70, 130)).astype(np.float32)
    grid = Grid(4, axis, 32, symmetric, True, FLOAT)

    def read(order):
        made = written(array, grid)
        found = {at: b"".join(bytes(part) for part in byte_chunks(made[at])) for at in order}
        return [found[at] for at in range(3)]

    with monkeypatch.context() as alone:
        alone.setattr(kept_fits, "_MOST_BYTES", 0)
        wanted = read((0, 1, 2))
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        kept_fits._KEPT.clear()
        assert read(order) == wanted
        assert symmetric or not kept_fits._KEPT  # all was asked for
    with ThreadPoolExecutor(4) as threads:
        made = [written(array, grid)[at % 3] for at in range(12)]
        whole = threads.map(lambda each: each.prepared().read(full(each.shape)).tobytes(), made)
        assert list(whole) == [evaluate(made[at]).tobytes() for at in range(3)] * 4


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(kept_fits, "_MOST_BYTES", 1500)
    kept_fits._KEPT.clear()
    dice, grid = np.random.default_rng(4), Grid(4, 0, 32, True, True, FLOAT)
    for _ in range(5):
        for each in written(dice.standard_normal((64, 100)).astype(np.float32), grid)[:1]:
            evaluate(each)
    assert len(kept_fits._KEPT) == 1
    evaluate(written(dice.standard_normal((64, 200)).astype(np.float32), grid)[0])
    assert len(kept_fits._KEPT) == 1
    kept_fits._KEPT.clear()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_block_alone_is_fitted_like_among_others(axis, mirrored):
    dice = np.random.default_rng(5)
    array = dice.standard_normal((32, 1500)).astype(np.float32)
    grid = Grid(4, axis, 32, mirrored, True, FLOAT, mirrored)
    array = array if axis == 0 else np.ascontiguousarray(array.T)
    whole = grid.fit(grid.grouped(array, 32))
    for at in range(1500):
        one = array[:, at : at + 1] if axis == 0 else array[at : at + 1]
        alone = grid.fit(grid.grouped(one, 32))
        assert all(found[0] == wanted[at] for found, wanted in zip(alone, whole, strict=True))


def test_nothing_is_kept_of_a_weight_once_a_result_is_verified():
    model = chain(3, 21, "float")
    kept_fits._KEPT.clear()
    report = Pipeline("quantize-weights{bits=4 at-least=1}").run(model, verify=True)
    assert report.checked.numbers.ok
    assert not kept_fits._KEPT


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("free", [True, False])
def test_numbers_further_apart_than_floats_reach_are_refused(bits, free):
    array = np.array([[3e38], [-3e38]], np.float32)
    grid = Grid(bits, 0, 2, False, True, FLOAT, weight="w", free=free)
    with pytest.raises(ModelError, match="weight w is too large"):
        evaluate(Rounded(FLOAT, array.shape, Held.of(ir.Tensor(array)), grid))
    alike = Grid(bits, 0, 2, True, True, FLOAT)
    assert np.isfinite(
        evaluate(Rounded(FLOAT, array.shape, Held.of(ir.Tensor(array)), alike))
    ).all()
    with pytest.raises(ModelError, match="weight w is not finite"):
        evaluate(Rounded(FLOAT, array.shape, Held.of(ir.Tensor(array * np.float32(np.nan))), grid))
