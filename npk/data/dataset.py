"""A data set: samples, their labels and the names of the classes."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from npk.data.preparation import Preparation
from npk.data.tables import as_numbered
from npk.errors import DataError

MOST_CLASSES = 65_536  # a larger label is no class but a time or an identifier
_MOST_LABELS = 1 << 20  # that are kept beside gates; with more of them labels come from a file

Labels = NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, their labels and the names of the classes; checked at birth.

    Args:
        X: float32 pictures (n, channels, height, width), feature vectors (n, d), sequences (n,
            channels, length) or volumes (n, channels, depth, height, width).
        y: int64 labels (n,), each the position of a name in ``classes``; None for samples without
            labels.
        classes: names of all classes, those that no sample of this set has included.
        name: what to call the set in reports.
        preparation: what was done to the values of the source; ``None``: nothing but the usual.

    Raises:
        DataError: no samples, a wrong number of dimensions or labels, values that are not finite,
            or a label without a class.
    """

    X: NDArray[np.float32]
    y: Labels
    classes: tuple[str, ...]
    name: str
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        """Refuse what no kernel can be made of."""
        plain = isinstance(self.X, np.ndarray)
        if not plain or not 2 <= self.X.ndim <= 5 or self.X.dtype != np.float32:
            if plain:
                what = f"{self.X.dtype} of shape {self.X.shape}"
            else:
                what = f"of type {type(self.X).__name__}"
            raise DataError(
                f"{self.name}: X is {what}. Use float32 of shape (n, d), (n, channels, "
                f"length) or (n, channels, height, width)."
            )
        if self.X.size == 0:
            raise DataError(
                f"{self.name} holds no values: X has shape {self.X.shape}. Choose "
                f"another slice or file."
            )
        self._check_values()
        if self.y is not None:
            self._check_labels(self.y)

    def _check_values(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self.X).reshape(len(self.X), -1).all(axis=1))
        if len(bad):
            raise DataError(
                f"{self.name}: {len(bad)} of {len(self.X)} samples hold NaN, infinity or values "
                f"outside float32, the first is sample {bad[0]}. Mend or remove them."
            )

    def _check_labels(self, y: NDArray[np.int64]) -> None:
        if not isinstance(y, np.ndarray):
            raise DataError(
                f"{self.name}: y is of type {type(y).__name__}. Give one int64 label a "
                f"sample, in an array."
            )
        if y.shape != (len(self.X),) or y.dtype != np.int64:
            raise DataError(
                f"{self.name}: {len(self.X)} samples but y is {y.dtype} of shape "
                f"{y.shape}. Give one int64 label a sample."
            )
        low, high = y.min(), y.max()
        if low < 0 or high >= len(self.classes):
            plural = "" if len(self.classes) == 1 else "es"
            have = (
                f"{self.name} names {len(self.classes)} class{plural}, its labels go from {low} to "
                f"{high}"
            )
            raise DataError(
                f"{have}. Name each class once, in the order of the labels, which are "
                f"numbered from 0."
            )

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.X.shape[1:]))
        classes = "no labels" if self.y is None else f"{len(self.classes)} classes"
        done = "" if self.preparation is None else f", {self.preparation}"
        return f"<npk.data.Dataset {self.name}: {len(self)} samples of {shape}, {classes}{done}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The samples alone, so that a data set can stand in the place of its X."""
        return np.array(self.X, dtype=dtype, copy=copy)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Self:
        """The samples of a slice or of an index array, with the classes of the whole set."""
        y = None if self.y is None else self.y[rows]
        return dataclasses.replace(self, X=self.X[rows], y=y)

    def with_labels(self, labels: NDArray[Any]) -> Self:
        """The same samples with other labels.

        Args:
            labels: whole numbers, or names of classes, (n,).

        Returns:
            The set; its classes are those of the names, else as they were.

        Raises:
            DataError: labels that do not fit.
        """
        numbers, named = as_numbered(labels)
        assert numbers is not None
        y = as_labels(numbers, "labels")
        classes = named or self.classes or tuple(map(str, range(int(y.max(initial=0)) + 1)))
        return dataclasses.replace(self, y=y, classes=classes)

    def about(self) -> dict[str, Any]:
        """What a store keeps of the set beside its samples: JSON values.

        Returns:
            ``data`` (the name), and where there are some ``preparation``, ``labels`` and
            ``classes``.
        """
        told: dict[str, Any] = {"data": self.name}
        if self.preparation is not None:
            told["preparation"] = self.preparation.to_values()
        if self.y is not None and len(self.y) <= _MOST_LABELS:
            told |= {"labels": self.y.tolist(), "classes": list(self.classes)}
        return told

    def require_labels(self) -> NDArray[np.int64]:
        """The labels.

        Returns:
            int64 (n,).

        Raises:
            DataError: this set has none.
        """
        if self.y is None:
            raise DataError(
                f"{self.name} has no labels and they are needed here. Use an .npz file "
                f"with X and y."
            )
        return self.y


def as_labels(labels: NDArray[Any], source: str) -> NDArray[np.int64]:
    """Labels as whole numbers from 0.

    Args:
        labels: what came.
        source: where from.

    Returns:
        int64 (n,).

    Raises:
        DataError: no whole numbers, not one dimension, or numbers of no classes.
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{source}: y has dtype {labels.dtype} and shape {labels.shape}, labels are whole "
            f"numbers in one dimension. "
            "np.unique(y, return_inverse=True) numbers names, y.argmax(axis=1) one-hot rows."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= MOST_CLASSES):
        raise DataError(
            f"{source}: labels go from {labels.min()} to {labels.max()}. Number the "
            f"classes 0, 1, 2, ..."
        )
    return labels.astype(np.int64)
