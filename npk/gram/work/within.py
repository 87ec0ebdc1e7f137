"""How far a tile is that takes long."""

import contextlib
import time
from types import TracebackType

from npk.gram.tiles import Tile
from npk.progress import Advance, Progress

_LONG = 2.0  # seconds from which on a tile tells how far it is


class Within(contextlib.AbstractContextManager["Within", None]):
    """A task for one tile, opened once its first rows say that it takes long; the context ends it.

    Args:
        progress: where it is told.
        tile: that is computed.
        offset: number of its first column minus that of its first row, where pairs left of the
            diagonal are left out; else ``None``.
    """

    def __init__(self, progress: Progress, tile: Tile, offset: int | None) -> None:
        self.progress, self.shape, self.offset = progress, tile.shape, offset
        self._shown, self._advance, self._done = contextlib.ExitStack(), None, 0
        self._start = 0.0

    _advance: Advance | None

    def __enter__(self) -> "Within":
        self._start = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.close()

    def told(self, rows: int) -> None:
        """Take note of how many rows are done."""
        done, total = self.pairs(rows), self.pairs(self.shape[0])
        if self._advance is None and done < total:
            seconds = time.monotonic() - self._start
            if seconds * total > _LONG * done:
                task = self.progress.task("pairs of the tile", total, done)
                self._advance = self._shown.enter_context(task)
        elif self._advance is not None:
            self._advance(done - self._done)
        self._done = done

    def pairs(self, rows: int) -> int:
        """Pairs of samples in the first rows."""
        n, m = rows, self.shape[1]
        if self.offset is None or self.offset > 0:
            return n * m
        # of row i those from the diagonal on
        return sum(m - min(m, max(0, i - self.offset)) for i in range(n))
