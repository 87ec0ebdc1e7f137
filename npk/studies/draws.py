"""What a study is of: fresh samples in several draws, test samples, and their classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npk.data import Dataset
from npk.errors import DataError, OptionError, ShapeError
from npk.machines.problem import checked_labels, values_of
from npk.samples import as_samples

SIZES = (30, 100, 300)  # n, where nobody says
SPLITS = 3
MOST_TEST, MOST_UNLABELED = 1000, 100  # test samples that are used, where nobody says


@dataclass(frozen=True, eq=False)
class Labeled:
    """Samples, the number of each one's class (or nothing), and the names of the classes."""

    X: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: np.ndarray) -> "Labeled":
        """Some of the samples."""
        return replace(self, X=self.X[rows], y=None if self.y is None else self.y[rows])


@dataclass(frozen=True, eq=False)
class Draws:
    """Fresh samples in some draws, and test samples.

    ``order``: of each draw the numbers of its fresh samples; the first n of them are its sample of
    size n, in which every class is there, else in its proportion.
    """

    fresh: Labeled
    test: Labeled
    order: tuple[np.ndarray, ...]
    sizes: tuple[int, ...]
    disjoint: bool  # no sample is in two draws

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Classes of the fresh and of the test samples."""
        assert self.fresh.y is not None
        assert self.test.y is not None
        return self.fresh.y, self.test.y

    @property
    def labeled(self) -> bool:
        """Whether there are classes."""
        return self.fresh.y is not None

    @property
    def splits(self) -> int:
        """How many draws."""
        return len(self.order)

    def smaller(self, most: int, test: int) -> "Draws":
        """Draws of at most so many samples, and as many test samples."""
        sizes = tuple(n for n in self.sizes if n <= most) or self.sizes[:1]
        order = tuple(draw[: sizes[-1]] for draw in self.order)
        return replace(self, sizes=sizes, order=order, test=_first(self.test, test))


def labeled(X: Any, y: ArrayLike | None, classes: Sequence[str] | None, name: str) -> Labeled:
    """Samples and labels of a call in one form.

    Args:
        X: a :class:`npk.data.Dataset`, or samples of any kind.
        y: labels, (n,); ``None``: those of the data set, or none.
        classes: names of the classes 0, 1, 2, ...
        name: what to call them.

    Returns:
        The samples with the numbers of their classes.

    Raises:
        DataError: samples or labels that cannot be used.
        ShapeError: not one label a sample.
    """
    if isinstance(X, Dataset):
        y = X.y if y is None else y
        names = X.classes if classes is None else tuple(classes)
        return Labeled(X.X, *_numbered(y, len(X), names or None), X.name)
    samples = as_samples(X)
    return Labeled(samples, *_numbered(y, len(samples), classes), name)


def _numbered(
    y: ArrayLike | None, n: int, classes: Sequence[str] | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as numbers from 0, and the names of the classes."""
    if y is None:
        return None, ()
    found = values_of(y)
    if len(np.shape(found)) == 1 and len(found) != n:
        raise ShapeError(f"there are {len(found)} labels for {n} samples. Give one label a sample.")
    present, numbers = np.unique(checked_labels(found), return_inverse=True)
    whole = present.dtype.kind in "iuf" and present[0] >= 0
    if classes is None and not whole:
        return numbers, tuple(map(str, present))
    most = int(present[-1]) + 1 if whole else len(present)
    names = tuple(map(str, range(most) if classes is None else classes))
    if most > len(names):
        what = f"labels go up to {most - 1}, and {len(names)} classes are named"
        raise DataError(f"{what}. Name each class once, in the order of their numbers.")
    return (found.astype(np.int64) if whole else numbers), names


def drawn(
    samples: Labeled,
    test: Labeled | None,
    sizes: Sequence[int] | None,
    splits: int = SPLITS,
    seed: int = 0,
) -> Draws:
    """Divide samples into test samples and draws of fresh ones.

    Args:
        samples: all of them; with ``test`` all are fresh.
        test: samples of their own; ``None``: half of ``samples``, each class in its proportion.
        sizes: n, the numbers of fresh samples; ``None``: 30, 100 and 300 as far as they go.
        splits: how many draws; they have no sample in common where there are enough.
        seed: of what is drawn.

    Returns:
        The draws.

    Raises:
        DataError: too few samples, of all or of a class.
        OptionError: sizes or splits that are no whole numbers, or more than there are samples.
        ShapeError: test samples of another shape.
    """
    whole_number("splits", splits, least=1)
    rng = np.random.default_rng(seed)
    fresh, held = _divided(samples, rng) if test is None else (samples, test)
    if held.X.shape[1:] != fresh.X.shape[1:]:
        shapes = f"{held.X.shape[1:]}, the fresh ones {fresh.X.shape[1:]}"
        raise ShapeError(f"test samples have shape {shapes}. Give both of one kind.")
    _check_classes(fresh, held)
    present = 1 if fresh.y is None else len(np.unique(fresh.y))
    chosen = _sizes(sizes, len(fresh), splits, present)
    order, disjoint = _orders(fresh, chosen[-1], splits, rng)
    most = MOST_TEST if held.y is not None else MOST_UNLABELED
    return Draws(fresh, _first(held, most), order, chosen, disjoint)


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number.

    Args:
        name: what messages call it.
        value: what came.
        least: the smallest that is right.

    Returns:
        The number.

    Raises:
        OptionError: it is none, or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise OptionError(f"{name} is {value!r}. Give a whole number from {least} on.")
    return int(value)


def _divided(samples: Labeled, rng: np.random.Generator) -> tuple[Labeled, Labeled]:
    """Half of the samples of each class, and the others; without labels a tenth for testing."""
    if len(samples) < 4:
        raise DataError(f"{samples.name} has {len(samples)} samples. A study needs at least 4.")
    if samples.y is None:
        rows = rng.permutation(len(samples))
        cut = len(rows) // 10 or 1
        return samples.take(np.sort(rows[cut:])), samples.take(rows[:cut])
    classes, counts = np.unique(samples.y, return_counts=True)
    if counts.min() < 2:
        name = samples.classes[classes[counts.argmin()]]
        what = f"{samples.name} has 1 sample of class {name!r}"
        raise DataError(
            f"{what}, and a study needs two: one to fit, one to test. Give more, or leave the class out."
        )
    rows = _dealt(samples.y, rng)
    test = np.zeros(len(samples), bool)
    for c in classes:
        own = rows[samples.y[rows] == c]
        test[own[: len(own) // 2]] = True
    return samples.take(np.flatnonzero(~test)), samples.take(rows[test[rows]])


def _dealt(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order in which every class comes once at first, then each in its proportion."""
    key = np.empty(len(y))
    for c in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == c))
        key[own] = (np.arange(len(own)) + rng.random()) / len(own)
        key[own[0]] = rng.random() - 2
    return np.argsort(key)


def _check_classes(fresh: Labeled, test: Labeled) -> None:
    if (fresh.y is None) != (test.y is None):
        without = fresh.name if fresh.y is None else test.name
        raise DataError(f"{without} has no labels, and the other samples have. Give both or none.")
    if fresh.y is None or test.y is None:
        return
    present = np.unique(fresh.y)
    if lacking := set(np.unique(test.y)) - set(present):
        name = test.classes[min(lacking)]
        what = f"{test.name} has samples of class {name!r}, and {fresh.name} has none"
        raise DataError(f"{what}. Give fresh samples of every class.")


def _sizes(sizes: Any, n: int, splits: int, classes: int) -> tuple[int, ...]:
    """Numbers of fresh samples, ascending."""
    if sizes is None:
        most = max(n // splits, min(n, max(classes, 2)))
        return tuple(k for k in SIZES if classes <= k <= most) or (most,)
    asked = list(sizes) if isinstance(sizes, Iterable) else [sizes]
    if not asked:
        raise OptionError("n is empty. Give numbers of fresh samples, such as (30, 100, 300).")
    found = sorted({whole_number("n", size, least=2) for size in asked})
    if found[0] < classes:
        what = f"{found[0]} fresh samples cannot hold {classes} classes"
        raise DataError(f"{what}. Give n from {classes} on.")
    if found[-1] > n:
        raise DataError(
            f"n is {found[-1]}, and there are {n} fresh samples. Give more, or smaller n."
        )
    return tuple(found)


def _orders(
    fresh: Labeled, n: int, splits: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, ...], bool]:
    """The numbers of the samples of each draw; whether no two have one in common."""
    y = np.zeros(len(fresh), int) if fresh.y is None else fresh.y
    # the classes one after the other, dealt like cards
    sorted_ = np.concatenate([rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)])
    hands = [np.sort(sorted_[np.arange(len(y)) % splits == k]) for k in range(splits)]
    classes = len(np.unique(y))
    disjoint = all(len(own) >= n and len(np.unique(y[own])) == classes for own in hands)
    hands = hands if disjoint else [np.arange(len(y))] * splits
    return tuple(own[_dealt(y[own], rng)][:n] for own in hands), disjoint


def _first(test: Labeled, most: int) -> Labeled:
    """Some test samples, each class in its proportion."""
    if len(test) <= most:
        return test
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(test)) if test.y is None else _dealt(test.y, rng)
    return test.take(np.sort(rows[:most]))
