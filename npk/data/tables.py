"""Arrays under the names that people give them, tables of text, tensors of torch, and labels alone."""

import csv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npk.data.limits import check_growth
from npk.errors import DataError

# Under which names files keep samples and their labels, those of npk first; the same place in both
# lists means the same part of the data.
SAMPLES = ("X", "x", "x_train", "X_train", "train_images", "train_data", "images", "image")
SAMPLES += ("data", "features", "inputs", "pixel_values")
TEST_SAMPLES = ("x_test", "X_test", "test_images", "test_data", "X_val", "x_val")
LABELS = ("y", "y_train", "train_labels", "labels", "label", "targets", "target")
TEST_LABELS = ("y_test", "test_labels", "y_val")
CLASSES = ("classes", "class_names", "label_names")
_TABLE_LABELS = ("label", "labels", "y", "class", "target", "targets", "species", "variety")
_LONGEST_LINE = 1 << 24  # characters
_DELIMITERS = ",;\t"


def named(names: Iterable[str], path: Path, test: bool) -> tuple[str, str | None, str | None]:
    """Which arrays of a file are the samples, their labels and the names of the classes.

    Args:
        names: of all arrays.
        path: where they are.
        test: whether the test part is meant.

    Returns:
        Three names; ``None`` for labels and classes that are not there.

    Raises:
        DataError: no samples under a usual name.
    """
    there = list(names)
    samples, labels = (TEST_SAMPLES, TEST_LABELS) if test else (SAMPLES, LABELS)
    X = next((name for name in samples if name in there), None)
    if X is None:
        part = "test samples" if test else "samples"
        raise DataError(
            f"{path} has no array of {part} under a usual name ({', '.join(samples[:4])}, ...) but "
            f"{', '.join(there) or 'nothing'}. Save it with np.savez(file, X=X, y=y)."
        )
    y = next((name for name in labels if name in there and name != X), None)
    return X, y, next((name for name in CLASSES if name in there), None)


def as_numbered(labels: NDArray[Any] | None) -> tuple[NDArray[Any] | None, tuple[str, ...] | None]:
    """Labels that are text as the numbers of their classes, in alphabetical order; others as they
    are.
    """
    if labels is None or labels.dtype.kind not in "US" or labels.ndim != 1:
        return labels, None
    text = labels if labels.dtype.kind == "U" else np.char.decode(labels, "utf-8", "replace")
    classes, numbers = np.unique(text, return_inverse=True)
    return numbers, tuple(str(name) for name in classes)


def read_csv(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...] | None]:
    """A table of numbers, one sample a line; its labels, if any, in a column that a first line of
    names calls so, or else in a last column of text.

    Args:
        path: the file; commas, semicolons or tabs stand between columns.

    Returns:
        Numbers, labels and names of classes.

    Raises:
        DataError: no table, cells that are no numbers, or no column of numbers.
    """
    rows = _rows(path)
    head = rows.pop(0) if not any(map(_is_number, rows[0])) or _has_name(rows[0]) else []
    if not rows:
        raise DataError(f"{path} has a line of names and nothing below it. Name another file.")
    column = _label_column(head, rows)
    labels = None if column is None else np.array([row.pop(column) for row in rows])
    if not rows[0]:
        raise DataError(f"{path} has one column, and it holds labels. Name the samples too.")
    X = _numbers(path, rows, first=2 if head else 1)
    if labels is not None and all(_is_whole(label) for label in labels):
        labels = labels.astype(float).astype(np.int64)
    y, classes = as_numbered(labels)
    return X, y, classes


def read_names(path: Path) -> tuple[list[str], list[str]]:
    """Names of files and their labels, from the columns ``file_name`` and ``label`` of a table.

    Args:
        path: the table.

    Returns:
        Names and labels, text both.

    Raises:
        DataError: no such columns.
    """
    head, *rows = _rows(path)
    names = [name.strip().lower() for name in head]
    label = next((i for i, name in enumerate(names) if name in _TABLE_LABELS), None)
    if "file_name" not in names or label is None or not rows:
        raise DataError(
            f"{path} has the columns {', '.join(head)[:80]} and {len(rows)} lines below. Give "
            f"file_name and label."
        )
    return [row[names.index("file_name")] for row in rows], [row[label] for row in rows]


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline(_LONGEST_LINE)
            delimiter = max(_DELIMITERS, key=first.count)
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of text ({error}). Write it again as CSV.") from error
    if not rows:
        raise DataError(f"{path} is empty. Name another file.")
    ragged = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if ragged is not None:
        raise DataError(
            f"{path}: line {ragged + 1} has {len(rows[ragged])} columns and line 1 has "
            f"{len(rows[0])}. Write it again as CSV."
        )
    return rows


def _has_name(row: list[str]) -> bool:
    return any(cell.strip().lower() in _TABLE_LABELS for cell in row)


def _label_column(head: list[str], rows: list[list[str]]) -> int | None:
    for i, name in enumerate(head):
        if name.strip().lower() in _TABLE_LABELS:
            return i
    return None if _is_number(rows[0][-1]) else len(rows[0]) - 1


def _numbers(path: Path, rows: list[list[str]], first: int) -> NDArray[Any]:
    """The cells as numbers: whole ones where all of them are."""
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError:
        i, row = next((i, row) for i, row in enumerate(rows) if not all(map(_is_number, row)))
        cell = next(cell for cell in row if not _is_number(cell))
        raise DataError(
            f"{path}: line {i + first} has {cell[:30]!r}, which is no number. Leave out columns of "
            f"text, or encode them; labels stand in a column called label."
        ) from None
    whole = np.isfinite(values).all() and (values == np.round(values)).all()
    return values.astype(np.int64) if whole and np.abs(values).max() < 1 << 53 else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_whole(cell: str) -> bool:
    return _is_number(cell) and float(cell).is_integer()


def read_tensors(
    path: Path, test: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...] | None]:
    """What ``torch.save`` wrote of samples: a tensor, a pair (X, y), or a dictionary with usual
    names. No code in it is run.

    Args:
        path: a ``.pt`` or ``.pth`` file.
        test: whether the test part of a dictionary is meant.

    Returns:
        Numbers, labels and names of classes.

    Raises:
        DataError: pickled code, a damaged file, or something else than these.
    """
    import torch

    content = _plain_content(path)
    if isinstance(content, torch.Tensor):
        X, y, classes = content, None, None
    elif isinstance(content, (tuple, list)) and len(content) == 2:
        (X, y), classes = content, None
    elif isinstance(content, Mapping) and content:
        of = named(map(str, content), path, test)
        X, y, classes = (None if name is None else content.get(name) for name in of)
    else:
        X = y = classes = None
    if not isinstance(X, torch.Tensor) or not isinstance(y, torch.Tensor | None):
        raise DataError(
            f"{path} holds no tensor of samples, no pair (X, y) and no dictionary of them. Save "
            f'torch.save({{"X": X, "y": y}}, file).'
        )
    told = tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None
    return _array(X, path), None if y is None else _array(y, path), told


def _plain_content(path: Path) -> Any:
    """The content, by torch's reader of plain values alone; packed archives stay closed."""
    import torch

    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                with zipfile.ZipFile(path) as archive:
                    size = sum(info.file_size for info in archive.infolist())
                check_growth(path, size, path.stat().st_size)
            file.seek(0)
            return torch.load(file, weights_only=True, map_location="cpu")
    except DataError:
        raise
    except Exception as error:  # of a damaged pickle: of any kind
        why = "pickled code, which npk never runs" if "Unsupported" in str(error) else "damage"
        raise DataError(
            f"{path} cannot be read as tensors ({type(error).__name__}: {why}). Save plain tensors "
            f"with torch.save."
        ) from error


def _array(tensor: Any, path: Path) -> NDArray[Any]:
    from npk.samples import as_array

    check_growth(path, tensor.numel() * tensor.element_size(), path.stat().st_size)
    return as_array(tensor, f"{path}: X")


def read_labels(path: Path) -> NDArray[Any]:
    """Labels alone: an ``.npy``, ``.pt`` or ``.csv`` file of one dimension, or one entry a line of
    text.

    Args:
        path: the file.

    Returns:
        Numbers or text, (n,).

    Raises:
        DataError: no such file, or no labels.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"there is no file of labels {path}. Name an .npy, .csv, .txt or .pt file.")
    if suffix == ".npy":
        labels = read_array(path)
    elif suffix in (".pt", ".pth"):
        labels = read_tensors(path)[0]
    else:
        labels = _column(path)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        raise DataError(
            f"{path} holds no labels, which are whole numbers or names in one dimension. Name "
            f"another file."
        )
    return labels


def _column(path: Path) -> NDArray[Any]:
    """The column of labels of a table of text, or its only one."""
    rows = _rows(path)
    head = rows.pop(0) if _has_name(rows[0]) else []
    if not rows or (len(rows[0]) > 1 and not head):
        raise DataError(
            f"{path} has {len(rows[0]) if rows else 'no'} columns and no line of names. Give one "
            f"column, or call the one with labels label."
        )
    column = _label_column(head, rows) or 0
    cells = np.array([row[column] for row in rows])
    return cells.astype(float).astype(np.int64) if all(map(_is_whole, cells)) else cells


def read_array(path: Path) -> NDArray[Any]:
    """The array in an ``.npy`` file.

    Args:
        path: the file.

    Returns:
        The array.

    Raises:
        DataError: it cannot be read, or holds Python objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read numbers from {path} ({error}). Write it again with np.save."
        ) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise DataError(f"{path} is an .npz file under another name. Rename it to end in .npz.")
    return found
