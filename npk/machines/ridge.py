r"""Exact kernel ridge on a Gram matrix: factor once, solve many, and leave-one-out errors for
nothing.

.. math:: c = (K + \lambda I)^{-1} y, \qquad \lambda = \alpha \cdot \operatorname{mean}(\operatorname{diag} K)

``alpha`` is relative to the mean diagonal of K, so it means the same at every scale of the kernel.
Nothing else is ever added to the diagonal. There is no intercept, as in scikit-learn's
``KernelRidge``. Arithmetic is float64 whatever the dtype of K.
"""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from npk.choices import BackendName
from npk.errors import DataError, OptionError, warn
from npk.gram.matrix import Gram
from npk.gram.products import bytes_in_flight
from npk.machines import conjugate_gradients
from npk.machines.algebra import HOST, Algebra, algebra_of
from npk.machines.choice import ALPHAS, Choice, Criterion, check_goal, choose_alpha, leave_one_out
from npk.machines.factor import Factor, factor, scaled, solution, solve
from npk.machines.problem import (
    Floats,
    Solution,
    check_alpha,
    checked_alpha,
    checked_alphas,
    checked_gram,
    checked_labels,
    checked_targets,
    checked_weights,
    is_auto,
    not_definite,
    samples_of,
)
from npk.samples import as_array

__all__ = [
    "ALPHAS",
    "Choice",
    "Criterion",
    "Factor",
    "Ridge",
    "choose_alpha",
    "classified",
    "factor",
    "fit",
    "fit_factored",
    "leave_one_out",
    "signed_targets",
    "solve",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge machine: it predicts ``cross @ solution.coefficients``."""

    alpha: float | Floats  # or one of each output
    solution: Solution
    choice: Choice | None  # None when alpha was given


def fit(
    K: ArrayLike | Gram,
    y: ArrayLike,
    alpha: float | ArrayLike | Literal["auto"] = "auto",
    *,
    criterion: Criterion = "squared error",
    per_target: bool = False,
    sample_weight: ArrayLike | None = None,
    backend: BackendName = "auto",
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
        alpha: ridge in units of the mean diagonal of K, or one of each output, (outputs,), or
            ``"auto"``: the best of ``ALPHAS``.
        criterion: what ``"auto"`` looks at: leave-one-out ``"squared error"`` or ``"accuracy"``
            (which breaks ties by squared error), ``"gcv"`` or ``"likelihood"``.
        per_target: ``"auto"`` chooses for each output apart.
        sample_weight: weight of each sample's squared error, (n,), >= 0. The unit of alpha is then
            the weighted mean of the diagonal.
        backend: "cuda": the solver runs on the current CUDA device; "auto", "cpu", "reference": on
            the host.

    Returns:
        The machine, with the Solution and, for ``"auto"``, the Choice.

    Raises:
        ShapeError: K is not square and symmetric, or y, weights or alphas have another length.
        DataError: K is zero, not finite or not positive semidefinite; y is not finite, or not -1
            and +1 where it must be; weights are negative, not finite or all zero.
        OptionError: alpha is neither ``"auto"`` nor a number >= 0, or the criterion or the backend
            is unknown; or alpha is ``"auto"``, or there are weights, and K is a Gram that promises less memory than that
            takes, or is on a device that has less.
        BackendError: "cuda" without a device that can be used, or without enough memory on it.

    Warns:
        ConvergenceWarning: conjugate gradients ended before the system was solved.
    """
    algebra, one = algebra_of(backend), not is_auto(alpha) and np.ndim(alpha) == 0  # type: ignore[arg-type]
    # before anything is read or decomposed
    targets = check_goal(y, samples_of(K), criterion, judged=is_auto(alpha), per_target=per_target)
    check_alpha(alpha, targets)
    if isinstance(K, Gram) and (lacking := _lacking(K, one, algebra)):
        return _fit_on_disk(K, y, alpha, sample_weight, backend, lacking)
    if not one:
        factored = factor(K, backend=backend, sample_weight=sample_weight)
        return fit_factored(factored, targets, alpha, criterion=criterion, per_target=per_target)
    number = checked_alpha(alpha)  # type: ignore[arg-type]
    return Ridge(number, _solve_cholesky(algebra, K, targets, number, sample_weight), None)


def fit_factored(
    factored: Factor,
    y: ArrayLike,
    alpha: float | ArrayLike | Literal["auto"] = "auto",
    *,
    criterion: Criterion = "squared error",
    per_target: bool = False,
) -> Ridge:
    """Fit kernel ridge on a matrix that is decomposed already.

    Args:
        factored: what :func:`factor` returned.
        y: as in :func:`fit`.
        alpha: as in :func:`fit`.
        criterion: as in :func:`fit`.
        per_target: as in :func:`fit`.

    Returns:
        The machine.

    Raises:
        ShapeError: y or alphas have another length.
        DataError: y is not finite, or not -1 and +1 where it must be; or K with this alpha is
            singular to rounding.
        OptionError: alpha is neither ``"auto"`` nor a number >= 0, or the criterion is unknown.
    """
    targets = checked_targets(y, len(factored.gram))
    if not is_auto(alpha):
        alphas = checked_alphas(alpha, targets)  # type: ignore[arg-type]
        given = alphas if np.ndim(alpha) else float(alphas[0])  # type: ignore[arg-type]
        return Ridge(given, solve(factored, targets, given), None)
    choice = choose_alpha(factored, targets, criterion=criterion, per_target=per_target)
    return Ridge(choice.alpha, solve(factored, targets, choice.alpha), choice)


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


def _lacking(K: Gram, one: bool, algebra: Algebra) -> str:
    """What the solver's float64 matrices do not fit: a promise or the device; or nothing."""
    matrix, (host, device) = (8 * K.shape[0] * K.shape[1], algebra.given if one else algebra.auto)
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
    K: Gram,
    y: ArrayLike,
    alpha: float | ArrayLike | Literal["auto"],
    sample_weight: ArrayLike | None,
    backend: BackendName,
    lacking: str,
) -> Ridge:
    if is_auto(alpha) or np.ndim(alpha):  # type: ignore[arg-type]
        what = "alpha='auto' needs" if is_auto(alpha) else "an alpha of each output needs"
        raise OptionError(f"{what} the whole matrix and its eigenvectors {lacking}")
    if sample_weight is not None:
        raise OptionError(
            "weights of samples need the whole matrix in memory, more than is promised or free. "
            "Leave them out, or load K with more memory."
        )
    number = checked_alpha(alpha)  # type: ignore[arg-type]
    solution = conjugate_gradients.solve(K, y, number, backend=backend)
    if solution.outcome != "solved":
        text = (
            f"conjugate gradients {solution.outcome} after {solution.steps} steps:"
            f" the residual is {solution.residual:.2g} of y. Take a larger alpha, or go on:"
            " conjugate_gradients.solve(K, y, alpha, start=solution.coefficients)."
        )
        warn(text, ConvergenceWarning)
    return Ridge(number, solution, None)


def _solve_cholesky(
    algebra: Algebra, K: ArrayLike, targets: Floats, alpha: float, sample_weight: ArrayLike | None
) -> Solution:
    came = as_array(K, "K")
    gram = checked_gram(came)
    targets, weights = (
        checked_targets(targets, len(gram)),
        checked_weights(sample_weight, len(gram)),
    )
    roots, xp = None if weights is None else np.sqrt(weights), algebra.xp
    ridge = alpha * float(np.average(np.diagonal(gram), weights=weights))
    columns = targets.reshape(len(targets), -1)
    with algebra.at_work(len(gram)):
        kept = algebra.put(came if algebra is HOST else gram)
        own = algebra is HOST and not np.may_share_memory(gram, kept)
        # symmetric: the transpose is the matrix, already in LAPACK's order
        system = gram.T if own else xp.array(algebra.put(gram).T, order="F")
        if roots is not None:
            placed = algebra.put(roots)
            system *= placed
            system *= placed[:, None]
        system[xp.diag_indices_from(system)] += ridge
        try:
            scores = algebra.solve_positive(system, algebra.put(scaled(columns, roots)))
        except np.linalg.LinAlgError as error:
            raise DataError(not_definite(alpha)) from error
        found = solution(algebra, kept, columns, np.array([ridge]), scores, roots)
        return found.shaped(targets.shape)
