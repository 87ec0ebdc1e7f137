"""Kernels on disk: gates, tiles and a manifest in one zarr group: whoever opens it can go on.

A tile is a chunk, written under a temporary name and renamed; it counts as done when its checksum
is there, and that is written last. A matrix that grows keeps its tiles: the new ones are in arrays
of their own.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from npk.errors import StoreError
from npk.files import locked, temporary_beside
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram import store_layout
from npk.gram.tiles import Tile, TilePlan
from npk.stores.chunks import ChunkStore, make_store
from npk.stores.files import look, prove
from npk.stores.manifests import open_store

_LOCK = ".lock"
_KEPT = "Finished tiles are kept"


class GramStore(ChunkStore):
    """A matrix of tiles in a zarr group, and the gates it is made from.

    ``rows``, ``cols`` are the folders of two gate stores (of one where the columns are the rows).
    """

    thing, again = "tile", "Run the same `npk kernel` command"
    room = "mend the cause (room, permissions)"

    def __init__(self, path: str | Path, group: Any, manifest: dict[str, Any]) -> None:
        self.plan = store_layout.plan_of(manifest)
        super().__init__(Path(path), group, manifest, store_layout.blocks_of(self.plan, manifest))
        drop = f"Drop what is damaged with `npk verify-store {path} --drop`"
        self.mend = f"{drop}, then run the command that wrote it again"

    @classmethod
    def create(
        cls,
        path: str | Path,
        plan: TilePlan,
        dtype: str,
        about: dict[str, Any],
        exponents: Sequence[int] | np.ndarray = (),
        few: tuple[GateTable, ...] = (),
    ) -> "GramStore":
        """Make an empty store.

        Args:
            path: a folder that does not exist.
            plan: the tiles.
            dtype: of the entries.
            about: what the matrix is of: JSON values.
            exponents: power of two of each step of the recursion, and of the size of the matrix.
            few: gates of a few samples of the rows, and of the columns if others; or nothing.

        Returns:
            The store, to be written.

        Raises:
            StoreError: something is there, the folder cannot be written, or tiles are too many.
        """
        store_layout.check_number(plan)
        path = Path(path).absolute()
        identities = store_layout.grown_identities([[], []], plan)
        what = {"dtype": dtype, "exponents": list(map(int, exponents)), "about": about}
        manifest = store_layout.manifest_of(plan, {**what, "identities": identities})
        temporary = temporary_beside(path)
        sides = zip(("rows", "cols"), few, (plan.n, plan.m), identities, strict=False)
        try:
            os.stat(path.parent)  # zarr would make it
            make_store(temporary, manifest, store_layout.blocks_of(plan, manifest))
            for name, table, n, (identity, *_) in sides:
                GateStore.create(temporary / name, table.form, n, identity=identity)
            os.rename(temporary, path)  # never over another store
        except StoreError:
            raise
        except OSError as error:
            why = "it exists" if path.exists() else error.strerror or str(error)
            mend = "Choose a folder that exists, is writable and has room"
            raise StoreError(f"cannot write {path}: {why}. {mend}.") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> "GramStore":
        """Open a store.

        Args:
            path: its folder.
            write: tiles will be written; :meth:`writing` lets one process at a time do so.

        Returns:
            The store.

        Raises:
            StoreError: not a kernel that npk wrote, or a damaged one.
        """
        path = Path(path).absolute()  # another folder may be the current one when tiles are read
        group, manifest = open_store(path, store_layout.CONTENT, write=write)
        try:
            return cls(path, group, manifest)
        except (ValueError, LookupError, TypeError) as error:
            then = "Remove it and run the command that wrote it again"
            raise StoreError(f"{path} is damaged: {error}. {then}.") from error

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: str | Path) -> Iterator["GramStore"]:
        """Open a store to go on, as the only one; a lock of a dead process does not count.

        Args:
            path: its folder.

        Raises:
            StoreError: no kernel that npk wrote, or another process writes it.
        """
        before = cls.open(path)
        with locked(Path(path) / _LOCK, of=path):
            store = cls.open(path, write=True)
            prove(store.path, before.identities)  # or the lock would be that of another store
            store_layout.sweep(store.path)
            yield store

    def __repr__(self) -> str:
        what = f"{self.plan.n} x {self.plan.m} {self.manifest['dtype']}, {len(self.plan)} tiles"
        return f"<GramStore: {what}, in {self.path}>"

    @cached_property
    def rows(self) -> GateStore:
        """Gates of the rows."""
        return self._gates("rows", 0)

    @cached_property
    def cols(self) -> GateStore:
        """Gates of the columns; those of the rows in a symmetric matrix."""
        return self.rows if self.plan.symmetric else self._gates("cols", 1)

    def _gates(self, name: str, axis: int) -> GateStore:
        look(self.path, name)  # the folder of a store may be a link, but not one within another
        gates = GateStore.open(self.path / name, write=not self._group.read_only)
        if gates.identities[0] != self.identities[axis][: len(gates.identities[0])]:
            why = f"its {name} are the gates of another store. Remove it and run again"
            raise StoreError(f"{self.path} is damaged: {why}.")
        return gates

    @property
    def exponents(self) -> np.ndarray:
        """Power of two of each step of the recursion, and of the size of the matrix."""
        return np.array(self.manifest["exponents"], np.int64)

    def grow(self, n: int, m: int, about: dict[str, Any]) -> None:
        """Make room for more samples behind the others.

        Args:
            n: rows.
            m: columns.
            about: what the matrix is of then.

        Raises:
            StoreError: the disk is full or gone, or another store is here; this one is as it was.
        """
        if (n, m) != (self.plan.n, self.plan.m):
            store_layout.check_number(plan := self.plan.grown(n, m))
            identities = store_layout.grown_identities(self.identities, plan)
            more = {"about": about, "identities": identities}
            manifest = store_layout.manifest_of(plan, {**self.manifest, **more})
            self.grow_to(manifest, store_layout.blocks_of(plan, manifest))
            self.plan = plan
        ends = (*self.plan.row_ends, n), (*self.plan.col_ends, m)
        for store, stops, names in zip((self.rows, self.cols), ends, self.identities, strict=True):
            for stop, name in zip(stops, names, strict=True):
                if len(store) < stop:
                    store.extend(stop - len(store), identity=name)

    def missing(self) -> list[Tile]:
        """The tiles that are not done; a StoreError if checksums are damaged."""
        done = self.written()
        return [tile for tile in self.plan if not done[tile.row, tile.col]]

    def unreadable(self) -> list[Tile]:
        """Tiles of which nobody can tell whether they are done; :meth:`forget` them to go on."""
        with contextlib.suppress(StoreError):
            self.written()
            return []
        return [tile for tile in self.plan if not self._is_told(tile)]

    def _is_told(self, tile: Tile) -> bool:
        try:
            self.is_done(tile)
        except StoreError:
            return False
        return True

    def is_done(self, tile: Tile) -> bool:
        """Whether a tile is whole on disk; a StoreError if its checksum is damaged."""
        return self.is_written((tile.row, tile.col))

    def write(self, tile: Tile, values: np.ndarray) -> None:
        """Write a tile, then its checksum.

        Args:
            tile: of the plan.
            values: its entries.

        Raises:
            StoreError: the disk is full, the folder is gone, or another store is in its place;
                finished tiles stay.
        """
        with self.kept(_KEPT):
            self.write_chunks((tile.row, tile.col), [values])

    def forget(self, tile: Tile) -> None:
        """Count a tile as not done; errors as in :meth:`write`."""
        with self.kept(_KEPT):
            self.forget_chunk((tile.row, tile.col))

    def read(self, tile: Tile) -> np.ndarray:
        """A finished tile; a StoreError where it is not computed yet, or damaged on disk."""
        return self.read_chunks((tile.row, tile.col))[0]

    def damaged(self, tiles: Iterable[Tile], advance: Any = lambda steps: None) -> Iterator[Tile]:
        """Read finished tiles, and tell ``advance`` of each.

        Yields:
            Those that are damaged; :meth:`forget` them to have them computed again.

        Raises:
            StoreError: the description of all tiles is damaged; they may be sound.
        """
        self.open_arrays()
        for tile in tiles:
            if not self.is_sound((tile.row, tile.col)):
                yield tile
            advance(1)
