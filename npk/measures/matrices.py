r"""Measures of kernel matrices: alignment with labels, likeness of two kernels, spectrum, effective
rank.

A kernel is taken as an array or as a :class:`npk.Gram`, which alignment and CKA read in blocks of
rows. All of it is float64, and no measure changes when a kernel is multiplied by a number.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.utils import gen_batches

from npk.errors import DataError, NpkError, ShapeError
from npk.gram.matrix import Gram
from npk.machines.problem import NOT_FINITE, checked_gram, mean_diagonal, rounding
from npk.measures.given import Floats, one_hot, targets_of, values_of

_BYTES = 32 << 20  # of a block of rows


class Centred:
    r"""A kernel with its mean feature taken away, in blocks of rows, and in units of its mean
    diagonal, so that squares stay in range.

    .. math:: H K H, \qquad H = I - \tfrac 1n 1 1^\top

    Args:
        K: (n, n), an array or on disk.
        name: what messages call it.

    Raises:
        ShapeError: not square, or rows and columns are not the same samples.
        DataError: not numeric, not finite, or zero on the diagonal.
    """

    def __init__(self, K: ArrayLike | Gram, name: str = "K") -> None:
        self.name, self.rounding = name, rounding(K)
        self.K = checked_kernel(K, name)
        self.unit = mean_diagonal(np.asarray(self.K.diagonal()))
        with np.errstate(over="ignore", invalid="ignore"):  # refused in the next line
            self.means = self.K @ np.full(len(self), 1 / (len(self) * self.unit))
        if not np.isfinite(self.means).all():
            raise DataError(NOT_FINITE)

    def __len__(self) -> int:
        return len(self.K)

    def blocks(self) -> Iterator[slice]:
        """Rows that are read together."""
        return gen_batches(len(self), max(1, _BYTES // (8 * len(self))))

    def rows(self, rows: slice) -> Floats:
        """Some rows of HKH."""
        block = np.asarray(self.K[rows], np.float64) / self.unit
        return block - self.means[rows, None] - self.means + self.means.mean()

    def refuse_nothing(self, norm: float) -> float:
        """The norm of HKH, if it is more than the rounding of K.

        Raises:
            DataError: it is not.
        """
        if norm <= 10 * self.rounding * len(self):
            what = f"{self.name} has one value for all pairs of samples, up to rounding"
            raise DataError(f"{what}: centred, nothing is left of it. Take other samples.")
        return norm


def checked_kernel(K: ArrayLike | Gram, name: str = "K") -> Any:
    """A kernel as float64, or the matrix on disk that it is.

    Args:
        K: (n, n).
        name: what messages call it.

    Returns:
        An array, or the Gram itself.

    Raises:
        ShapeError: not square and symmetric.
        DataError: not numeric, not finite, or zero on the diagonal.
        NpkError: a matrix on disk that cannot be read.
    """
    if isinstance(K, Gram):
        if not K.symmetric:
            what = f"{name} is a kernel of {K.shape[0]} rows with {K.shape[1]} other columns"
            raise ShapeError(f"{what}. Give that of the samples with themselves.")
        return K
    try:
        return checked_gram(K)
    except NpkError as error:
        if name == "K":
            raise
        raise type(error)(f"the kernel {name}: {error}") from error


def alignment(K: ArrayLike | Gram, y: ArrayLike) -> float:
    r"""How much a kernel, centred, looks like the kernel of the labels.

    .. math:: \frac{\langle HKH,\, YY^\top \rangle}{\|HKH\|_F \, \|H YY^\top H\|_F}

    Args:
        K: kernel of the samples with themselves, (n, n), an array or a Gram.
        y: class of each sample, (n,), which Y has a column for (one-hot); or targets Y of any kind,
            (n, outputs).

    Returns:
        1 where HKH is a multiple of the labels' own kernel; 0 where it knows nothing of them.

    Raises:
        ShapeError: K is not square and symmetric, or y is of another number of samples.
        DataError: K is zero, not finite or the same for all pairs; fewer than two classes, or no
            labels.

    References:
        Cortes, Mohri and Rostamizadeh, *Algorithms for learning kernels based on centered
        alignment*, JMLR 2012.
    """
    centred = Centred(K)
    flat = values_of(y).ndim == 1
    Y = one_hot(y, len(centred)) if flat else targets_of(y, len(centred))
    Y = Y - Y.mean(0)
    common = size = 0.0
    for rows in centred.blocks():
        block = centred.rows(rows)
        common, size = common + np.sum(Y[rows] * (block @ Y)), size + np.sum(block**2)
    of_labels = linalg.norm(Y.T @ Y)
    if of_labels == 0:
        raise DataError("y is the same for all samples. Give targets that differ.")
    return float(common / (centred.refuse_nothing(np.sqrt(size)) * of_labels))


def cka(K: ArrayLike | Gram, L: ArrayLike | Gram) -> float:
    r"""How much two kernels of the same samples look alike: centred kernel alignment.

    .. math:: \frac{\langle HKH,\, HLH \rangle}{\|HKH\|_F \, \|HLH\|_F}

    Args:
        K: kernel of one network, layer or checkpoint, (n, n), an array or a Gram.
        L: kernel of another, over the same samples in the same order.

    Returns:
        1 where HKH and HLH differ by a factor alone, 0 where they have nothing in common. Few
        samples make it too large.

    Raises:
        ShapeError: one is not square and symmetric, or they are of different numbers of samples.
        DataError: one is zero, not finite, or the same for all pairs.

    References:
        Kornblith, Norouzi, Lee and Hinton, *Similarity of neural network representations
        revisited*, ICML 2019.
    """
    pair = _pair(K, L)
    common = sum(np.sum(a * b) for a, b in _blocks(pair))
    return min(1.0, float(common / np.prod(_norms(pair))))  # rounding may go beyond


def angle(K: ArrayLike | Gram, L: ArrayLike | Gram) -> float:
    r"""The angle between two centred kernels, a metric: of networks, of layers, of checkpoints.

    .. math:: \arccos \operatorname{cka}(K, L)

    Args:
        K: kernel of one network, layer or checkpoint, (n, n), an array or a Gram.
        L: kernel of another, over the same samples in the same order.

    Returns:
        Radians from 0 to pi / 2. It is computed from half the angle's tangent, so that small
        angles keep their digits, which the cosine loses.

    Raises:
        ShapeError: as :func:`cka`.
        DataError: as :func:`cka`.

    References:
        Williams, Kunz, Kornblith and Linderman, *Generalized shape metrics on neural
        representations*, NeurIPS 2021.
    """
    pair = _pair(K, L)
    sizes = _norms(pair)
    apart = together = 0.0
    for blocks in _blocks(pair):
        a, b = (block / size for block, size in zip(blocks, sizes, strict=True))
        apart, together = apart + np.sum((a - b) ** 2), together + np.sum((a + b) ** 2)
    return float(2 * np.arctan2(np.sqrt(apart), np.sqrt(together)))


def spectrum(K: ArrayLike | Gram) -> Floats:
    r"""Eigenvalues of a kernel as shares of its trace, largest first.

    .. math:: \lambda_i / \operatorname{tr} K

    Args:
        K: kernel of the samples with themselves, (n, n), an array or a Gram.

    Returns:
        (n,), with the sum 1; not centred. The smallest may be negative by rounding.

    Raises:
        ShapeError: K is not square and symmetric.
        DataError: K is zero or not finite.
    """
    gram = checked_gram(K)
    values = linalg.eigvalsh(gram / np.trace(gram), check_finite=False)
    return values[::-1]


def effective_rank(K: ArrayLike | Gram) -> float:
    r"""How many directions carry a kernel: the exponential of the entropy of its spectrum.

    .. math:: \exp\Big(-\sum_i p_i \log p_i\Big), \qquad p_i = \lambda_i / \operatorname{tr} K

    Args:
        K: kernel of the samples with themselves, (n, n), an array or a Gram; or its
            :func:`spectrum`, (n,), where that is there already.

    Returns:
        From 1 (one direction carries all) to n (all alike).

    Raises:
        ShapeError: K is not square and symmetric.
        DataError: K is zero or not finite.

    References:
        Roy and Vetterli, *The effective rank: a measure of effective dimensionality*, EUSIPCO 2007.
    """
    shares = np.asarray(K) if np.ndim(K) == 1 else spectrum(K)
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _pair(K: ArrayLike | Gram, L: ArrayLike | Gram) -> tuple[Centred, Centred]:
    pair = Centred(K), Centred(L, "L")
    check_alike(len(pair[0]), len(pair[1]))
    return pair


def check_alike(n: int, m: int) -> None:
    """Refuse kernels of different numbers of samples.

    Args:
        n: samples of K.
        m: samples of L.

    Raises:
        ShapeError: they differ.
    """
    if n != m:
        what = f"K is of {n} samples and L of {m}"
        raise ShapeError(f"{what}. Give two kernels of the same samples in the same order.")


def _blocks(pair: tuple[Centred, Centred]) -> Iterator[tuple[Floats, Floats]]:
    return ((pair[0].rows(rows), pair[1].rows(rows)) for rows in pair[0].blocks())


def _norms(pair: tuple[Centred, Centred]) -> tuple[float, float]:
    squares = np.sum([[np.sum(a**2), np.sum(b**2)] for a, b in _blocks(pair)], axis=0)
    first, second = np.sqrt(squares)
    return pair[0].refuse_nothing(float(first)), pair[1].refuse_nothing(float(second))
