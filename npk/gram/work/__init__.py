"""The work on one kernel matrix: its tiles, their scale, and what has to be said of them."""

import functools
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from npk.backends import Backend
from npk.errors import DeviceMemoryError, KernelWarning, ScaleError, warn
from npk.gram.engine import Engine
from npk.gram.options import KernelOptions
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, Tile, TilePlan, cuts
from npk.gram.work.bands import Band, Bands
from npk.gram.work.sides import Gates, Samples, Sides
from npk.gram.work.within import Within

_TOGETHER = 64  # rows that are multiplied by powers of their own at once
# a process does not hold exactly the same at every start; the part of it that is enough
_MARGIN = 100
# waits for the values of a tile, and writes them into the whole matrix where that is in memory
Finished = Callable[[np.ndarray | None], np.ndarray]


class Work:
    """One matrix: gates, backend, plan; gives the tiles.

    Args:
        engine: of the kernel, with its options, and where progress is told.
        rows: gates of the rows.
        cols: gates of the columns; ``None``: the rows.
        plan: how the matrix is cut.
        backend: made ready for these gates.
        exponents: power of two of each step of the recursion, and of the size of the matrix.
        roots: square roots of the diagonal of the columns, where they are known.
        room: bytes for columns that stay in memory for later tiles.
    """

    def __init__(
        self,
        engine: Engine,
        rows: Gates,
        cols: Gates | None,
        plan: TilePlan,
        backend: Backend,
        exponents: np.ndarray,
        roots: np.ndarray | None = None,
        room: int = 0,
    ) -> None:
        self.engine, self.options, self.progress = engine, engine.options, engine.progress
        self.rows, self.cols = rows, rows if cols is None else cols
        self.plan, self.backend, self.exponents = plan, backend, exponents
        self.sides = Sides(engine, backend, exponents)
        self.roots = self._roots(roots) if self.options.scale == "cosine" else None
        self.found = Findings()
        self.bands = Bands(self.sides, self.rows, self.cols, room)
        self._memories = itertools.cycle(
            [backend.memory_of(plan.largest) for _ in range(backend.ahead + 1)]
        )
        self._most = plan.largest  # samples on a side of what the device has room for

    def _roots(self, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Square roots of both diagonals (balanced and scaled); 0 for dead inputs."""
        right = np.sqrt(self.sides.diagonal(self.cols)[0]) if known is None else known
        return (
            right if self.rows is self.cols else np.sqrt(self.sides.diagonal(self.rows)[0])
        ), right

    @classmethod
    def of(cls, engine: Engine, store: GramStore, *, one_device: bool = False) -> "Work":
        """The work on a store, from what is in it alone; ``one_device``: on the current device
        only, since others have processes too.
        """
        rows, cols = store.rows, None if store.plan.symmetric else store.cols
        backend = engine.backend(store.cols.take(slice(0, 1)), one_device=one_device)
        return cls(engine, rows, cols, store.plan, backend, store.exponents)

    def matrix(self) -> np.ndarray:
        """The whole matrix, in memory."""
        from npk.gram.work.passes import new_matrix

        whole = new_matrix((self.plan.n, self.plan.m), self.options.dtype)
        for _ in self.tiles(whole=whole):
            pass
        return whole

    def tiles(
        self, todo: Sequence[Tile] | None = None, whole: np.ndarray | None = None
    ) -> Iterator[tuple[Tile, np.ndarray]]:
        """Pairs (tile, values on the kernel's scale).

        Args:
            todo: the tiles of the plan that are wanted, in its order; ``None``: all.
            whole: the matrix, where it is in memory: each tile is written where it belongs, and its
                mirror image below the diagonal of a symmetric one. ``None``: the values are
                overwritten by the next tile's.
        """
        todo = list(self.plan) if todo is None else todo
        with self.progress.task(
            "kernel tiles", len(self.plan), len(self.plan) - len(todo)
        ) as advance:
            for tile, finished in self._begun(todo):
                yield tile, finished(whole)
                advance(1)
        self.found.report(self.plan.n, self.options.dtype)

    def _begun(self, todo: Sequence[Tile]) -> Iterator[tuple[Tile, Finished]]:
        """Tiles and what gives their values; so many later ones are under way as the backend takes."""
        waiting: deque[tuple[Tile, Finished]] = deque()
        for tile in todo:
            waiting.append((tile, self._begin(tile)))
            if len(waiting) > self.backend.ahead:
                yield waiting.popleft()
        yield from waiting

    def compute(self, tile: Tile) -> np.ndarray:
        """The values of a tile, on the kernel's scale; they are overwritten by the next tile's."""
        return self._begin(tile)(None)

    def _begin(self, tile: Tile) -> Finished:
        """What gives the values of a tile that is under way from now on."""
        bands = self.bands.of(tile)
        within = Within(self.progress, tile, self._offset(tile.rows, tile.cols))
        started = self._start(tile, *bands, next(self._memories), within)
        rows, cols = (band.samples for band in bands)  # masks on a device are free again
        del bands

        def finished(whole: np.ndarray | None) -> np.ndarray:
            with within:
                values = started()
            values = self._finish(tile, rows, cols, values, whole)
            self.found += self._findings(tile, rows, cols, values)
            return values

        return finished

    def _start(
        self, tile: Tile, rows: Band, cols: Band, memory: np.ndarray | None, within: Within
    ) -> Callable[[], np.ndarray]:
        """The tile as a whole where there is room for it, else in pieces."""
        pieces = functools.partial(self._in_pieces, tile, rows.samples, cols.samples, memory)
        if max(tile.shape) > self._most:
            return pieces
        try:
            offset = self._offset(tile.rows, tile.cols)
            return self.backend.start(
                rows.side, cols.side, self.exponents, offset, memory, within.told
            )
        except DeviceMemoryError as error:
            self._make_smaller(tile.shape, error)
            return pieces

    def _in_pieces(
        self, tile: Tile, rows: Samples, cols: Samples, memory: np.ndarray | None
    ) -> np.ndarray:
        """A tile of which the device takes only a part at a time."""
        self.bands.release()
        if memory is None:
            values = np.empty(tile.shape, self.options.dtype)
        else:
            values = memory[: math.prod(tile.shape)].reshape(tile.shape)
        values[:] = 0
        todo = [(slice(0, len(rows)), slice(0, len(cols)))]
        while todo:
            down, across = todo.pop()
            shape = down.stop - down.start, across.stop - across.start
            if max(shape) > self._most:
                todo += itertools.product(_parts(down, self._most), _parts(across, self._most))
                continue
            try:
                sides = (
                    self.backend.side(rows.table.take(down)),
                    self.backend.side(cols.table.take(across)),
                )
                offset = self._offset(
                    _moved(down, tile.rows.start), _moved(across, tile.cols.start)
                )
                values[down, across] = self.backend.tile(*sides, self.exponents, offset)
            except DeviceMemoryError as error:
                self._make_smaller(shape, error)
                todo.append((down, across))
        return values

    def _offset(self, rows: slice, cols: slice) -> int | None:
        return cols.start - rows.start if self.plan.symmetric else None

    def _make_smaller(self, shape: tuple[int, int], error: DeviceMemoryError) -> None:
        """Halve what is asked of the device at once, and say so."""
        if max(shape) == 1:
            raise error
        self._most = -(-max(shape) // 2)
        text = (
            f"the device has no room for a tile of {shape[0]} x {shape[1]}: in pieces of "
            f"{self._most} from now on"
        )
        self.progress.note("pieces", text, side=self._most)

    def _finish(
        self, tile: Tile, rows: Samples, cols: Samples, values: np.ndarray, whole: np.ndarray | None
    ) -> np.ndarray:
        """A tile on the kernel's scale: in its place of the whole matrix, or in its own memory."""
        from npk.gram.work.passes import settle

        values[rows.left_out], values[:, cols.left_out] = 0, 0
        plain = rows.plain and cols.plain and self.roots is None
        exponent = self.sides.unit if plain else 0
        if whole is not None and plain:
            top, values = self._placed(tile, values, whole, exponent)
        else:
            on_diagonal = self.plan.symmetric and tile.row == tile.col
            top = settle(values, np.ldexp(1.0, exponent), values, mirrored=on_diagonal)
        if not np.isfinite(top):
            raise ScaleError(
                f"kernel values leave the range of {self.options.dtype} between layers. "
                'Use dtype="float64"; if it is float64 already, the samples differ too much in '
                "size: normalize them."
            )
        if plain:
            power = np.log2(top) + exponent if top > 0 else -np.inf
            check_range(power, int(self.exponents[-1]), self.options)
            return values
        values = (self._sized if self.roots is None else self._cosines)(tile, rows, cols, values)
        return values if whole is None else self._placed(tile, values, whole, 0)[1]

    def _placed(
        self, tile: Tile, values: np.ndarray, whole: np.ndarray, exponent: int
    ) -> tuple[float, np.ndarray]:
        """The largest absolute value of a tile, and the tile where it belongs, times a power of
        two.
        """
        from npk.gram.work.passes import settle

        corner, mirrored = (tile.rows.start, tile.cols.start), self.plan.symmetric
        top = settle(values, np.ldexp(1.0, exponent), whole, *corner, mirrored=mirrored)
        return top, whole[tile.rows, tile.cols]

    def _cosines(self, tile: Tile, rows: Samples, cols: Samples, values: np.ndarray) -> np.ndarray:
        assert self.roots is not None
        roots = self.roots[0][tile.rows], self.roots[1][tile.cols]
        products = np.outer(*roots)
        shares = np.divide(values, products, out=np.zeros(values.shape), where=products > 0)
        for some, others, exact in self.sides.exactly(rows, cols):
            left, right = roots[0][some][:, None], roots[1][others]
            shares[np.ix_(some, others)] = np.divide(
                exact / np.where(left > 0, left, 1),
                right,
                out=0 * exact,
                where=(left > 0) & (right > 0),
            )
        if self.plan.symmetric and tile.row == tile.col:
            _mirror(shares, rows.wide)
            np.fill_diagonal(shares, (roots[0] > 0).astype(float))
        return shares.astype(self.options.dtype)

    def _sized(self, tile: Tile, rows: Samples, cols: Samples, values: np.ndarray) -> np.ndarray:
        """Each entry times its own power of two; those that the dtype did not hold from float64."""
        left, right, top = rows.powers + self.sides.unit, cols.powers, -np.inf
        with np.errstate(over="ignore", under="ignore"):
            for part in cuts(len(values), _TOGETHER):
                values[part] = np.ldexp(
                    values[part].astype(np.float64), left[part][:, None] + right
                )
            for some, others, exact in self.sides.exactly(rows, cols):
                values[np.ix_(some, others)] = np.ldexp(exact, left[some][:, None] + right[others])
            if self.plan.symmetric and tile.row == tile.col:
                _mirror(values, rows.wide)
            largest = np.abs(values).max()
            top = np.log2(largest) if largest > 0 else -np.inf
        check_range(top, int(self.exponents[-1]), self.options)
        return values

    def findings(self, tile: Tile, values: np.ndarray) -> "Findings":
        """What has to be said of a tile that is there already."""
        rows, cols = self.bands.of(tile)
        return self._findings(tile, rows.samples, cols.samples, values)

    def _findings(self, tile: Tile, rows: Samples, cols: Samples, values: np.ndarray) -> "Findings":
        """Dead inputs, samples that no dtype holds, and entries of live ones below the range."""
        whole = self.plan.symmetric and tile.row == tile.col
        dead: np.ndarray = np.equal(np.diagonal(values), 0) if rows.live is None else ~rows.live
        lost = 0 if rows.lost is None else int(rows.lost.sum())
        twice = 2 if self.plan.symmetric and not whole else 1
        if self.roots is not None:
            small = 0
        else:
            small = twice * _below(rows, cols, np.finfo(self.options.dtype).minexp)
        return Findings(
            int(dead.sum()) if whole else 0, lost if whole else 0, small, twice * values.size
        )


@dataclass(frozen=True)
class Findings:
    """What a user should know of computed entries: dead inputs, and what leaves the range."""

    dead: int = 0
    lost: int = 0
    small: int = 0
    entries: int = 0

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(
            self.dead + other.dead,
            self.lost + other.lost,
            self.small + other.small,
            self.entries + other.entries,
        )

    def report(self, n: int, dtype: str) -> None:
        """Warn of how many inputs are dead, and how many entries are not exact."""
        if self.dead:
            text = f"{self.dead} of {n} samples have no active path: K(x, x) = 0."
            warn(text, KernelWarning)
        if self.lost:
            text = (
                f"{self.lost} of {n} samples have active paths whose values are too far apart"
                " for float64: what underflowed is missing from the entries of these samples."
            )
            warn(text, KernelWarning)
        if self.small:
            more = ', or dtype="float64"' if dtype == "float32" else ""
            text = (
                f"{self.small} of {self.entries} entries between live samples are below the range"
                f' of {dtype}: they came out as 0, or rounded. Use scale="cosine"{more}.'
            )
            warn(text, KernelWarning)


def _below(rows: Samples, cols: Samples, minexp: int) -> int:
    """How many pairs of live samples have roots of K(x, x) K(x', x') below a power of two."""
    if rows.size is None and cols.size is None:
        return 0
    left, right = (np.zeros(len(side)) if side.size is None else side.size for side in (rows, cols))
    right = np.sort(right[np.isfinite(right)])
    return int(np.searchsorted(right, 2 * minexp - left[np.isfinite(left)], side="left").sum())


def _mirror(values: np.ndarray, some: np.ndarray) -> None:
    """Make some rows and columns symmetric: what is right of the diagonal goes below it."""
    for i in some:
        values[i:, i] = values[i, i:]
        values[i, :i] = values[:i, i]


def _parts(whole: slice, side: int) -> list[slice]:
    """Parts of at most ``side`` of a slice."""
    return [_moved(part, whole.start) for part in cuts(whole.stop - whole.start, side)]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def memory_demand(
    backend: Backend,
    engine: Engine,
    held: int,
    shape: tuple[int, int] = (0, 0),
    *,
    gates: int = 0,
    before: int = 0,
) -> Demand:
    """What a kernel takes.

    Args:
        backend: made ready for the gates.
        engine: of the kernel.
        held: bytes of what is in memory all the time, such as samples and gates.
        shape: of the result in memory; nothing for one on disk.
        gates: bytes of a sample's gates on disk; 0 for gates in memory.
        before: bytes that are needed before the tiles, beside what is held.

    Returns:
        The bytes: threads, masks of two sides of a tile, as they are formed and once more as the
            backend reads them, and the tile's pairs.
    """
    beside = engine.promise.beside
    item = np.dtype(engine.options.dtype).itemsize
    fixed = (
        beside + held + shape[0] * shape[1] * item + (os.cpu_count() or 1) * backend.bytes_a_thread
    )
    # what is written is copied, and the matrix can be read under the same promise
    pair = backend.bytes_a_pair + (0 if any(shape) else 3 * item)
    pair += 2 * 8 + item if engine.options.scale == "cosine" else 0
    return Demand(
        fixed,
        4 * backend.bytes_a_sample + 2 * gates,
        pair,
        beside + held + before,
        beside // _MARGIN,
    )


def check_range(power: float, exponent: int, options: KernelOptions) -> None:
    """Whether values up to 2**power are exact in the dtype of the options.

    Values far below 2**exponent, the size of the matrix, may be tiny: whether a tile has only such
    ones depends on how the matrix is cut.

    Raises:
        ScaleError: values outside the range of the dtype.
    """
    info = np.finfo(options.dtype)
    if power >= info.maxexp or max(power, exponent) < np.log2(info.tiny) + info.nmant:
        largest = exponent if power < info.maxexp else max(exponent, info.maxexp)
        raise ScaleError(
            f'with scale="{options.scale}" the largest kernel values are about 2**{largest}, '
            f"outside the range of {options.dtype}. "
            'Use scale="cosine", or dtype="float64".'
        )
