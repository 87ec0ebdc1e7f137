r"""A preconditioner for kernel ridge: K replaced by a partial Cholesky factor.

.. math:: P = F F^\top + \mu I = U (S^2 + \mu) U^\top + \mu (I - U U^\top)

Conjugate gradients on :math:`P^{-1} (K + \lambda I)` see only what the factor leaves. With
:math:`\mu = \lambda` and all that is left of K below :math:`\epsilon` the condition number is at most
:math:`1 + \epsilon / \lambda`, whatever the largest eigenvalues of K are.

References:
    M. Diaz, E. N. Epperly, Z. Frangella, J. A. Tropp and R. J. Webber, *Robust, randomized
    preconditioning for kernel ridge regression*, arXiv 2304.12465.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import linalg

from npk.errors import OptionError
from npk.gram.matrix import Gram
from npk.machines.approximate.pivots import (
    MatrixEntries,
    PivotedCholesky,
    checked_rank,
    pivoted_cholesky,
)
from npk.machines.problem import Floats, check_square


@dataclasses.dataclass(frozen=True, eq=False)
class Preconditioner:
    """K as far as some of its columns show it: U diag(squares) U'.

    It does not depend on alpha: one serves all of them.
    """

    vectors: Floats  # U, (n, r), orthonormal
    squares: Floats  # (r,): those of the singular values of F
    unit: float  # mean of the diagonal of K

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def rank(self) -> int:
        """Pivots of the factor."""
        return len(self.squares)

    def shares(self, alpha: float) -> Floats:
        r"""What P's inverse takes away along U: :math:`s^2 / (s^2 + \mu)`, (r,).

        Args:
            alpha: ridge in units of the mean diagonal of K.

        Returns:
            The shares; with ``alpha`` 0 the ridge is the rounding of float64.
        """
        ridge = max(alpha, float(np.finfo(np.float64).eps) * len(self)) * self.unit
        return self.squares / (self.squares + ridge)


def of_factor(factor: PivotedCholesky) -> Preconditioner:
    """The preconditioner that a partial Cholesky factor gives.

    Args:
        factor: of K.

    Returns:
        The preconditioner.
    """
    vectors, upper = linalg.qr(factor.factor, mode="economic", check_finite=False)
    left, sizes, _ = linalg.svd(upper, check_finite=False)
    return Preconditioner(vectors @ left, sizes**2, factor.total / len(vectors))


def preconditioner(K: Any, rank: int, *, seed: int = 0) -> Preconditioner:
    """Make a preconditioner from some rows of K, chosen by randomly pivoted Cholesky.

    Args:
        K: Gram matrix of the training samples, (n, n): an array or a :class:`npk.Gram`, whose tiles
            are read once for each block of 128 pivots.
        rank: rows; a step of the solver takes 2 rank / n times a product with K longer. A tenth of
            n, and no more than a thousand, is rarely wrong.
        seed: of the choice.

    Returns:
        The preconditioner, n x rank float64.

    Raises:
        ShapeError: K is not square.
        OptionError: rank is no positive whole number, or K is something else.
        DataError: the diagonal of K is zero or not finite.
    """
    checked_rank(rank, "preconditioner")
    if not isinstance(K, (np.ndarray, Gram)):
        raise OptionError(
            f"K is a {type(K).__name__}, a preconditioner reads rows of arrays and of npk.Gram. "
            "Pass one of them, or leave preconditioner out."
        )
    check_square(K.shape)
    return of_factor(pivoted_cholesky(MatrixEntries(K), rank, rng=seed))
