"""What measures take: labels, targets, gate tables; large tables in blocks of samples."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.errors import DataError, DataTypeError, OptionError, ShapeError
from npk.gates.pieces import samples_at_once
from npk.gates.store import GateStore
from npk.gates.table import GateTable, unpack
from npk.machines.problem import checked_labels, checked_targets, values_of

Gates = GateTable | GateStore
Floats = NDArray[np.float64]


def labels_of(y: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Class labels as numbers.

    Args:
        y: class of each sample, (n,): numbers or text.
        n: how many samples there are.

    Returns:
        The classes, sorted, and of each sample the number of its class, (n,).

    Raises:
        ShapeError: not one label a sample.
        DataError: fewer than two classes, or labels that are no classes.
    """
    found = values_of(y)
    if found.ndim == 1 and len(found) != n:
        raise ShapeError(f"there are {len(found)} labels for {n} samples. Give one label a sample.")
    return np.unique(checked_labels(found), return_inverse=True)


def one_hot(y: ArrayLike, n: int) -> Floats:
    """A column a class, with 1 for its samples, ``(n, classes)``; errors as :func:`labels_of`."""
    classes, numbers = labels_of(y, n)
    return np.equal.outer(numbers, np.arange(len(classes))).astype(np.float64)


def are_labels(y: ArrayLike) -> bool:
    """Whether values are classes and not targets: whole numbers or text, one a sample."""
    found = values_of(y)
    return found.ndim == 1 and found.dtype.kind not in "fc"


def targets_of(y: ArrayLike, n: int) -> Floats:
    """Targets as columns.

    Args:
        y: floats, or -1 and +1, (n,), or several columns, (n, outputs), as they are; other whole
            numbers and text, (n,), are classes: one-hot.
        n: how many samples there are.

    Returns:
        Targets, (n, outputs).

    Raises:
        ShapeError: another number of samples.
        DataError: values that are not finite, or labels of one class.
    """
    if are_labels(y) and not set(np.unique(values_of(y))) <= {-1, 1}:
        return one_hot(y, n)
    return checked_targets(y, n).reshape(n, -1)


def checked_table(table: Any, name: str = "table") -> Gates:
    """A gate table or a gate store, with samples and gates in it.

    Args:
        table: what came.
        name: what messages call it.

    Returns:
        The same.

    Raises:
        DataTypeError: it is something else.
        DataError: it holds no samples or no gate layers.
    """
    if not isinstance(table, Gates):
        what = f"{name} is a {type(table).__name__}, no gate table"
        raise DataTypeError(f"{what}. Give npk.record_gates(net, X), or a GateStore.")
    if not len(table) or not table.names:
        what = f"{name} has {len(table)} samples and {len(table.names)} gate layers"
        raise DataError(f"{what}: there is nothing to measure. Record the gates of some samples.")
    return table


def refuse_soft(table: Gates, what: str) -> None:
    """Refuse a table with soft gates.

    Args:
        table: of any gates.
        what: the measure, which counts gates that are on or off.

    Raises:
        OptionError: a layer of the table is soft.
    """
    soft = [name for name in table.names if not table.entries[name].packed]
    if soft:
        why = f"{what} counts gates that are on or off, and those of layer {soft[0]!r} are soft"
        raise OptionError(f'{why}. Record them with npk.record_gates(net, X, gates="hard").')


def blocks(*tables: Gates) -> Iterator[tuple[slice, list[GateTable]]]:
    """Tables of the same samples, some samples at a time: as many as a store reads at once.

    Yields:
        Which samples, and their part of each table, in memory.
    """
    size = max(table.form.bytes_a_sample for table in tables)
    for rows in gen_batches(len(tables[0]), samples_at_once(size)):
        yield rows, [table.take(rows) for table in tables]


def values_in(table: GateTable, name: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Gates of a layer, a column a unit: bool ``(n, units)``, real numbers of soft gates.

    Args:
        table: in memory.
        name: of the layer.
        rows: which samples.

    Returns:
        The gates; position by position, channels together.
    """
    entry = table.entries[name]
    data = entry.data[rows]
    gates = unpack(data, entry.channels) if entry.packed else data
    return gates.reshape(len(data), math.prod(entry.shape))
