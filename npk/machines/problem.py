"""A kernel ridge problem: what every solver asks of K, y and alpha, and what it gives back."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.errors import DataError, NpkError, OptionError, ShapeError

Floats = NDArray[np.float64]

NOT_FINITE = "K holds values that are not finite. Compute it with scale='fan_in' or 'cosine', which do not overflow."


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found, and how well it solves the system."""

    coefficients: Floats  # shape of the right-hand side
    residual: float  # |(K + ridge I) c - y| / |y|, measured on K itself
    steps: int  # 1 for a direct solver
    outcome: str  # "solved"; of an iteration also "not converged" or "stagnated"


def checked_gram(K: ArrayLike) -> Floats:
    """The Gram matrix as float64, if it can be one.

    Args:
        K: the matrix, (n, n).

    Returns:
        K in float64: the same array if it is float64 already.

    Raises:
        NpkError: K is a :class:`npk.Gram` that cannot be read, or not within its memory promise.
        ShapeError: K is not square, or not symmetric beyond rounding.
        DataError: K is empty, not numeric, not finite, or its diagonal is zero.
    """
    try:
        gram = np.asarray(K, dtype=np.float64)
    except NpkError:
        raise  # a matrix on disk that does not fit its memory promise says so itself
    except (TypeError, ValueError) as error:
        raise DataError(f"K is not a numeric matrix ({error}). Pass the array that npk.kernel returned.") from error
    check_square(gram.shape)
    largest = np.maximum(gram.max(initial=0.0), -gram.min(initial=0.0))  # a NaN stays one
    if not np.isfinite(largest):
        raise DataError(NOT_FINITE)
    mean_diagonal(np.diagonal(gram))
    if not _is_symmetric(gram, 1000 * rounding(K) * largest):
        raise ShapeError("K is not symmetric. Pass the kernel of the training samples with themselves, rows and columns in one order.")
    return gram


def check_square(shape: tuple[int, ...]) -> None:
    """Refuse a matrix that is not square.

    Args:
        shape: of the matrix.

    Raises:
        ShapeError: it is not (n, n).
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ShapeError(f"K has shape {shape}, a Gram matrix is square. Pass the kernel of the training samples with themselves.")


def mean_diagonal(diagonal: NDArray) -> float:
    """The unit of alpha.

    Args:
        diagonal: of K, (n,).

    Returns:
        Its mean.

    Raises:
        DataError: the diagonal is empty, zero or not finite.
    """
    total = float(np.sum(diagonal, dtype=np.float64))
    if not np.isfinite(total):
        raise DataError(NOT_FINITE)
    if total <= 0:
        raise DataError(
            "the kernel is zero on its diagonal (or K is empty): every input is dead, no path of the network is active for it. "
            "Look at the range of X and at the network's weights."
        )
    return total / len(diagonal)


def checked_targets(y: ArrayLike, n: int) -> Floats:
    """Targets as float64.

    Args:
        y: (n,) or (n, outputs).
        n: samples of K.

    Returns:
        y in float64: the same array if it is float64 already.

    Raises:
        ShapeError: y has another length.
        DataError: y is not numeric or not finite.
    """
    try:
        targets = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"y is not numeric ({error}). For class labels make targets with ridge.signed_targets(labels).") from error
    if targets.ndim not in (1, 2) or len(targets) != n:
        raise ShapeError(f"y has shape {targets.shape}, K has {n} samples. Pass y of shape ({n},) or ({n}, outputs).")
    if not np.all(np.isfinite(targets)):
        raise DataError("y holds values that are not finite. Drop those samples or fill them in.")
    return targets


def checked_alpha(alpha: float) -> float:
    """Alpha as a float.

    Args:
        alpha: a number >= 0.

    Returns:
        The number.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.integer, np.floating)) or not 0 <= alpha < np.inf:
        raise OptionError(f"alpha is {alpha!r}. Give a number >= 0, in units of the mean diagonal of K, or 'auto'.")
    return float(alpha)


def not_definite(alpha: float) -> str:
    """What to say when K with this alpha on its diagonal is not positive definite."""
    return (
        f"K plus alpha = {alpha:.3g} times its mean diagonal is not positive definite: alpha is below the rounding of K. "
        "Take a larger alpha, or compute K in float64."
    )


def rounding(K: ArrayLike) -> float:
    """Relative rounding of the dtype in which K was computed."""
    dtype = getattr(K, "dtype", np.dtype(np.float64))
    return float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.floating) else float(np.finfo(np.float64).eps)


def _is_symmetric(gram: Floats, tolerance: float) -> bool:
    """Compare the two triangles block by block: a transposed walk through the whole matrix costs as much as a small solve."""
    blocks = list(gen_batches(len(gram), 128))
    pairs = ((rows, cols) for i, rows in enumerate(blocks) for cols in blocks[: i + 1])
    return all(np.abs(gram[rows, cols] - gram[cols, rows].T).max() <= tolerance for rows, cols in pairs)
