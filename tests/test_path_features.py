"""Random path features against the kernel, their spread against theory, and what they hold."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_estimators import FullyConnected
from tiny_networks import NETWORKS
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.machines import conjugate_gradients
from npk.machines.approximate import path_features
from npk.machines.approximate.low_rank import LowRank
from npk.machines.approximate.path_features import RandomPathFeatures

fully_connected = FullyConnected()


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
    ).eval()


def wide_conv():
    """Not of two channels: products of narrow networks have tails that no error shows."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def samples(rng, n=12):
    return rng.normal(size=(n, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "bias", "scale"),
    [
        ("fully connected", "paths", "cosine"),
        ("leaky", "ignore", "count"),
        ("batch norm", "paths", "fan_in"),
        ("residual, gate after the sum", "paths", "fan_in"),
        ("conv", "paths", "cosine"),
        ("comparison and sigmoid", "ignore", "fan_in"),
    ],
)
def test_they_are_unbiased(rng, name, bias, scale):
    make, shape = {**NETWORKS, "conv": (wide_conv, (1, 4, 4))}[name]
    net = make().eval()
    X = rng.normal(size=(4, *shape)).astype(np.float32) + 0.3
    K = npk.kernel(net, X, scale=scale, bias=bias, dtype="float64", progress=False)
    made = RandomPathFeatures(net, 6000, scale=scale, bias=bias, input_shape=shape).fit(X)
    found = made.estimate(X)
    assert found.networks == len(made.draws_) > 600
    off = np.abs(found.values - K) - 1e-5 * np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    assert (off <= 3 * found.error).all()
    Z = made.transform(X)
    np.testing.assert_allclose(Z @ Z.T, found.values, atol=1e-5 * np.abs(K).max())


def test_a_gated_output_is_the_mean_over_its_units(rng):
    """No last layer to spare: the outputs themselves are the columns."""
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU()).eval()
    X = samples(rng, 4)
    K = npk.kernel(net, X, dtype="float64", progress=False)
    made = RandomPathFeatures(net, 4000, scale="fan_in", per_network=2).fit(X)
    assert made.draws_.units is None
    found = made.estimate(X)
    assert (np.abs(found.values - K) <= 3 * found.error + 1e-6).all()


def test_the_spread_is_that_of_theory(rng):
    """One hidden layer: the variance of every unit's product under random signs is known."""
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    X = samples(rng, 5)
    G = npk.record_gates(net, X)[0].astype(float)
    x = X.astype(float)
    inner, squares = x @ x.T, (x * x) @ (x * x).T
    norms = np.diagonal(inner)
    # E (w.x)^2 (w.x')^2 - (x.x')^2 for signs w
    unit = np.outer(norms, norms) + inner**2 - 2 * squares
    theory = np.sqrt(G @ G.T * unit)
    made = RandomPathFeatures(net, 16 * 3000, scale="count", bias="ignore").fit(X)
    assert made.draws_.units.width == 16
    found = made.estimate(X)
    # a standard deviation of 3,000 draws is known to about 3 %
    np.testing.assert_allclose(found.error * np.sqrt(found.networks), theory, rtol=0.12)


def test_units_behind_the_last_layer_are_worth_more_than_outputs(rng, net):
    """For the same number of networks the error is that of the hidden layers alone."""
    X = samples(rng)
    few = RandomPathFeatures(net, 200, per_network=1, scale="fan_in").fit(X)
    all_units = RandomPathFeatures(net, 200 * 16, per_network=16, scale="fan_in").fit(X)
    assert len(few.draws_) == len(all_units.draws_) == 200
    assert all_units.estimate(X).error.mean() < 0.6 * few.estimate(X).error.mean()


def test_the_error_falls_with_the_root_of_the_networks(rng, net):
    X = samples(rng)
    errors = [
        RandomPathFeatures(net, 16 * R, per_network=16).fit(X).estimate(X).error.mean()
        for R in (100, 1600)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(
    ("components", "per_network"), [(1, None), (37, 5), (40, 100), (333, None)]
)
def test_columns_of_all_networks(rng, net, components, per_network):
    X = samples(rng)
    made = RandomPathFeatures(net, components, per_network=per_network).fit(X)
    Z = made.transform(X)
    assert Z.shape == (12, components)
    assert Z.dtype == np.float32
    assert sum(made.draws_.counts) == components
    assert made.draws_.shares.sum() == pytest.approx(1)
    if per_network is None and components > 16:
        assert len(made.draws_) >= 16


def test_batches_are_the_same_features(rng, net, monkeypatch):
    X = samples(rng, 23)
    made = RandomPathFeatures(net, 64).fit(X)
    whole = made.transform(X)
    monkeypatch.setattr(path_features, "_MOST", 5)
    rows, parts = zip(*made.batches(X), strict=True)
    assert [row.start for row in rows] == [0, 5, 10, 15, 20]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    with pytest.raises(DataError, match="X has 3 features"):
        made.batches(X[:, :3])


def test_memory_does_not_grow_with_the_samples(rng, net, monkeypatch):
    monkeypatch.setattr(path_features, "_MOST", 50)
    X = samples(rng, 1000)
    made = RandomPathFeatures(net, 256).fit(X)

    def peak(n):
        for _ in made.batches(X[:50]):  # what is made once
            pass
        tracemalloc.start()
        for _ in made.batches(X[:n]):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(100), peak(1000)
    assert many < few + 900 * 256 * 4 / 10  # the features would take ten times as much


def test_a_seed_is_a_result(rng, net):
    X = samples(rng)
    made = RandomPathFeatures(net, 50, random_state=1).fit(X)
    Z = made.transform(X)
    np.testing.assert_array_equal(made.transform(X), Z)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).transform(X), Z)
    again = RandomPathFeatures(net, 50, random_state=1).fit(X[:1]).transform(X)
    np.testing.assert_array_equal(again, Z)
    assert not np.allclose(RandomPathFeatures(net, 50, random_state=2).fit(X).transform(X), Z)


def test_features_are_solved_without_their_kernel(rng, net):
    X = samples(rng, 80)
    Z = RandomPathFeatures(net, 300).fit(X).transform(X)
    low = LowRank(Z)
    y = rng.normal(size=(80, 2))
    expected = np.linalg.solve(
        Z.astype(float) @ Z.T + 0.1 * np.mean(low.diagonal()) * np.eye(80), y
    )
    solution = conjugate_gradients.solve(low, y, 0.1, tolerance=1e-9)
    np.testing.assert_allclose(solution.coefficients, expected, atol=1e-6)
    weights = low.weights(solution.coefficients)
    np.testing.assert_allclose(low.values(weights), low @ solution.coefficients, atol=1e-9)
    np.testing.assert_allclose(low.diagonal(), np.square(Z.astype(float)).sum(1))
    assert low.shape == (80, 80)
    assert low.dtype == np.float32


def test_what_is_refused(rng, net):
    X = samples(rng)
    for options, match in [
        ({"n_components": 2.5}, "n_components is 2.5. Give a whole number"),
        ({"per_network": 0}, "per_network is 0. Give a whole number"),
    ]:
        with pytest.raises(OptionError, match=match):
            RandomPathFeatures(net, **options).fit(X)
    with pytest.raises(NotFittedError):
        RandomPathFeatures(net).transform(X)
    with pytest.raises(OptionError, match="8 components come from one network, whose error"):
        RandomPathFeatures(net, 8, per_network=16).fit(X).estimate(X)
    with pytest.raises(ShapeError, match=r"features have shape \(3,\). Pass \(n, m\)"):
        LowRank(np.ones(3))


def test_dead_samples_have_no_features(net):
    with torch.no_grad():
        net[0].bias.fill_(-1.0)
    made = RandomPathFeatures(net, 40, bias="ignore").fit(np.zeros((1, 6)))
    Z = made.transform(np.zeros((2, 6)))
    assert not Z.any()


@pytest.mark.slow
@parametrize_with_checks([RandomPathFeatures(fully_connected, 30)], legacy=True)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
