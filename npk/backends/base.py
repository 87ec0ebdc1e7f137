"""What a backend is: it applies a recursion to one tile of sample pairs."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from npk.recursion.steps import Recursion

Told = Callable[[int], None]


class Backend(ABC):
    """What the Gram asks of a backend: sides of a tile made ready once, then tiles of all pairs,
    and what they take.

    What has a default holds for a backend that computes a tile when its values are asked for, on
    threads of its own.
    """

    recursion: Recursion
    dtype: np.dtype
    ahead: int = 0  # tiles that may be under way while an earlier one is read
    keeps_sides: bool = False  # whether sides may stay for later tiles: in the host's memory

    @property
    @abstractmethod
    def bytes_a_sample(self) -> int:
        """Bytes of one sample on one side of a tile, in the host's memory."""

    @property
    @abstractmethod
    def bytes_a_pair(self) -> int:
        """Bytes of the host's memory that each pair of a tile takes."""

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread of the host."""
        return 0

    @abstractmethod
    def side(self, table: Any) -> Any:
        """What :meth:`tile` needs of one side's samples; a device takes gates on it."""

    @abstractmethod
    def tile(
        self,
        rows: Any,
        cols: Any,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> np.ndarray:
        """The kernel of all pairs divided by ``2**exponents[-1]``, ``(rows, cols)``, in the host's
        memory; of a recursion with several parts one after the other, ``(parts, rows, cols)``.

        Args:
            rows: what :meth:`side` gave of the row samples.
            cols: what it gave of the column samples.
            exponents: power of two of each step.
            diagonal: in a symmetric kernel, number of the first column minus that of the first row:
                entries left of the diagonal may then stay as they are in the memory.
            memory: flat array of the backend's dtype and finite numbers to put the result in, from
                :meth:`memory_of`; the next tile with it overwrites it. ``None``: a new one, as
                several parts need it.
            told: called with the number of rows that are done each time that some more are, where
                this takes long; a backend that gives the tile at once never calls it.

        Raises:
            DeviceMemoryError: a device has no room for the tile.
            BackendError: a device failed.
        """

    def start(
        self,
        rows: Any,
        cols: Any,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> Callable[[], np.ndarray]:
        """Begin what :meth:`tile` does; what is returned waits for the values."""
        return functools.partial(self.tile, rows, cols, exponents, diagonal, memory, told)

    def diagonal(self, side: Any, exponents: np.ndarray) -> np.ndarray:
        """The kernel of the pairs (x, x) divided by ``2**exponents[-1]``, ``(n,)`` or ``(parts,
        n)``: to the bit what :meth:`tile` has there.

        Args:
            side: what :meth:`side` gave of a few samples.
            exponents: power of two of each step.
        """
        return np.diagonal(self.tile(side, side, exponents), axis1=-2, axis2=-1)

    def memory_of(self, side: int) -> np.ndarray | None:
        """Memory for tiles of up to ``side`` x ``side`` pairs; ``None``: a tile has its own."""
        return None
