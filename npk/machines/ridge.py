r"""Exact kernel ridge on a Gram matrix: factor once, solve many, and leave-one-out errors for
nothing.

.. math:: c = (K + \lambda I)^{-1} y, \qquad \lambda = \alpha \cdot \operatorname{mean}(\operatorname{diag} K)

``alpha`` is relative to the mean diagonal of K, so it means the same at every scale of the kernel.
Nothing else is ever added to the diagonal. There is no intercept, as in scikit-learn's
``KernelRidge``. Arithmetic is float64 whatever the dtype of K.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches

from npk.errors import DataError, OptionError, warn
from npk.gram.matrix import Gram
from npk.gram.products import bytes_in_flight
from npk.machines import conjugate_gradients
from npk.machines.algebra import HOST, Algebra, algebra_of
from npk.machines.problem import (
    Floats,
    Solution,
    check_alpha,
    checked_alpha,
    checked_gram,
    checked_labels,
    checked_targets,
    is_auto,
    not_definite,
    rounding,
    samples_of,
)

Criterion = Literal["squared error", "accuracy"]

# largest first: a tie goes to the smoother machine
ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(2, -8, 31))


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """A Gram matrix and its eigendecomposition; :func:`factor` makes and checks it."""

    gram: Any  # (n, n), where the solver runs
    eigenvalues: Floats  # (n,), ascending
    eigenvectors: Any  # (n, n), one a column, where the solver runs
    unit: float  # mean of the diagonal: the ridge is alpha times this
    algebra: Algebra = HOST


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The alpha that leave-one-out prefers, and what it was chosen from."""

    alpha: float
    alphas: Floats  # those tried
    squared_error: Floats  # mean squared leave-one-out error of each alpha
    accuracy: Floats | None  # leave-one-out accuracy of each alpha; None for regression


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge machine: it predicts ``cross @ solution.coefficients``."""

    alpha: float
    solution: Solution
    choice: Choice | None  # None when alpha was given


def fit(
    K: ArrayLike | Gram,
    y: ArrayLike,
    alpha: float | Literal["auto"] = "auto",
    *,
    criterion: Criterion = "squared error",
    backend: str = "auto",
) -> Ridge:
    """Fit kernel ridge: by Cholesky for a given alpha, by one eigendecomposition and leave-one-out
    for ``"auto"``.

    A :class:`npk.Gram` is read whole, unless it promises less memory than that takes, or the device
    has less: then a given alpha is solved by conjugate gradients on the matrix on disk
    (``solution.steps`` passes), as :func:`npk.machines.conjugate_gradients.solve` does by default.

    Args:
        K: Gram matrix of the training samples, (n, n), an array or on disk.
        y: targets, (n,) or (n, outputs); for the criterion ``"accuracy"`` -1 and +1, as
            :func:`signed_targets` makes them.
        alpha: ridge in units of the mean diagonal of K, or ``"auto"``: the best of ``ALPHAS``.
        criterion: what leave-one-out looks at; ``"accuracy"`` breaks ties by squared error.
        backend: "cuda": the solver runs on the current CUDA device; "auto", "cpu", "reference": on
            the host.

    Returns:
        The machine, with the Solution and, for ``"auto"``, the Choice.

    Raises:
        ShapeError: K is not square and symmetric, or y has another length.
        DataError: K is zero, not finite or not positive semidefinite; y is not finite, or not -1
            and +1 where it must be.
        OptionError: alpha is neither ``"auto"`` nor a number >= 0, or the criterion or the backend
            is unknown; or alpha is ``"auto"`` and K is a Gram that promises less memory than that
            takes, or is on a device that has less.
        BackendError: "cuda" without a device that can be used, or without enough memory on it.

    Warns:
        ConvergenceWarning: conjugate gradients ended before the system was solved.
    """
    algebra = algebra_of(backend)
    check_alpha(alpha)
    # before anything is read or decomposed
    _check_goal(y, samples_of(K), criterion, judged=is_auto(alpha))
    if isinstance(K, Gram) and (lacking := _lacking(K, alpha, algebra)):
        return _fit_on_disk(K, y, alpha, backend, lacking)
    if is_auto(alpha):
        factored = factor(K, backend=backend)
        choice = choose_alpha(factored, y, criterion=criterion)
        return Ridge(choice.alpha, solve(factored, y, choice.alpha), choice)
    alpha = checked_alpha(alpha)
    gram = checked_gram(K)
    return Ridge(alpha, _solve_cholesky(algebra, gram, checked_targets(y, len(gram)), alpha), None)


def factor(K: ArrayLike, *, backend: str = "auto") -> Factor:
    r"""Eigendecompose a Gram matrix once, for any number of targets and alphas.

    .. math:: K = U \Lambda U^\top

    Args:
        K: Gram matrix, (n, n), symmetric and positive semidefinite up to the rounding of its own
            dtype.
        backend: "cuda": on the current CUDA device, where the matrices of the Factor stay; "auto",
            "cpu", "reference": on the host.

    Returns:
        The Factor, float64.

    Raises:
        ShapeError: K is not square and symmetric.
        DataError: K is zero, not finite, or has an eigenvalue below -n eps lambda_max.
        OptionError: the backend is unknown.
        BackendError: "cuda" without a device that can be used, or without enough memory on it.
    """
    gram, algebra = checked_gram(K), algebra_of(backend)
    with algebra.at_work(len(gram)):
        placed = algebra.put(gram)
        eigenvalues, eigenvectors = algebra.eigh(placed)
    lowest, highest = eigenvalues[0], eigenvalues[-1]
    if lowest < -len(gram) * rounding(K) * highest:
        raise DataError(
            f"K has the eigenvalue {lowest:.3g} beside a largest one of {highest:.3g}: below "
            f"rounding, so it is no kernel. Were its rows and columns made from the same samples "
            f"and network? If it was computed in float32, pass it as float32."
        )
    return Factor(placed, eigenvalues, eigenvectors, float(np.mean(np.diagonal(gram))), algebra)


def solve(factored: Factor, y: ArrayLike, alpha: float) -> Solution:
    r"""Solve for one alpha from the eigendecomposition.

    .. math:: c = U (\Lambda + \lambda)^{-1} U^\top y

    Args:
        factored: what :func:`factor` returned.
        y: targets, (n,) or (n, outputs).
        alpha: ridge in units of the mean diagonal of K, >= 0.

    Returns:
        The Solution, with the measured residual.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite, or K + ridge I is singular to rounding.
        OptionError: alpha is not a number >= 0.
    """
    ridge = checked_alpha(alpha) * factored.unit
    targets = checked_targets(y, len(factored.gram))
    if factored.eigenvalues[0] + ridge <= np.finfo(np.float64).eps * factored.eigenvalues[-1]:
        raise DataError(not_definite(alpha))
    algebra, U = factored.algebra, factored.eigenvectors
    with algebra.at_work(len(targets)):
        placed, shares = algebra.put(targets), algebra.put(factored.eigenvalues + ridge)
        return _solution(algebra, factored.gram, placed, ridge, U @ ((U.T @ placed).T / shares).T)


def leave_one_out(factored: Factor, y: ArrayLike, alpha: float) -> Floats:
    r"""Errors on each sample of the machine fitted to all others, without fitting n machines.

    .. math:: y_i - f_{-i}(x_i) = c_i \,/\, [(K + \lambda I)^{-1}]_{ii}

    :math:`\lambda` is that of the whole matrix: ``alpha`` times the mean diagonal of K with sample i in it.

    Args:
        factored: what :func:`factor` returned.
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
    return _leave_one_out(factored, checked_targets(y, len(factored.gram)), np.array([ridge]))[0]


def choose_alpha(
    factored: Factor,
    y: ArrayLike,
    alphas: Sequence[float] = ALPHAS,
    *,
    criterion: Criterion = "squared error",
) -> Choice:
    """Choose alpha by leave-one-out; every alpha costs a matrix product only.

    An alpha that is smaller than the rounding of K (less than twice its most negative eigenvalue)
    is not tried.

    Args:
        factored: what :func:`factor` returned.
        y: targets, (n,) or (n, outputs); -1 and +1 for ``"accuracy"``.
        alphas: candidates > 0; the first of equals is taken.
        criterion: ``"squared error"``, or ``"accuracy"`` with squared error between equals.

    Returns:
        The Choice, with the figures of every alpha tried.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite, or not -1 and +1 for ``"accuracy"``.
        OptionError: no alpha is above the rounding of K, or the criterion is unknown.
    """
    targets = _check_goal(y, len(factored.gram), criterion)
    floor = 2 * max(0.0, -factored.eigenvalues[0])
    tried = np.array([alpha for alpha in alphas if checked_alpha(alpha) * factored.unit > floor])
    if not len(tried):
        raise OptionError(
            f"no alpha is above the rounding of K, {floor / factored.unit:.2g}. "
            f"Offer larger ones or compute K in float64."
        )
    errors, right = [], []
    # no larger than K itself
    for batch in gen_batches(
        len(tried), max(1, len(targets) * len(targets) // max(1, targets.size))
    ):
        for left_out in _leave_one_out(factored, targets, tried[batch] * factored.unit):
            errors.append(np.mean(left_out**2))
            right.append(
                np.mean(_is_right(targets - left_out, targets)) if criterion == "accuracy" else 0.0
            )
    best = np.lexsort((errors, -np.array(right)))[0]
    return Choice(
        float(tried[best]),
        tried,
        np.array(errors),
        np.array(right) if criterion == "accuracy" else None,
    )


def signed_targets(labels: ArrayLike) -> tuple[Floats, NDArray]:
    """Targets of a ridge classifier: +1 for the sample's own class, -1 for the others.

    Args:
        labels: class of each sample, (n,): numbers or strings.

    Returns:
        Targets (n, classes), or (n,) with +1 for the second class when there are two; and the
        classes, sorted.

    Raises:
        ShapeError: labels are not one-dimensional.
        DataError: there are fewer than two classes, or labels that are no classes.
    """
    classes, index = np.unique(checked_labels(labels), return_inverse=True)
    if len(classes) == 2:
        return np.where(index == 1, 1.0, -1.0), classes
    return np.where(index[:, None] == np.arange(len(classes)), 1.0, -1.0), classes


def classified(scores: Floats, classes: NDArray) -> NDArray:
    """The class that a machine on :func:`signed_targets` gives each sample.

    Args:
        scores: what it predicts, (m, classes), or (m,) for two classes.
        classes: the classes, as :func:`signed_targets` returned them.

    Returns:
        Classes, (m,).
    """
    return classes[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]


def _check_goal(y: ArrayLike, n: int | None, criterion: str, *, judged: bool = True) -> Floats:
    """The targets; ``judged``: leave-one-out will look at them by the criterion."""
    targets = checked_targets(y, n)
    if not isinstance(criterion, str) or criterion not in ("squared error", "accuracy"):
        raise OptionError(f"the criterion is {criterion!r}. Take 'squared error' or 'accuracy'.")
    if judged and criterion == "accuracy" and not np.all(np.abs(targets) == 1):
        raise DataError(
            "the criterion 'accuracy' needs targets -1 and +1, y has others. Make them "
            "with ridge.signed_targets(labels)."
        )
    return targets


def _lacking(K: Gram, alpha: float | str, algebra: Algebra) -> str:
    """What the solver's float64 matrices do not fit: a promise or the device; or nothing."""
    matrix, (host, device) = (
        8 * K.shape[0] * K.shape[1],
        algebra.auto if alpha == "auto" else algebra.given,
    )
    needed, free = host * matrix + bytes_in_flight(K.store.plan), algebra.free()
    if K.memory is not None and needed > K.memory:
        return (
            f"in memory, {needed} bytes, and memory={K.memory} is promised. Give a number "
            f"(conjugate gradients leave the matrix on disk), or load it with that much memory."
        )
    if free is not None and device * matrix > free:
        return (
            f"on the GPU, about {device * matrix} bytes, and {free} are free there. "
            "Give a number (conjugate gradients bring tiles there, one after the other), or use "
            'backend="cpu".'
        )
    return ""


def _fit_on_disk(
    K: Gram, y: ArrayLike, alpha: float | Literal["auto"], backend: str, lacking: str
) -> Ridge:
    if is_auto(alpha):
        raise OptionError(f"alpha='auto' needs the whole matrix and its eigenvectors {lacking}")
    alpha = checked_alpha(alpha)
    solution = conjugate_gradients.solve(K, y, alpha, backend=backend)
    if solution.outcome != "solved":
        text = (
            f"conjugate gradients {solution.outcome} after {solution.steps} steps:"
            f" the residual is {solution.residual:.2g} of y. Take a larger alpha, or go on:"
            " conjugate_gradients.solve(K, y, alpha, start=solution.coefficients)."
        )
        warn(text, ConvergenceWarning)
    return Ridge(alpha, solution, None)


def _leave_one_out(factored: Factor, targets: Floats, ridges: Floats) -> Floats:
    """Errors (len(ridges), *targets.shape): one matrix product for all ridges."""
    algebra, U = factored.algebra, factored.eigenvectors
    with algebra.at_work(len(targets)):
        weights = algebra.put(1 / (factored.eigenvalues + ridges[:, None]))  # (ridges, n)
        projected = U.T @ algebra.put(targets.reshape(len(targets), -1))
        # (ridges, outputs, n)
        coefficients = algebra.xp.tensordot(weights[:, :, None] * projected, U, axes=(1, 1))
        errors = algebra.get(coefficients / (weights @ (U * U).T)[:, None, :])
    return errors.swapaxes(1, 2).reshape(len(ridges), *targets.shape)


def _is_right(scores: Floats, targets: Floats) -> NDArray[np.bool_]:
    """Does the highest score (the sign, for two classes) point to the sample's own class?"""
    if targets.ndim == 1 or targets.shape[1] == 1:
        return (scores > 0) == (targets > 0)
    return scores.argmax(axis=1) == targets.argmax(axis=1)


def _solve_cholesky(algebra: Algebra, gram: Floats, targets: Floats, alpha: float) -> Solution:
    ridge, xp = alpha * float(np.mean(np.diagonal(gram))), algebra.xp
    with algebra.at_work(len(gram)):
        matrix, placed = algebra.put(gram), algebra.put(targets)
        # symmetric: the transpose is the matrix, already in LAPACK's order
        system = xp.array(matrix.T, order="F")
        system[xp.diag_indices_from(system)] += ridge
        try:
            coefficients = algebra.solve_positive(system, placed)
        except np.linalg.LinAlgError as error:
            raise DataError(not_definite(alpha)) from error
        return _solution(algebra, matrix, placed, ridge, coefficients)


def _solution(
    algebra: Algebra, gram: Any, targets: Any, ridge: float, coefficients: Any
) -> Solution:
    """With the residual measured on K; the arrays are those of the algebra."""
    norm = algebra.xp.linalg.norm
    size = float(norm(targets))
    rest = float(norm(gram @ coefficients + ridge * coefficients - targets))
    return Solution(algebra.get(coefficients), rest / size if size else rest, 1, "solved")
