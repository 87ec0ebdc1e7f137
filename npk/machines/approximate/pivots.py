r"""Partial Cholesky factors of a kernel from some of its columns.

.. math:: K \approx F F^\top = K_{:,S}\, K_{S,S}^{-1}\, K_{S,:}

for r samples S, the pivots. The best known choice is random: the next pivot is drawn with
probability proportional to what is left on the diagonal. It needs n r entries of K, and what it
leaves is in the mean about as small as what r eigenvectors leave. The pivots are drawn in blocks, of
which some are rejected so that their law is exactly that of one by one.

References:
    Y. Chen, E. N. Epperly, J. A. Tropp and R. J. Webber, *Randomly pivoted Cholesky*, Communications
    on Pure and Applied Mathematics 2025; E. N. Epperly, J. A. Tropp and R. J. Webber, *Embrace
    rejection: kernel matrix approximation by accelerated randomly pivoted Cholesky*, arXiv 2410.03969.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from npk.errors import OptionError
from npk.machines.problem import Floats, check_square, mean_diagonal

Selection = Literal["rpcholesky", "random", "greedy"]
Numbers = NDArray[np.intp]

_FLOOR = 32  # roundings of the largest diagonal entry: less is left of a sample by rounding alone
_BLOCK = 128  # pivots proposed at once, at most: of larger blocks more are rejected


class Entries(Protocol):
    """What the factor asks of K, a symmetric matrix of n samples."""

    dtype: np.dtype

    def diagonal(self) -> NDArray:
        """K(x, x), (n,)."""
        ...

    def proposed(self, samples: Numbers) -> tuple[NDArray, Callable[[Numbers], NDArray]]:
        """K of some samples with themselves, and what gives the rows of K of those of them that are
        kept (by their place among them).
        """
        ...


class MatrixEntries:
    """Entries of a matrix that is there, as an array or as a :class:`npk.Gram`: a block of rows is
    read in one pass, since a pass over tiles is what costs.

    Args:
        K: the matrix, (n, n).
    """

    def __init__(self, K: Any) -> None:
        check_square(tuple(K.shape))
        self.matrix, self.dtype = K, np.dtype(K.dtype)

    def diagonal(self) -> NDArray:
        """Of the matrix."""
        return np.asarray(self.matrix.diagonal())

    def proposed(self, samples: Numbers) -> tuple[NDArray, Callable[[Numbers], NDArray]]:
        """Both from the rows of all of the samples."""
        rows = np.asarray(self.matrix[samples])
        return rows[:, samples], lambda kept: rows[kept]


@dataclasses.dataclass(frozen=True, eq=False)
class PivotedCholesky:
    """A partial factor, and what it leaves."""

    pivots: Numbers  # (r,), in the order in which they were taken
    rows: Floats  # (r, n): the transpose of F
    residual: Floats  # (n,): the diagonal of K - F F', not negative
    total: float  # the trace of K

    @property
    def factor(self) -> Floats:
        """F, (n, r); a view."""
        return self.rows.T

    @property
    def error(self) -> float:
        r"""The trace of what is left, K - F F'. It bounds every norm of it: of K - F F', which is
        positive semidefinite, it is the sum of the eigenvalues.
        """
        return float(self.residual.sum())


def check_selection(selection: str) -> None:
    """Refuse a way to choose pivots that is none.

    Args:
        selection: the name.

    Raises:
        OptionError: another name.
    """
    if selection not in get_args(Selection):
        names = ", ".join(map(repr, get_args(Selection)))
        raise OptionError(f"selection={selection!r} is not known. Choose one of {names}.")


def checked_rank(rank: int, name: str) -> int:
    """A number of pivots, components and the like.

    Args:
        rank: a whole number from 1 on.
        name: of the option.

    Returns:
        The number.

    Raises:
        OptionError: it is something else.
    """
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or rank < 1:
        raise OptionError(f"{name} is {rank!r}. Give a whole number, 1 or more.")
    return int(rank)


def pivoted_cholesky(
    entries: Entries,
    rank: int,
    *,
    selection: Selection = "rpcholesky",
    rng: np.random.Generator | int = 0,
) -> PivotedCholesky:
    """Factor K by some of its rows.

    Args:
        entries: of K.
        rank: pivots at most; fewer are taken where nothing but rounding is left.
        selection: how pivots are chosen: "rpcholesky" (at random, in proportion to what is left of
            each), "random" (all alike) or "greedy" (the one that most is left of, as LAPACK's pstrf:
            a row at a time).
        rng: source of randomness, or a seed.

    Returns:
        The factor.

    Raises:
        OptionError: rank is no positive whole number, or the selection is not known.
        DataError: the diagonal is zero or not finite.
    """
    rank = checked_rank(rank, "rank")
    check_selection(selection)
    diagonal = np.asarray(entries.diagonal(), np.float64)
    unit = mean_diagonal(diagonal)
    floor = _FLOOR * float(np.finfo(entries.dtype).eps) * max(float(diagonal.max()), unit)
    taking = _Taking(entries, min(rank, len(diagonal)), diagonal, floor)
    choice = _CHOICES[selection](np.random.default_rng(rng), len(diagonal))
    while taking.taken < taking.rank and (proposals := choice.proposals(taking)).size:
        taking.take(proposals, choice.accepts)
    return taking.factor


class _Taking:
    """A factor in the making: the rows so far and what is left."""

    def __init__(self, entries: Entries, rank: int, diagonal: Floats, floor: float) -> None:
        self.entries, self.rank, self.taken, self.floor = entries, rank, 0, floor
        self.total, self.left = float(diagonal.sum()), np.maximum(diagonal, 0.0)
        self.left[self.left <= floor] = 0.0
        self.pivots = np.empty(rank, np.intp)
        self.rows = np.empty((rank, len(diagonal)))

    @property
    def factor(self) -> PivotedCholesky:
        """What was made."""
        r = self.taken
        return PivotedCholesky(self.pivots[:r], self.rows[:r], self.left, self.total)

    def take(self, proposals: Numbers, accepts: Callable[[float], bool]) -> None:
        """Take some of the proposals as pivots."""
        within, rows_of = self.entries.proposed(proposals)
        before = self.rows[: self.taken]
        within = within - before[:, proposals].T @ before[:, proposals]
        kept, lower, left = self._kept(within, accepts)
        pivots = proposals[kept]
        new = rows_of(kept) - before[:, pivots].T @ before
        end = self.taken + len(kept)
        self.rows[self.taken : end] = linalg.solve_triangular(lower, new, lower=True)
        self.pivots[self.taken : end] = pivots
        self.left -= np.square(self.rows[self.taken : end]).sum(0)
        self.left[self.left <= self.floor] = 0.0
        self.left[pivots] = self.left[proposals[left <= self.floor]] = 0.0
        self.taken = end

    def _kept(
        self, within: Floats, accepts: Callable[[float], bool]
    ) -> tuple[Numbers, Floats, Floats]:
        """Places of the proposals that become pivots, the Cholesky factor of their block, and what
        is left of the diagonal of all of them.
        """
        first, columns, kept = np.diagonal(within).copy(), [], []
        for place in range(len(within)):
            left = within[place, place]
            if left > self.floor and accepts(left / first[place]):
                column = within[:, place] / np.sqrt(left)
                within = within - np.outer(column, column)
                columns, kept = [*columns, column], [*kept, place]
            if self.taken + len(kept) == self.rank:
                break
        chosen = np.array(kept, np.intp)
        lower = np.array(columns).reshape(len(kept), -1).T[chosen]
        return chosen, np.tril(lower), np.diagonal(within)


class _InProportion:
    """Blocks in proportion to what is left; a pivot is kept as it would have been drawn now."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.rng, self.n = rng, n

    def proposals(self, taking: _Taking) -> Numbers:
        """Distinct samples, in the order in which they were drawn."""
        total = taking.left.sum()
        if total <= 0:
            return np.empty(0, np.intp)
        block = min(_BLOCK, taking.rank)
        drawn = self.rng.choice(self.n, size=block, p=taking.left / total)
        return drawn[np.sort(np.unique(drawn, return_index=True)[1])]

    def accepts(self, share: float) -> bool:
        """With the probability that the block has left to the sample."""
        return bool(self.rng.random() < share)


class _AllAlike:
    """A permutation, block by block."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.order, self.at = rng.permutation(n), 0

    def proposals(self, taking: _Taking) -> Numbers:
        """The next ones of which something is left."""
        end = self.at + min(_BLOCK, taking.rank - taking.taken)
        block, self.at = self.order[self.at : end], end
        live = block[taking.left[block] > 0]
        return live if live.size or not block.size else self.proposals(taking)

    def accepts(self, share: float) -> bool:
        """Always."""
        return True


class _MostLeft:
    """The sample that most is left of."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        pass

    def proposals(self, taking: _Taking) -> Numbers:
        """One."""
        most = int(np.argmax(taking.left))
        return np.array([most] if taking.left[most] > 0 else [], np.intp)

    def accepts(self, share: float) -> bool:
        """Always."""
        return True


_CHOICES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "rpcholesky": _InProportion,
    "random": _AllAlike,
    "greedy": _MostLeft,
}
