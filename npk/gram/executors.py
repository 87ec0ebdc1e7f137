"""Executors: who computes the tiles of a store. Here is this process's; ``cluster`` has Dask's."""

from collections.abc import Sequence
from typing import Protocol

from npk.gram.store import GramStore
from npk.gram.tiles import Tile
from npk.gram.work import Work


class Executor(Protocol):
    """Computes tiles and writes them into their store."""

    def compute(self, work: Work, store: GramStore, todo: Sequence[Tile]) -> None:
        """Compute tiles.

        Args:
            work: on the store.
            store: opened by :meth:`GramStore.writing`, its gates complete.
            todo: the tiles of its plan that are wanted, in its order.

        Raises:
            StoreError: the store cannot be read or written.
            ScaleError: values outside the range of the dtype.
        """
        ...


class Here:
    """This process, one tile after the other."""

    def compute(self, work: Work, store: GramStore, todo: Sequence[Tile]) -> None:
        """Compute tiles and write each as soon as it is there."""
        for tile, values in work.tiles(todo):
            store.write(tile, values)
