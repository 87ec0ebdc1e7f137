r"""Whether random value networks have the kernel as their second moment: a rule that does not cry
wolf.

Products :math:`f f'` of deep and narrow networks have heavy tails: the mean of a few hundred is
nearly always too low, and their spread does not show it. "So many standard errors" is no rule for
them. What is judged are squares :math:`z = (u^\top f)^2 / u^\top K u` of mean 1, for directions u
that are a sample, and the sum and the difference of two. The two ways to be wrong differ.

**K is too small** in some direction. Bets on :math:`z > 1` multiply a stake by :math:`1 + \lambda
(z - 1)` with each draw; where K is right that is never negative and 1 in the mean. So the
probability that the mean stake over all u and :math:`\lambda` ever reaches :math:`10^6` is at most
:math:`10^{-6}`, whatever the tails (Ville's inequality). Where it does, that is an alarm.

**K is too large** on some sample. No number of draws shows this without an assumption about tails,
since rare draws may be missing. So a mean that is 3 standard errors too low is only a suspicion. An
alarm needs three sets of fresh draws, each four times as large, and in *each* of them that sample's
mean must be :math:`4 / (1 - k)` standard errors too low, k the shape of a generalized Pareto
distribution that is fitted to its largest squares (0 if it is negative), and k must be below 1/2:
with a heavier tail there is no variance.

Every wrong kernel is of one kind or the other: one that is too large on no sample and too small in
no direction is right. What gives no alarm *agrees* if no set of draws that was asked last is
suspicious and every k is below 0.7, where means of so many draws can be relied on. Everything else
is *undecided*: neither passed nor failed. ``benchmarks/false_alarms.py`` counts false alarms, and
wrong kernels that are seen.

References:
    J. Ville, *Etude critique de la notion de collectif*, 1939; I. Waudby-Smith and A. Ramdas,
    *Estimating means of bounded random variables by betting*, JRSS B 2024. J. Zhang and M. A.
    Stephens, *A new and efficient estimation method for the generalized Pareto distribution*,
    Technometrics 2009; A. Vehtari, D. Simpson, A. Gelman, Y. Yao and J. Gabry, *Pareto smoothed
    importance sampling*, JMLR 2024: how many draws are the tail, and what its shape allows.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["agrees", "deviates", "undecided"]
Draw = Callable[[int], np.ndarray]  # number of draws -> products (draws, n, n)

RELIABLE = 0.7  # Pareto shapes below it have a mean that so many draws can show
_LIGHT = 0.5  # ... and a variance
_SETS, _LARGER = 3, 4  # sets of fresh draws after a suspicion, and how much larger they are
_SUSPICION, _ALARM = 3.0, 4.0  # standard errors
_PROOF = math.log(1e6)
_BETS = 0.5 ** np.arange(1, 11)
_ROUNDING = 1e-5  # of a product of outputs in float32, relative to the kernel
_NOTHING = 1e-12  # of the largest entry: what rounding may leave of a kernel that is 0
_FEWEST = 25  # draws that have a tail


@dataclass(frozen=True)
class Moment:
    """What was found of the second moment. Spread and tail: of samples with K(x, x) > 0."""

    verdict: Verdict
    errors: float  # worst distance of a mean product from K, in standard errors
    spread: float  # the largest standard error of a mean square, relative to K(x, x)
    tail: float  # the largest Pareto shape; infinite where too few draws are not 0
    draws: int


@np.errstate(all="ignore")  # what is no number is no draw of a right kernel
def second_moment(draw: Draw, exact: np.ndarray, draws: int) -> Moment:
    """Judge whether E[f f'] = K, by the rule above.

    Args:
        draw: gives products f f' of so many fresh random value networks, ``(draws, n, n)``, each
            the mean over the output units.
        exact: the kernel K of the n samples.
        draws: of the first set.

    Returns:
        The verdict, and the numbers of all draws together.
    """
    claim = _Claim(exact)
    seen, stakes = [draw(draws)], 0.0
    first = found = claim.found(seen[0])
    low, high = first.low(_SUSPICION) & (first.tails < RELIABLE), first.high
    verdict: Verdict | None = "deviates" if first.proves(stakes) else None
    for _ in range(_SETS):
        if verdict or not (low.any() or high.any()):
            break
        stakes = stakes + found.stakes
        seen.append(draw(_LARGER * draws))
        found = claim.found(seen[-1])
        low, high = low & found.too_low, high & found.high
        verdict = "deviates" if found.proves(stakes) else None
    if low.any():  # confirmed by every set
        verdict = "deviates"
    return claim.moment(verdict or found.verdict, np.concatenate(seen))


@dataclass(frozen=True)
class _Found:
    """What one set of draws says."""

    stakes: np.ndarray  # (bets, directions): logarithms of what they became
    errors: np.ndarray  # (directions,): distance of the mean square from 1 in standard errors
    below: np.ndarray  # (n,): the same for samples, rounding not excused
    tails: np.ndarray  # (n,): their Pareto shapes

    @property
    def high(self) -> np.ndarray:
        """Directions whose kernel may be too small."""
        return self.errors > _SUSPICION

    def low(self, errors: float) -> np.ndarray:
        """Samples whose kernel may be too large."""
        return self.below < -errors

    @property
    def too_low(self) -> np.ndarray:
        """Samples whose kernel seems too large, whatever their tails hide."""
        shape = np.clip(self.tails, 0.0, _LIGHT)
        return (self.tails < _LIGHT) & (self.below < -_ALARM / (1 - shape))

    def proves(self, stakes: np.ndarray | float) -> bool:
        """Whether bets with these stakes have won too much; NaN is no draw of a right kernel."""
        won = stakes + self.stakes
        mean = float(np.logaddexp.reduce(won, axis=None)) - math.log(won.size)
        return not mean < _PROOF

    @property
    def verdict(self) -> Verdict:
        """Where nothing is alarming: whether means can be relied on, and agree."""
        calm = not (self.high.any() or self.low(_SUSPICION).any())
        return "agrees" if calm and (self.tails < RELIABLE).all() else "undecided"


class _Claim:
    """What the kernel says of products and squares."""

    def __init__(self, exact: np.ndarray) -> None:
        self._exact, diagonal = exact, np.diagonal(exact)
        nothing = _NOTHING * diagonal.max(initial=0.0)
        self._live = diagonal > nothing
        size = diagonal + nothing
        units = np.diag(1 / np.sqrt(np.where(size > 0, size, 1.0)))
        pairs = list(itertools.combinations(units, 2))
        self._directions = np.array([*units, *(a + s * b for a, b in pairs for s in (1, -1))])
        most = self._quadratic(exact[None])[0]
        rest = self._quadratic(np.diag(_ROUNDING * diagonal + nothing)[None])[0]
        self._most = np.maximum(most + rest, 0.0)

    def _quadratic(self, products: np.ndarray) -> np.ndarray:
        u = self._directions
        return np.einsum("ki,dij,kj->dk", u, products, u)

    def _squares(self, products: np.ndarray) -> np.ndarray:
        """Squares in all directions, ``(draws, directions)``: of mean 1 at most, rounding included."""
        squares = np.maximum(self._quadratic(products), 0.0)
        return np.where((squares == 0) & (self._most == 0), 1.0, squares / self._most)

    def _of_samples(self, products: np.ndarray) -> np.ndarray:
        """Squares of the samples that have a kernel, ``(draws, n)``; 1 for the others."""
        diagonal = np.diagonal(self._exact)
        squares = np.diagonal(products, axis1=1, axis2=2)
        return np.where(self._live, squares / np.where(self._live, diagonal, 1.0), 1.0)

    def found(self, products: np.ndarray) -> _Found:
        """What a set of products says."""
        squares, own = self._squares(products), self._of_samples(products)
        stakes = np.array([np.log1p(bet * (squares - 1)).sum(0) for bet in _BETS])
        return _Found(stakes, _errors(squares), _errors(own), _tails(own))

    def moment(self, verdict: Verdict, products: np.ndarray) -> Moment:
        """The numbers of all products beside the verdict."""
        size = np.sqrt(np.abs(np.diagonal(self._exact)))
        unit = np.outer(size, size)
        off = np.abs(products.mean(0) - self._exact)
        error = products.std(0) / math.sqrt(len(products)) + _ROUNDING * unit
        worst = np.divide(off, error, out=np.where(off == 0, 0.0, math.inf), where=error > 0)
        squares = self._of_samples(products)
        spread = squares.std(0).max() / math.sqrt(len(products))
        tail = _tails(self._of_samples(products)).max()
        return Moment(verdict, float(worst.max()), float(spread), float(tail), len(products))


def _errors(squares: np.ndarray) -> np.ndarray:
    """Distance of each column's mean from 1 in standard errors, those of rounding added."""
    return (squares.mean(0) - 1) / (squares.std(0) / math.sqrt(len(squares)) + _ROUNDING)


def _tails(squares: np.ndarray) -> np.ndarray:
    return np.array([pareto_shape(column) for column in squares.T])


def pareto_shape(values: np.ndarray) -> float:
    r"""Shape k of the generalized Pareto distribution of the largest values.

    A tail of shape k has moments below 1/k. The fit is that of Zhang and Stephens with the weak
    prior of Vehtari et al., to the largest :math:`\min(S / 5, 3 \sqrt S)` of S values.

    Args:
        values: not negative, of mean about 1.

    Returns:
        The shape; 0 for values that are all equal, infinity where fewer than 25 were drawn or too
        few of them are not 0.
    """
    ordered = np.sort(np.round(values, 5))  # without rounding, equal values are equal
    if not len(ordered) or ordered[0] == ordered[-1] > 0:
        return 0.0
    most = math.ceil(min(len(ordered) / 5, 3 * math.sqrt(len(ordered))))
    below = ordered[ordered < ordered[-most]]
    if len(ordered) < _FEWEST or not len(below):
        return math.inf
    return _fitted(ordered[ordered > below[-1]] - below[-1])


def _fitted(excess: np.ndarray) -> float:
    """Zhang and Stephens' estimate: the mean of profile likelihoods over a grid of k / scale."""
    n = len(excess)
    grid = np.arange(1, 31 + math.isqrt(n))
    places = (1 - np.sqrt(len(grid) / (grid - 0.5))) / (3 * excess[int(n / 4 + 0.5) - 1])
    places += 1 / excess[-1]
    shapes = np.log1p(-places[:, None] * excess).mean(1)
    scales = np.divide(-shapes, places, out=np.full(len(grid), excess.mean()), where=places != 0)
    likelihood = -n * (np.log(scales) + shapes + 1)
    weights = np.exp(likelihood - np.logaddexp.reduce(likelihood))
    shape = np.log1p(-(weights @ places) * excess).mean()
    return float((n * shape + 5) / (n + 10))
