"""Product sketches against the kernel of dense networks."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_estimators import FullyConnected
from torch import nn

import npk
from npk.errors import OptionError, UnsupportedGraphError
from npk.machines.approximate.sketches import ProductSketch


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.LeakyReLU(0.1), nn.Linear(16, 2)
    ).eval()


@pytest.mark.parametrize(("bias", "scale"), [("ignore", "cosine"), ("paths", "fan_in")])
def test_they_are_unbiased(rng, net, bias, scale):
    X = rng.normal(size=(5, 6)).astype(np.float32)
    K = npk.kernel(net, X, scale=scale, bias=bias, dtype="float64", progress=False)
    draws = []
    for seed in range(60):
        made = ProductSketch(net, 64, random_state=seed, scale=scale, bias=bias)
        Z = made.fit(X).transform(X).astype(float)
        draws.append(Z @ Z.T)
    error = np.std(draws, axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - K) <= 3 * error).all()


def test_the_spread_falls_with_the_components(rng, net):
    X = rng.normal(size=(8, 6)).astype(np.float32)
    K = npk.kernel(net, X, scale="cosine", bias="ignore", progress=False)

    def off(width):
        made = (ProductSketch(net, width, random_state=s, bias="ignore") for s in range(6))
        Z = [one.fit(X).transform(X) for one in made]
        return np.sqrt(np.mean([np.square(z @ z.T - K).mean() for z in Z]))

    assert off(64) / off(4096) == pytest.approx(8, rel=0.5)


def test_a_product_of_one_layer_is_a_count_sketch(rng):
    """Without gates the kernel is the Gram of the inputs; wide sketches are nearly exact."""
    X = rng.normal(size=(4, 6)).astype(np.float32)
    Z = (
        ProductSketch(nn.Linear(6, 2).eval(), 1 << 16, scale="count", bias="ignore")
        .fit(X)
        .transform(X)
    )
    np.testing.assert_allclose(Z @ Z.T, X @ X.T, atol=1e-4)


def test_what_is_refused(rng, net):
    X = rng.normal(size=(3, 6)).astype(np.float32)
    with pytest.raises(OptionError, match="n_components is 0"):
        ProductSketch(net, 0).fit(X)
    conv = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    with pytest.raises(UnsupportedGraphError, match="no product of overlaps: it has positions"):
        ProductSketch(conv, 8, input_shape=(1, 6)).fit(X)


def test_dead_samples_have_no_features(net):
    with torch.no_grad():
        net[0].bias.fill_(-1.0)
    assert (
        not ProductSketch(net, 40, bias="ignore")
        .fit(np.zeros((1, 6)))
        .transform(np.zeros((2, 6)))
        .any()
    )


@pytest.mark.slow
@parametrize_with_checks([ProductSketch(FullyConnected(), 30)], legacy=True)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
