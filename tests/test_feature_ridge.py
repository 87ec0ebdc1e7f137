"""Ridge on features against ridge on their kernel, and against scikit-learn's leave-one-out."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from npk.errors import DataError, OptionError, ShapeError
from npk.machines import ridge
from npk.machines.approximate import feature_ridge

CRITERIA = ["squared error", "accuracy", "gcv", "likelihood"]


@pytest.fixture
def features(rng):
    return rng.normal(size=(70, 12)) * np.logspace(0, -2, 12)


@pytest.fixture
def labels(features, rng):
    return (features @ rng.normal(size=(12, 3)) + 0.3 * rng.normal(size=(70, 3))).argmax(1)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("width", [12, 5, 1])
def test_it_is_ridge_on_their_kernel(features, labels, criterion, classes, width, monkeypatch):
    monkeypatch.setattr(feature_ridge, "_ROWS", 32)
    Z = features[:, :width]
    targets, _ = ridge.signed_targets(np.minimum(labels, classes - 1))
    found = feature_ridge.fit(Z, targets, criterion=criterion)
    wanted = ridge.fit(Z @ Z.T, targets, criterion=criterion)
    assert found.alpha == pytest.approx(wanted.alpha)
    np.testing.assert_allclose(Z @ found.weights, Z @ Z.T @ wanted.solution.coefficients, rtol=1e-6)
    kept = wanted.choice.alphas >= 1e-6  # below it rounding of the large matrix shows
    for name in ("alphas", "squared_error", "gcv", "log_likelihood", "accuracy"):
        ours, theirs = getattr(found.choice, name), getattr(wanted.choice, name)
        if theirs is None:
            assert ours is None
        else:
            np.testing.assert_allclose(ours[: kept.sum()], theirs[kept], rtol=1e-5)


def test_leave_one_out_is_scikit_learns(features, labels):
    targets, _ = ridge.signed_targets(labels)
    found = feature_ridge.fit(features, targets)
    ridges = found.choice.alphas * np.mean(np.sum(features**2, 1))
    theirs = RidgeCV(ridges, fit_intercept=False, store_cv_results=True).fit(features, targets)
    errors = theirs.cv_results_.mean((0, 1))
    np.testing.assert_allclose(found.choice.squared_error, errors, rtol=1e-8)
    np.testing.assert_allclose(found.weights, theirs.coef_.T, rtol=1e-8)


def test_more_features_than_samples(features, labels):
    Z = np.hstack([features, features**2, np.ones((70, 60))]).astype(np.float32)
    targets, _ = ridge.signed_targets(labels)
    found = feature_ridge.fit(Z, targets, criterion="accuracy")
    wide = Z.astype(np.float64)
    wanted = ridge.fit(wide @ wide.T, targets, criterion="accuracy")
    assert found.alpha == wanted.alpha
    assert found.weights.shape == (84, 3)
    np.testing.assert_allclose(
        wide @ found.weights, wide @ (wide.T @ wanted.solution.coefficients), rtol=1e-6
    )


def test_alphas_below_rounding_are_not_tried(features, labels, monkeypatch):
    monkeypatch.setattr(feature_ridge, "ALPHAS", (1.0, 1e-3, 1e-18))
    targets, _ = ridge.signed_targets(labels)
    assert feature_ridge.fit(features, targets).choice.alphas.tolist() == [1.0, 1e-3]


def test_what_is_refused(features, labels):
    targets, _ = ridge.signed_targets(labels)
    with pytest.raises(ShapeError, match=r"features have shape \(12,\)"):
        feature_ridge.fit(features[0], targets)
    with pytest.raises(ShapeError, match="70 samples"):
        feature_ridge.fit(features, targets[1:])
    with pytest.raises(OptionError, match="the criterion is 'luck'"):
        feature_ridge.fit(features, targets, criterion="luck")
    with pytest.raises(DataError, match="not -1 and|targets -1 and"):
        feature_ridge.fit(features, 2 * targets, criterion="accuracy")
    with pytest.raises(DataError, match="zero on its diagonal"):
        feature_ridge.fit(0 * features, targets)
