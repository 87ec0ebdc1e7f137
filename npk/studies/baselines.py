"""What is reached without any network: ridge with a Gaussian kernel, and logistic regression."""

import numpy as np

from npk.studies.draws import Draws
from npk.studies.scores import Score, ridge_of, score

_WIDTHS = (0.25, 1.0, 4.0)  # of gamma, in units of 1 / (features * variance)
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # C, of inputs whose mean square norm is 1
_FOLDS = 3
_STEPS = 2000


def scored(model: str, draws: Draws, sizes: tuple[int, ...]) -> list[Score]:
    """A baseline on the inputs, at every size.

    Args:
        model: "RBF" or "logistic".
        draws: the samples.
        sizes: n.

    Returns:
        A score a size.
    """
    y, y_test = draws.labels
    fresh, test = (
        part.X.reshape(len(part), -1).astype(np.float64) for part in (draws.fresh, draws.test)
    )
    fit = {"RBF": _rbf, "logistic": _logistic}[model]

    def of_split(split: int, n: int) -> tuple[np.ndarray, dict[str, float]]:
        own = draws.order[split][:n]
        return fit(fresh[own], y[own], test)

    labels = [y[own] for own in draws.order], y_test
    return [score("", model, n, labels, of_split) for n in sizes]


def linear_ridge(
    fresh: np.ndarray, y: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge regression on features as they are.

    Args:
        fresh: features, (n, d).
        y: classes, (n,).
        test: features, (m, d).

    Returns:
        Classes of the test samples, and what was chosen.
    """
    if not fresh.any():  # a dead layer
        values, counts = np.unique(y, return_counts=True)
        return np.full(len(test), values[counts.argmax()]), {"alpha": 0.0}
    said, chosen, _ = ridge_of(fresh @ fresh.T, y, test @ fresh.T)
    return said, chosen


def _rbf(fresh: np.ndarray, y: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge with the kernel exp(-gamma |x - x'|^2); gamma and alpha by leave-one-out."""
    from sklearn.metrics.pairwise import rbf_kernel

    unit = 1 / max(fresh.shape[1] * fresh.var(), np.finfo(float).tiny)
    best = None
    for width in _WIDTHS:
        gamma = width * unit
        K, cross = rbf_kernel(fresh, gamma=gamma), rbf_kernel(test, fresh, gamma=gamma)
        said, chosen, quality = ridge_of(K, y, cross)
        if best is None or quality > best[0]:
            best = quality, said, {**chosen, "gamma": float(gamma)}
    assert best is not None
    return best[1], best[2]


def _logistic(
    fresh: np.ndarray, y: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Logistic regression, in the coordinates of the samples' own span, where it is the same; C by
    cross-validation where every class has enough samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mean = fresh.mean(0)
    A, B = fresh - mean, test - mean
    scale = np.sqrt(np.mean(np.sum(A**2, 1))) or 1.0
    span = np.linalg.svd(A / scale, full_matrices=False)[2]
    A, B = A @ span.T / scale, B @ span.T / scale
    if np.unique(y, return_counts=True)[1].min() < _FOLDS:
        strength = _STRENGTHS[1]
        model = LogisticRegression(C=strength, max_iter=_STEPS).fit(A, y)
        return model.predict(B), {"C": strength}
    search = GridSearchCV(LogisticRegression(max_iter=_STEPS), {"C": list(_STRENGTHS)}, cv=_FOLDS)
    search.fit(A, y)
    return search.predict(B), {"C": float(search.best_params_["C"])}
