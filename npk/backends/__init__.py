"""Backends: apply a recursion to one tile of sample pairs."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from npk.dual.recursion import Recursion


class Backend(Protocol):
    """What the Gram asks of a backend: sides of a tile made ready once, then tiles of all pairs, and what they take."""

    recursion: Recursion

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample on one side of a tile."""
        ...

    @property
    def bytes_a_pair(self) -> int:
        """Bytes that each pair of a tile takes."""
        ...

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread."""
        ...

    @property
    def ahead(self) -> int:
        """Tiles that may be under way while an earlier one is read: 0 where a tile is computed by who asks for it."""
        ...

    def predicted(self) -> float | None:
        """Seconds of a pair on all threads, where the speeds of this machine are known already."""
        ...

    def side(self, table: Any) -> Any:
        """What :meth:`tile` needs of the samples of a gate table on one side; a device takes gates that are on one, too."""
        ...

    def tile(
        self, rows: Any, cols: Any, exponents: np.ndarray, diagonal: int | None = None, memory: np.ndarray | None = None
    ) -> np.ndarray:
        """The kernel of all pairs divided by ``2**exponents[-1]``; entries left of ``diagonal`` may stay uncomputed.

        The result may lie in ``memory``, where the next tile with it overwrites it.
        """
        ...

    def start(
        self, rows: Any, cols: Any, exponents: np.ndarray, diagonal: int | None = None, memory: np.ndarray | None = None
    ) -> Callable[[], np.ndarray]:
        """Begin what :meth:`tile` does; what is returned waits for the values."""
        ...

    def memory_of(self, side: int) -> np.ndarray | None:
        """Memory for tiles of ``side`` x ``side`` pairs."""
        ...
