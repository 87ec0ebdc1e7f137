"""Ridge machines on few fresh samples: accuracy against their number."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from npk.machines import ridge

SIZES = (30, 100, 300, 1000)
DRAWS = 10  # of the smaller sizes: as many disjoint sets as there are, at most
WIDTHS = (0.25, 1.0, 4.0)  # of RBF machines, times one over the mean squared distance
Sides = tuple[np.ndarray, np.ndarray]  # kernel of the fresh samples; of the test samples with them
Kernel = Callable[[np.ndarray, np.ndarray], Sides]


def learning_curve(kernels: list[Sides], y: np.ndarray, y_test: np.ndarray) -> dict[str, float]:
    """Test accuracy of ridge machines by the number of fresh samples, a mean over disjoint draws.

    Args:
        kernels: of which leave-one-out chooses one for each machine.
        y: classes of the fresh samples.
        y_test: classes of the test samples.
    """
    found = {}
    for size in (size for size in SIZES if size <= len(y)):
        rights = [one_machine(kernels, y, y_test, draw) for draw in balanced(y, size)[:DRAWS]]
        if rights:
            found[str(size)] = float(np.mean(rights))
    return found


def balanced(y: np.ndarray, size: int) -> list[np.ndarray]:
    """Disjoint sets of samples with as many of every class."""
    classes = np.unique(y)
    each = size // len(classes)
    members = [np.flatnonzero(y == label) for label in classes]
    count = min(len(rows) for rows in members) // each
    return [
        np.concatenate([rows[i * each : (i + 1) * each] for rows in members]) for i in range(count)
    ]


def one_machine(kernels: list[Sides], y: np.ndarray, y_test: np.ndarray, draw: np.ndarray) -> float:
    """Accuracy of the machine that leave-one-out prefers."""
    targets, classes = ridge.signed_targets(y[draw])
    machines = [ridge.fit(K[np.ix_(draw, draw)], targets, criterion="accuracy") for K, _ in kernels]
    scores = [machine.choice.accuracy.max() for machine in machines]
    best = int(np.argmax(scores))
    predicted = kernels[best][1][:, draw] @ machines[best].solution.coefficients
    return float(np.mean(classes[predicted.argmax(1)] == y_test))


def linear_kernel(features: Callable[[np.ndarray], np.ndarray]) -> Kernel:
    """The kernel of given features."""

    def kernel(fresh: np.ndarray, test: np.ndarray) -> Sides:
        phi = features(fresh)
        return phi @ phi.T, features(test) @ phi.T

    return kernel


def rbf_kernels() -> list[Kernel]:
    """RBF kernels of the pixels, one a width."""

    def of(width: float) -> Kernel:
        def kernel(fresh: np.ndarray, test: np.ndarray) -> Sides:
            rows, others = (X.reshape(len(X), -1).astype(np.float64) for X in (fresh, test))
            gamma = width / (2 * len(rows) / (len(rows) - 1) * rows.var(0).sum())
            return rbf_kernel(rows, gamma=gamma), rbf_kernel(others, rows, gamma=gamma)

        return kernel

    return [of(width) for width in WIDTHS]
