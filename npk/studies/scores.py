"""Which test samples a machine gets right, split by split, and how far such numbers are known."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from npk.machines import ridge

Fit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, dict[str, float]]]


@dataclass(frozen=True, eq=False)
class Score:
    """A model of a network at one number of samples.

    ``right``: whether each test sample was classified correctly, ``(splits, test samples)``; of
    what does not depend on the fresh samples, ``(1, test samples)``.
    """

    network: str
    model: str
    samples: int
    right: np.ndarray
    said: np.ndarray  # class of each test sample, of the first split
    chosen: dict[str, float]
    seconds: float

    @property
    def by_split(self) -> tuple[float, ...]:
        """Accuracy of each split."""
        return tuple(self.right.mean(1).tolist())


def standard_error(values: np.ndarray) -> float | None:
    r"""Standard error of the mean of values that have an error by row and one by column.

    .. math:: \operatorname{var} = \frac{MS_\text{rows}}{S m} + \frac{MS_\text{columns}}{S m} -
        \frac{MS_\text{rest}}{S m}

    with the mean squares of a two-way layout without repetition: splits and test samples are both
    drawn at random, and an accuracy would be another with other ones of either. Of one row it is the
    usual standard error over columns.

    Args:
        values: ``(splits, test samples)``.

    Returns:
        The standard error; ``None`` for a single column.

    References:
        Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 2007.
    """
    values = np.asarray(values, np.float64)
    splits, m = values.shape
    if m < 2:
        return None
    columns = values.mean(0)
    of_columns = splits * columns.var(ddof=1)
    if splits == 1:
        return float(np.sqrt(of_columns / m))
    rows = values.mean(1)
    of_rows = m * rows.var(ddof=1)
    rest = values - rows[:, None] - columns + values.mean()
    of_rest = np.sum(rest**2) / ((splits - 1) * (m - 1))
    # by chance the rest may be larger than a part; the error is never said to be below either
    total = max(of_rows + of_columns - of_rest, of_columns, of_rows)
    return float(np.sqrt(total / (splits * m)))


def score(
    network: str,
    model: str,
    n: int,
    labels: tuple[Sequence[np.ndarray], np.ndarray],
    fit: Callable[[int, int], tuple[np.ndarray, dict[str, float]]],
) -> Score:
    """Fit a model to the first n samples of each split and try it on the test samples.

    Args:
        network: whose it is.
        model: a key of :data:`npk.results.MODELS`.
        n: fresh samples.
        labels: classes of each split's samples, and of the test samples.
        fit: of the number of the split and n: classes of the test samples, and what was chosen.

    Returns:
        The score; of what was chosen the median.
    """
    start = time.perf_counter()
    found = [fit(split, n) for split in range(len(labels[0]))]
    said = np.array([each for each, _ in found])
    chosen = {key: float(np.median([c[key] for _, c in found])) for key in found[0][1]}
    seconds = time.perf_counter() - start
    return Score(network, model, n, said == labels[1], said[0], chosen, seconds)


def ridge_of(K: np.ndarray, y: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, dict, tuple]:
    """Kernel ridge, its alpha by leave-one-out.

    Args:
        K: kernel of the fresh samples, (n, n).
        y: their classes, (n,).
        cross: kernel of the test samples with them, (m, n).

    Returns:
        The class of each test sample, what was chosen, and how good leave-one-out found it:
        accuracy, and squared error with a minus.
    """
    targets, classes = ridge.signed_targets(y)
    machine = ridge.fit(K, targets, criterion="accuracy")
    choice = machine.choice
    assert choice is not None
    assert choice.accuracy is not None
    at = int(np.flatnonzero(choice.alphas == machine.alpha)[0])
    quality = float(choice.accuracy[at]), -float(choice.squared_error[at])
    said = ridge.classified(cross @ machine.solution.coefficients, classes)
    return said, {"alpha": float(machine.alpha)}, quality
