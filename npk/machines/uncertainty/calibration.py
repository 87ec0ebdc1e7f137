r"""Probabilities of scores: one temperature, found on scores of samples that were left out.

.. math:: p_k(x) = \frac{e^{\beta s_k(x)}}{\sum_j e^{\beta s_j(x)}}

(of two classes with the one score s: :math:`p = 1 / (1 + e^{-\beta s})`), with the :math:`\beta > 0` that makes the
left-out samples most likely. The order of the scores stays, so that the most probable class is the
one that is predicted. (Guo, Pleiss, Sun and Weinberger, *On calibration of modern neural networks*,
ICML 2017.)
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from npk.machines.problem import Floats

_RANGE = (
    12.0  # logarithm of the largest temperature over the smallest, each way from the scores' size
)


def temperature(scores: Floats, labels: NDArray[np.intp], weights: Floats | None = None) -> float:
    """The factor of the scores.

    Args:
        scores: of samples that were left out, (n, classes), or (n,) for two classes.
        labels: number of each sample's class, (n,).
        weights: of the samples, (n,).

    Returns:
        beta.
    """
    columns = _columns(scores)
    unit = float(np.sqrt(np.mean((columns - columns.mean(1, keepdims=True)) ** 2))) or 1.0
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        found = log_softmax(np.exp(logarithm) / unit * columns, axis=1)[rows, labels]
        return -float(np.average(found, weights=weights))

    best = minimize_scalar(loss, bounds=(-_RANGE, _RANGE), method="bounded")
    return float(np.exp(best.x) / unit)


def probabilities(scores: Floats, beta: float) -> Floats:
    """Probability of each class, (m, classes); arguments as in :func:`temperature`."""
    return np.exp(log_softmax(beta * _columns(scores), axis=1))


def _columns(scores: Floats) -> Floats:
    """Of one score of two classes a column each, whose difference it is."""
    return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)
