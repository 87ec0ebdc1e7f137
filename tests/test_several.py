"""Several kernels: weights against a search and a closed form, and the machine that has them."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_estimators import FullyConnected
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.machines import ridge
from npk.machines.several import NPKMultiKernelRidgeClassifier, alignment_weights
from npk.measures import alignment


@pytest.fixture
def problem(rng):
    """A kernel that knows the classes, one that does not, one of noise."""
    X = rng.normal(size=(60, 4))
    y = (X[:, 0] > 0).astype(int)
    kernels = [rbf_kernel(X[:, :1]), 5 * rbf_kernel(X[:, 1:]), np.eye(60)]
    return kernels, y


def aligned(weights, kernels, y):
    total = sum(w * K / np.mean(np.diagonal(K)) for w, K in zip(weights, kernels, strict=True))
    return alignment(total, y)


def test_no_weights_are_better_aligned(problem):
    kernels, y = problem
    weights = alignment_weights(kernels, ridge.signed_targets(y)[0])
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[0] == weights.max()
    best = aligned(weights, kernels, y)
    grid = np.linspace(0, 1, 21)
    others = [(a, b, 1 - a - b) for a, b in itertools.product(grid, grid) if a + b <= 1]
    assert best >= max(aligned(w, kernels, y) for w in others) - 1e-12


def test_weights_that_are_all_inside_solve_the_equations(rng):
    """Without the bound at 0 the weights are M^-1 a (Cortes et al., proposition 9)."""
    X = rng.normal(size=(50, 3))
    y = X[:, 0] + X[:, 1] ** 2
    kernels = [rbf_kernel(X, gamma=g) for g in (0.01, 1.0)]
    weights = alignment_weights(kernels, y)
    H = np.eye(50) - 1 / 50
    centered = [H @ K @ H for K in kernels]
    M = np.array([[np.sum(K * L) for L in centered] for K in centered])
    a = np.array([y @ K @ y for K in centered])
    expected = np.linalg.solve(M, a)
    assert (expected > 0).all()
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_kernel_has_no_weight(problem, dtype):
    """Though its rounding may be aligned with the classes."""
    kernels, y = problem
    same = (y[:, None] == y).astype(dtype)
    constant = (1 + 2 * np.finfo(dtype).eps * same).astype(dtype)
    weights = alignment_weights([constant, *kernels], y)
    np.testing.assert_array_equal(weights, [0, *alignment_weights(kernels, y)])
    np.testing.assert_array_equal(alignment_weights([constant, constant], y), [0.5, 0.5])


def test_a_kernel_that_comes_twice_and_targets_of_nothing(problem):
    kernels, y = problem
    twice = alignment_weights([kernels[0], kernels[0]], y)
    assert twice.sum() == pytest.approx(1)
    np.testing.assert_array_equal(alignment_weights(kernels[:2], np.ones(60)), [0.5, 0.5])


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)
    ).eval()


@pytest.fixture
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:120] / 16).astype(np.float32), y[:120], (X[120:200] / 16).astype(np.float32)


def test_the_machine_is_ridge_on_the_sum(net, digits):
    X, y, X_test = digits
    machine = NPKMultiKernelRidgeClassifier(
        {"a": net}, of=["paths", "tangent"], weights=[2.0, 1.0], alpha=0.1
    ).fit(X, y)
    kernels = [
        npk.kernel(net, np.concatenate([X, X_test]), of=of, progress=False).astype(float)
        for of in ("paths", "tangent")
    ]
    total = sum(
        w * K / np.diagonal(K)[:120].mean() for w, K in zip((2.0, 1.0), kernels, strict=True)
    )
    targets, classes = ridge.signed_targets(y)
    expected = total[120:, :120] @ ridge.fit(total[:120, :120], targets, 0.1).solution.coefficients
    np.testing.assert_allclose(machine.decision_function(X_test), expected, atol=1e-4)
    np.testing.assert_array_equal(machine.predict(X_test), classes[expected.argmax(1)])
    assert machine.weights_ == {"a: paths": 2.0, "a: tangent": 1.0}


def test_depths_of_a_residual_network(digits):
    X, y, X_test = digits
    net = npk.networks.build(
        "residual", flavor="fc", widths=[16, 16], input_shape=(64,), classes=10, seed=0
    )
    machine = NPKMultiKernelRidgeClassifier(net).fit(X, y)
    names = list(machine.weights_)
    assert len(names) > 1
    assert all(name.startswith("network: depth=") for name in names)
    assert sum(machine.weights_.values()) == pytest.approx(1)
    assert machine.choice_ is not None
    assert machine.predict(X_test).shape == (80,)


def test_two_networks_and_uniform_weights(net, digits):
    X, y, _ = digits
    other = FullyConnected()((64,))
    machine = NPKMultiKernelRidgeClassifier(
        {"one": net, "two": other}, of="paths", weights="uniform"
    ).fit(X, y)
    assert machine.weights_ == {"one: paths": 0.5, "two: paths": 0.5}
    assert machine.score(X, y) > 0.9


def test_a_network_that_has_changed_since_fit_is_refused(net, digits):
    X, y, X_test = digits
    machine = NPKMultiKernelRidgeClassifier({"one": net}, of="paths").fit(X, y)
    before = machine.decision_function(X_test)
    with torch.no_grad():
        next(machine.nets_["one"].parameters()).mul_(-1)
    with pytest.raises(OptionError, match=r"nets_\['one'\] has changed since fit"):
        machine.predict(X_test)
    with torch.no_grad():
        next(machine.nets_["one"].parameters()).mul_(-1)
    np.testing.assert_array_equal(machine.decision_function(X_test), before)


def test_what_is_refused(net, digits, problem):
    X, y, _ = digits
    kernels, labels = problem
    for weights in ("best", [1.0], [1.0, -1.0], [0.0, 0.0], [1.0, None]):
        with pytest.raises(OptionError, match="give 'alignment', 'uniform', or a number from 0 on"):
            NPKMultiKernelRidgeClassifier(net, of=["paths", "tangent"], weights=weights).fit(X, y)
    with pytest.raises(OptionError, match="nets is empty. Give a network at least"):
        NPKMultiKernelRidgeClassifier({}).fit(X, y)
    with pytest.raises(OptionError, match="there are no kernels to weigh"):
        alignment_weights([], labels)
    with pytest.raises(ShapeError, match="kernels are of 60 and of 3 samples"):
        alignment_weights([kernels[0], np.eye(3)], labels)
    with pytest.raises(DataError, match="needs two classes"):
        NPKMultiKernelRidgeClassifier(net).fit(X, np.ones(len(X)))
    with pytest.raises(NotFittedError):
        NPKMultiKernelRidgeClassifier(net).predict(X)


@pytest.mark.slow
@parametrize_with_checks([NPKMultiKernelRidgeClassifier(FullyConnected(), of="paths")], legacy=True)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
