"""Gaussian processes against scikit-learn's, which is given the same kernel by features."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from torch import nn

from npk.errors import OptionError, ShapeError
from npk.machines import ridge
from npk.machines.estimators import NPKGaussianProcessRegressor
from npk.machines.uncertainty import gaussian_process


@pytest.fixture
def sides(rng):
    """Features of training and test samples, and targets."""
    F, Z = rng.normal(size=(23, 9)), rng.normal(size=(6, 9))
    return F, Z, F @ rng.normal(size=9) + 0.1 * rng.normal(size=23)


def scikit_learns(F, y, alpha, amplitude):
    noise = amplitude * alpha * np.mean(np.sum(F * F, 1))
    kernel = ConstantKernel(amplitude) * DotProduct(0, "fixed")
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(F, y)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("amplitude", [1.0, 2.5])
@pytest.mark.parametrize("outputs", [None, 2])
def test_it_is_scikit_learns(sides, amplitude, outputs):
    F, Z, y = sides
    y = y if outputs is None else np.stack([y, y[::-1]], axis=1)
    expected = scikit_learns(F, y, 0.03, amplitude)
    machine = NPKGaussianProcessRegressor(kernel="precomputed", alpha=0.03, amplitude=amplitude)
    machine.fit(F @ F.T, y)
    mean, deviation = machine.predict(Z @ F.T, return_std=True, diagonal=np.sum(Z * Z, 1))
    wanted, deviation_wanted = expected.predict(Z, return_std=True)
    close(mean, wanted)
    close(deviation, deviation_wanted)
    close(machine.log_marginal_likelihood_value_, expected.log_marginal_likelihood_value_)
    covariance = expected.predict(Z, return_cov=True)[1]
    ours = machine.process_.covariance(Z @ F.T, Z @ Z.T)
    close(ours, covariance if outputs is None else covariance[..., 0])


def test_noise_and_amplitude_are_the_most_likely(sides):
    F, _, y = sides
    factored = ridge.factor(F @ F.T)
    found = gaussian_process.fit(factored, y)
    best = scikit_learns(F, y, found.alpha, found.amplitude).log_marginal_likelihood_value_
    close(found.log_likelihood, best)
    for alpha, amplitude in zip(found.evidence.alphas, found.evidence.amplitudes, strict=True):
        for factor in (0.9, 1.0, 1.1):
            other = scikit_learns(F, y, alpha, factor * amplitude).log_marginal_likelihood_value_
            assert other <= best + 1e-9
    close(found.noise, found.amplitude * found.alpha * np.mean(np.sum(F * F, 1)))


def test_likelihood_of_ridges_choice_is_that_of_amplitude_one(sides):
    F, _, y = sides
    factored = ridge.factor(F @ F.T)
    choice = ridge.choose_alpha(factored, y, criterion="likelihood")
    found = gaussian_process.evidence(factored, y, choice.alphas, amplitude=1.0)
    close(choice.log_likelihood, found.log_likelihood)
    assert choice.alpha == found.alphas[found.best]


def test_weights_are_repetitions(sides):
    F, Z, y = sides
    weights = np.arange(23) % 3
    weighted = ridge.factor(F @ F.T, sample_weight=weights)
    some = np.repeat(np.arange(23), weights)
    repeated = ridge.factor(F[some] @ F[some].T)
    ours, wanted = (
        gaussian_process.fit(factored, targets, 0.1, amplitude=1.0)
        for factored, targets in ((weighted, y), (repeated, y[some]))
    )
    own = np.sum(Z * Z, 1)
    close(ours.variance(Z @ F.T, own), wanted.variance(Z @ F[some].T, own))
    close(Z @ F.T @ ours.coefficients, Z @ F[some].T @ wanted.coefficients)


def test_normalized_targets(sides):
    F, Z, y = sides
    shifted = 40 + 3 * y
    options = {"kernel": "precomputed", "normalize_y": True, "alpha": 0.1}
    machine = NPKGaussianProcessRegressor(**options).fit(F @ F.T, shifted)
    plain = NPKGaussianProcessRegressor(kernel="precomputed", alpha=0.1).fit(
        F @ F.T, (y - y.mean()) / y.std()
    )
    own = np.sum(Z * Z, 1)
    mean, deviation = machine.predict(Z @ F.T, return_std=True, diagonal=own)
    wanted, wanted_deviation = plain.predict(Z @ F.T, return_std=True, diagonal=own)
    close(mean, shifted.mean() + shifted.std() * wanted)
    close(deviation, shifted.std() * wanted_deviation)


@pytest.mark.parametrize("scale", ["cosine", "fan_in"])
def test_of_a_network(rng, scale):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    X, Z = rng.normal(size=(20, 4)), rng.normal(size=(5, 4))
    y = np.stack([X[:, 0], X[:, 1]], axis=1)
    machine = NPKGaussianProcessRegressor(net, scale=scale, dtype="float64").fit(X, y)
    mean, deviation = machine.predict(Z, return_std=True)
    again, covariance = machine.predict(Z, return_cov=True)
    assert mean.shape == deviation.shape == (5, 2)
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_allclose(np.einsum("iij->ij", covariance), deviation**2, rtol=1e-6)
    assert machine.predict(X, return_std=True)[1].max() < deviation.max()
    assert machine.score(X, y) > 0.5


def test_refusals(sides):
    F, Z, y = sides
    machine = NPKGaussianProcessRegressor(kernel="precomputed", alpha=0.1).fit(F @ F.T, y)
    cross = Z @ F.T
    with pytest.raises(OptionError, match="Ask for one"):
        machine.predict(cross, return_std=True, return_cov=True)
    with pytest.raises(OptionError, match="Pass diagonal="):
        machine.predict(cross, return_std=True)
    with pytest.raises(OptionError, match=r"Take process_.covariance\(cross, gram\)"):
        machine.predict(cross, return_cov=True)
    with pytest.raises(ShapeError, match=r"has shape \(6, 22\), for 6 samples .* it is \(6, 23\)"):
        machine.process_.variance(cross[:, 1:], np.ones(6))
    with pytest.raises(OptionError, match="amplitude is -1. Give a number > 0"):
        NPKGaussianProcessRegressor(kernel="precomputed", amplitude=-1).fit(F @ F.T, y)
    rough = ridge.factor((F @ F.T).astype(np.float32))
    with pytest.raises(OptionError, match="no alpha is above the rounding of K"):
        gaussian_process.evidence(rough, y, [1e-14])
