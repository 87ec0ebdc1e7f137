"""Rows and columns of tiles as these come: each is made ready for the backend once, as long as there
is room for it.
"""

from functools import cached_property
from typing import Any

from npk.backends import Backend
from npk.gram.tiles import Tile
from npk.gram.work.sides import Gates, Samples, Sides


class Band:
    """Samples of one side of tiles, and what the backend makes of them.

    Args:
        samples: of equal size.
        backend: of the tiles.
    """

    def __init__(self, samples: Samples, backend: Backend) -> None:
        self.samples, self.backend = samples, backend

    @property
    def nbytes(self) -> int:
        """Bytes of the gates, which may be a part of others, and of the masks."""
        return self.samples.table.nbytes + len(self.samples) * self.backend.bytes_a_sample

    @cached_property
    def side(self) -> Any:
        """What the backend takes of one side of a tile."""
        return self.backend.side(self.samples.table)


class Bands:
    """Both sides of tiles, one tile after the other.

    Args:
        sides: makes samples ready.
        rows: gates of the rows.
        cols: gates of the columns; the rows themselves of a symmetric matrix.
        room: bytes for columns that stay; those of a symmetric matrix stay until they were rows.
    """

    def __init__(self, sides: Sides, rows: Gates, cols: Gates, room: int) -> None:
        self.sides, self.rows, self.cols, self.room = sides, rows, cols, room
        self._row: tuple[int, Band | None] = (-1, None)
        self._kept: dict[int, Band] = {}

    def of(self, tile: Tile) -> tuple[Band, Band]:
        """Rows and columns of a tile, the same band of a tile on the diagonal."""
        if self._row[0] != tile.row:
            self._row = tile.row, None  # frees the band before
            self._row = tile.row, self._next_row(tile)
        rows = self._row[1]
        assert rows is not None
        same = self.rows is self.cols and (tile.rows.start, tile.rows.stop) == (
            tile.cols.start,
            tile.cols.stop,
        )
        return rows, rows if same else self._column(tile)

    def release(self) -> None:
        """Keep none."""
        self._row = (-1, None)
        self.room += sum(band.nbytes for band in self._kept.values())
        self._kept.clear()

    def _next_row(self, tile: Tile) -> Band:
        """A band of rows: of a symmetric matrix it was one of columns in the tiles above."""
        if self.rows is self.cols and tile.row in self._kept:
            band = self._kept.pop(tile.row)
            self.room += band.nbytes
            return band
        return self._made(self.rows, tile.rows)

    def _column(self, tile: Tile) -> Band:
        if tile.col in self._kept:
            return self._kept[tile.col]
        band = self._made(self.cols, tile.cols)
        if band.nbytes <= self.room:
            self.room -= band.nbytes
            self._kept[tile.col] = band
        return band

    def _made(self, gates: Gates, samples: slice) -> Band:
        return Band(self.sides.samples(gates.take(samples)), self.sides.backend)
