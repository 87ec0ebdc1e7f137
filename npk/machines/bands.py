"""A symmetric matrix multiplied on a device that may be too small for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.utils import gen_batches

from npk.errors import OptionError
from npk.gram.matrix import Gram

_BAND = 1 << 28  # bytes of a band of an array, at most: large enough that the bus is busy
# a band takes at most this part of what is free: it is there once more in float64, and vectors need
# room
_SHARE = 8


class Device(Protocol):
    """What bands ask of a device."""

    xp: Any

    def put(self, values: np.ndarray) -> Any:
        """An array of the host on the device."""
        ...

    def free(self) -> int | None:
        """Bytes that are free on the device."""
        ...


@dataclass(frozen=True)
class Band:
    """Some rows of a matrix or tile, ``mirrored`` where the one below the diagonal is missing."""

    rows: slice
    cols: slice
    values: Any
    mirrored: bool = False


class BandedMatrix:
    """K on a device: it stays there if it takes no more than half of what is free, else its bands
    go there in every product.

    Args:
        K: an array of float64, or a :class:`npk.Gram`: then its tiles are the bands.
        device: where products are computed, in float64.

    Raises:
        OptionError: K is something else.
    """

    def __init__(self, K: Any, device: Device) -> None:
        if not isinstance(K, (np.ndarray, Gram)):
            raise OptionError(
                f"K is a {type(K).__name__}, a GPU multiplies arrays and npk.Gram. "
                f'Pass one of them, or use backend="cpu".'
            )
        self.K, self.device, free = K, device, device.free() or 0
        self.rows = max(1, min(_BAND, free // _SHARE) // max(1, K.nbytes // len(K)))
        self.kept = [self._taken(band) for band in self._bands()] if 2 * K.nbytes <= free else None

    def __matmul__(self, V: Any) -> Any:
        """K @ V of (n, columns) on the device; sums over bands run in their order."""
        result = self.device.xp.zeros(V.shape, np.float64)
        for band in self.kept or map(self._taken, self._bands()):
            values = band.values.astype(np.float64, copy=False)
            result[band.rows] += values @ V[band.cols]
            if band.mirrored:
                result[band.cols] += values.T @ V[band.rows]
            del band, values  # before the next is brought
        return result

    def _taken(self, band: Band) -> Band:
        return Band(band.rows, band.cols, self.device.put(band.values), band.mirrored)

    def _bands(self) -> Iterator[Band]:
        """Of the host, or from the disk, one after the other."""
        if isinstance(self.K, Gram):
            for tile in self.K.store.plan:
                yield Band(tile.rows, tile.cols, self.K.store.read(tile), tile.row != tile.col)
        else:
            for rows in gen_batches(len(self.K), self.rows):
                yield Band(rows, slice(0, len(self.K)), self.K[rows])
