"""The kernels of a study on disk: what is there is used, what is of something else is replaced."""

import shutil
from pathlib import Path

import numpy as np

from npk.errors import StoreError
from npk.files import locked
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel


def stored(
    kernel: NeuralPathKernel, rows: GateTable, cols: GateTable | None, out: Path
) -> np.ndarray:
    """A kernel of the study's folder, computed where it is not whole there yet.

    Args:
        kernel: its options.
        rows: gates of the rows.
        cols: gates of the columns; ``None``: the rows.
        out: the store, which is the study's own: one of another kernel is replaced.

    Returns:
        The matrix.

    Raises:
        StoreError: another process writes the store, or it cannot be written.
    """
    try:
        return np.asarray(kernel.to_store(rows, cols, out))
    except StoreError:
        if not out.is_dir():
            raise
        with locked(out / ".lock", of=out):  # not one that another process writes
            shutil.rmtree(out, ignore_errors=True)
        return np.asarray(kernel.to_store(rows, cols, out))
