"""Numbers that the literature reads off a kernel: spectrum, effective rank, overlaps."""

import numpy as np

from npk.errors import ShapeError
from npk.gates.table import GateTable


def spectrum(K: np.ndarray) -> np.ndarray:
    """Eigenvalues of the trace-normalized kernel, largest first, ``(n,)`` float64.

    Raises:
        ShapeError: not a square matrix.
    """
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise ShapeError(
            f"K has shape {K.shape}; a spectrum needs a square kernel. Give "
            f"kernel(net, X) without Y."
        )
    values = np.linalg.eigvalsh(np.asarray(K, np.float64))[::-1]
    total = values.sum()
    return values / total if total > 0 else values


def effective_rank(values: np.ndarray) -> float:
    """The exponential of the entropy of a spectrum that sums to 1: how many directions carry it."""
    shares = values[values > 0]
    return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else 0.0


def class_overlap(table: GateTable, target: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean share of a layer's gates that are on for both inputs, for pairs of one class and of
    different classes; a number a layer.

    Args:
        table: gates of n samples; soft gates are taken as they are.
        target: classes ``(n,)``.

    Returns:
        Means over pairs of different samples of the same class, and of different classes, from the
        input layer on.

    Raises:
        ShapeError: as many classes as samples are needed.
    """
    if len(target) != len(table):
        raise ShapeError(
            f"there are {len(target)} labels for {len(table)} samples. Give one label a sample."
        )
    alike = np.equal.outer(target, target)
    same, different = alike & ~np.eye(len(target), dtype=bool), ~alike
    overlaps: tuple[list[float], list[float]] = ([], [])
    for gates in table:
        flat = gates.reshape(len(table), -1).astype(np.float32)
        share = flat @ flat.T / flat.shape[1]
        for means, pairs in zip(overlaps, (same, different), strict=True):
            means.append(float(share[pairs].mean()) if pairs.any() else float("nan"))
    return overlaps
