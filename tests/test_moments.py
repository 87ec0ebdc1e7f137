"""The rule that judges second moments: it sees wrong kernels, and raises no alarm at right ones."""

import numpy as np
import pytest

from npk.checks.moments import pareto_shape, second_moment

CORRELATED = np.eye(3) + 0.4 * (1 - np.eye(3))
SIDE = np.linalg.cholesky(CORRELATED)


class Draws:
    """Gaussian outputs whose common size is log-normal: squares of mean K, the heavier tailed the
    larger ``heavy`` is.
    """

    def __init__(self, seed=0, heavy=0.0, units=4, kernel=SIDE):
        self.rng, self.heavy, self.units, self.side = (
            np.random.default_rng(seed),
            heavy,
            units,
            kernel,
        )
        self.counts = []

    def __call__(self, count):
        self.counts.append(count)
        size = np.exp(self.heavy * self.rng.standard_normal((count, 1, 1)) - self.heavy**2)
        f = size * (self.side @ self.rng.standard_normal((count, 3, self.units)))
        return f @ f.transpose(0, 2, 1) / self.units


def test_a_right_kernel_agrees_after_one_set():
    draws = Draws()
    found = second_moment(draws, CORRELATED, 200)
    assert (found.verdict, found.draws, draws.counts) == ("agrees", 200, [200])
    assert 0 < found.errors < 3
    assert found.spread == pytest.approx((2 / 4 / 200) ** 0.5, rel=0.3)
    assert found.tail < 0.5


@pytest.mark.parametrize("heavy", [0, 0.3, 0.7, 1, 1.4, 2, 4, 8])
def test_right_kernels_raise_no_alarm_whatever_the_tails(heavy):
    draws = Draws(heavy=heavy, units=1)
    verdicts = [second_moment(draws, CORRELATED, 60).verdict for _ in range(150)]
    assert "deviates" not in verdicts
    assert ("agrees" in verdicts) == (heavy < 1.4)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.6, 3.0])
def test_a_kernel_times_a_number_is_seen(factor):
    for seed in range(20):
        draws = Draws(seed, heavy=0.2)
        found = second_moment(draws, factor * CORRELATED, 200)
        assert found.verdict == "deviates"
        assert found.errors > 5
        assert found.draws == sum(draws.counts)
        # what is too small is proved, what is too large must be confirmed three times
        assert draws.counts == [200, 800, 800, 800] if factor > 1 else draws.counts[0] == 200


@pytest.mark.parametrize("off", [-0.5, 0.5])
def test_one_wrong_entry_beside_the_diagonal_is_seen(off):
    """The sum or the difference of the two samples has too small a kernel."""
    wrong = CORRELATED.copy()
    wrong[0, 2] = wrong[2, 0] = wrong[0, 2] + off
    assert all(second_moment(Draws(seed), wrong, 200).verdict == "deviates" for seed in range(20))


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_one_wrong_entry_of_the_diagonal_is_seen(factor):
    wrong = CORRELATED.copy()
    wrong[1, 1] *= factor
    assert all(second_moment(Draws(seed), wrong, 200).verdict == "deviates" for seed in range(20))


def test_a_kernel_that_is_too_small_is_seen_through_heavy_tails():
    """A bet needs no variance."""
    found = second_moment(Draws(heavy=1.0), CORRELATED / 100, 200)
    assert found.verdict == "deviates"
    assert found.tail > 0.7


def test_a_suspicion_is_dropped_where_fresh_draws_do_not_confirm_it():
    right, counts = Draws(), []

    def draw(count):
        counts.append(count)
        return right(count) * (0.6 if len(counts) == 1 else 1.0)

    assert second_moment(draw, CORRELATED, 200).verdict == "agrees"
    assert counts == [200, 800]


@pytest.mark.parametrize(
    ("errors", "verdict", "sets"),
    [(2.9, "agrees", 1), (3.8, "undecided", 5), (4.3, "deviates", 13)],
)
def test_what_is_between_a_suspicion_and_an_alarm_is_undecided(errors, verdict, sets):
    """Every set lies so many standard errors too low, and has no tail."""

    def draw(count):
        spread = np.linspace(-(3**0.5), 3**0.5, count)
        return (1 + 0.1 * (spread - errors / count**0.5)).reshape(-1, 1, 1)

    found = second_moment(draw, np.ones((1, 1)), 100)
    assert (found.verdict, found.draws) == (verdict, 100 * sets)


def rare(probability, rng):
    """Products that are 0 in most draws, as where signs cancel in every layer."""
    return lambda count: (
        (rng.random((count, 1, 1)) < probability) / probability * np.ones((1, 3, 3))
    )


@pytest.mark.parametrize("probability", [1e-9, 1e-3, 0.02, 0.1])
def test_rare_products_raise_no_alarm(probability, rng):
    for _ in range(100):
        found = second_moment(rare(probability, rng), np.ones((3, 3)), 200)
        assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "agrees"), (1 + 1e-6, "agrees"), (0.9, "deviates"), (1.1, "deviates")],
)
def test_products_that_are_all_the_same(factor, verdict):
    """As of a single path, whose weights are 1 or -1: no spread, and no tail."""
    found = second_moment(lambda count: np.ones((count, 2, 2)), np.full((2, 2), factor), 200)
    assert found.verdict == verdict
    assert found.tail == 0


NUMBERS = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", [(0, 0), (0, 1)])
def test_what_is_no_number_is_no_second_moment(number, place):
    wrong = CORRELATED.copy()
    wrong[place] = wrong[place[::-1]] = number
    found = second_moment(Draws(), wrong, 50)
    assert found.verdict == "deviates"
    assert not np.isfinite(found.errors)

    def draw(count):
        products = Draws()(count)
        products[3, place[0], place[1]] = products[3, place[1], place[0]] = number
        return products

    assert second_moment(draw, CORRELATED, 50).verdict == "deviates"


def test_kernels_that_are_zero():
    nothing = np.zeros((3, 3))
    assert second_moment(lambda count: np.zeros((count, 3, 3)), nothing, 50).verdict == "agrees"
    assert second_moment(Draws(), nothing, 50).verdict == "deviates"
    assert (
        second_moment(lambda count: np.zeros((count, 3, 3)), CORRELATED, 50).verdict == "undecided"
    )
    dead = np.diag([0.0, 1.0, 1.0])
    side = np.diag([0.0, 1.0, 1.0])
    found = second_moment(Draws(kernel=side), dead, 200)
    assert (found.verdict, found.tail < 0.5) == ("agrees", True)
    assert second_moment(Draws(kernel=np.eye(3)), dead, 50).verdict == "deviates"
    assert second_moment(Draws(kernel=side), np.diag([0.0, 1.0, 3.0]), 200).verdict == "deviates"


def test_a_claim_that_no_products_can_have():
    wrong = CORRELATED.copy()
    wrong[0, 1] = wrong[1, 0] = 1.5
    assert second_moment(Draws(), wrong, 50).verdict == "deviates"


def test_few_draws_decide_nothing_but_what_is_impossible():
    assert second_moment(Draws(), CORRELATED, 24).verdict == "undecided"
    assert second_moment(Draws(), CORRELATED, 1).verdict == "undecided"
    assert second_moment(Draws(), 1e-9 * CORRELATED, 2).verdict == "deviates"


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.3, 0.5, 0.9, 1.5])
def test_the_shape_of_a_generalized_pareto_distribution(shape):
    """The prior of weight 10 draws 190 values a little towards 1/2."""
    tail = -np.log(np.random.default_rng(0).random((200, 4000)))
    values = np.expm1(shape * tail) / shape if shape else tail
    found = [pareto_shape(row) for row in values]
    size = 3 * 4000**0.5
    expected = (shape * size + 5) / (size + 10)
    assert np.mean(found) == pytest.approx(expected, abs=0.05)
    assert np.std(found) < 0.2
    assert pareto_shape(values[0]) == pytest.approx(pareto_shape(7 * values[0]), abs=1e-3)


def test_values_without_a_tail_to_fit():
    assert pareto_shape(np.full(40, 2.0)) == 0
    assert pareto_shape(np.zeros(40)) == np.inf
    assert pareto_shape(np.arange(24.0)) == np.inf
    assert pareto_shape(np.r_[np.zeros(195), np.ones(5)]) == np.inf
    assert pareto_shape(np.r_[np.ones(195), np.full(5, 9.0)]) == np.inf
    assert pareto_shape(np.r_[np.zeros(100), np.full(100, 2.0)]) < 0
    assert pareto_shape(1 + 1e-8 * np.arange(100)) == 0
