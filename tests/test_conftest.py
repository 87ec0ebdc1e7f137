"""The comparing helper itself must be able to fail."""

import numpy as np
import pytest
from conftest import TOLERANCE, assert_kernels_equal


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_kernels_equal_fails_just_outside_the_tolerance(dtype):
    expected = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, -1.0]])
    worst = 2.0 * TOLERANCE[dtype]  # relative to the largest entry, 2
    assert_kernels_equal(expected + 0.9 * worst, expected, dtype)
    with pytest.raises(AssertionError, match="kernels differ by"):
        assert_kernels_equal(expected + 1.1 * worst, expected, dtype)


def test_kernels_equal_is_relative_to_the_diagonals():
    expected = np.array([[1e-8, 1.0]])
    actual = expected + np.array([[1e-9, 0.0]])
    assert_kernels_equal(actual, expected, "float32")
    with pytest.raises(AssertionError, match="kernels differ by"):
        assert_kernels_equal(actual, expected, "float32", diagonals=([1.0], [1e-16, 1.0]))


def test_kernels_equal_wants_zero_for_dead_inputs():
    assert_kernels_equal([[0.0, 1.0]], [[0.0, 1.0]], "float32", diagonals=([1.0], [0.0, 1.0]))
    with pytest.raises(AssertionError, match="exactly zero"):
        assert_kernels_equal([[1e-9, 1.0]], [[0.0, 1.0]], "float32", diagonals=([1.0], [0.0, 1.0]))


@pytest.mark.parametrize(
    ("actual", "match"), [([[1.0]], "shapes differ"), ([[np.nan, 1.0]], "not finite")]
)
def test_kernels_equal_refuses_what_cannot_be_compared(actual, match):
    with pytest.raises(AssertionError, match=match):
        assert_kernels_equal(actual, [[1.0, 1.0]], "float64")


def test_rng_depends_on_the_name_of_the_test(rng):
    assert rng.integers(2**32) == 2372863431
