"""A kernel ridge problem: what every solver asks of K, y and alpha, and what it gives back."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import compute_sample_weight, gen_batches
from sklearn.utils.multiclass import type_of_target

from npk.errors import DataError, NpkError, OptionError, ShapeError
from npk.machines.threads import on_threads
from npk.samples import as_array

Floats = NDArray[np.float64]

_THREADED = 2000  # samples whose matrix is worth several threads
NOT_FINITE = (
    "K holds values that are not finite. Compute it with scale='fan_in' or 'cosine', "
    "which do not overflow."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found, and how well it solves the system."""

    coefficients: Floats  # shape of the right-hand side
    residual: float  # |(K + ridge I) c - y| / |y|, measured on K itself
    steps: int  # 1 for a direct solver
    outcome: str  # "solved"; of an iteration also "not converged" or "stagnated"

    def shaped(self, shape: tuple[int, ...]) -> "Solution":
        """The same with coefficients of the shape of y."""
        return dataclasses.replace(self, coefficients=self.coefficients.reshape(shape))


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
        gram = as_array(K, "K").astype(np.float64, copy=False)
    except NpkError:
        raise  # a matrix on disk that does not fit its memory promise says so itself
    except (TypeError, ValueError) as error:
        raise DataError(
            f"K is not a numeric matrix ({error}). Pass the array that npk.kernel returned."
        ) from error
    check_square(gram.shape)
    asymmetry, share = _asymmetry(gram), 1000 * rounding(K)
    largest = np.max(np.abs(np.diagonal(gram)), initial=0.0)  # it is, of a kernel
    if not asymmetry <= share * largest:
        largest = np.maximum(gram.max(initial=0.0), -gram.min(initial=0.0))  # a NaN stays one
        if not np.isfinite(largest):
            raise DataError(NOT_FINITE)
    mean_diagonal(np.diagonal(gram))
    if asymmetry > share * largest:
        raise ShapeError(
            "K is not symmetric. Pass the kernel of the training samples with "
            "themselves, rows and columns in one order."
        )
    return gram


def samples_of(K: object) -> int | None:
    """How many samples a Gram matrix is of, told without reading it; ``None`` where only reading
    tells.

    Args:
        K: what came as the matrix.

    Returns:
        n of (n, n); ``None`` for an empty matrix, which is refused for that.

    Raises:
        ShapeError: it has another shape.
    """
    shape = getattr(K, "shape", None)
    if shape is None:
        return None
    check_square(tuple(shape))
    return shape[0] or None


def check_square(shape: tuple[int, ...]) -> None:
    """Refuse a matrix that is not square.

    Args:
        shape: of the matrix.

    Raises:
        ShapeError: it is not (n, n).
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ShapeError(
            f"K has shape {shape}, a Gram matrix is square. Pass the kernel of the "
            f"training samples with themselves."
        )


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
            "the kernel is zero on its diagonal (or K is empty): every input is dead, no path of "
            "the network is active for it. Look at the range of X and at the network's weights."
        )
    return total / len(diagonal)


def checked_targets(y: ArrayLike, n: int | None) -> Floats:
    """Targets as float64.

    Args:
        y: (n,) or (n, outputs).
        n: samples of K; ``None`` where that is not known yet.

    Returns:
        y in float64: the same array if it is float64 already.

    Raises:
        ShapeError: y has another length.
        DataError: y is not numeric or not finite.
    """
    came = values_of(y)
    try:
        targets = came.astype(
            np.float64, casting="same_kind" if came.dtype.kind == "c" else "unsafe", copy=False
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"y is not numeric ({error}). For class labels make targets with "
            f"ridge.signed_targets(labels)."
        ) from error
    if targets.ndim not in (1, 2) or (n is not None and len(targets) != n):
        size, have = ("n", "as many") if n is None else (n, n)
        raise ShapeError(
            f"y has shape {targets.shape}, K has {have} samples. Pass y of shape "
            f"({size},) or ({size}, outputs)."
        )
    if not np.all(np.isfinite(targets)):
        raise DataError("y holds values that are not finite. Drop those samples or fill them in.")
    return targets


def checked_labels(labels: ArrayLike, n: int | None = None) -> NDArray:
    """Class labels that a classifier can learn from.

    Args:
        labels: class of each sample, (n,): numbers or strings.
        n: samples of K; ``None`` where that is not known yet.

    Returns:
        The labels as an array.

    Raises:
        ShapeError: labels of another shape.
        DataError: fewer than two classes, or labels that are not finite, not whole, or of several
            types.
    """
    found = values_of(labels)
    if n is not None and found.shape != (n,):
        raise ShapeError(
            f"labels have shape {found.shape}, K has {n} samples. Pass one class a sample."
        )
    if found.ndim != 1:
        raise ShapeError(
            f"labels have shape {found.shape}, one class a sample is needed. Pass a vector."
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(found))} labels are NaN or infinite. Drop "
            f"those samples."
        )
    if found.dtype.kind == "c" or (found.dtype.kind == "f" and (found != np.round(found)).any()):
        raise DataError(
            "Unknown label type: continuous. A classifier takes classes, such as 0, 1, "
            "2 or names; NPKRidge takes numbers."
        )
    if found.dtype.kind == "O" and type_of_target(found) == "unknown":
        raise DataError(
            "Unknown label type: objects. A classifier takes classes, such as 0, 1, 2 or names."
        )
    try:
        classes = np.unique(found)
    except TypeError as error:
        raise DataError(
            f"Unknown label type: several types among the labels ({error}). Make all of them "
            f"numbers or all of them text."
        ) from error
    check_classes(classes)
    return found


def check_classes(classes: NDArray) -> None:
    """Refuse to tell one class from nothing.

    Args:
        classes: the distinct labels.

    Raises:
        DataError: there are fewer than two.
    """
    if len(classes) < 2:
        have = f"y has {len(classes)} class: {classes.tolist()}"
        raise DataError(
            f"a classifier needs two classes, {have}. Pass samples of another class too."
        )


def checked_weights(weights: ArrayLike | float | None, n: int) -> Floats | None:
    """Weights of samples.

    Args:
        weights: (n,), >= 0; a number for all of them; or ``None``.
        n: samples of K.

    Returns:
        The weights in float64; ``None`` where none came.

    Raises:
        ShapeError: weights of another number of samples.
        DataError: weights that are no numbers, not finite or negative, or all zero.
    """
    if weights is None:
        return None
    try:
        given = values_of(weights).astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"sample_weight is not numeric ({error}). Pass one number a sample."
        ) from error
    if given.ndim and given.shape != (n,):
        raise ShapeError(
            f"sample_weight has shape {given.shape}, there are {n} samples. Pass one weight a "
            f"sample."
        )
    given = np.broadcast_to(given, (n,))
    if not np.isfinite(given).all() or (given < 0).any():
        bad = np.count_nonzero(~(np.isfinite(given) & (given >= 0)))
        raise DataError(
            f"{bad} of {n} weights are negative or not finite. Weights are >= 0; a weight of 0 "
            f"leaves a sample out."
        )
    if not given.any():
        raise DataError(
            "all weights are zero, so that nothing is left to learn from. Give a sample a weight."
        )
    return given


def class_weights(asked: object, labels: NDArray) -> Floats | None:
    """Weight of each sample by its class, as scikit-learn has them.

    Args:
        asked: ``None``; "balanced": n / (classes * samples of the class); or a number for each
            class, 1 where a class is not named.
        labels: class of each sample, (n,).

    Returns:
        The weights, (n,); ``None`` where none are asked for.

    Raises:
        OptionError: something else is asked for, or for a class that is not there.
    """
    if asked is None:
        return None
    if not isinstance(asked, Mapping) and not (isinstance(asked, str) and asked == "balanced"):
        raise OptionError(
            f"class_weight is {asked!r}. Take 'balanced', or a weight for each class, such as "
            f"{{{labels[0]!r}: 2.0}}."
        )
    try:
        return compute_sample_weight(asked, labels)
    except ValueError as error:
        raise OptionError(
            f"class_weight {asked!r} does not fit the labels: {' '.join(str(error).split())}."
        ) from error


def times(first: Floats | None, second: Floats | None) -> Floats | None:
    """Product of two sets of weights, each of which may be missing."""
    if first is None or second is None:
        return second if first is None else first
    return first * second


def values_of(y: ArrayLike) -> NDArray:
    """Targets or labels as an array: a column of a table may hold objects, such as names."""
    return np.asarray(y) if hasattr(y, "to_numpy") else as_array(y, "y")


def is_auto(value: object) -> bool:
    """Whether a parameter is left to be chosen."""
    return isinstance(value, str) and value == "auto"


def check_alpha(alpha: float | ArrayLike | str, targets: Floats | None = None) -> None:
    """Refuse what :func:`checked_alphas` refuses, but for "auto"; without targets their number is
    not looked at.
    """
    if not is_auto(alpha):
        checked_alphas(alpha, targets)


def checked_alphas(alpha: float | ArrayLike, targets: Floats | None = None) -> Floats:
    """One alpha of all outputs, or one of each, as an array.

    Args:
        alpha: a number >= 0, or (outputs,).
        targets: (n,) or (n, outputs); ``None`` where they are not known yet.

    Returns:
        Alphas, (1,) or (outputs,).

    Raises:
        OptionError: something else.
        ShapeError: another number of alphas than outputs.
    """
    if np.ndim(alpha) == 0 or isinstance(alpha, str):
        return np.array([checked_alpha(alpha)])  # type: ignore[arg-type]
    found = np.array([checked_alpha(each) for each in np.ravel(np.asarray(alpha, object))])
    outputs = len(found) if targets is None else targets.reshape(len(targets), -1).shape[1]
    if np.ndim(alpha) != 1 or len(found) != outputs:
        raise ShapeError(
            f"alpha has shape {np.shape(alpha)}, y has {outputs} outputs. Give one number, or one "
            f"for each output."
        )
    return found


def checked_alpha(alpha: float | str) -> float:
    """Alpha as a float.

    Args:
        alpha: a number >= 0.

    Returns:
        The number.

    Raises:
        OptionError: it is something else.
    """
    if (
        isinstance(alpha, bool)
        or not isinstance(alpha, (int, float, np.integer, np.floating))
        or not 0 <= alpha < np.inf
    ):
        raise OptionError(
            f"alpha is {alpha!r}. Give a number >= 0, in units of the mean diagonal "
            f"of K, or 'auto'."
        )
    return float(alpha)


def not_definite(alpha: float) -> str:
    """What to say when K with this alpha on its diagonal is not positive definite."""
    return (
        f"K plus alpha = {alpha:.3g} times its mean diagonal is not positive definite: alpha is "
        f"below the rounding of K. Take a larger alpha, or compute K in float64."
    )


def rounding(K: ArrayLike) -> float:
    """Relative rounding of the dtype in which K was computed."""
    dtype = getattr(K, "dtype", np.dtype(np.float64))
    if np.issubdtype(dtype, np.floating):
        return float(np.finfo(dtype).eps)
    return float(np.finfo(np.float64).eps)


def _asymmetry(gram: Floats) -> float:
    """The largest |K - K.T|; NaN if an entry is not finite. Block by block: a transposed walk
    costs a small solve.
    """
    blocks = list(gen_batches(max(len(gram), 1), 128))
    tasks = [(gram, rows, blocks[: i + 1]) for i, rows in enumerate(blocks)]
    if len(gram) < _THREADED:
        return float(np.max([_of_block_row(*task) for task in tasks]))
    return float(np.max(on_threads(_of_block_row, tasks, range(len(tasks)))))


def _of_block_row(gram: Floats, rows: slice, blocks: list[slice]) -> np.floating:
    """The same within one row of blocks, up to the diagonal."""
    with np.errstate(all="ignore"):
        differences = (gram[rows, cols] - gram[cols, rows].T for cols in blocks)
        return np.max([np.abs(block, out=block).max(initial=0.0) for block in differences])
