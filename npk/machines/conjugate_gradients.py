r"""Kernel ridge by conjugate gradients: nothing is factored, so the matrix may stay on disk.

.. math:: (K + \lambda I)\, C = Y, \qquad \lambda = \alpha \cdot \operatorname{mean}(\operatorname{diag} K)

All right-hand sides advance together, so that one pass over K serves every class: SciPy's ``cg``
takes one vector at a time and would read the disk once for each. Every column has the step lengths
of its own, and those that are solved are left out of the product.

The error of a column falls as

.. math:: \|c_k - c\|_A \le 2 \left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^{k} \|c_0 - c\|_A, \qquad
   \kappa = \frac{\lambda_{\max} + \lambda}{\lambda_{\min} + \lambda} \le 1 + \frac{n}{\alpha}

so a given accuracy takes at most about :math:`\tfrac12 \sqrt{1 + n / \alpha}` passes for each factor of e, and far fewer where most
eigenvalues of K are small, as those of kernels are. (Hestenes and Stiefel, *Methods of conjugate
gradients for solving linear systems*, Journal of Research of the National Bureau of Standards 49,
1952.)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npk.choices import BackendName
from npk.errors import DataError, OptionError, ShapeError
from npk.gram.matrix import Gram
from npk.machines.algebra import Algebra, algebra_of
from npk.machines.approximate.preconditioner import Preconditioner
from npk.machines.approximate.preconditioner import preconditioner as made
from npk.machines.problem import (
    NOT_FINITE,
    Floats,
    Solution,
    check_square,
    checked_alpha,
    checked_gram,
    checked_targets,
    mean_diagonal,
    not_definite,
    samples_of,
    values_of,
)
from npk.progress import Advance, Progress, as_progress


class Matrix(Protocol):
    """What the solver asks of K: an array, :class:`npk.Gram`, a sparse matrix, or the like."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""
        ...

    def diagonal(self) -> Any:
        """Of the matrix, (n,)."""
        ...

    def __matmul__(self, V: Any, /) -> Any: ...


def solve(
    K: ArrayLike | Matrix,
    y: ArrayLike,
    alpha: float,
    *,
    tolerance: float = 1e-6,
    most: int = 1000,
    start: ArrayLike | None = None,
    preconditioner: Preconditioner | int | None = None,
    progress: bool | Progress = False,
    backend: BackendName = "auto",
) -> Solution:
    r"""Solve kernel ridge with nothing but products with K.

    .. math:: |(K + \lambda I)\, c - y| \le \text{tolerance} \cdot |y| \quad \text{for every column}

    Args:
        K: Gram matrix of the training samples, (n, n): an array, a :class:`npk.Gram`, or anything
            with ``shape``, ``@`` and ``diagonal()``. Of an array it is checked that it is symmetric
            and finite, of others as far as the steps show it.
        y: targets, (n,) or (n, outputs).
        alpha: ridge in units of the mean diagonal of K, >= 0.
        tolerance: residual at which a column is solved, relative to the size of the column.
        most: steps at most; a step is one pass over K.
        start: coefficients to begin with, such as those of an earlier call, of y's shape; ``None``:
            zero.
        preconditioner: what :func:`npk.machines.approximate.preconditioner.preconditioner` made of
            K, once for any number of alphas; or its rank, to make it here. ``None``: none. With it
            far fewer steps are needed where alpha is small.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.
        backend: "cuda": everything is computed on the current CUDA device, where K (an array or a
            :class:`npk.Gram`) stays if there is room; else its bands, or tiles, go there one after
            the other in every step. "auto", "cpu", "reference": on the host.

    Returns:
        The Solution. Its residual is that of all columns together, measured on K by one more
        product. Its outcome is "solved", "not converged" (the steps were used up) or "stagnated"
        (rounding lets the residual become no smaller).

    Raises:
        ShapeError: K is not square and symmetric, or y, start or the preconditioner has another
            shape.
        DataError: K is zero, not finite, or with this alpha not positive definite; y or start is
            not finite.
        OptionError: alpha is not a number >= 0, the tolerance is not between 0 and 1, most is not a
            number of steps, the backend is unknown, the preconditioner is none, or "cuda" is to
            multiply something that is neither an array nor a :class:`npk.Gram`.
        BackendError: "cuda" without a device that can be used, or without enough memory on it.
    """
    alpha = checked_alpha(alpha)
    _check_limits(tolerance, most)
    algebra = algebra_of(backend)
    targets = checked_targets(y, samples_of(K))
    _checked_start(start, targets)  # before anything is read
    matrix, unit = _checked_matrix(K)
    targets = checked_targets(targets, matrix.shape[0])
    columns = targets.reshape(len(targets), -1)
    sizes = np.linalg.norm(columns, axis=0)
    # a column of zeros has the solution zero
    shares = np.divide(1, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    first = _checked_start(start, targets).reshape(columns.shape) * shares * unit
    with (
        algebra.at_work(len(targets)),
        as_progress(progress).task("conjugate gradients", most) as advance,
    ):
        found = _checked_preconditioner(preconditioner, matrix)
        system = _System(algebra, algebra.product(matrix), unit, alpha, _put(found, alpha, algebra))
        run = _iterate(
            system, algebra.put(columns * shares), algebra.put(first), tolerance, most, advance
        )
        values, rest = algebra.get(run.values), algebra.get(run.rest)
    residual = float(np.linalg.norm(rest * sizes)) / (float(np.linalg.norm(sizes)) or 1.0)
    return Solution(
        (values * sizes / unit).reshape(targets.shape), residual, run.steps, run.outcome
    )


@dataclasses.dataclass
class _System:
    """K / mean(diag K) + alpha I: the same solutions up to a factor, and no number far from 1."""

    algebra: Algebra
    times: Callable[[Any], Any]  # K @ V, where the solver runs
    unit: float
    alpha: float
    eased: tuple[Any, Any] | None = None  # vectors of the preconditioner, and their shares

    def __call__(self, V: Any) -> Any:
        product = self.times(V) / self.unit + self.alpha * V
        if not self.algebra.xp.isfinite(product).all():
            raise DataError(NOT_FINITE)
        return product

    def squares(self, V: Any, W: Any) -> Any:
        """Inner products of the columns."""
        return self.algebra.xp.einsum("ij,ij->j", V, W)

    def preconditioned(self, V: Any) -> Any:
        """The preconditioner's inverse times V, up to a factor; V itself without one."""
        if self.eased is None:
            return V
        vectors, shares = self.eased
        return V - vectors @ (shares * (vectors.T @ V))


@dataclasses.dataclass
class _Run:
    """Where the iteration is; the arrays are those of the place where it runs."""

    algebra: Algebra
    values: Any  # (n, columns)
    rest: Any  # right-hand side minus the system times values
    steps: int = 0
    outcome: str = "solved"

    @property
    def sizes(self) -> Floats:
        """Of the columns that are left, on the host."""
        return self.algebra.get(self.algebra.xp.linalg.norm(self.rest, axis=0))

    def open(self, tolerance: float) -> NDArray[np.intp]:
        """Numbers of the columns that are not solved."""
        return np.flatnonzero(self.sizes > tolerance)


def _iterate(
    system: _System, target: Any, first: Any, tolerance: float, most: int, advance: Advance
) -> _Run:
    """Conjugate gradients, begun anew from the measured residual where that has drifted."""
    run = _Run(
        system.algebra, first.copy(), target - system(first) if first.any() else target.copy()
    )
    worst = np.inf
    while len(run.open(tolerance)):
        before, worst = worst, float(run.sizes.max())
        if run.steps >= most or worst > 0.9 * before:
            run.outcome = "not converged" if run.steps >= most else "stagnated"
            break
        _advance_columns(system, run, tolerance, most, advance)
        run.rest = target - system(run.values)
    return run


def _advance_columns(
    system: _System, run: _Run, tolerance: float, most: int, advance: Advance
) -> None:
    """Steps of Hestenes and Stiefel on the columns that are not solved, as long as there are some."""
    eased = system.preconditioned(run.rest)
    directions = eased.copy()
    squares = system.squares(run.rest, eased)
    while len(unsolved := run.open(tolerance)) and run.steps < most:
        columns = run.algebra.put(unsolved)
        along = directions[:, columns]
        product = system(along)
        curvature = system.squares(along, product)
        if (curvature <= 0).any():
            raise DataError(not_definite(system.alpha))
        length = squares[columns] / curvature
        run.values[:, columns] += length * along
        run.rest[:, columns] -= length * product
        before, rest = squares[columns], run.rest[:, columns]
        eased = system.preconditioned(rest)
        squares[columns] = system.squares(rest, eased)
        directions[:, columns] = eased + squares[columns] / before * along
        run.steps += 1
        advance(1)


def _checked_matrix(K: ArrayLike | Matrix) -> tuple[Matrix, float]:
    """K as something to multiply with, and the mean of its diagonal."""
    matrix: Any = K
    if not isinstance(K, Gram) and (hasattr(K, "__array__") or not hasattr(K, "diagonal")):
        gram = checked_gram(matrix)
        return gram, mean_diagonal(np.diagonal(gram))
    check_square(tuple(matrix.shape))
    if not getattr(matrix, "symmetric", True):
        raise ShapeError(
            "K has rows of some samples and columns of others. Compute the kernel of "
            "the training samples alone, without Y."
        )
    return matrix, mean_diagonal(np.asarray(matrix.diagonal()))


def _checked_preconditioner(
    given: Preconditioner | int | None, matrix: Matrix
) -> Preconditioner | None:
    if given is None:
        return None
    found = given if isinstance(given, Preconditioner) else made(matrix, given)
    if len(found) != matrix.shape[0]:
        raise ShapeError(
            f"the preconditioner is of {len(found)} samples, K has {matrix.shape[0]}. Make it of "
            f"this K: preconditioner(K, rank)."
        )
    return found


def _put(found: Preconditioner | None, alpha: float, algebra: Algebra) -> tuple[Any, Any] | None:
    """Vectors and shares where the solver runs."""
    if found is None:
        return None
    return algebra.put(found.vectors), algebra.put(found.shares(alpha)[:, None])


def _checked_start(start: ArrayLike | None, targets: Floats) -> Floats:
    if start is None:
        return np.zeros_like(targets)
    try:
        first = values_of(start).astype(np.float64, casting="same_kind")
    except TypeError as error:
        raise DataError(
            f"start is not numeric ({error}). Pass coefficients, or leave start out."
        ) from error
    if first.shape != targets.shape:
        raise ShapeError(
            f"start has shape {first.shape}, y has {targets.shape}. Pass coefficients "
            f"for every target, or leave start out."
        )
    if not np.isfinite(first).all():
        raise DataError("start holds values that are not finite. Leave start out to begin at zero.")
    return first


def _check_limits(tolerance: float, most: int) -> None:
    if (
        isinstance(tolerance, bool)
        or not isinstance(tolerance, (int, float, np.integer, np.floating))
        or not 0 < tolerance < 1
    ):
        raise OptionError(
            f"tolerance is {tolerance!r}. Give a number between 0 and 1, relative to the size of y."
        )
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise OptionError(f"most is {most!r}. Give the largest number of steps, 1 or more.")
