"""Explanations: shares add up, and removals are what a machine without the samples says."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.machines import ridge
from npk.machines.explaining import Removal, explain, representer_shares


@pytest.fixture
def problem(rng):
    X = rng.normal(size=(50, 3))
    K = rbf_kernel(X, gamma=0.3)
    return K[:40, :40], np.column_stack([X[:40, 0], X[:40, 1] > 0]), K[40:, :40]


def refitted(K, y, alpha, kept):
    """A machine without the others; the ridge is in the unit of all samples."""
    unit = np.mean(np.diagonal(K)) / np.mean(np.diagonal(K)[kept])
    return ridge.fit(K[np.ix_(kept, kept)], y[kept], alpha * unit).solution.coefficients


@pytest.mark.parametrize("removed", [[3], [0, 39, 7], list(range(20)), []])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_removal_is_a_refit(problem, removed, outputs):
    K, y, _ = problem
    y = y[:, 0] if outputs == 1 else y
    kept = np.setdiff1d(np.arange(40), removed)
    found = Removal(K, y, 0.1).without(removed)
    np.testing.assert_allclose(found[kept], refitted(K, y, 0.1, kept), atol=1e-10)
    assert not found[removed].any()


def test_effects_are_removals_one_by_one(problem):
    K, y, cross = problem
    removal = Removal(K, y, 0.05)
    effects = removal.effects(cross)
    assert effects.shape == (10, 40, 2)
    for i in (0, 17, 39):
        change = cross @ (removal.without([i]) - removal.coefficients)
        np.testing.assert_allclose(effects[:, i], change, atol=1e-10)
    np.testing.assert_allclose(Removal(K, y[:, 0], 0.05).effects(cross), effects[:, :, 0])


def test_shares_add_up(problem):
    K, y, cross = problem
    c = ridge.fit(K, y, 0.1).solution.coefficients
    np.testing.assert_allclose(representer_shares(cross, c).sum(1), cross @ c)
    np.testing.assert_allclose(representer_shares(cross, c[:, 0]).sum(1), cross @ c[:, 0])


@pytest.mark.parametrize("scale", ["cosine", "fan_in"])
def test_explanations_add_up_over_samples_and_depths(rng, scale):
    net = npk.networks.build(
        "residual", flavor="fc", widths=[8, 8], input_shape=(6,), classes=3, seed=0
    )
    X, y = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    machine = npk.NPKRidgeClassifier(net, scale=scale, alpha=0.1).fit(X, y)
    Z = rng.normal(size=(4, 6)).astype(np.float32)
    found = explain(machine, Z, top=30)
    scores = machine.decision_function(Z)
    size = np.abs(scores).max()
    np.testing.assert_allclose(found.predictions, scores, atol=1e-5 * size)
    np.testing.assert_allclose(found.shares.sum(1), scores, atol=1e-5 * size)
    np.testing.assert_allclose(found.by_depth.sum(3), found.shares, atol=1e-4 * size)
    assert len(found.depths) == found.by_depth.shape[3] > 1
    few = explain(machine, Z, top=5)
    np.testing.assert_array_equal(few.samples, found.samples[:, :5])
    np.testing.assert_array_equal(few.shares, found.shares[:, :5])
    largest = np.abs(scores).argmax(1)
    order = np.abs(few.shares[np.arange(4), :, largest])
    assert (np.diff(order, axis=1) <= 0).all()


def test_a_regression_is_explained(rng):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    X = rng.normal(size=(12, 6)).astype(np.float32)
    machine = npk.NPKRidge(net, alpha=0.1, bias="ignore").fit(X, X[:, 0])
    found = explain(machine, X[:2], top=3)
    assert found.shares.shape == (2, 3, 1)
    assert found.depths == (2,)
    np.testing.assert_allclose(found.predictions[:, 0], machine.predict(X[:2]), atol=1e-5)


def test_what_is_refused(problem, rng):
    K, y, cross = problem
    removal = Removal(K, y, 0.1)
    for removed in ([1, 1], [0.5], list(range(40)), 3):
        with pytest.raises(OptionError, match="give numbers of different training samples"):
            removal.without(removed)
    with pytest.raises(OptionError, match="training samples are numbered 0 to 39"):
        removal.without([-1])
    for call in (lambda: removal.effects(cross.T), lambda: representer_shares(cross, np.ones(3))):
        with pytest.raises(ShapeError, match="Pass the kernel of test samples"):
            call()
    with pytest.raises(DataError, match="not positive definite"):
        Removal(np.ones((3, 3)) - 3 * np.eye(3)[::-1] + 1e-9, np.ones(3), 0.1)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    X = rng.normal(size=(12, 6)).astype(np.float32)
    machine = npk.NPKRidge(net, alpha=0.1, of="tangent").fit(X, X[:, 0])
    with pytest.raises(OptionError, match="of='tangent', which is no sum over depths"):
        explain(machine, X)
    with pytest.raises(OptionError, match="top is 0. Give a whole number"):
        explain(machine, X, top=0)
