"""The work on one kernel matrix: its tiles in order, on the kernel's scale, and what has to be said about the result."""

import functools
import itertools
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.backends import Backend
from npk.backends.cpu.threads import torch_threads_kept
from npk.dual.device_gates import DeviceGates
from npk.dual.gate_store import GateStore
from npk.dual.gate_table import GateTable
from npk.dual.recursion import Collapse, Recursion
from npk.errors import DeviceMemoryError, KernelWarning, ScaleError
from npk.gram.tiles import Demand, Tile, TilePlan, cuts

if TYPE_CHECKING:
    from npk.gram.kernel import NeuralPathKernel

_BAND, _FEW = 256, 16  # samples of a diagonal: read together, and computed together
_MARGIN = 100  # a process does not hold exactly the same at every start; the part of it that is enough


Gates = GateTable | GateStore | DeviceGates


class Work:
    """One matrix: gates, backend, plan; gives the tiles.

    Args:
        kernel: the options, and where progress is told.
        rows: gates of the rows.
        cols: gates of the columns; ``None``: the rows.
        plan: how the matrix is cut.
        backend: made ready for these gates.
        exponents: power of two of each step of the recursion.
    """

    def __init__(
        self, kernel: "NeuralPathKernel", rows: Gates, cols: Gates | None, plan: TilePlan, backend: Backend, exponents: np.ndarray
    ) -> None:
        self.kernel, self.rows, self.cols = kernel, rows, rows if cols is None else cols
        self.plan, self.backend, self.exponents = plan, backend, exponents
        self.deep = least_share(backend.recursion) < np.log(np.finfo(kernel.dtype).tiny)
        self.roots = self._roots() if kernel.scale == "cosine" or self.deep else None
        self.found = Findings()
        self._band: tuple[int, Any] = (-1, None)
        self._memories = itertools.cycle([backend.memory_of(plan.largest) for _ in range(backend.ahead + 1)])
        self._most = plan.largest  # samples on a side of what the device has room for

    def _roots(self) -> tuple[np.ndarray, np.ndarray]:
        """Square roots of both diagonals (scaled); 0 for dead inputs."""
        right = np.sqrt(diagonal(self.backend, self.cols, self.exponents))
        return (right if self.rows is self.cols else np.sqrt(diagonal(self.backend, self.rows, self.exponents))), right

    def tiles(self, todo: Sequence[Tile] | None = None) -> Iterator[tuple[Tile, np.ndarray]]:
        """Pairs (tile, values on the kernel's scale); the values are overwritten by the next tile's.

        Args:
            todo: the tiles of the plan that are wanted, in its order; ``None``: all.
        """
        todo = list(self.plan) if todo is None else todo
        with self.kernel.progress.task("kernel tiles", len(self.plan), len(self.plan) - len(todo)) as advance:
            for tile, finished in self._begun(todo):
                yield tile, finished()
                advance(1)
        self.found.report(self.plan, self.deep)

    def _begun(self, todo: Sequence[Tile]) -> Iterator[tuple[Tile, Callable[[], np.ndarray]]]:
        """Tiles and what gives their values; so many later ones are under way as the backend takes."""
        waiting: deque[tuple[Tile, Callable[[], np.ndarray]]] = deque()
        for tile in todo:
            waiting.append((tile, self._begin(tile)))
            if len(waiting) > self.backend.ahead:
                yield waiting.popleft()
        yield from waiting

    def compute(self, tile: Tile) -> np.ndarray:
        """The values of a tile, on the kernel's scale; they are overwritten by the next tile's."""
        return self._begin(tile)()

    def _begin(self, tile: Tile) -> Callable[[], np.ndarray]:
        """What gives the values of a tile that is under way from now on."""
        started = self._start(tile, next(self._memories))

        def finished() -> np.ndarray:
            values = self._finish(tile, started())
            self.found += self.findings(tile, values)
            return values

        return finished

    def _start(self, tile: Tile, memory: np.ndarray | None) -> Callable[[], np.ndarray]:
        """The tile as a whole where there is room for it, else in pieces."""
        pieces = functools.partial(self._in_pieces, tile, memory)
        if max(tile.shape) > self._most:
            return pieces
        try:
            if self._band[0] != tile.row:
                self._band = tile.row, None  # frees the band before
                self._band = tile.row, self.backend.side(self.rows.take(tile.rows))
            right = self.backend.side(self.cols.take(tile.cols))
            return self.backend.start(self._band[1], right, self.exponents, self._offset(tile.rows, tile.cols), memory)
        except DeviceMemoryError as error:
            self._make_smaller(tile.shape, error)
            return pieces

    def _in_pieces(self, tile: Tile, memory: np.ndarray | None) -> np.ndarray:
        """A tile of which the device takes only a part at a time."""
        self._band = (-1, None)
        values = np.empty(tile.shape, self.kernel.dtype) if memory is None else memory[: math.prod(tile.shape)].reshape(tile.shape)
        values[:] = 0
        todo = [(tile.rows, tile.cols)]
        while todo:
            rows, cols = todo.pop()
            if max(rows.stop - rows.start, cols.stop - cols.start) > self._most:
                todo += itertools.product(_parts(rows, self._most), _parts(cols, self._most))
                continue
            try:
                sides = self.backend.side(self.rows.take(rows)), self.backend.side(self.cols.take(cols))
                made = self.backend.tile(*sides, self.exponents, self._offset(rows, cols))
                values[_moved(rows, -tile.rows.start), _moved(cols, -tile.cols.start)] = made
            except DeviceMemoryError as error:
                self._make_smaller((rows.stop - rows.start, cols.stop - cols.start), error)
                todo.append((rows, cols))
        return values

    def _offset(self, rows: slice, cols: slice) -> int | None:
        return cols.start - rows.start if self.plan.symmetric else None

    def _make_smaller(self, shape: tuple[int, int], error: DeviceMemoryError) -> None:
        """Halve what is asked of the device at once, and say so."""
        if max(shape) == 1:
            raise error
        self._most = -(-max(shape) // 2)
        text = f"the device has no room for a tile of {shape[0]} x {shape[1]}: in pieces of {self._most} from now on"
        self.kernel.progress.note("pieces", text, side=self._most)

    def _finish(self, tile: Tile, values: np.ndarray) -> np.ndarray:
        """A tile on the kernel's scale, in place."""
        from npk.gram.passes import settle

        whole = self.plan.symmetric and tile.row == tile.col
        exponent = 0 if self.kernel.scale == "cosine" else int(self.exponents[-1])
        with torch_threads_kept(), np.errstate(over="ignore", under="ignore"):
            top = float(settle(values, float(np.ldexp(1.0, exponent)), whole).max())
        if not np.isfinite(top):
            raise ScaleError(
                f"kernel values leave the range of {self.kernel.dtype} between layers. "
                'Use dtype="float64"; if it is float64 already, the samples differ too much in size: normalize them.'
            )
        if self.roots is None or self.kernel.scale != "cosine":
            check_range(top, exponent, self.kernel)
            return values
        roots = np.outer(self.roots[0][tile.rows], self.roots[1][tile.cols])
        shares = np.divide(values, roots, out=np.zeros(values.shape), where=roots > 0)
        if whole:
            np.fill_diagonal(shares, (self.roots[0][tile.rows] > 0).astype(float))
        return shares.astype(self.kernel.dtype)

    def findings(self, tile: Tile, values: np.ndarray) -> "Findings":
        """Dead inputs, and entries between live samples that are 0."""
        whole, lost = self.plan.symmetric and tile.row == tile.col, 0
        twice = 2 if self.plan.symmetric and not whole else 1
        if self.deep and self.roots is not None:
            live = np.outer(self.roots[0][tile.rows] > 0, self.roots[1][tile.cols] > 0)
            lost = twice * int(np.count_nonzero(live & (values == 0)))
        return Findings(int((np.diagonal(values) == 0).sum()) if whole else 0, lost, twice * values.size)


@dataclass(frozen=True)
class Findings:
    """What a user should know of the entries that were computed: dead inputs, and zeros that may be underflows."""

    dead: int = 0
    lost: int = 0
    entries: int = 0

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(self.dead + other.dead, self.lost + other.lost, self.entries + other.entries)

    def report(self, plan: TilePlan, deep: bool) -> None:
        """Warn of how many inputs are dead, and how many entries may have underflowed."""
        if self.dead:
            why = "no active path, or one that underflowed" if deep else "no active path"
            _warn(f"{self.dead} of {plan.n} samples have {why}: K(x, x) = 0.")
        if self.lost:
            _warn(
                f"{self.lost} of {self.entries} entries are 0 between live samples; in a network this deep they may have underflowed. "
                'Use dtype="float64" to tell.'
            )


def _parts(whole: slice, side: int) -> list[slice]:
    """Parts of at most ``side`` of a slice."""
    return [_moved(part, whole.start) for part in cuts(whole.stop - whole.start, side)]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _warn(text: str) -> None:
    warnings.warn(text, KernelWarning, stacklevel=6)


def memory_demand(
    backend: Backend, kernel: "NeuralPathKernel", held: int, shape: tuple[int, int] = (0, 0), *, gates: int = 0, before: int = 0
) -> Demand:
    """What a kernel takes.

    Args:
        backend: made ready for the gates.
        kernel: the options.
        held: bytes of what is in memory all the time, such as samples and gates.
        shape: of the result in memory; nothing for one on disk.
        gates: bytes of a sample's gates on disk; 0 for gates in memory.
        before: bytes that are needed before the tiles, beside what is held.

    Returns:
        The bytes: threads, masks of two sides of a tile, as they are formed and once more side by side, and the tile's pairs.
    """
    item = np.dtype(kernel.dtype).itemsize
    fixed = kernel.beside + held + shape[0] * shape[1] * item + (os.cpu_count() or 1) * backend.bytes_a_thread
    # what is written is copied, and the matrix can be read under the same promise
    pair = backend.bytes_a_pair + (0 if any(shape) else 3 * item)
    pair += 2 * 8 + item if kernel.scale == "cosine" else 0
    return Demand(fixed, 4 * backend.bytes_a_sample + 2 * gates, pair, kernel.beside + held + before, kernel.beside // _MARGIN)


def diagonal(backend: Backend, gates: Gates, exponents: np.ndarray) -> np.ndarray:
    """K(x, x) of each sample divided by 2**exponents[-1], ``(n,)`` float64."""
    found = np.empty(len(gates))
    for band in cuts(len(gates), _BAND):
        table = gates.take(band)
        for few in cuts(len(table), _FEW):
            side = backend.side(table.take(few))
            found[band][few] = np.diagonal(backend.tile(side, side, exponents))
    return found


def check_range(top: float, exponent: int, kernel: "NeuralPathKernel") -> None:
    """Whether values up to top * 2**exponent are exact in the kernel's dtype.

    Values far below 2**exponent, the size of the matrix, may be tiny: whether a tile has only such ones depends on how the matrix is cut.

    Raises:
        ScaleError: values outside the range of the dtype.
    """
    info = np.finfo(kernel.dtype)
    power = np.log2(top) + exponent if top > 0 else 0.0
    if power >= info.maxexp or max(power, exponent) < np.log2(info.tiny) + info.nmant:
        raise ScaleError(
            f'with scale="{kernel.scale}" the largest kernel values are about 2**{exponent}, outside the range of {kernel.dtype}. '
            'Use scale="cosine", or dtype="float64".'
        )


def least_share(recursion: Recursion) -> float:
    """Logarithm of the smallest value other than 0 that a product of overlaps can have relative to the diagonal's bound."""
    return -sum(float(np.log(step.channels * step.positions)) for step in recursion.steps if isinstance(step, Collapse))
