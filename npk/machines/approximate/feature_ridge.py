r"""Ridge regression on features, its alpha by leave-one-out, without the n × n kernel.

.. math:: w = (Z^\top Z + \lambda I)^{-1} Z^\top y, \qquad \lambda = \alpha \cdot \operatorname{mean}_i \|z_i\|^2

It is kernel ridge with K = Z Z' (:mod:`npk.machines.ridge`), and every candidate is judged by the same
figures: with the hat matrix :math:`H = Z (Z^\top Z + \lambda I)^{-1} Z^\top` the inverse that they
need is :math:`(K + \lambda I)^{-1} = (I - H) / \lambda`.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.utils import gen_batches

from npk.machines import ridge
from npk.machines.approximate.low_rank import LowRank
from npk.machines.choice import ALPHAS, Choice, Criterion, Curves, check_goal, is_right, preferred
from npk.machines.problem import Floats, mean_diagonal

_ROWS = 1024  # whose figures are taken together


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRidge:
    """A fitted machine: it predicts ``features @ weights``."""

    alpha: float
    weights: Floats  # (m,) or (m, outputs)
    choice: Choice


def fit(
    features: ArrayLike, y: ArrayLike, *, criterion: Criterion = "squared error"
) -> FeatureRidge:
    """Fit ridge to features; alpha is the best of :data:`npk.machines.choice.ALPHAS`.

    One eigendecomposition of Z'Z, (m, m), and a pass over the features serve all alphas; features
    may be a memory map, of which some rows are taken at a time.

    Args:
        features: Z, (n, m).
        y: targets, (n,) or (n, outputs); -1 and +1 for ``"accuracy"``.
        criterion: as in :func:`npk.machines.ridge.fit`.

    Returns:
        The machine.

    Raises:
        ShapeError: features are no matrix, or y has another length.
        DataError: features are zero or not finite, y is not finite, or not -1 and +1 for
            ``"accuracy"``.
        OptionError: the criterion is unknown.
    """
    low = LowRank(features)
    n, m = low.features.shape
    targets = check_goal(y, n, criterion)
    unit = mean_diagonal(low.diagonal())
    if m >= n:  # then K is the smaller one
        wide = low.features.astype(np.float64, copy=False)
        fitted = ridge.fit(wide @ wide.T, targets, criterion=criterion)
        assert fitted.choice is not None
        weights = low.weights(fitted.solution.coefficients)
        return FeatureRidge(float(fitted.alpha), weights, fitted.choice)
    eigenvalues, vectors = linalg.eigh(_inner(low))
    # below it the smallest eigenvalues are rounding of the largest
    floor = m * np.finfo(np.float64).eps * eigenvalues[-1]
    ridges = np.array([alpha * unit for alpha in ALPHAS if alpha * unit > floor])
    eigenvalues = np.maximum(eigenvalues, 0.0)
    found = _curves(low, targets, (eigenvalues, vectors), ridges, accuracy=criterion == "accuracy")
    choice = preferred(found, ridges / unit, criterion)
    shares = (vectors.T @ low.weights(targets)).T / (eigenvalues + choice.alpha * unit)
    return FeatureRidge(float(choice.alpha), vectors @ shares.T, choice)


def _inner(low: LowRank) -> Floats:
    """Z'Z."""
    m = low.features.shape[1]
    total = np.zeros((m, m))
    for rows in gen_batches(len(low.features), _ROWS):
        part = low.features[rows].astype(np.float64, copy=False)
        total += part.T @ part
    return total


def _curves(
    low: LowRank,
    targets: Floats,
    decomposed: tuple[Floats, Floats],
    ridges: Floats,
    *,
    accuracy: bool,
) -> Curves:
    """Figures of every ridge and output, from some rows at a time."""
    (eigenvalues, vectors), n = decomposed, len(targets)
    columns = targets.reshape(n, -1)
    shares = 1 / (eigenvalues + ridges[:, None])  # (ridges, m)
    along = shares[:, :, None] * (vectors.T @ low.weights(columns))
    squares, norms, products = np.zeros((3, len(ridges), columns.shape[1]))
    right, trace = np.zeros((2, len(ridges)))
    for rows in gen_batches(n, _ROWS):
        part, own = low.features[rows].astype(np.float64) @ vectors, columns[rows]
        rest = own - part @ along  # (I - H) y
        kept = np.maximum(1 - shares @ (part * part).T, np.finfo(np.float64).eps)  # of I - H
        errors = rest / kept[:, :, None]
        squares += np.square(errors).sum(1)
        norms += np.square(rest).sum(1)
        products += (own * rest).sum(1)
        trace += kept.sum(1)
        right += [is_right(own - left_out, own).sum() for left_out in errors]
    # A = (I - H) / ridge: the ridge falls out of GCV
    half_log_det = (np.log(shares).sum(1) - (n - len(eigenvalues)) * np.log(ridges)) / 2
    likelihood = half_log_det[:, None] - products / ridges[:, None] / 2 - n / 2 * np.log(2 * np.pi)
    gcv = n * norms / trace[:, None] ** 2
    return Curves(squares / n, right / n if accuracy else None, gcv, likelihood)
