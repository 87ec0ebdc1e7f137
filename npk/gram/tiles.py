"""TilePlan: how a matrix is cut into tiles under a memory budget. The only loop over slices."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from npk.errors import OptionError

_LANES = 16
_LARGEST = 1024
_FREE = 2 * 10**9  # bytes that a tile may take where nothing is promised
_MOST_KEPT = (
    1 << 28
)  # bytes of columns: where they take more, making them ready is not what takes long


@dataclass(frozen=True)
class Tile:
    """A rectangle of the matrix that is computed at once; ``row`` and ``col`` count tiles."""

    row: int
    col: int
    rows: slice
    cols: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start


@dataclass(frozen=True)
class TilePlan:
    """Cut ``(n, m)`` into tiles of at most ``side`` x ``side``, ragged at the ends; of a symmetric
    matrix only the upper triangle.

    ``row_ends``, ``col_ends``: where parts of an axis end that were there before the last. Cuts
    begin anew behind them, so that a matrix that grows keeps its tiles; a symmetric one has the
    same on both axes.
    """

    n: int
    m: int
    side: int
    symmetric: bool
    row_ends: tuple[int, ...] = ()
    col_ends: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Tile]:
        cols = list(cuts(self.m, self.side, self.col_ends))
        for row, rows in enumerate(cuts(self.n, self.side, self.row_ends)):
            for col in range(row if self.symmetric else 0, len(cols)):
                yield Tile(row, col, rows, cols[col])

    def __len__(self) -> int:
        down, across = self.grid
        return down * (down + 1) // 2 if self.symmetric else down * across

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return sum(1 for _ in cuts(self.n, self.side, self.row_ends)), sum(
            1 for _ in cuts(self.m, self.side, self.col_ends)
        )

    @property
    def largest(self) -> int:
        """Samples on the longest side of a tile."""
        return min(self.side, max(self.n, self.m))

    def grown(self, n: int, m: int) -> "TilePlan":
        """The plan of the matrix with more samples behind, in which every tile of this is left."""
        ends = [
            (*old, size) if more > size else old
            for size, more, old in ((self.n, n, self.row_ends), (self.m, m, self.col_ends))
        ]
        return TilePlan(n, m, self.side, self.symmetric, *ends)


def cuts(n: int, side: int, ends: tuple[int, ...] = ()) -> Iterator[slice]:
    """Slices of at most ``side`` that cover n samples and begin anew at each of ``ends``."""
    for first, end in itertools.pairwise((0, *ends, n)):
        for start in range(first, end, side):
            yield slice(start, min(end, start + side))


@dataclass(frozen=True)
class Demand:
    """What a call needs, in bytes: ``fixed``, ``sample`` for each of a tile's side t, ``pair`` for
    each of its t * t pairs; or ``least``, which something before the tiles takes. ``margin``: bytes
    by which the same call may need more the next time. ``kept``: for columns that stay from tile
    to tile.
    """

    fixed: int
    sample: int
    pair: int
    least: int = 0
    margin: int = 0
    kept: int = 0

    def bytes(self, side: int) -> int:
        """Bytes of a call with tiles of this side."""
        tiles = self.fixed + self.kept + side * self.sample + side * side * self.pair
        return max(self.least, tiles)

    def limit(self, budget: int | None) -> int:
        """Bytes that a call may take; ``None``: 2 GB for what a tile needs."""
        return max(self.least, self.fixed + _FREE) if budget is None else budget

    def keeping(self, plan: TilePlan, budget: int | None, column: int) -> "Demand":
        """The same with columns that stay, as far as tiles leave room for them.

        Args:
            plan: the tiles.
            budget: bytes for the whole call, as in :func:`plan_tiles`.
            column: bytes of one that stays.
        """
        room = min(self.limit(budget) - self.bytes(plan.largest), _MOST_KEPT)
        wanted = plan.m * column if plan.grid[0] > 1 else 0
        return replace(self, kept=max(0, min(room, wanted)))


def plan_tiles(
    n: int, m: int, demand: Demand, *, budget: int | None, symmetric: bool, side: int | None = None
) -> TilePlan:
    """The largest tiles that keep the promise.

    Args:
        n: rows.
        m: columns.
        demand: bytes as a function of the tile's side.
        budget: bytes for the whole call; ``None``: 2 GB for what a tile needs.
        symmetric: only the upper triangle is computed.
        side: take this side (a store that is resumed has one), checked against the budget.

    Returns:
        The plan.

    Raises:
        OptionError: not even the smallest tiles fit; the message names the smallest budget that
            does.
    """
    limit = demand.limit(budget)
    sides = (
        [side] if side else [_LARGEST >> k for k in range(7) if _LARGEST >> k >= _LANES] + [4, 1]
    )
    fitting = next((s for s in sides if demand.bytes(min(s, max(n, m))) <= limit), None)
    if fitting is None and budget is None:
        fitting = sides[-1]
    if fitting is None:
        least = demand.bytes(min(sides[-1], max(n, m))) + demand.margin
        raise OptionError(
            f"memory={limit} bytes is too little for {n} x {m} samples: the smallest that works is "
            f"{least} bytes. Give that or more."
        )
    return TilePlan(n, m, fitting, symmetric)
