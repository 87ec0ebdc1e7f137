r"""One eigendecomposition of a Gram matrix, from which every alpha, every target and every
leave-one-out error follow.

.. math:: S K S = U \Lambda U^\top, \qquad S = \operatorname{diag}(\sqrt{w}), \qquad
   c = S\, U (\Lambda + \lambda)^{-1} U^\top S\, y, \qquad
   \lambda = \alpha\, \frac{\sum_i w_i K_{ii}}{\sum_i w_i}

with :math:`w` the weights of the samples, 1 where none are given: a sample of weight two is the same
as two samples of weight one, and one of weight zero is not there.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import gen_batches

from npk.choices import BackendName
from npk.errors import DataError
from npk.machines.algebra import HOST, Algebra, algebra_of
from npk.machines.problem import (
    Floats,
    Solution,
    checked_alphas,
    checked_gram,
    checked_targets,
    checked_weights,
    not_definite,
    rounding,
    samples_of,
)
from npk.samples import as_array

_BAND = 512  # rows of K that are brought to float64 at once


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """A Gram matrix and its eigendecomposition; :func:`factor` makes and checks it."""

    gram: Any  # (n, n), where the solver runs, of the dtype it came in
    eigenvalues: Floats  # (n,), ascending; of the weighted matrix S K S
    eigenvectors: Any  # (n, n), one a column, where the solver runs
    unit: float  # mean of the diagonal: the ridge is alpha times this
    algebra: Algebra = HOST
    weights: Floats | None = None  # (n,), of the samples

    @property
    def roots(self) -> Floats | None:
        """Square roots of the weights, (n,)."""
        return None if self.weights is None else np.sqrt(self.weights)

    @property
    def samples(self) -> int:
        """Those of a weight above 0."""
        return len(self.gram) if self.weights is None else int(np.count_nonzero(self.weights))

    def projected(self, targets: Floats) -> Any:
        """Weighted targets (n, outputs) along the eigenvectors, where the solver runs."""
        return self.eigenvectors.T @ self.algebra.put(scaled(targets, self.roots))


def factor(
    K: ArrayLike, *, backend: BackendName = "auto", sample_weight: ArrayLike | None = None
) -> Factor:
    r"""Eigendecompose a Gram matrix once, for any number of targets and alphas.

    .. math:: K = U \Lambda U^\top

    Args:
        K: Gram matrix, (n, n), symmetric and positive semidefinite up to the rounding of its own
            dtype. On the host it takes three float64 matrices beside K: the eigenvectors, and what
            LAPACK asks for.
        backend: "cuda": on the current CUDA device, where the matrices of the Factor stay; "auto",
            "cpu", "reference": on the host.
        sample_weight: weight of each sample, (n,), >= 0.

    Returns:
        The Factor, float64.

    Raises:
        ShapeError: K is not square and symmetric, or weights of another number of samples.
        DataError: K is zero, not finite, or has an eigenvalue below -n eps lambda_max; or weights
            are negative or all zero.
        OptionError: the backend is unknown.
        BackendError: "cuda" without a device that can be used, without enough memory on it, or for
            more than 32,768 samples.
    """
    algebra, n = algebra_of(backend), samples_of(K)
    if n is not None:
        algebra.check_size(n)  # before anything is read
    came = as_array(K, "K")
    gram = checked_gram(came)
    algebra.check_size(len(gram))
    weights = checked_weights(sample_weight, len(gram))
    with algebra.at_work(len(gram)):
        kept = algebra.put(came if algebra is HOST else gram)
        matrix = algebra.put(gram if weights is None else _weighted(gram, np.sqrt(weights)))
        own = algebra is HOST and not np.may_share_memory(matrix, kept)
        eigenvalues, eigenvectors = algebra.eigh(matrix, own=own)
    check_definite(eigenvalues, rounding(K))
    unit = float(np.average(np.diagonal(came), weights=weights))
    return Factor(kept, eigenvalues, eigenvectors, unit, algebra, weights)


def solve(factored: Factor, y: ArrayLike, alpha: float | ArrayLike) -> Solution:
    r"""Solve for one alpha, or one of each output, from the eigendecomposition.

    .. math:: c = U (\Lambda + \lambda)^{-1} U^\top y

    Args:
        factored: what :func:`factor` returned.
        y: targets, (n,) or (n, outputs).
        alpha: ridge in units of the mean diagonal of K, >= 0; or (outputs,).

    Returns:
        The Solution, with the measured residual.

    Raises:
        ShapeError: y has another length than K, or there is another number of alphas than outputs.
        DataError: y is not finite, or K + ridge I is singular to rounding.
        OptionError: alpha is not a number >= 0.
    """
    targets = checked_targets(y, len(factored.gram))
    alphas = checked_alphas(alpha, targets)
    ridges, columns = alphas * factored.unit, targets.reshape(len(targets), -1)
    eps = np.finfo(np.float64).eps
    if factored.eigenvalues[0] + ridges.min() <= eps * factored.eigenvalues[-1]:
        raise DataError(not_definite(float(alphas.min())))
    algebra, U = factored.algebra, factored.eigenvectors
    with algebra.at_work(len(targets)):
        shares = algebra.put(factored.eigenvalues[:, None] + ridges)
        scores = U @ (factored.projected(columns) / shares)
        return solution(algebra, factored.gram, columns, ridges, scores, factored.roots).shaped(
            targets.shape
        )


def solution(
    algebra: Algebra, gram: Any, targets: Floats, ridges: Floats, scores: Any, roots: Floats | None
) -> Solution:
    """What was found, with the residual of the weighted system measured on K.

    Args:
        algebra: where the solver runs.
        gram: K, there.
        targets: (n, outputs).
        ridges: of each output.
        scores: coefficients divided by the roots of the weights, there.
        roots: square roots of the weights.

    Returns:
        The Solution.
    """
    norm, weighted = algebra.xp.linalg.norm, algebra.put(scaled(targets, roots))
    # on the device too
    placed = None if roots is None else algebra.put(roots)
    coefficients = scores if placed is None else placed[:, None] * scores
    product = _times(gram, coefficients)
    product = product if placed is None else placed[:, None] * product
    size = float(norm(weighted))
    rest = float(norm(product + algebra.put(ridges) * scores - weighted))
    return Solution(algebra.get(coefficients), rest / size if size else rest, 1, "solved")


def check_definite(eigenvalues: Floats, eps: float) -> None:
    """Refuse a matrix that is no kernel.

    Args:
        eigenvalues: ascending.
        eps: rounding of the dtype in which it was computed.

    Raises:
        DataError: the smallest is negative beyond rounding.
    """
    lowest, highest = eigenvalues[0], eigenvalues[-1]
    if lowest < -len(eigenvalues) * eps * highest:
        raise DataError(
            f"K has the eigenvalue {lowest:.3g} beside a largest one of {highest:.3g}: below "
            f"rounding, so it is no kernel. Were its rows and columns made from the same samples "
            f"and network? If it was computed in float32, pass it as float32."
        )


def scaled(targets: Floats, roots: Floats | None) -> Floats:
    """Targets (n, outputs) times the square roots of the weights."""
    return targets if roots is None else roots[:, None] * targets


def _weighted(gram: Floats, roots: Floats) -> Floats:
    """S K S in memory of its own."""
    matrix = roots[:, None] * gram
    matrix *= roots
    return matrix


def _times(gram: Any, V: Any) -> Any:
    """K @ V in float64, whatever K came in, without a copy of all of it."""
    if gram.dtype == np.float64:
        return gram @ V
    bands = gen_batches(len(gram), _BAND)
    return np.concatenate([gram[band].astype(np.float64) @ V for band in bands])
