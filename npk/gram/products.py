"""What one pass over the tiles of a matrix gives: blocks, products, and views that change tiles as
they are read.

A view is again something with a plan and tiles to read, so that a :class:`npk.gram.matrix.Gram` can
be made of it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from npk.errors import ShapeError
from npk.gram.tiles import Tile

_FEW_COLUMNS = 64  # so few take less time to multiply with than the tile takes to read
# at most, while a tile is read and used: packed, unpacked, and once more in float64
BYTES_A_PAIR = 24


class OutOfRange(ShapeError, IndexError):
    """A row or column that the matrix does not have: caught as ``IndexError`` too, like NumPy's."""


class Plan(Protocol):
    """How a matrix is cut; of a symmetric one only the tiles on and above the diagonal exist."""

    @property
    def n(self) -> int:
        """Rows."""
        ...

    @property
    def m(self) -> int:
        """Columns."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether the tiles below the diagonal are those above, transposed."""
        ...

    def __iter__(self) -> Iterator[Tile]: ...

    def __len__(self) -> int: ...


class Tiles(Protocol):
    """A matrix cut into tiles: a :class:`npk.gram.store.GramStore`, or a view of one."""

    @property
    def plan(self) -> Plan:
        """How it is cut."""
        ...

    @property
    def manifest(self) -> dict:
        """Its "dtype", and "about": what it is of."""
        ...

    @property
    def path(self) -> Any:
        """Where it is."""
        ...

    def is_done(self, tile: Tile) -> bool:
        """Whether a tile is whole."""
        ...

    def read(self, tile: Tile) -> np.ndarray:
        """A tile that is done."""
        ...


class Transposed:
    """The transpose of tiles; it is its own plan."""

    symmetric = False

    def __init__(self, tiles: Tiles) -> None:
        self.tiles, self.manifest, self.path = tiles, tiles.manifest, tiles.path
        self.n, self.m = tiles.plan.m, tiles.plan.n

    @property
    def plan(self) -> "Transposed":
        """The cuts of the original, with rows and columns exchanged."""
        return self

    def __iter__(self) -> Iterator[Tile]:
        return map(_mirrored, self.tiles.plan)

    def __len__(self) -> int:
        return len(self.tiles.plan)

    def is_done(self, tile: Tile) -> bool:
        """Whether the tile of the original is whole."""
        return self.tiles.is_done(_mirrored(tile))

    def read(self, tile: Tile) -> np.ndarray:
        """A tile of the original, transposed."""
        return self.tiles.read(_mirrored(tile)).T


class Cosine:
    r"""Tiles of a symmetric kernel divided by the roots of its diagonal, as ``scale="cosine"``
    computes them.

    .. math:: K(x, x') / \sqrt{K(x, x) K(x', x')}

    Args:
        tiles: of a symmetric matrix.
        diagonal: K(x, x) of each sample, (n,).
    """

    def __init__(self, tiles: Tiles, diagonal: np.ndarray) -> None:
        self.tiles, self.plan, self.path = tiles, tiles.plan, tiles.path
        self.manifest = {**tiles.manifest, "about": {**tiles.manifest["about"], "scale": "cosine"}}
        self.roots = np.sqrt(np.asarray(diagonal, np.float64))

    def is_done(self, tile: Tile) -> bool:
        """Whether the tile of the original is whole."""
        return self.tiles.is_done(tile)

    def read(self, tile: Tile) -> np.ndarray:
        """A tile of the original, divided: 0 for dead samples, 1 on the diagonal for all others."""
        values = self.tiles.read(tile)
        shares = np.outer(self.roots[tile.rows], self.roots[tile.cols])
        # where it is 0 it stays 0: that is the value of dead samples
        np.divide(values, shares, out=shares, where=shares > 0)
        if tile.row == tile.col:
            np.fill_diagonal(shares, self.roots[tile.rows] > 0)
        return shares.astype(values.dtype, copy=False)


def multiply(tiles: Tiles, V: np.ndarray) -> np.ndarray:
    r"""The matrix times V in one pass: every tile is read once, those above the diagonal of a
    symmetric matrix serve twice.

    Args:
        tiles: of an (n, m) matrix.
        V: (m,) or (m, k), float64.

    Returns:
        (n,) or (n, k), float64; sums over tiles run in the plan's order, and the layout of V in
        memory changes no bit.
    """
    result = np.zeros((tiles.plan.n, *V.shape[1:]))
    # one for all tiles: the allocator keeps what is given back again and again
    room = np.empty(_largest(tiles.plan))
    with _threads_for(V):
        for tile in tiles.plan:
            values = _in_float64(tiles.read(tile), room)
            # BLAS rounds by the layout of what it is given
            result[tile.rows] += values @ np.ascontiguousarray(V[tile.cols])
            if tiles.plan.symmetric and tile.row != tile.col:
                result[tile.cols] += values.T @ np.ascontiguousarray(V[tile.rows])
            del values  # before the next is read
    return result


def _threads_for(V: np.ndarray) -> contextlib.AbstractContextManager:
    """One thread of BLAS for few columns: others would wait for the next tile without sleeping."""
    from threadpoolctl import threadpool_limits

    if V.size <= _FEW_COLUMNS * len(V):
        return threadpool_limits(1, user_api="blas")
    return contextlib.nullcontext()


def _in_float64(values: np.ndarray, room: np.ndarray) -> np.ndarray:
    if values.dtype == np.float64:
        return values
    wide = room[: values.size].reshape(values.shape)
    wide[...] = values
    return wide


def read_block(tiles: Tiles, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The block of some rows with some columns; tiles that it does not meet are not read, all
    others once.

    Args:
        tiles: of an (n, m) matrix.
        rows: numbers of rows in any order, (r,).
        cols: numbers of columns in any order, (c,).

    Returns:
        (r, c), in the dtype of the matrix.
    """
    block = np.empty((len(rows), len(cols)), tiles.manifest["dtype"])
    down, across = _Wanted(rows), _Wanted(cols)
    for tile in tiles.plan:
        faces = [(tile.rows, tile.cols, False), (tile.cols, tile.rows, True)]
        faces = faces if tiles.plan.symmetric and tile.row != tile.col else faces[:1]
        faces = [
            (down.within(r), across.within(c), mirrored)
            for r, c, mirrored in faces
            if down.meets(r) and across.meets(c)
        ]
        values = tiles.read(tile) if faces else block
        for (to_rows, from_rows), (to_cols, from_cols), mirrored in faces:
            block[_outer(to_rows, to_cols)] = (values.T if mirrored else values)[
                _outer(from_rows, from_cols)
            ]
    return block


def positions(index: Any, n: int, what: str) -> np.ndarray:
    """Numbers of the rows (or columns) that an index means.

    Args:
        index: a number, a slice, numbers in any order or a boolean array; negative numbers count
            from the end.
        n: how many there are.
        what: "row" or "column", for the messages.

    Returns:
        (count,) numbers from 0 to n - 1.

    Raises:
        OutOfRange: a number outside the matrix.
        ShapeError: the index is something else.
    """
    if isinstance(index, slice):
        return np.arange(n)[index]
    chosen = np.asarray(index)
    if chosen.dtype == bool and chosen.shape == (n,):
        return np.flatnonzero(chosen)
    if chosen.size == 0 and chosen.ndim == 1:
        return np.empty(0, np.intp)
    if chosen.dtype.kind not in "iu" or chosen.ndim != int(not is_number(index)):
        if isinstance(index, np.ndarray | list | tuple):
            came = f"an array of {chosen.dtype} and shape {chosen.shape}"
        else:
            came = repr(index)
        raise ShapeError(
            f"{what}s cannot be chosen by {came}. Give a number, a slice, a vector of "
            f"numbers or of {n} booleans."
        )
    chosen = np.atleast_1d(chosen)
    outside = chosen[(chosen < -n) | (chosen >= n)]
    if outside.size:
        raise OutOfRange(
            f"there is no {what} {outside[0]}: the matrix has {n} {what}s, numbered "
            f"from 0 to {n - 1} (or -{n} to -1)."
        )
    chosen = chosen.astype(np.intp)
    return np.where(chosen < 0, chosen + n, chosen)


def is_number(index: Any) -> bool:
    """Whether an index is one row or column, whose axis is dropped."""
    return isinstance(index, int | np.integer) and not isinstance(index, bool)


def bytes_in_flight(plan: Plan) -> int:
    """What the largest tile of a plan takes while it is read and used."""
    return BYTES_A_PAIR * _largest(plan)


def _largest(plan: Plan) -> int:
    """Pairs in the largest tile."""
    return max(
        ((t.rows.stop - t.rows.start) * (t.cols.stop - t.cols.start) for t in plan), default=0
    )


def _mirrored(tile: Tile) -> Tile:
    return Tile(tile.col, tile.row, tile.cols, tile.rows)


class _Wanted:
    """Rows (or columns) that are asked for, sorted, to find those that lie in a tile."""

    def __init__(self, asked: np.ndarray) -> None:
        self.order = np.argsort(asked, kind="stable")
        self.sorted = asked[self.order]

    def meets(self, span: slice) -> bool:
        """Whether any lies in a span of the axis."""
        first, end = np.searchsorted(self.sorted, (span.start, span.stop))
        return bool(first < end)

    def within(self, span: slice) -> tuple[Any, Any]:
        """Where those in a span go in the result, and where they are in the tile."""
        first, end = np.searchsorted(self.sorted, (span.start, span.stop))
        return _compact(self.order[first:end]), _compact(self.sorted[first:end] - span.start)


def _compact(index: np.ndarray) -> Any:
    """A slice where the numbers follow one another: it copies faster."""
    return slice(int(index[0]), int(index[-1]) + 1) if (np.diff(index) == 1).all() else index


def _outer(rows: Any, cols: Any) -> Any:
    return (
        (rows, cols) if isinstance(rows, slice) or isinstance(cols, slice) else np.ix_(rows, cols)
    )
