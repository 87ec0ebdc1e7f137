"""Training and test sets that hold the classes in the same proportions."""

from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from npk.data.dataset import Dataset
from npk.errors import DataError, OptionError


def split(dataset: Dataset, test: float = 0.25, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split into a training and a test set that hold the classes in the same proportions.

    Args:
        dataset: at least two samples a class.
        test: share of the samples that go to the test set, between 0 and 1.
        seed: the same seed gives the same split.

    Returns:
        The training set and the test set, both shuffled.

    Raises:
        DataError: no labels, a share outside (0, 1), or too few samples to have every class on both
            sides.
        OptionError: the seed is no whole number.
    """
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"the data set is of type {type(dataset).__name__}. Give one that "
            f"npk.data.load returned."
        )
    _check_seed(seed)
    rows = split_rows(dataset.require_labels(), test, seed, dataset.name)
    return dataset[rows[0]], dataset[rows[1]]


def split_rows(
    y: NDArray[np.int64], test: float = 0.25, seed: int = 0, name: str = "y"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows on both sides of :func:`split`.

    Args:
        y: labels, (n,).
        test: share of the samples that go to the test set.
        seed: the same seed gives the same split.
        name: what messages call them.

    Returns:
        Numbers of the training and of the test samples.

    Raises:
        DataError: a share outside (0, 1), or too few samples.
        OptionError: the seed is no whole number.
    """
    from sklearn.model_selection import train_test_split

    _check_seed(seed)
    if isinstance(test, bool) or not isinstance(test, Real) or not 0 < test < 1:
        raise DataError(
            f"test={test!r} is no share of {name}. Give a number between 0 and 1, such as 0.25."
        )
    try:
        rows = train_test_split(np.arange(len(y)), test_size=test, random_state=seed, stratify=y)
    except ValueError as error:
        counts = np.unique(y, return_counts=True)[1]
        raise DataError(
            f"{name} cannot be split with test={test}: {len(counts)} classes, "
            f"{counts.min()} to {counts.max()} samples each, "
            "must all be on both sides. Use more samples or another share."
        ) from error
    return np.asarray(rows[0]), np.asarray(rows[1])


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise OptionError(f"seed={seed!r} is no seed. Give a whole number from 0 to 2**32 - 1.")
