import ml_dtypes
import numpy as np
import pytest

from vlmpass.ir_tools.run import TOLERANCES, compare, compare_arrays


def arrays(error=0.0, dtype=np.float32, size=1000):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(size)
    return a.astype(dtype), (a * (1 + error)).astype(dtype)


def test_equal_arrays_are_equal_in_every_type():
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8):
        a, _ = arrays(dtype=dtype)
        found = compare_arrays("y", a, a.copy())
        assert found.ok
        assert found.max_abs == found.max_rel == 0
        assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(("error", "ok"), [(5e-5, True), (5e-4, False)])
def test_float32_is_held_to_its_tolerance(error, ok):
    found = compare_arrays("y", *arrays(error))
    assert found.ok is ok
    assert found.tolerance == TOLERANCES["float32"]
    assert 0.3 * error < found.max_rel < error


def test_the_narrower_type_sets_the_tolerance():
    a, b = arrays(2e-3)
    found = compare_arrays("y", a, b.astype(np.float16))
    assert found.ok
    assert found.tolerance == 4 * TOLERANCES["float16"]
    assert (found.expected, found.actual) == ("float32[1000]", "float16[1000]")


def test_a_given_tolerance_wins_and_a_floor_raises_the_default():
    a, b = arrays(1e-3)
    assert not compare_arrays("y", a, b).ok
    assert compare_arrays("y", a, b, tolerance=1e-2).ok
    assert compare_arrays("y", a, b, at_least=5e-3).ok
    assert not compare_arrays("y", a, b, tolerance=1e-4, at_least=5e-3).ok


def test_mask_constants_do_not_hide_errors_elsewhere():
    a, b = arrays(1e-2)
    a[::10] = b[::10] = -3.4e38
    assert not compare_arrays("y", a, b).ok


def test_an_error_next_to_zeros_counts():
    a = np.zeros(1000, np.float32)
    a[:5] = 1
    b = a.copy()
    b[900] = 1e-3
    assert not compare_arrays("y", a, b).ok
    assert compare_arrays("y", b, a).max_rel == compare_arrays("y", a, b).max_rel


def test_nan_and_infinity_count_where_they_are_alone():
    a, _ = arrays()
    a[3], a[4] = np.nan, np.inf
    same = compare_arrays("y", a, a.copy())
    assert same.ok
    assert (same.nan, same.inf) == ((1, 1), (1, 1))
    b = a.copy()
    b[3], b[5] = 0, np.nan
    found = compare_arrays("y", a, b)
    assert not found.ok
    assert "2 elements are NaN or infinite in one" in found.reason
    c = a.copy()
    c[4] = -np.inf
    assert not compare_arrays("y", a, c).ok


def test_all_zero_is_flagged():
    a, _ = arrays()
    zero = np.zeros_like(a)
    assert compare_arrays("y", a, zero).all_zero == (False, True)
    assert not compare_arrays("y", a, zero).ok
    assert compare_arrays("y", zero, zero).all_zero == (True, True)
    assert compare_arrays("y", a, zero).cosine == 0.0


def test_integers_booleans_and_strings_are_exact():
    big = np.array([2**60, 1], np.int64)
    assert not compare_arrays("y", big, big + 1).ok
    assert compare_arrays("y", big, big + 1).max_abs == pytest.approx(1, abs=255)
    flags = np.array([True, False])
    assert compare_arrays("y", flags, flags).ok
    assert not compare_arrays("y", flags, ~flags).ok
    words = np.array(["a", "b"], dtype=object)
    assert compare_arrays("y", words, words).ok
    assert not compare_arrays("y", words, words[::-1]).ok


def test_shapes_and_kinds_must_agree():
    a, _ = arrays()
    assert compare_arrays("y", a, a[:-1]).reason == "shapes differ"
    assert compare_arrays("y", a, a.astype(np.int64)).reason == "element types differ"
    assert compare_arrays("y", a.astype(np.int32), a.astype(np.int64)).reason


def test_integers_below_a_byte_are_compared_by_value():
    codes = np.array([-8, -1, 0, 7], np.int8)
    assert compare_arrays("y", codes.astype(ml_dtypes.int4), codes).ok
    assert not compare_arrays("y", codes.astype(ml_dtypes.int4), codes[::-1]).ok
    assert not compare_arrays("y", codes.astype(ml_dtypes.uint4), codes).ok


def test_empty_and_scalar_arrays():
    empty = np.zeros((0, 3), np.float32)
    found = compare_arrays("y", empty, empty)
    assert found.ok
    assert found.all_zero == (False, False)
    assert compare_arrays("y", np.float32(1).reshape(()), np.float32(1).reshape(())).ok


def test_large_arrays_are_compared_whole():
    a = np.ones(3_000_001, np.float32)
    b = a.copy()
    b[-1] = 1.1
    assert not compare_arrays("y", a, b).ok


def test_huge_values_do_not_overflow_the_cosine():
    a = np.full(10, 1e300)
    assert compare_arrays("y", a, a).cosine == pytest.approx(1.0)


def test_missing_and_new_outputs_and_sequences():
    a, b = arrays(1e-2)
    found = {each.name: each for each in compare({"x": a, "y": a}, {"x": a, "z": a})}
    assert found["x"].ok
    assert found["y"].reason == "output is missing"
    assert found["z"].reason == "output is new"
    lists = compare({"s": [a, a]}, {"s": [a, b]})
    assert [each.ok for each in lists] == [True, False]
    assert [each.name for each in lists] == ["s[0]", "s[1]"]
    assert not compare({"s": [a]}, {"s": [a, a]})[0].ok
    assert compare({"o": None}, {"o": None})[0].ok
    assert not compare({"o": None}, {"o": a})[0].ok


def test_errors_are_told_by_mean_quantile_step_and_power():
    rng = np.random.default_rng(0)
    a = rng.uniform(1, 2, 10_000)
    b = a.copy()
    b[:100] += 1e-3  # one in a hundred
    found = compare_arrays("y", a, b, tolerance=1)
    assert found.mean_abs == pytest.approx(1e-5)
    gap = np.abs(a - b) / (np.maximum(a, b) + np.median(b))
    assert found.mean_rel == pytest.approx(gap.mean(), rel=1e-3)
    assert found.quantiles[:2] == (0.0, 0.0)
    assert found.quantiles[3] == pytest.approx(np.quantile(gap, 0.999), rel=1e-3)
    assert found.snr == pytest.approx(10 * np.log10((a**2).sum() / 1e-4), rel=1e-6)
    same = compare_arrays("y", a, a.copy())
    assert (same.quantiles, same.snr, same.ulps) == ((), None, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_steps_are_counted_across_zero_and_powers_of_two(dtype):
    def step(array, number):
        return (array.view(f"i{array.dtype.itemsize}") + number).view(dtype)

    two = np.array([2.0], dtype)
    assert compare_arrays("y", step(two, -2), step(two, 1), tolerance=1).ulps == 3
    zero = np.array([0.0], dtype)
    least = step(zero, 1)
    assert compare_arrays("y", -least, least, tolerance=1).ulps == 2
    assert compare_arrays("y", -zero, zero).ulps == 0
    top = np.array([np.finfo(dtype).max if dtype is not ml_dtypes.bfloat16 else 3.38e38], dtype)
    found = compare_arrays("y", -top, top, tolerance=0.1)
    assert not found.ok
    assert found.ulps > 0
    found = compare_arrays("y", least, zero, tolerance=1)
    assert found.denormal == (1, 0)


def test_steps_are_those_of_the_narrower_type():
    a = np.array([1.0, 3.0], np.float32)
    assert compare_arrays("y", a, a.astype(np.float16) + np.float16(2**-9)).ulps == 2


def test_constants_are_flagged():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    seven = np.full_like(a, 7)
    assert compare_arrays("y", a, seven).constant == (False, True)
    assert compare_arrays("y", seven, seven).constant == (True, True)
    assert compare_arrays("y", a * 0, a * 0).constant == (False, False)
    ids = np.array([4, 4], np.int64)
    assert compare_arrays("y", ids, ids).constant == (True, True)
    assert compare_arrays("y", ids * 0, ids * 0).all_zero == (True, True)
    one = np.array([3.0], np.float32)
    assert compare_arrays("y", one, one).constant == (False, False)
