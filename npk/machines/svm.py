"""Support vector classification on a Gram matrix: ``SVC``, C chosen on the training kernel."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from npk.errors import DataError, OptionError
from npk.machines.problem import checked_gram, checked_labels, is_auto, samples_of

# smallest first: a tie goes to the smoother machine
COSTS: tuple[float, ...] = tuple(float(cost) for cost in np.logspace(-2, 4, 13))


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The C that cross-validation prefers, and what it was chosen from."""

    C: float
    costs: NDArray[np.float64]  # those tried
    accuracy: NDArray[np.float64]  # share of left-out samples that are right, for each of them
    folds: int


@dataclasses.dataclass(frozen=True, eq=False)
class SupportVectors:
    """A fitted machine: ``machine.predict(cross)`` takes the kernel of test and training data."""

    C: float
    machine: SVC
    choice: Choice | None  # None when C was given


def fit(
    K: ArrayLike, labels: ArrayLike, C: float | Literal["auto"] = "auto", *, folds: int = 5
) -> SupportVectors:
    """Fit ``SVC(kernel="precomputed")``, one machine for each pair of classes.

    Args:
        K: Gram matrix of the training samples, (n, n).
        labels: class of each sample, (n,): numbers or strings.
        C: the cost of ``SVC``, or ``"auto"``: the best of ``COSTS`` divided by the mean diagonal of
            K, by :func:`choose_cost`.
        folds: folds of the cross-validation; fewer if the smallest class has fewer samples.

    Returns:
        The machine, with the Choice for ``"auto"``.

    Raises:
        ShapeError: K is not square and symmetric, or labels do not fit it.
        DataError: K is zero or not finite, there is one class, or a class of one sample with
            ``"auto"``.
        OptionError: C is neither ``"auto"`` nor a number > 0, or folds is below 2.
    """
    labels = check(labels, C, folds=folds, n=samples_of(K))  # before anything is read
    gram = checked_gram(K)
    labels, choice = checked_labels(labels, len(gram)), None
    if is_auto(C):
        choice = choose_cost(gram, labels, folds=folds)
        C = choice.C
    C = _checked_cost(C)
    return SupportVectors(C, SVC(kernel="precomputed", C=C).fit(gram, labels), choice)


def choose_cost(
    K: ArrayLike, labels: ArrayLike, costs: Sequence[float] = COSTS, *, folds: int = 5
) -> Choice:
    """Choose C by stratified cross-validation; both sides of every split are cut out of the
    training kernel.

    Scaling K by a number divides the best C by it, so candidates are in units of one over the mean
    diagonal.

    Args:
        K: Gram matrix of the training samples, (n, n).
        labels: class of each sample, (n,).
        costs: candidates > 0, to be divided by the mean diagonal of K; the first of equals is
            taken.
        folds: number of folds; fewer if the smallest class has fewer samples.

    Returns:
        The Choice, with the accuracy of every candidate.

    Raises:
        ShapeError: K is not square and symmetric, or labels do not fit it.
        DataError: K is zero or not finite, there is one class, or a class of one sample.
        OptionError: a candidate is not a number > 0, or folds is below 2.
    """
    gram = checked_gram(K)
    labels = checked_labels(labels, len(gram))
    folds = _checked_folds(labels, folds)
    tried = np.array([_checked_cost(cost) for cost in costs]) / np.mean(np.diagonal(gram))
    right = np.zeros(len(tried))
    for train, test in StratifiedKFold(folds).split(gram, labels):
        inner, cross = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
        for i, cost in enumerate(tried):
            machine = SVC(kernel="precomputed", C=cost).fit(inner, labels[train])
            right[i] += np.sum(machine.predict(cross) == labels[test])
    return Choice(float(tried[right.argmax()]), tried, right / len(labels), folds)


def check(
    labels: ArrayLike, C: float | Literal["auto"] = "auto", *, folds: int = 5, n: int | None = None
) -> NDArray:
    """Refuse what :func:`fit` would refuse, before there is a kernel.

    Args:
        labels: as there.
        C: as there.
        folds: as there.
        n: samples of K; ``None`` where that is not known yet.

    Returns:
        The labels as an array.

    Raises:
        ShapeError: labels of another shape.
        DataError: one class, a class of one sample with ``"auto"``, or labels that are no classes.
        OptionError: C is neither ``"auto"`` nor a number > 0, or folds is below 2.
    """
    check_cost(C)
    classes = checked_labels(labels, n)
    if is_auto(C):
        _checked_folds(classes, folds)
    return classes


def check_cost(C: float | str) -> None:
    """Refuse a C that is neither "auto" nor a number > 0."""
    if not is_auto(C):
        _checked_cost(C)


def _checked_cost(C: float | str) -> float:
    if (
        isinstance(C, bool)
        or not isinstance(C, (int, float, np.integer, np.floating))
        or not 0 < C < np.inf
    ):
        raise OptionError(f"C is {C!r}. Give a number > 0, or 'auto'.")
    return float(C)


def _checked_folds(labels: NDArray, folds: int) -> int:
    classes, counts = np.unique(labels, return_counts=True)
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise OptionError(f"folds is {folds!r}. Cross-validation needs 2 or more.")
    if counts.min() < 2:
        rare = classes[counts.argmin()]
        raise DataError(
            f"class {rare} has 1 sample, cross-validation needs 2 of each class. Give "
            f"C as a number, or more samples."
        )
    return int(min(folds, counts.min()))
