r"""Which alpha: leave-one-out, generalized cross-validation and likelihood of every candidate from
one eigendecomposition.

With :math:`A = (K + \lambda I)^{-1}` and :math:`c = A y`, for each output

.. math::

    y_i - f_{-i}(x_i) = \frac{c_i}{A_{ii}}, \qquad
    \mathrm{GCV} = \mathrm{KARE} = \frac{n\, \|c\|^2}{(\operatorname{tr} A)^2}, \qquad
    \log p(y) = -\tfrac12 y^\top c + \tfrac12 \log \det A - \tfrac n2 \log 2\pi

where K and y are those of the weighted problem (:mod:`npk.machines.factor`). (Golub, Heath and Wahba,
*Generalized cross-validation as a method for choosing a good ridge parameter*, 1979; Jacot and
others, *Kernel alignment risk estimator*, NeurIPS 2020; Rasmussen and Williams, *Gaussian processes
for machine learning*, 2006, equations 2.30 and 5.10.)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.errors import DataError, OptionError
from npk.machines.factor import Factor, solve
from npk.machines.problem import Floats, checked_alpha, checked_targets

Criterion = Literal["squared error", "accuracy", "gcv", "likelihood"]
_BAND = 512  # rows of eigenvectors that are squared at once
CRITERIA = ("squared error", "accuracy", "gcv", "likelihood")

# largest first: a tie goes to the smoother machine
ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(2, -8, 31))


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The alpha that a criterion prefers, and what it was chosen from.

    Figures have a row for each alpha tried and, where alpha is chosen for each output apart, a
    column for each output; else errors and GCV are the mean over outputs, the likelihood the sum.
    """

    alpha: float | Floats  # the best; or (outputs,)
    alphas: Floats  # those tried, (a,)
    squared_error: Floats  # mean squared leave-one-out error of each alpha
    accuracy: Floats | None  # leave-one-out accuracy of each alpha; None for regression
    gcv: Floats  # generalized cross-validation, the same numbers as KARE
    log_likelihood: Floats  # of y as a Gaussian process with K and noise of variance lambda

    @property
    def kare(self) -> Floats:
        """The kernel alignment risk estimator of the ridge lambda / n: the numbers of ``gcv``."""
        return self.gcv


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """Figures of every alpha and output, (alphas, outputs); accuracy (alphas,) or ``None``."""

    squared_error: Floats
    accuracy: Floats | None
    gcv: Floats
    log_likelihood: Floats


def leave_one_out(factored: Factor, y: ArrayLike, alpha: float) -> Floats:
    r"""Errors on each sample of the machine fitted to all others, without fitting n machines.

    .. math:: y_i - f_{-i}(x_i) = c_i \,/\, [(K + \lambda I)^{-1}]_{ii}

    :math:`\lambda` is that of the whole matrix: ``alpha`` times the mean diagonal of K with sample i in it.
    A sample of weight 0 has the error of the machine that has not seen it: that of all others.

    Args:
        factored: what :func:`npk.machines.factor.factor` returned.
        y: targets, (n,) or (n, outputs).
        alpha: ridge in units of the mean diagonal of K, > 0 unless K is well conditioned.

    Returns:
        Errors, the shape of y, float64.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite.
        OptionError: alpha is not a number >= 0.
    """
    ridge = checked_alpha(alpha) * factored.unit
    targets = checked_targets(y, len(factored.gram))
    columns = targets.reshape(len(targets), -1)
    with factored.algebra.at_work(len(targets)):
        found = next(_errors(factored, columns, np.array([ridge])))
    if factored.samples < len(targets):
        found[factored.weights == 0] = _unseen_errors(factored, columns, alpha)
    return found.reshape(targets.shape)


def _unseen_errors(factored: Factor, columns: Floats, alpha: float) -> Floats:
    """Errors on the samples of weight 0, which the machine has not seen."""
    there = factored.weights == 0
    coefficients = solve(factored, columns, alpha).coefficients
    return columns[there] - factored.algebra.get(factored.gram)[there] @ coefficients


def choose_alpha(
    factored: Factor,
    y: ArrayLike,
    alphas: Sequence[float] = ALPHAS,
    *,
    criterion: Criterion = "squared error",
    per_target: bool = False,
) -> Choice:
    """Choose alpha; every alpha costs a matrix product only.

    An alpha that is smaller than the rounding of K (less than twice its most negative eigenvalue)
    is not tried.

    Args:
        factored: what :func:`npk.machines.factor.factor` returned.
        y: targets, (n,) or (n, outputs); -1 and +1 for ``"accuracy"``.
        alphas: candidates > 0; the first of equals is taken.
        criterion: ``"squared error"`` of leave-one-out; its ``"accuracy"``, with squared error
            between equals; ``"gcv"``; or ``"likelihood"``.
        per_target: one alpha for each output of y; not with ``"accuracy"``.

    Returns:
        The Choice, with the figures of every alpha tried.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite, or not -1 and +1 for ``"accuracy"``.
        OptionError: no alpha is above the rounding of K, the criterion is unknown, or an alpha for
            each output is to be chosen by accuracy.
    """
    targets = check_goal(y, len(factored.gram), criterion, per_target=per_target)
    floor = 2 * max(0.0, -factored.eigenvalues[0])
    tried = np.array([alpha for alpha in alphas if checked_alpha(alpha) * factored.unit > floor])
    if not len(tried):
        raise OptionError(
            f"no alpha is above the rounding of K, {floor / factored.unit:.2g}. "
            f"Offer larger ones or compute K in float64."
        )
    found = curves(factored, targets, tried, accuracy=criterion == "accuracy")
    return preferred(found, tried, criterion, each=per_target and targets.ndim == 2)


def preferred(found: Curves, tried: Floats, criterion: Criterion, *, each: bool = False) -> Choice:
    """The best of the candidates: the first of equals.

    Args:
        found: their figures.
        tried: alphas.
        criterion: as in :func:`choose_alpha`.
        each: one alpha for each output.

    Returns:
        The Choice.
    """
    if each:
        squared, gcv, likelihood = found.squared_error, found.gcv, found.log_likelihood
    else:
        squared, gcv = found.squared_error.mean(1), found.gcv.mean(1)
        likelihood = found.log_likelihood.sum(1)
    goal = {"gcv": gcv, "likelihood": -likelihood}.get(criterion, squared)
    best = goal.argmin(0)
    if found.accuracy is not None:
        best = np.lexsort((goal, -found.accuracy))[0]
    alpha = tried[best] if np.ndim(best) else float(tried[best])
    return Choice(alpha, tried, squared, found.accuracy, gcv, likelihood)


def curves(factored: Factor, targets: Floats, alphas: Floats, *, accuracy: bool = False) -> Curves:
    """Figures of every alpha and output.

    Args:
        factored: of K.
        targets: checked, (n,) or (n, outputs).
        alphas: checked.
        accuracy: whether the targets are -1 and +1, of which the largest is right.

    Returns:
        The curves.
    """
    columns, ridges = targets.reshape(len(targets), -1), alphas * factored.unit
    errors, right = [], []
    with factored.algebra.at_work(len(targets)):
        for left_out in _errors(factored, columns, ridges):
            errors.append(np.average(left_out**2, axis=0, weights=factored.weights))
            if accuracy:
                hits = is_right(columns - left_out, columns)
                right.append(np.average(hits, weights=factored.weights))
        squares = factored.algebra.get(factored.projected(columns)) ** 2
    gcv, likelihood = _gcv(factored, squares, ridges), log_likelihood(factored, squares, ridges)
    return Curves(np.array(errors), np.array(right) if accuracy else None, gcv, likelihood)


def check_goal(
    y: ArrayLike, n: int | None, criterion: str, *, judged: bool = True, per_target: bool = False
) -> Floats:
    """The targets, if an alpha can be chosen by the criterion.

    Args:
        y: (n,) or (n, outputs).
        n: samples of K; ``None`` where that is not known yet.
        criterion: a name of :data:`CRITERIA`.
        judged: whether an alpha is to be chosen at all.
        per_target: an alpha of each output.

    Returns:
        y in float64.

    Raises:
        OptionError: the criterion is unknown, or accuracy is to choose for each output.
        DataError: y is not -1 and +1 for ``"accuracy"``, or :func:`checked_targets` refuses it.
    """
    targets = checked_targets(y, n)
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise OptionError(f"the criterion is {criterion!r}. Take one of {', '.join(CRITERIA)}.")
    if per_target and criterion == "accuracy":
        raise OptionError(
            "accuracy is one number for all outputs together. Choose an alpha for each output by "
            "'squared error', 'gcv' or 'likelihood'."
        )
    if judged and criterion == "accuracy" and not np.all(np.abs(targets) == 1):
        raise DataError(
            "the criterion 'accuracy' needs targets -1 and +1, y has others. Make them "
            "with ridge.signed_targets(labels)."
        )
    return targets


def is_right(scores: Floats, targets: Floats) -> NDArray[np.bool_]:
    """Does the highest score (the sign, of one column) point to the sample's own class?"""
    if targets.ndim == 1 or targets.shape[1] == 1:
        return ((scores > 0) == (targets > 0)).reshape(len(targets))
    return scores.argmax(axis=1) == targets.argmax(axis=1)


def log_likelihood(factored: Factor, squares: Floats, ridges: Floats) -> Floats:
    """Log marginal likelihood of each ridge and output, (ridges, outputs).

    Args:
        factored: of K.
        squares: of the targets along the eigenvectors, (n, outputs).
        ridges: variances of the noise (of a sample of weight 1).

    Returns:
        The logarithms.
    """
    spectrum = factored.eigenvalues + ridges[:, None]
    half_log_det = log_determinants(factored, ridges) / 2
    size = factored.samples / 2 * np.log(2 * np.pi)
    return -0.5 * (1 / spectrum) @ squares - half_log_det[:, None] - size


def log_determinants(factored: Factor, ridges: Floats) -> Floats:
    """Of K plus the noise of each sample, (ridges,); samples of weight 0 are not there."""
    found = np.log(factored.eigenvalues + ridges[:, None]).sum(1)
    if factored.weights is not None:
        there = factored.weights > 0
        found -= np.count_nonzero(~there) * np.log(ridges) + np.log(factored.weights[there]).sum()
    return found


def _gcv(factored: Factor, squares: Floats, ridges: Floats) -> Floats:
    shares = 1 / (factored.eigenvalues + ridges[:, None])
    absent = len(factored.gram) - factored.samples
    trace = shares.sum(1) - absent / ridges
    return factored.samples * (shares**2 @ squares) / trace[:, None] ** 2


def _errors(factored: Factor, columns: Floats, ridges: Floats) -> Iterator[Floats]:
    """Leave-one-out errors (n, outputs) of each ridge, 0 where the weight is; one matrix product for
    many ridges, whose result is no larger than K itself.
    """
    algebra, U, roots = factored.algebra, factored.eigenvectors, factored.roots
    projected = factored.projected(columns)
    for batch in gen_batches(len(ridges), max(1, len(columns) ** 2 // max(1, columns.size))):
        weights = algebra.put(1 / (factored.eigenvalues + ridges[batch, None]))  # (ridges, n)
        # (ridges, outputs, n)
        scores = algebra.xp.tensordot(weights[:, :, None] * projected, U, axes=(1, 1))
        diagonal = algebra.xp.zeros(weights.shape, np.float64)  # of A
        for band in gen_batches(len(columns), _BAND):
            diagonal[:, band] = weights @ (U[band] * U[band]).T
        errors = algebra.get(scores / diagonal[:, None, :]).swapaxes(1, 2)
        if roots is not None:
            there = (roots > 0)[:, None]
            errors = np.divide(errors, roots[:, None], out=np.zeros_like(errors), where=there)
        yield from errors
