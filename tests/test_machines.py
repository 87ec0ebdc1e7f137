"""ridge and svm against scikit-learn, brute force and the formulas."""

import itertools

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from npk.errors import DataError, OptionError, ShapeError
from npk.machines import ridge, svm
from npk.machines.problem import checked_gram


@pytest.fixture
def samples(rng):
    return rng.normal(size=(37, 5))


@pytest.fixture
def gram(samples):
    return 3.0 * rbf_kernel(samples, gamma=0.1)


def three_classes(samples):
    return np.digitize(samples[:, 0] + 0.5 * samples[:, 1], [-0.5, 0.5])


def closeness(actual, expected, tolerance=1e-9):
    return np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


# --- ridge -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [None, 1, 4])
@pytest.mark.parametrize("alpha", [1e-3, 0.5])
def test_both_solvers_agree_with_kernel_ridge(gram, rng, outputs, alpha):
    y = rng.normal(size=37 if outputs is None else (37, outputs))
    expected = (
        KernelRidge(alpha=alpha * np.mean(np.diagonal(gram)), kernel="precomputed")
        .fit(gram, y)
        .dual_coef_
    )
    by_cholesky, by_eigenvalues = (
        ridge.fit(gram, y, alpha).solution,
        ridge.solve(ridge.factor(gram), y, alpha),
    )
    for solution in (by_cholesky, by_eigenvalues):
        assert solution.coefficients.shape == y.shape
        closeness(solution.coefficients, expected)
        assert solution.residual < 1e-12
        assert (solution.steps, solution.outcome) == (1, "solved")


def test_linear_kernel_recovers_linear_ridge(samples, rng):
    y, test = rng.normal(size=37), rng.normal(size=(6, 5))
    machine = ridge.fit(samples @ samples.T, y, 0.1)
    weight = 0.1 * np.mean(np.sum(samples**2, axis=1))
    expected = Ridge(alpha=weight, fit_intercept=False).fit(samples, y).predict(test)
    closeness(test @ samples.T @ machine.solution.coefficients, expected)


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("alpha", [1e-4, 1e-1, 10.0])
def test_leave_one_out_is_the_brute_force_loop(gram, rng, outputs, alpha):
    y = rng.normal(size=37 if outputs is None else (37, outputs))
    added = alpha * np.mean(np.diagonal(gram))
    expected = np.empty_like(y)
    for i in range(37):
        rest = np.arange(37) != i
        coefficients = np.linalg.solve(gram[np.ix_(rest, rest)] + added * np.eye(36), y[rest])
        expected[i] = y[i] - gram[i, rest] @ coefficients
    closeness(ridge.leave_one_out(ridge.factor(gram), y, alpha), expected)


def test_auto_takes_the_least_leave_one_out_error(gram, samples, rng):
    y = np.sin(samples[:, 0]) + 0.3 * rng.normal(size=37)
    machine = ridge.fit(gram, y)
    errors = [
        np.mean(ridge.leave_one_out(ridge.factor(gram), y, alpha) ** 2)
        for alpha in machine.choice.alphas
    ]
    closeness(machine.choice.squared_error, errors)
    assert machine.alpha == machine.choice.alphas[np.argmin(errors)]
    # a real choice, not an end of the grid
    assert machine.choice.alphas.min() < machine.alpha < machine.choice.alphas.max()
    assert machine.choice.accuracy is None
    closeness(
        machine.solution.coefficients, ridge.fit(gram, y, machine.alpha).solution.coefficients
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_accuracy_first_then_squared_error(gram, samples, rng, classes):
    labels = three_classes(samples + 0.1 * rng.normal(size=samples.shape)) % classes
    targets, _ = ridge.signed_targets(labels)
    choice = ridge.fit(gram, targets, criterion="accuracy").choice
    scores = [
        targets - ridge.leave_one_out(ridge.factor(gram), targets, alpha) for alpha in choice.alphas
    ]
    predicted = [(s > 0).astype(int) if classes == 2 else s.argmax(axis=1) for s in scores]
    closeness(choice.accuracy, [np.mean(p == labels) for p in predicted])
    ties = choice.accuracy == choice.accuracy.max()
    assert 1 < ties.sum() < len(ties)  # else this test shows nothing
    assert choice.alpha == choice.alphas[ties][np.argmin(choice.squared_error[ties])]


def test_alpha_is_relative_to_the_diagonal(gram, samples):
    y = np.sin(samples[:, 0])
    ours, scaled = ridge.fit(gram, y), ridge.fit(1e-60 * gram, y)
    assert ours.alpha == scaled.alpha
    closeness(1e-60 * scaled.solution.coefficients, ours.solution.coefficients)


def test_float32_kernel_keeps_alpha_above_its_rounding(rng):
    features = rng.normal(size=(60, 4)).astype(np.float32)
    gram = features @ features.T  # rank 4: 56 eigenvalues are rounding
    factored = ridge.factor(gram)
    choice = ridge.choose_alpha(factored, features[:, 0])
    assert factored.eigenvalues[0] < 0
    assert choice.alphas.min() * factored.unit > -2 * factored.eigenvalues[0]
    assert len(choice.alphas) < len(ridge.ALPHAS)


def test_alpha_zero_interpolates(gram, rng):
    y = rng.normal(size=37)
    closeness(gram @ ridge.fit(gram, y, 0).solution.coefficients, y)


def test_zero_targets_have_zero_coefficients(gram):
    solution = ridge.fit(gram, np.zeros(37)).solution
    assert not solution.coefficients.any()
    assert solution.residual == 0


def test_input_is_left_as_it_was(gram, rng):
    y, before = rng.normal(size=37), gram.copy()
    ridge.fit(gram, y, 0.1)
    ridge.fit(gram, y)
    np.testing.assert_array_equal(gram, before)


def test_a_dead_sample_does_not_disturb_the_others(gram, rng):
    y = rng.normal(size=38)
    with_dead = np.zeros((38, 38))
    with_dead[:37, :37] = gram
    alpha = 0.1 * 38 / 37  # the mean diagonal is smaller by the dead sample
    closeness(
        ridge.fit(with_dead, y, alpha).solution.coefficients[:37],
        ridge.fit(gram, y[:37], 0.1).solution.coefficients,
    )


def test_signed_targets():
    targets, classes = ridge.signed_targets(["b", "a", "b"])
    np.testing.assert_array_equal(targets, [1, -1, 1])
    assert classes.tolist() == ["a", "b"]
    targets, classes = ridge.signed_targets([7, 3, 5])
    np.testing.assert_array_equal(targets, [[-1, -1, 1], [1, -1, -1], [-1, 1, -1]])
    assert classes.tolist() == [3, 5, 7]


def changed(gram, i, j, value):
    gram = gram.copy()
    gram[i, j] = value
    return gram


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda K: K[:5], ShapeError, r"K has shape \(5, 37\), a Gram matrix is square"),
        (lambda K: K[0], ShapeError, r"K has shape \(37,\)"),
        (lambda K: changed(K, 3, 30, 0.0), ShapeError, "K is not symmetric"),
        (lambda K: changed(K, 3, 3, np.nan), DataError, "not finite"),
        (lambda K: changed(K, 3, 30, np.nan), DataError, "not finite"),
        (lambda K: changed(K, 3, 3, np.inf), DataError, "not finite"),
        (lambda K: 0 * K, DataError, "every input is dead"),
        (lambda K: K[:0, :0], DataError, "K is empty"),
        (lambda K: [["a"]], DataError, "not a numeric matrix"),
    ],
)
@pytest.mark.parametrize("alpha", ["auto", 0.1])
def test_bad_gram(gram, spoil, error, match, alpha):
    with pytest.raises(error, match=match):
        ridge.fit(spoil(gram), np.zeros(37), alpha)
    with pytest.raises(error, match=match):
        svm.fit(spoil(gram), np.arange(37) % 2)


@pytest.mark.parametrize(("i", "j"), [(1, 0), (599, 100), (100, 599), (598, 599)])
def test_asymmetry_of_one_entry_is_seen_in_every_block(rng, i, j):
    features = rng.normal(size=(600, 3))
    with pytest.raises(ShapeError, match="not symmetric"):
        ridge.checked_gram(changed(features @ features.T, i, j, 99.0))


@pytest.mark.parametrize("scale", [1.0, 1e-60])
def test_negative_eigenvalues_are_refused(gram, scale):
    with pytest.raises(DataError, match=r"has the eigenvalue -.* it is no kernel"):
        ridge.factor(scale * (gram - 0.5 * np.eye(37)))


def test_alpha_below_rounding_is_refused(rng):
    features = rng.normal(size=(20, 2))
    gram = features @ features.T - 1e-15 * np.eye(20)
    with pytest.raises(
        DataError, match="alpha = 0 times its mean diagonal is not positive definite"
    ):
        ridge.fit(gram, np.ones(20), 0)
    with pytest.raises(
        DataError, match="alpha = 0 times its mean diagonal is not positive definite"
    ):
        ridge.solve(ridge.factor(gram), np.ones(20), 0)
    float32_gram = gram.astype(np.float32)
    with pytest.raises(OptionError, match="no alpha is above the rounding of K"):
        ridge.choose_alpha(ridge.factor(float32_gram), np.ones(20), [1e-12])


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (np.zeros(36), ShapeError, r"y has shape \(36,\), K has 37 samples"),
        (np.zeros((37, 1, 1)), ShapeError, r"y has shape \(37, 1, 1\)"),
        (np.full(37, np.nan), DataError, "y holds values that are not finite"),
        (["a"] * 37, DataError, "y is not numeric"),
    ],
)
@pytest.mark.parametrize("alpha", ["auto", 0.1])
def test_bad_targets(gram, y, error, match, alpha):
    with pytest.raises(error, match=match):
        ridge.fit(gram, y, alpha)


@pytest.mark.parametrize("alpha", [-1, np.nan, np.inf, "best", None, True])
def test_bad_alpha(gram, alpha):
    with pytest.raises(OptionError, match=r"alpha is .* Give a number >= 0"):
        ridge.fit(gram, np.zeros(37), alpha)
    with pytest.raises(OptionError, match=r"alpha is .* Give a number >= 0"):
        ridge.leave_one_out(ridge.factor(gram), np.zeros(37), alpha)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_triangles_may_differ_by_rounding(gram, scale):
    """Of the largest entry, wherever that is."""
    rounded = changed(gram, 3, 30, gram[3, 30] * (1 + 1e-14)) * scale
    assert not np.array_equal(rounded, rounded.T)
    ridge.fit(rounded, np.arange(37.0), 0.1)
    with pytest.raises(ShapeError, match="not symmetric"):
        ridge.fit(changed(rounded, 3, 30, rounded[3, 30] * (1 + 1e-9)), np.arange(37.0), 0.1)
    large = rounded / scale
    large[1, 0] = large[0, 1] = 1e9  # no kernel, but symmetric as far as such numbers tell
    assert checked_gram(large) is large


@pytest.mark.parametrize("n", [300, 2100])  # on one thread, and on all
def test_an_entry_that_is_not_finite_is_seen_wherever_it_is(n):
    K = np.eye(n)
    assert checked_gram(K) is K
    for at in ((0, 1), (200, 150), (n - 1, 3)):
        with pytest.raises(DataError, match="not finite"):
            checked_gram(changed(K, *at, np.nan))
        with pytest.raises(ShapeError, match="not symmetric"):
            checked_gram(changed(K, *at, 1e-9))


def test_bad_criterion(gram):
    with pytest.raises(OptionError, match="the criterion is 'auc'"):
        ridge.fit(gram, np.ones(37), criterion="auc")
    with pytest.raises(DataError, match=r"needs targets -1 and \+1"):
        ridge.fit(gram, np.zeros(37), criterion="accuracy")


def test_bad_labels():
    with pytest.raises(DataError, match=r"y has 1 class: \['a'\]"):
        ridge.signed_targets(["a", "a"])
    with pytest.raises(ShapeError, match=r"labels have shape \(2, 1\)"):
        ridge.signed_targets([[1], [2]])


# --- svm -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("classes", [3, 7])
def test_svm_is_scikit_learns(gram, classes, workers, monkeypatch):
    """By one call for all pairs of classes, by one for each group of classes, by one for each."""
    monkeypatch.setattr(svm, "_PARTED", 2)
    monkeypatch.setattr(svm, "threads", lambda: workers)
    labels = np.arange(len(gram)) % classes
    ours, theirs = (
        svm.fit(gram, labels, C=2.0).machine,
        SVC(kernel="precomputed", C=2.0).fit(gram, labels),
    )
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_array_equal(ours.dual_coef_, theirs.dual_coef_)
    np.testing.assert_array_equal(ours.predict(gram), theirs.predict(gram))


def test_each_pair_of_classes_is_in_one_group():
    for classes, size in itertools.product(range(2, 13), range(2, 6)):
        groups = svm._groups(classes, size)
        pairs = [pair for group in groups for pair in itertools.combinations(group, 2)]
        assert sorted(pairs) == list(itertools.combinations(range(classes), 2))
        assert max(map(len, groups)) == min(classes, size)


def test_the_calls_of_one_problem_are_as_many_as_keep_the_threads_busy():
    """16 for 10 classes in the place of 45; one, if there is one thread or the pairs are small."""
    labels = np.repeat(np.arange(10), 200)
    problem = svm._Problem.of(np.eye(2000), labels, np.arange(2000), None, None)
    assert len(problem.groups(1)) == 1
    assert len(problem.groups(6)) == 16 == len(svm._groups(10, 4))
    assert len(problem.groups(100)) == 45
    small = svm._Problem.of(np.eye(2000), labels, np.arange(0, 2000, 2), None, None)
    assert len(small.groups(6)) == 1


def test_cost_is_that_of_scikit_learns_search_on_the_same_folds(gram, samples, rng):
    labels = np.array(["r", "g", "b"])[
        three_classes(samples + 0.3 * rng.normal(size=samples.shape))
    ]
    fitted = svm.fit(gram, labels)
    grid = {"C": np.array(svm.COSTS) / np.mean(np.diagonal(gram))}
    folds = min(5, np.unique(labels, return_counts=True)[1].min())
    search = GridSearchCV(
        SVC(kernel="precomputed"),
        grid,
        cv=StratifiedKFold(folds),
        scoring=lambda m, K, y: np.sum(m.predict(K) == y),
    )
    search.fit(gram, labels)
    closeness(fitted.choice.accuracy, search.cv_results_["mean_test_score"] * folds / 37)
    assert fitted.C == search.best_params_["C"]
    assert len(set(fitted.choice.accuracy)) > 2  # else every C is the same


def test_cost_follows_the_scale_of_the_kernel(gram, samples):
    labels = three_classes(samples)
    ours, scaled = svm.fit(gram, labels), svm.fit(1e-6 * gram, labels)
    assert scaled.C == pytest.approx(1e6 * ours.C)
    np.testing.assert_array_equal(scaled.machine.predict(1e-6 * gram), ours.machine.predict(gram))


def test_fewer_folds_for_a_small_class(gram):
    labels = np.arange(37) % 2
    assert svm.fit(gram, labels).choice.folds == 5
    labels[:] = 0
    labels[[4, 20]] = 1
    assert svm.fit(gram, labels).choice.folds == 2


def test_svm_errors(gram):
    two = np.arange(37) % 2
    with pytest.raises(DataError, match=r"y has 1 class: \[0\]"):
        svm.fit(gram, np.zeros(37, dtype=int), 1.0)
    with pytest.raises(DataError, match="class 1 has 1 sample, cross-validation needs 2"):
        svm.fit(gram, (np.arange(37) == 3).astype(int))
    with pytest.raises(ShapeError, match=r"labels have shape \(36,\), K has 37 samples"):
        svm.fit(gram, two[:36])
    with pytest.raises(OptionError, match="folds is 1"):
        svm.fit(gram, two, folds=1)


@pytest.mark.parametrize("C", [0, -1.0, np.nan, np.inf, "best", None, True])
def test_bad_cost(gram, C):
    with pytest.raises(OptionError, match=r"C is .* Give a number > 0"):
        svm.fit(gram, np.arange(37) % 2, C)
