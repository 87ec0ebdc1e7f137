r"""Intervals and sets of classes that hold the truth in a promised share of cases, whatever the
network and the kernel are worth: jackknife+, in closed form.

With :math:`A = (K + \lambda I)^{-1}`, the leave-one-out error :math:`r_i = c_i / A_{ii}` and :math:`G = k_x^\top A`, the machine that has
not seen sample i says

.. math:: f_{-i}(x) = f(x) - G_i\, r_i

so that n machines cost one product. The promise: of samples drawn like those of the fit (in any order
that says nothing: *shuffle*), at least :math:`1 - 2 (1 - \text{level})` are covered, and close to the level unless
the machine is unstable. (Barber, Candès, Ramdas and Tibshirani, *Predictive inference with the
jackknife+*, Annals of Statistics 2021.)
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.errors import OptionError, ShapeError
from npk.machines.choice import leave_one_out
from npk.machines.factor import Factor, solve
from npk.machines.problem import Floats, checked_targets
from npk.machines.ridge import signed_targets

_BYTES = 1 << 26  # of the predictions of n machines that are held at once


def intervals(
    factored: Factor, y: ArrayLike, alpha: float, cross: ArrayLike, *, level: float = 0.9
) -> Floats:
    r"""Intervals of a regression.

    .. math:: \big[\, q^-\{f_{-i}(x) - |r_i|\},\; q^+\{f_{-i}(x) + |r_i|\} \,\big]

    with :math:`q^-` the :math:`\lfloor (1 - \text{level}) (n + 1) \rfloor`-th smallest value and
    :math:`q^+` the :math:`\lceil \text{level}\, (n + 1) \rceil`-th smallest.

    Args:
        factored: what :func:`npk.machines.factor.factor` returned, of unweighted samples.
        y: targets, (n,) or (n, outputs); each output has an interval of its own.
        alpha: ridge in units of the mean diagonal of K.
        cross: kernel of the samples (rows) with those of the fit, (m, n).
        level: share that is to be covered, between 0 and 1.

    Returns:
        Ends, (m, 2) or (m, outputs, 2); infinite where n is too small for the level.

    Raises:
        ShapeError: y or the kernel does not fit.
        DataError: y is not finite.
        OptionError: level is no such number, or the samples have weights.
    """
    targets = checked_targets(y, len(factored.gram))
    columns = targets.reshape(len(targets), -1)
    errors = np.abs(leave_one_out(factored, columns, alpha))
    n, level = len(columns), _checked(factored, level)
    # numbers like 0.1 * 20 are a little off
    low = int(np.floor((1 - level) * (n + 1) + 1e-9))
    ends = [
        np.stack([_smallest(said - errors, low), _smallest(said + errors, n + 1 - low)], axis=-1)
        for said in _without_each(factored, columns, alpha, cross)
    ]
    found = np.concatenate(ends) if ends else np.empty((0, columns.shape[1], 2))
    return found.reshape(-1, *targets.shape[1:], 2)


def sets(
    factored: Factor, labels: ArrayLike, alpha: float, cross: ArrayLike, *, level: float = 0.9
) -> tuple[NDArray[np.bool_], NDArray]:
    """Sets of classes of a ridge classifier.

    A class is in the set unless too many left-out samples fit their own class better: by how much
    its score is above the best of the others.

    Args:
        factored: as in :func:`intervals`.
        labels: class of each sample, (n,).
        alpha: as in :func:`intervals`.
        cross: as in :func:`intervals`.
        level: as in :func:`intervals`.

    Returns:
        Whether each class is in the set of each sample, (m, classes); and the classes, sorted.

    Raises:
        ShapeError: labels or the kernel do not fit.
        DataError: there are fewer than two classes.
        OptionError: level is no such number, or the samples have weights.
    """
    targets, classes = signed_targets(labels)
    columns = targets.reshape(len(targets), -1)
    level = _checked(factored, level)
    own = np.searchsorted(classes, np.asarray(labels))
    held_out = columns - leave_one_out(factored, columns, alpha)
    fits = _margins(held_out)[np.arange(len(own)), own]  # of each sample with its own class
    found = [
        np.sum(fits[:, None] > _margins(said), axis=1) < level * (len(own) + 1)
        for said in _without_each(factored, columns, alpha, cross)
    ]
    return np.concatenate(found) if found else np.empty((0, len(classes)), bool), classes


def _without_each(
    factored: Factor, columns: Floats, alpha: float, cross: ArrayLike
) -> Iterator[Floats]:
    """Predictions of the machine without each sample, (some, n, outputs), a few rows at a time."""
    rows = np.asarray(cross, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise ShapeError(
            f"the kernel has shape {rows.shape}, the machine has learnt from {len(columns)} "
            f"samples. Pass that of test samples (rows) with all of these."
        )
    errors = leave_one_out(factored, columns, alpha)
    coefficients = solve(factored, columns, alpha).coefficients
    U = factored.algebra.get(factored.eigenvectors)
    shares = factored.eigenvalues + alpha * factored.unit
    for some in gen_batches(len(rows), max(1, _BYTES // (8 * columns.size))):
        moved = ((rows[some] @ U) / shares) @ U.T  # G
        yield (rows[some] @ coefficients)[:, None] - moved[:, :, None] * errors


def _margins(scores: Floats) -> Floats:
    """How far each class is above the best of the others, over the last axis."""
    if scores.shape[-1] == 1:  # of two classes, the score of the second
        return np.concatenate([-2 * scores, 2 * scores], axis=-1)
    best = np.sort(scores, axis=-1)[..., -2:]
    first = scores == best[..., 1:]
    return scores - np.where(first, best[..., :1], best[..., 1:])


def _smallest(values: Floats, place: int) -> Floats:
    """The place-th smallest over the axis of the machines; infinite where there is none."""
    n = values.shape[1]
    if not 1 <= place <= n:
        return np.full((len(values), values.shape[2]), -np.inf if place < 1 else np.inf)
    return np.partition(values, place - 1, axis=1)[:, place - 1]


def _checked(factored: Factor, level: float) -> float:
    number = isinstance(level, (int, float, np.integer, np.floating))
    if isinstance(level, bool) or not number or not 0 < level < 1:
        raise OptionError(f"level is {level!r}. Give the share to be covered, between 0 and 1.")
    if factored.weights is not None:
        raise OptionError(
            "samples with weights are not exchangeable, which the promise rests on. Factor the "
            "kernel without sample_weight."
        )
    return float(level)
