"""Jackknife+ against fitting every machine anew, and its promise on draws."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from npk.errors import OptionError, ShapeError
from npk.machines import ridge
from npk.machines.uncertainty import conformal

ALPHA = 0.05


def without(K, targets, i):
    """Coefficients of ridge without sample i; the ridge is that of the whole matrix."""
    others = np.arange(len(K)) != i
    system = K[np.ix_(others, others)] + ALPHA * np.mean(np.diagonal(K)) * np.eye(len(K) - 1)
    found = np.zeros_like(targets)
    found[others] = np.linalg.solve(system, targets[others])
    return found


@pytest.fixture
def drawn(rng):
    X = rng.normal(size=(31, 3))
    return rbf_kernel(X[:24]), rbf_kernel(X[24:], X[:24]), X


@pytest.mark.parametrize("level", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("outputs", [None, 2])
def test_intervals_are_those_of_all_machines_fitted_anew(drawn, level, outputs, rng):
    K, cross, X = drawn
    y = X[:24, 0] if outputs is None else X[:24, :2]
    columns = y.reshape(24, -1)
    machines = [without(K, columns, i) for i in range(24)]
    residuals = np.abs([columns[i] - K[i] @ machines[i] for i in range(24)])
    said = np.array([cross @ machine for machine in machines])  # (n, m, outputs)
    a = round((1 - level) * 25, 9)
    padded = np.concatenate(
        [[np.full(said.shape[1:], -np.inf)], np.sort(said - residuals[:, None], 0)]
    )
    above = np.concatenate(
        [np.sort(said + residuals[:, None], 0), [np.full(said.shape[1:], np.inf)]]
    )
    expected = np.stack([padded[int(np.floor(a))], above[int(np.ceil(25 - a)) - 1]], axis=-1)
    found = conformal.intervals(ridge.factor(K), y, ALPHA, cross, level=level)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_sets_are_those_of_all_machines_fitted_anew(drawn, classes):
    K, cross, X = drawn
    labels = np.digitize(X[:24, 0], [-0.4, 0.4][: classes - 1])
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    machines = [without(K, targets, i) for i in range(24)]

    def fit(scores, k):
        return scores[k] - np.delete(scores, k).max()

    own = [fit(K[i] @ machines[i], labels[i]) for i in range(24)]
    expected = [
        [
            sum(own[i] > fit(row @ machines[i], k) for i in range(24)) < 0.8 * 25
            for k in range(classes)
        ]
        for row in cross
    ]
    found, names = conformal.sets(ridge.factor(K), labels, ALPHA, cross, level=0.8)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(names, np.arange(classes))


def test_the_promise_is_kept_on_draws(rng):
    covered, size = [], 0
    for _ in range(40):
        X = rng.uniform(-2, 2, size=(70, 1))
        y = np.sin(2 * X[:, 0]) + 0.3 * rng.normal(size=70)
        factored = ridge.factor(rbf_kernel(X[:40]))
        ends = conformal.intervals(factored, y[:40], 0.1, rbf_kernel(X[40:], X[:40]), level=0.9)
        covered.append(np.mean((ends[:, 0] <= y[40:]) & (y[40:] <= ends[:, 1])))
        size += np.mean(ends[:, 1] - ends[:, 0]) / 40
    assert 0.87 < np.mean(covered) < 0.95
    assert size < 2  # and not by being infinitely wide


def test_refusals(drawn):
    K, cross, X = drawn
    factored = ridge.factor(K)
    with pytest.raises(OptionError, match="level is 90. Give the share"):
        conformal.intervals(factored, X[:24, 0], ALPHA, cross, level=90)
    with pytest.raises(ShapeError, match=r"shape \(7, 23\), the machine has learnt from 24"):
        conformal.intervals(factored, X[:24, 0], ALPHA, cross[:, 1:])
    weighted = ridge.factor(K, sample_weight=np.ones(24))
    with pytest.raises(OptionError, match="samples with weights are not exchangeable"):
        conformal.sets(weighted, X[:24, 0] > 0, ALPHA, cross)
