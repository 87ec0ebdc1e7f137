"""Support vector classification on a Gram matrix: libsvm for each pair of classes, pairs or
candidates of C on all threads, C chosen on the training kernel.

``SVC`` fits a machine for each pair of classes inside one call, one after the other. Here candidates
of C in all folds are calls on all threads; of one large problem, groups of classes are of which each
pair is in one.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from npk.errors import DataError, OptionError, ShapeError
from npk.machines.problem import (
    Floats,
    check_classes,
    checked_gram,
    checked_labels,
    checked_weights,
    class_weights,
    is_auto,
    samples_of,
    times,
)
from npk.machines.threads import on_threads, threads

# smallest first: a tie goes to the smoother machine
COSTS: tuple[float, ...] = tuple(float(cost) for cost in np.logspace(-2, 4, 13))
# samples of two classes that are worth a call of its own: around libsvm scikit-learn's checks
# take half a millisecond, in which no other thread of Python runs
_PARTED = 400


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The C that cross-validation prefers, and what it was chosen from."""

    C: float
    costs: NDArray[np.float64]  # those tried
    accuracy: NDArray[np.float64]  # share of left-out samples that are right, for each of them
    folds: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """The machine of two classes: its scores are positive for the second."""

    classes: tuple[int, int]
    support: NDArray[np.intp]  # training samples
    coefficients: Floats
    intercept: float

    def scores(self, cross: NDArray) -> Floats:
        """Of samples whose kernel with all training samples is given, (m,)."""
        return cross[:, self.support] @ self.coefficients + self.intercept


@dataclasses.dataclass(frozen=True, eq=False)
class Machine:
    """A fitted machine: one :class:`Pair` for each two classes."""

    classes_: NDArray
    labels: NDArray[np.intp]  # number of the class of each training sample; -1: of weight 0
    pairs: tuple[Pair, ...]

    def decision_function(self, cross: ArrayLike) -> Floats:
        """Scores of samples.

        Args:
            cross: kernel of the samples (rows) with the training samples, (m, n).

        Returns:
            (m,) for two classes, positive for the second; else (m, classes): how many pairs are
            won, and by how much between equals, as those of ``SVC``.

        Raises:
            ShapeError: another number of columns.
        """
        scores = self.pair_scores(cross)
        return scores[:, 0] if scores.shape[1] == 1 else self._one_against_rest(scores)

    def predict(self, cross: ArrayLike) -> NDArray:
        """Classes, (m,), by the vote of the pairs; the first of equals."""
        scores = self.pair_scores(cross)
        if scores.shape[1] == 1:
            return self.classes_[(scores[:, 0] > 0).astype(int)]
        return self.classes_[self._votes(scores).argmax(1)]

    def pair_scores(self, cross: ArrayLike) -> Floats:
        """Scores of each pair, (m, pairs), positive for its second class; arguments as in
        :meth:`decision_function`.

        Raises:
            ShapeError: another number of columns.
        """
        values = np.asarray(cross)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise ShapeError(
                f"the kernel has shape {values.shape}, the machine has learnt from "
                f"{len(self.labels)} samples. Pass that of test samples (rows) with all of these."
            )
        return np.stack([pair.scores(values) for pair in self.pairs], axis=1)

    def _votes(self, scores: Floats) -> Floats:
        votes = np.zeros((len(scores), len(self.classes_)))
        for pair, score in zip(self.pairs, scores.T, strict=True):
            votes[np.arange(len(votes)), np.where(score > 0, pair.classes[1], pair.classes[0])] += 1
        return votes

    def _one_against_rest(self, scores: Floats) -> Floats:
        """Votes, and sums of scores brought below a third of a vote."""
        sums = np.zeros((len(scores), len(self.classes_)))
        for pair, score in zip(self.pairs, scores.T, strict=True):
            sums[:, pair.classes[0]] -= score
            sums[:, pair.classes[1]] += score
        return self._votes(scores) + sums / (3 * (np.abs(sums) + 1))

    @cached_property
    def support_(self) -> NDArray[np.intp]:
        """Training samples that any pair rests on, class after class."""
        found = np.unique(np.concatenate([pair.support for pair in self.pairs]))
        return found[np.argsort(self.labels[found], kind="stable")]

    @property
    def n_support_(self) -> NDArray[np.intp]:
        """How many of them each class has."""
        return np.bincount(self.labels[self.support_], minlength=len(self.classes_))

    @property
    def dual_coef_(self) -> Floats:
        """Coefficients of the support vectors, (classes - 1, support vectors), laid out as in
        ``SVC``: of a sample a row for each other class.
        """
        found = np.zeros((len(self.classes_) - 1, len(self.support_)))
        place = np.full(len(self.labels), -1)
        place[self.support_] = np.arange(len(self.support_))
        for pair in self.pairs:
            first, second = pair.classes
            row = np.where(self.labels[pair.support] == first, second - 1, first)
            # SVC turns the signs of two classes alone
            sign = 1 if len(self.classes_) == 2 else -1
            found[row, place[pair.support]] = sign * pair.coefficients
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class SupportVectors:
    """A fitted machine: ``machine.predict(cross)`` takes the kernel of test and training data."""

    C: float
    machine: Machine
    choice: Choice | None  # None when C was given


def fit(
    K: ArrayLike,
    labels: ArrayLike,
    C: float | Literal["auto"] = "auto",
    *,
    folds: int = 5,
    sample_weight: ArrayLike | None = None,
    class_weight: object = None,
) -> SupportVectors:
    """Fit a support vector machine for each pair of classes.

    Args:
        K: Gram matrix of the training samples, (n, n).
        labels: class of each sample, (n,): numbers or strings.
        C: the cost of ``SVC``, or ``"auto"``: the best of ``COSTS`` divided by the mean diagonal of
            K, by :func:`choose_cost`.
        folds: folds of the cross-validation; fewer if the smallest class has fewer samples.
        sample_weight: what C is multiplied by for each sample, (n,), >= 0.
        class_weight: "balanced", or a number for each class: what C is multiplied by for its
            samples.

    Returns:
        The machine, with the Choice for ``"auto"``. Its decision values are those of
        ``SVC(kernel="precomputed")``.

    Raises:
        ShapeError: K is not square and symmetric, or labels or weights do not fit it.
        DataError: K is zero or not finite, there is one class (of samples of a weight above 0), a
            class of one sample with ``"auto"``, or weights are negative.
        OptionError: C is neither ``"auto"`` nor a number > 0, folds is below 2, or the class weight
            is none.
    """
    labels = check(labels, C, folds=folds, n=samples_of(K))  # before anything is read
    gram = np.ascontiguousarray(checked_gram(K))  # else libsvm's caller copies it for each machine
    labels, choice = checked_labels(labels, len(gram)), None
    weights = checked_weights(sample_weight, len(gram))
    if is_auto(C):
        choice = choose_cost(
            gram, labels, folds=folds, sample_weight=weights, class_weight=class_weight
        )
        C = choice.C
    C = _checked_cost(C)
    problem = _Problem.of(gram, labels, _there(labels, weights), weights, class_weight)
    return SupportVectors(C, _machines([problem], [C])[0], choice)


def choose_cost(
    K: ArrayLike,
    labels: ArrayLike,
    costs: Sequence[float] = COSTS,
    *,
    folds: int = 5,
    sample_weight: ArrayLike | None = None,
    class_weight: object = None,
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
        sample_weight: as in :func:`fit`; a left-out sample counts by its weight too.
        class_weight: as in :func:`fit`, of the samples of each fold.

    Returns:
        The Choice, with the accuracy of every candidate.

    Raises:
        ShapeError: K is not square and symmetric, or labels or weights do not fit it.
        DataError: K is zero or not finite, there is one class, or a class of one sample; or weights
            are negative.
        OptionError: a candidate is not a number > 0, folds is below 2, or the class weight is none.
    """
    gram = np.ascontiguousarray(checked_gram(K))  # else libsvm's caller copies it for each machine
    labels = checked_labels(labels, len(gram))
    weights = checked_weights(sample_weight, len(gram))
    there = _there(labels, weights)
    folds = _checked_folds(labels[there], folds)
    tried = np.array([_checked_cost(cost) for cost in costs]) / np.mean(np.diagonal(gram))
    right = np.zeros(len(tried))
    for said, test in left_out(gram, labels, tried, folds, weights, class_weight):
        hits = np.array([machine.predict(gram[test]) for machine in said])
        counts = 1.0 if weights is None else weights[test]
        right += np.sum((hits == labels[test]) * counts, axis=1)
    total = len(labels) if weights is None else weights.sum()
    return Choice(float(tried[right.argmax()]), tried, right / total, folds)


def left_out(
    gram: Floats,
    labels: NDArray,
    costs: ArrayLike,
    folds: int,
    weights: Floats | None = None,
    class_weight: object = None,
) -> Iterator[tuple[list[Machine], NDArray]]:
    """Machines of every cost, fitted without one fold after the other.

    Args:
        gram: checked.
        labels: checked.
        costs: C.
        folds: checked.
        weights: checked; samples of weight 0 are in no fold.
        class_weight: as in :func:`fit`.

    Yields:
        For each fold a machine for every cost; and the samples left out.
    """
    there, costs = _there(labels, weights), np.ravel(costs)
    folded = StratifiedKFold(folds).split(there, labels[there])
    each = [(there[train], there[test]) for train, test in folded]
    problems = [_Problem.of(gram, labels, train, weights, class_weight) for train, _ in each]
    found = iter(_machines(problems, costs))
    for _, test in each:
        yield [next(found) for _ in costs], test


def left_out_scores(
    K: ArrayLike,
    labels: ArrayLike,
    C: float,
    *,
    folds: int = 5,
    sample_weight: ArrayLike | None = None,
    class_weight: object = None,
) -> Floats:
    """Scores of each sample, of a machine that was fitted without it: arguments, and errors, are
    those of :func:`choose_cost`.

    Returns:
        (n,) for two classes, else (n, classes); 0 for samples of weight 0.
    """
    gram = np.ascontiguousarray(checked_gram(K))  # else libsvm's caller copies it for each machine
    labels = checked_labels(labels, len(gram))
    weights = checked_weights(sample_weight, len(gram))
    there = _there(labels, weights)
    folds, size = _checked_folds(labels[there], folds), len(np.unique(labels[there]))
    found = np.zeros(len(labels) if size == 2 else (len(labels), size))
    for (machine,), test in left_out(gram, labels, C, folds, weights, class_weight):
        found[test] = machine.decision_function(gram[test])
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """Some samples of a matrix, their classes by number, and what C is multiplied by for each.

    libsvm gets the whole matrix, and leaves out samples of weight 0: no part of it is copied.
    """

    gram: Floats
    classes: NDArray
    numbers: NDArray[np.intp]  # of the classes of all samples; -1: not of the problem
    weights: Floats  # of all samples

    @classmethod
    def of(
        cls,
        gram: Floats,
        labels: NDArray,
        rows: NDArray[np.intp],
        weights: Floats | None,
        class_weight: object,
    ) -> "_Problem":
        own = times(
            None if weights is None else weights[rows], class_weights(class_weight, labels[rows])
        )
        numbers, filled = np.full(len(gram), -1), np.zeros(len(gram))
        classes, numbers[rows] = np.unique(labels[rows], return_inverse=True)
        filled[rows] = 1.0 if own is None else own
        return cls(gram, classes, numbers, filled)

    def pairs(self, group: Sequence[int], C: float) -> list[Pair]:
        """The machines of all pairs of some classes, of one call."""
        inside = np.isin(self.numbers, group)
        weights = np.where(inside, self.weights, 0.0)
        if len(group) == 2:
            return [self._two(group, weights, C)]
        if len(np.unique(self.numbers[weights > 0])) < len(group):
            # a class of weight 0 would shift the numbers
            return [pair for two in combinations(group, 2) for pair in self.pairs(two, C)]
        labels = np.where(inside, self.numbers, group[0])
        machine, support = self._solved(labels, weights, C)
        own, found = self.numbers[support], []
        ranks = combinations(range(len(group)), 2)
        for (i, j), intercept in zip(ranks, machine.intercept_, strict=True):
            first, second = group[i], group[j]
            # of a sample there is a row for each other class; signs are those of two classes alone
            mine, theirs = machine.dual_coef_[j - 1], machine.dual_coef_[i]
            coefficients = -np.where(own == first, mine, np.where(own == second, theirs, 0.0))
            (there,) = np.nonzero(coefficients)
            pair = Pair((first, second), support[there], coefficients[there], -float(intercept))
            found.append(pair)
        return found

    def _two(self, classes: Sequence[int], weights: Floats, C: float) -> Pair:
        machine, support = self._solved(self.numbers == classes[1], weights, C)
        intercept = float(machine.intercept_[0])
        return Pair((classes[0], classes[1]), support, machine.dual_coef_[0], intercept)

    def _solved(self, labels: NDArray, weights: Floats, C: float) -> tuple[Any, NDArray[np.intp]]:
        """The machine, and its support vectors, which libsvm counts among samples of a weight."""
        with config_context(assume_finite=True, skip_parameter_validation=True):  # of this thread
            machine = SVC(kernel="precomputed", C=C).fit(self.gram, labels, sample_weight=weights)
        return machine, np.flatnonzero(weights)[machine.support_]

    def machine(self, pairs: Iterable[Pair]) -> Machine:
        """Of the machines of all pairs."""
        return Machine(self.classes, self.numbers, tuple(sorted(pairs, key=lambda p: p.classes)))

    def groups(self, calls: int) -> list[tuple[int, ...]]:
        """Groups of classes, each pair of which is in one, for so many calls or a few more; all
        classes, if the samples of a pair are not worth a call.
        """
        classes = len(self.classes)
        if calls == 1 or 2 * int(np.count_nonzero(self.weights)) < _PARTED * classes:
            return [tuple(range(classes))]
        size = max(
            k for k in range(2, classes + 1) if k == 2 or _pairs(k) * calls <= _pairs(classes)
        )
        return _groups(classes, size)


def _pairs(classes: int) -> int:
    return classes * (classes - 1) // 2


def _groups(classes: int, size: int) -> list[tuple[int, ...]]:
    """Groups of at most so many classes, each pair of which is in exactly one."""
    left, found = set(combinations(range(classes), 2)), []
    while left:
        group = list(min(left))
        for other in range(group[-1] + 1, classes):
            if len(group) < size and all((own, other) in left for own in group):
                group.append(other)
        left -= set(combinations(group, 2))
        found.append(tuple(group))
    return found


def _machines(problems: Sequence[_Problem], costs: Iterable[float]) -> list[Machine]:
    """Of every problem one machine after the other for each cost, on all threads: a call for all
    pairs of classes is the quickest for one thread, and is parted where there would be too little
    for the others to do.
    """
    jobs = [(problem, float(C)) for problem in problems for C in costs]
    calls = -(-3 * threads() // len(jobs)) if threads() > 1 else 1
    parted = [problem.groups(calls) for problem, _ in jobs]
    tasks = [
        (problem, group, C)
        for (problem, C), groups in zip(jobs, parted, strict=True)
        for group in groups
    ]
    sizes = [C * np.isin(problem.numbers, group).sum() * len(group) for problem, group, C in tasks]
    each = iter(on_threads(_Problem.pairs, tasks, sizes))
    return [
        problem.machine(pair for _ in groups for pair in next(each))
        for (problem, _), groups in zip(jobs, parted, strict=True)
    ]


def _there(labels: NDArray, weights: Floats | None) -> NDArray[np.intp]:
    """Samples of a weight above 0."""
    if weights is None:
        return np.arange(len(labels))
    there = np.flatnonzero(weights)
    check_classes(np.unique(labels[there]))
    return there


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
