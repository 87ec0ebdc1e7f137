"""How far a CKA is known: a bootstrap over samples."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import gen_batches

from npk.errors import DataError, OptionError
from npk.gram.matrix import Gram
from npk.machines.problem import checked_gram
from npk.measures.given import Floats
from npk.measures.matrices import Centred, check_alike, cka
from npk.shown import Shown

_NUMBERS = 1 << 22  # weights of draws that are tried together, at most
_FEWEST = 8  # samples


@dataclass(frozen=True)
class Interval(Shown):
    """A CKA with the interval that it is known to, over samples."""

    value: float
    low: float
    high: float
    level: float  # share of draws that lie inside

    @property
    def angles(self) -> tuple[float, float, float]:
        """The same as angles: of the value, least, largest; in radians."""
        value, least, largest = np.arccos(np.clip([self.value, self.high, self.low], 0, 1))
        return float(value), float(least), float(largest)


def cka_interval(
    K: ArrayLike | Gram,
    L: ArrayLike | Gram,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    r"""CKA with a bootstrap interval: samples are drawn again, with replacement.

    A draw in which sample i comes :math:`w_i` times is the CKA of the kernels with rows and columns
    repeated so often. A sample that comes twice is alike itself, which makes every draw's CKA too
    large; so the interval is the spread of the draws around their median, put around the CKA of all
    samples. It says how the CKA of so many other samples would vary, not how far that of few
    samples is above that of many.

    Args:
        K: kernel of one network, layer or checkpoint, (n, n), an array or a Gram, which is read
            whole.
        L: kernel of another, over the same samples in the same order.
        level: share of the draws that lie inside.
        draws: how many.
        seed: of the draws.

    Returns:
        The CKA and its interval.

    Raises:
        ShapeError: as :func:`npk.measures.cka`.
        DataError: as :func:`npk.measures.cka`, or fewer than 8 samples.
        OptionError: a level that is not between 0 and 1, or no whole number of draws.

    References:
        Efron and Tibshirani, *An introduction to the bootstrap*, 1993.
    """
    if not isinstance(level, Real) or not 0 < level < 1:
        raise OptionError(f"level is {level!r}. Give a share between 0 and 1, such as 0.95.")
    if not isinstance(draws, Integral) or draws < 2:
        raise OptionError(f"draws is {draws!r}. Give a whole number from 2 on, such as 1000.")
    value = cka(K, L)
    first, second = _whole(K, "K"), _whole(L, "L")
    n = len(first)
    check_alike(n, len(second))
    if n < _FEWEST:
        raise DataError(f"there are {n} samples, too few to draw from. Give at least {_FEWEST}.")
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).T / n
    batches = gen_batches(draws, max(1, _NUMBERS // n))
    found = np.concatenate([weighted_cka(first, second, weights[:, part]) for part in batches])
    tail = (1 - level) / 2
    low, middle, high = np.nanquantile(found, [tail, 0.5, 1 - tail])
    low, high = np.clip([value + low - middle, value + high - middle], 0, 1)
    return Interval(value, float(low), float(high), float(level))


def weighted_cka(K: Floats, L: Floats, weights: Floats) -> Floats:
    """CKA of samples that count differently.

    Args:
        K: centred kernel, (n, n).
        L: another.
        weights: of each sample in each draw, (n, draws), with sums of 1.

    Returns:
        CKA of each draw, (draws,); NaN where all that was drawn is alike.
    """
    means = K @ weights, L @ weights

    def product(a: int, b: int) -> Floats:
        pairs = ((K, L)[a] * (K, L)[b]) @ weights
        rows = np.einsum("nd,nd->d", weights, pairs - 2 * means[a] * means[b])
        return rows + np.prod([np.einsum("nd,nd->d", weights, means[i]) for i in (a, b)], axis=0)

    sizes = product(0, 0) * product(1, 1)
    # a draw of samples that are all alike has no kernel, once it is centred
    return np.divide(
        product(0, 1), np.sqrt(sizes), out=np.full_like(sizes, np.nan), where=sizes > 0
    )


def _whole(K: ArrayLike | Gram, name: str) -> Floats:
    """HKH in memory."""
    return Centred(checked_gram(K), name).rows(slice(None))
