"""Weights of samples and classes, probabilities, and an alpha for each output, against scikit-learn
and against samples that are repeated.
"""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

import npk
from npk.errors import BackendError, DataError, OptionError, ShapeError
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.machines import algebra, ridge, svm
from npk.machines.estimators import NPKSVC, NPKRidge, NPKRidgeClassifier
from npk.machines.uncertainty import calibration


@pytest.fixture
def features(rng):
    return rng.normal(size=(60, 4)) + np.arange(60)[:, None] % 3


@pytest.fixture
def labels():
    return np.arange(60) % 3


@pytest.fixture
def gram(features):
    return rbf_kernel(features, gamma=0.2)


@pytest.fixture
def weights(rng):
    return rng.integers(0, 4, 60).astype(float)


def close(actual, expected, tolerance=1e-8):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# --- ridge ---


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weighted_ridge_is_scikit_learns(gram, features, rng, dtype):
    K, weights, y = gram.astype(dtype), rng.uniform(0.1, 3, 60), features[:, :2]
    unit = np.average(np.diagonal(K), weights=weights)
    expected = KernelRidge(alpha=0.1 * unit, kernel="precomputed").fit(
        K.astype(float), y, sample_weight=weights
    )
    by_factor = ridge.solve(ridge.factor(K, sample_weight=weights), y, 0.1)
    for found in (ridge.fit(K, y, 0.1, sample_weight=weights).solution, by_factor):
        close(found.coefficients, expected.dual_coef_)
        assert found.residual < 1e-12
    machine = NPKRidge(kernel="precomputed", alpha=0.1).fit(K, y, sample_weight=weights)
    close(machine.predict(K), expected.predict(K.astype(float)))


def test_a_given_matrix_is_left_as_it_was(gram, features):
    for K in (gram, gram.astype(np.float32)):
        before = K.copy()
        for alpha in (0.1, "auto", [0.1, 0.2]):
            ridge.fit(K, features[:, :2], alpha)
            ridge.fit(K, features[:, :2], alpha, sample_weight=np.full(60, 2.0))
        np.testing.assert_array_equal(K, before)


def test_weights_are_repetitions(gram, features, weights):
    some = np.repeat(np.arange(60), weights.astype(int))
    ours = ridge.fit(gram, features, 0.1, sample_weight=weights).solution.coefficients
    wanted = ridge.fit(gram[np.ix_(some, some)], features[some], 0.1).solution.coefficients
    close(gram @ ours, gram[:, some] @ wanted)
    assert not ours[weights == 0].any()


def test_weighted_leave_one_out_is_the_brute_force_loop(gram, features, weights):
    factored = ridge.factor(gram, sample_weight=weights)
    found = ridge.leave_one_out(factored, features, 0.1)
    size = 0.1 * np.average(np.diagonal(gram), weights=weights)
    for i in range(60):
        others = weights.copy()
        others[i] = 0
        roots = np.sqrt(others)
        system = roots[:, None] * gram * roots + size * np.eye(60)
        coefficients = roots[:, None] * np.linalg.solve(system, roots[:, None] * features)
        close(found[i], features[i] - gram[i] @ coefficients, 1e-7)
    curves = ridge.choose_alpha(factored, features, [0.1])
    close(curves.squared_error, np.average(np.mean(found**2, 1), weights=weights))


def test_gcv_and_likelihood_against_their_definitions(gram, features, rng):
    weights = rng.uniform(0.5, 2, 60)
    for given in (None, weights):
        factored = ridge.factor(gram, sample_weight=given)
        choice = ridge.choose_alpha(factored, features, [1.0, 0.1, 1e-3], per_target=True)
        own = np.ones(60) if given is None else given
        roots = np.sqrt(own)
        for k, alpha in enumerate(choice.alphas):
            size = alpha * factored.unit
            system = roots[:, None] * gram * roots
            hat = system @ np.linalg.inv(system + size * np.eye(60))
            residuals = roots[:, None] * features - hat @ (roots[:, None] * features)
            gcv = np.mean(residuals**2, 0) / (np.trace(np.eye(60) - hat) / 60) ** 2
            close(choice.gcv[k], gcv)
            close(choice.kare[k], gcv)
            covariance = gram + size * np.diag(1 / own)
            for j, y in enumerate(features.T):
                likelihood = -0.5 * (
                    y @ np.linalg.solve(covariance, y)
                    + np.linalg.slogdet(covariance)[1]
                    + 60 * np.log(2 * np.pi)
                )
                close(choice.log_likelihood[k, j], likelihood)


@pytest.mark.parametrize("criterion", ["squared error", "gcv", "likelihood"])
def test_an_alpha_for_each_output(gram, features, rng, criterion):
    y = np.column_stack([features[:, 0], rng.normal(size=60)])  # one to learn, and noise
    together = ridge.fit(gram, y, criterion=criterion, per_target=True)
    for j in range(2):
        alone = ridge.fit(gram, y[:, j], criterion=criterion)
        assert together.alpha[j] == alone.alpha
        close(together.solution.coefficients[:, j], alone.solution.coefficients)
    assert together.alpha[1] > together.alpha[0]
    given = ridge.fit(gram, y, together.alpha)
    close(given.solution.coefficients, together.solution.coefficients)
    machine = NPKRidge(kernel="precomputed", alpha_per_target=True).fit(gram, y)
    assert machine.alpha_.shape == (2,)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 5.0, 2: 0.2}])
def test_class_weights_of_ridge_are_scikit_learns(features, class_weight, rng):
    labels = np.repeat([0, 1, 2], [40, 15, 5])
    weights = rng.uniform(0.5, 2, 60)
    expected = RidgeClassifier(
        alpha=1.0, fit_intercept=False, class_weight=class_weight, solver="cholesky"
    ).fit(features, labels, sample_weight=weights)
    K = features @ features.T
    machine = NPKRidgeClassifier(kernel="precomputed", class_weight=class_weight)
    own = machine._weights_of(labels, weights)
    machine.set_params(alpha=1.0 / np.average(np.diagonal(K), weights=own))
    machine.fit(K, labels, sample_weight=weights)
    close(machine.decision_function(K), expected.decision_function(features), 1e-7)


# --- support vectors ---


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 5.0}])
@pytest.mark.parametrize("weighted", [False, True])
def test_support_vectors_are_scikit_learns(gram, labels, rng, classes, class_weight, weighted):
    y = np.minimum(labels, classes - 1)
    weights = rng.uniform(0.2, 2, 60) if weighted else None
    expected = SVC(kernel="precomputed", C=2.0, class_weight=class_weight)
    expected.fit(gram, y, sample_weight=weights)
    found = svm.fit(gram, y, 2.0, sample_weight=weights, class_weight=class_weight).machine
    close(found.decision_function(gram), expected.decision_function(gram))
    np.testing.assert_array_equal(found.predict(gram), expected.predict(gram))
    np.testing.assert_array_equal(found.support_, expected.support_)
    np.testing.assert_array_equal(found.n_support_, expected.n_support_)
    close(found.dual_coef_, expected.dual_coef_)


def test_samples_of_weight_zero_are_not_there(gram, labels, weights):
    weights[labels == 2] = 0
    there = weights > 0
    found = svm.fit(gram, labels, sample_weight=weights)
    wanted = svm.fit(gram[np.ix_(there, there)], labels[there], sample_weight=weights[there])
    assert found.machine.classes_.tolist() == [0, 1]
    close(
        found.machine.decision_function(gram),
        wanted.machine.decision_function(gram[:, there]),
        1e-6,
    )
    with pytest.raises(DataError, match="a classifier needs two classes"):
        svm.fit(gram, labels, 1.0, sample_weight=(labels == 1).astype(float))


# --- probabilities ---


@pytest.mark.parametrize("machine", [NPKSVC, NPKRidgeClassifier])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_left_out_scores(gram, labels, machine, classes):
    y = np.array(["a", "b", "c"])[np.minimum(labels, classes - 1)]
    given = {"C": 1.0} if machine is NPKSVC else {"alpha": 0.1}
    machine(kernel="precomputed", probability=True, **given).fit(gram, y).predict_proba(gram)
    fitted = machine(kernel="precomputed", probability=True).fit(gram, y)
    found = fitted.predict_proba(gram)
    assert found.shape == (60, classes)
    np.testing.assert_allclose(found.sum(1), 1)
    if machine is NPKRidgeClassifier:  # of an SVM votes decide, which scores may not follow
        np.testing.assert_array_equal(fitted.classes_[found.argmax(1)], fitted.predict(gram))
    assert log_loss(y, found) < np.log(classes)
    assert not hasattr(machine(kernel="precomputed").fit(gram, y), "predict_proba")


@pytest.mark.parametrize("columns", [None, 3])
def test_the_temperature_is_the_most_likely(rng, columns):
    scores = rng.normal(size=200 if columns is None else (200, columns))
    true = calibration.probabilities(scores, 2.0)
    numbers = np.array([rng.choice(len(p), p=p) for p in true])
    best = calibration.temperature(scores, numbers)
    losses = [
        log_loss(numbers, calibration.probabilities(scores, factor * best))
        for factor in (1.0, 0.98, 1.02)
    ]
    assert losses[0] == min(losses)
    assert 1.2 < best < 3.2
    np.testing.assert_allclose(calibration.temperature(10 * scores, numbers), best / 10, rtol=1e-4)


# --- refusals ---

BAD_WEIGHTS = {
    "too few": (np.ones(59), ShapeError, r"sample_weight has shape \(59,\), there are 60 samples"),
    "negative": (np.r_[-1.0, np.ones(59)], DataError, "1 of 60 weights are negative or not finite"),
    "NaN": (np.r_[np.nan, np.ones(59)], DataError, "1 of 60 weights are negative or not finite"),
    "all zero": (np.zeros(60), DataError, "all weights are zero"),
    "text": (["a"] * 60, DataError, "sample_weight is not numeric"),
}


@pytest.mark.parametrize(("weights", "error", "match"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
@pytest.mark.parametrize("machine", [NPKRidge, NPKRidgeClassifier, NPKSVC])
def test_weights_that_are_none(gram, labels, weights, error, match, machine):
    with pytest.raises(error, match=match):
        machine(kernel="precomputed").fit(gram, labels, sample_weight=weights)


@pytest.mark.parametrize("machine", [NPKRidgeClassifier, NPKSVC])
def test_class_weights_that_are_none(gram, labels, machine):
    with pytest.raises(OptionError, match="class_weight is 'even'. Take 'balanced'"):
        machine(kernel="precomputed", class_weight="even").fit(gram, labels)
    with pytest.raises(OptionError, match="class_weight {7: 2.0} does not fit the labels"):
        machine(kernel="precomputed", class_weight={7: 2.0}).fit(gram, labels)


@pytest.mark.parametrize("machine", [NPKRidge, NPKRidgeClassifier, NPKSVC])
def test_kernels_that_are_none(gram, labels, machine):
    own = machine(kernel="precomputed")
    with pytest.raises(OptionError, match="kernel is 'rbf'. Take 'npk'"):
        machine(kernel="rbf").fit(gram, labels)
    with pytest.raises(OptionError, match="net is a NoneType"):
        machine().fit(gram, labels)
    with pytest.raises(ShapeError, match="K is not symmetric"):
        own.fit(gram + np.triu(np.ones((60, 60))), labels)
    with pytest.raises(ShapeError, match=r"K has shape \(60, 50\), a Gram matrix is square"):
        own.fit(gram[:, :50], labels)
    fitted = own.fit(gram[:50, :50], labels[:50])
    with pytest.raises(ShapeError, match=r"shape \(10, 60\), .* 50 samples: \(m, 50\) is wanted"):
        fitted.predict(gram[50:])
    with pytest.raises(ShapeError, match="Give its transpose"):
        fitted.predict(gram[:50, 50:])
    if machine is not NPKSVC:
        with pytest.raises(DataError, match="so it is no kernel"):
            machine(kernel="precomputed").fit(gram - 0.5 * np.eye(60), labels)


def test_support_vectors_of_another_matrix_are_refused(gram, labels):
    machine = svm.fit(gram, labels, 1.0).machine
    with pytest.raises(ShapeError, match=r"shape \(60, 59\), the machine has learnt from 60"):
        machine.predict(gram[:, 1:])


def test_alphas_that_fit_no_output(gram, features):
    with pytest.raises(ShapeError, match=r"alpha has shape \(3,\), y has 2 outputs"):
        ridge.fit(gram, features[:, :2], [1.0, 2.0, 3.0])
    with pytest.raises(OptionError, match="accuracy is one number for all outputs together"):
        ridge.fit(gram, np.sign(features[:, :2]), criterion="accuracy", per_target=True)


def test_weights_need_the_matrix_in_memory(gram, features, tmp_path):
    store = GramStore.create(tmp_path / "K", TilePlan(60, 60, 20, True), "float64", {})
    for tile in store.plan:
        store.write(tile, gram[tile.rows, tile.cols])
    on_disk = npk.Gram(store, memory=20_000)
    with pytest.raises(OptionError, match="weights of samples need the whole matrix in memory"):
        ridge.fit(on_disk, features, 0.1, sample_weight=np.ones(60))
    with pytest.raises(OptionError, match="an alpha of each output needs the whole matrix"):
        ridge.fit(on_disk, features, [0.1] * 4)


def test_cusolver_has_a_limit():
    device = algebra.DeviceAlgebra(None)
    device.check_size(32_768)
    with pytest.raises(
        BackendError, match="at most 32768 rows, K has 32769. Give alpha as a number"
    ):
        device.check_size(32_769)
