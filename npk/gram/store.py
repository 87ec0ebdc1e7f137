"""Kernels on disk: gates, tiles and a manifest in one zarr group, so that whoever opens it can go on.

A tile is a chunk, written under a temporary name and renamed; it counts as done when its checksum is there, and that is written last.
Whatever kills a run, a tile is whole or it is missing. A matrix that grows keeps its tiles: the new ones are in arrays of their own.
"""

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from npk.dual.gate_store import GateStore
from npk.dual.gate_table import GateTable
from npk.errors import StoreError
from npk.files import locked, temporary_beside
from npk.gram.store_layout import (
    CONTENT,
    Identities,
    blocks,
    check_number,
    chunks,
    grid,
    grown_identities,
    manifest_of,
    mark,
    place,
    plan_of,
    sweep,
)
from npk.gram.tiles import Tile, TilePlan
from npk.stores.files import LostFile, look, prove
from npk.stores.manifests import open_store

_NOT_DONE = -1
_LOCK = ".lock"


class GramStore:
    """A matrix of tiles in a zarr group, and the gates it is made from.

    ``rows``, ``cols`` are the folders of two gate stores (of one where the columns are the rows).
    """

    def __init__(self, path: str | Path, group: Any, manifest: dict[str, Any]) -> None:
        self.path, self.manifest, self._group = Path(path), manifest, group
        self.plan = plan_of(manifest)
        self._arrays: dict[str, Any] = {}

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
            few: gates of a few samples of the rows, and of the columns if those are others; nothing for a matrix without gates.

        Returns:
            The store, to be written.

        Raises:
            StoreError: something is there already, the folder cannot be written, or there are too many tiles.
        """
        import zarr

        check_number(plan)
        path = Path(path).absolute()
        temporary = temporary_beside(path)
        try:
            os.stat(path.parent)  # zarr would make it
            group = zarr.open_group(temporary, mode="w", zarr_format=3)
            _make_arrays(group, plan, dtype)
            sides = zip(("rows", "cols"), few, (plan.n, plan.m), strict=False)
            found = [GateStore.create(temporary / name, table, n).identities[0] for name, table, n in sides]
            steps, known = [int(exponent) for exponent in exponents], [*found, [], []][:2]
            identities = grown_identities(known, plan)
            group.attrs["npk"] = manifest_of(plan, {"dtype": dtype, "exponents": steps, "about": about, "identities": identities})
            os.rename(temporary, path)  # never over another store
        except StoreError:
            raise
        except OSError as error:
            there = path.exists()
            why = "it exists" if there else error.strerror or str(error)
            raise StoreError(f"cannot write {path}: {why}. Choose a folder that exists, is writable and has room.") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> "GramStore":
        """Open a store.

        Args:
            path: its folder.
            write: tiles will be written. Only one process at a time may decide which: see :meth:`writing`.

        Returns:
            The store.

        Raises:
            StoreError: not a kernel that npk wrote, or a damaged one.
        """
        path = Path(path).absolute()  # another folder may be the current one when tiles are read
        group, manifest = open_store(path, CONTENT, write=write)
        try:
            return cls(path, group, manifest)
        except (ValueError, LookupError, TypeError) as error:
            raise StoreError(f"{path} is damaged: {error}. Remove it and run the command that wrote it again.") from error

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: str | Path) -> Iterator["GramStore"]:
        """Open a store to go on, as the only one that does; a lock that a killed process left does not count.

        Args:
            path: its folder.

        Raises:
            StoreError: not a kernel that npk wrote, another process writes it, or something else is in it.
        """
        before = cls.open(path)
        with locked(Path(path) / _LOCK, of=path):
            store = cls.open(path, write=True)
            prove(store.path, before.identities)  # or the lock would be that of another store
            sweep(store.path)
            yield store

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
        found, known = GateStore.open(self.path / name, write=not self._group.read_only), self.identities[axis]
        there = found.identities[0]
        if there != known[: len(there)]:
            raise StoreError(f"{self.path} is damaged: its {name} are the gates of another store. Remove it and run again.")
        return found

    @property
    def identities(self) -> Identities:
        """The names of the parts of its rows and columns: they say which store this is, and prove that a folder still holds it."""
        return self.manifest["identities"]

    @property
    def about(self) -> dict[str, Any]:
        """What the matrix is of."""
        return self.manifest["about"]

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
            StoreError: the disk is full or gone, or another store is in its place; the store is as it was.
        """
        if (n, m) != (self.plan.n, self.plan.m):
            check_number(plan := self.plan.grown(n, m))
            more = {"about": about, "identities": grown_identities(self.identities, plan)}
            with self._kept("It is as it was"):
                prove(self.path, self.identities)
                _make_arrays(self._group, plan, self.manifest["dtype"], more_than=self.plan)
                self._group.attrs["npk"] = self.manifest = manifest_of(plan, {**self.manifest, **more})
            self.plan = plan
        for store, ends, names in zip(
            (self.rows, self.cols), ((*self.plan.row_ends, n), (*self.plan.col_ends, m)), self.identities, strict=True
        ):
            for end, name in zip(ends, names, strict=True):
                if len(store) < end:
                    store.extend(end - len(store), identity=name)

    def missing(self) -> list[Tile]:
        """The tiles that are not done.

        Raises:
            StoreError: the checksums are damaged.
        """
        known = {name: self._read(f"checksums/{name}", ...) for name in blocks(self.plan)}
        found = []
        for tile in self.plan:
            name, where, _ = self._place(tile)
            if known[name][where] == _NOT_DONE:
                found.append(tile)
        return found

    def unreadable(self) -> list[Tile]:
        """The tiles whose checksums are damaged: nobody can tell whether they are done. :meth:`forget` them to go on."""
        try:
            self.missing()
        except StoreError:
            return [tile for tile in self.plan if not self._is_told(tile)]
        return []

    def _is_told(self, tile: Tile) -> bool:
        try:
            self.is_done(tile)
        except StoreError:
            return False
        return True

    def is_done(self, tile: Tile) -> bool:
        """Whether a tile is whole on disk.

        Args:
            tile: of the plan.

        Raises:
            StoreError: its checksum is damaged.
        """
        name, where, _ = self._place(tile)
        return int(self._read(f"checksums/{name}", where)) != _NOT_DONE

    def write(self, tile: Tile, values: np.ndarray) -> None:
        """Write a tile, then its checksum.

        Args:
            tile: of the plan.
            values: its entries.

        Raises:
            StoreError: the disk is full, the folder is gone, or another store is in its place; finished tiles stay.
        """
        name, where, inside = self._place(tile)
        with self._kept("Finished tiles are kept"):
            prove(self.path, self.identities)  # zarr would make a folder that is gone again
            self._array(f"tiles/{name}")[inside] = values
            checksum = _checksum(values, self._mark(tile))
            prove(self.path, self.identities)
            self._array(f"checksums/{name}")[where] = checksum

    def forget(self, tile: Tile) -> None:
        """Count a tile as not done.

        Args:
            tile: of the plan.

        Raises:
            StoreError: the disk is full or gone, or another store is in its place.
        """
        name, where, _ = self._place(tile)
        with self._kept("Finished tiles are kept"):
            prove(self.path, self.identities)
            self._array(f"checksums/{name}")[where] = _NOT_DONE

    def read(self, tile: Tile) -> np.ndarray:
        """A finished tile.

        Args:
            tile: of the plan.

        Raises:
            StoreError: not computed yet, or damaged on disk.
        """
        name, where, inside = self._place(tile)
        there = int(self._read(f"checksums/{name}", where))
        if there == _NOT_DONE:
            raise StoreError(
                f"{self.path} is not complete: tile ({tile.row}, {tile.col}) is missing. Run the same `npk kernel` command to finish it."
            )
        what = f"tile ({tile.row}, {tile.col})"
        values = self._read(f"tiles/{name}", inside, what)
        if _checksum(values, self._mark(tile)) != there:
            raise self._damaged(what, "its checksum differs")
        return values

    def damaged(self, tiles: Iterable[Tile], advance: Callable[[int], None] = lambda steps: None) -> Iterator[Tile]:
        """Read finished tiles.

        Args:
            tiles: of the plan, done.
            advance: is told of each tile.

        Yields:
            Those that are damaged; :meth:`forget` them to have them computed again.

        Raises:
            StoreError: the description of all tiles is damaged; they may be sound.
        """
        for name in blocks(self.plan):
            self._array(f"tiles/{name}")
        for tile in tiles:
            try:
                self.read(tile)
            except StoreError:
                yield tile
            advance(1)

    @contextlib.contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            why = error.strerror or str(error) if self.path.exists() else "the folder is gone"
            raise StoreError(f"cannot write {self.path}: {why}. {what}: mend the cause (room, permissions) and run again.") from error

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            from npk.stores.plain import open_array

            try:
                found = open_array(self._group, name) if name.startswith("tiles") else self._group[name]
                self._arrays[name] = self._expected(name, found)
            except OSError:
                raise
            except Exception as error:  # zarr raises many kinds for a damaged description; the cause is kept
                raise StoreError(
                    f"{self.path} is damaged: {name}/zarr.json is missing or cut short ({type(error).__name__}). "
                    "Put it back from a copy, or remove the store and run the command that wrote it again."
                ) from error
        return self._arrays[name]

    def _expected(self, name: str, found: Any) -> Any:
        """An array, if it is as the manifest says."""
        kind, block = name.split("/")
        size = blocks(self.plan)[block]
        tiles = (size, chunks(self.plan, size), np.dtype(self.manifest["dtype"]), 0)
        wanted = tiles if kind == "tiles" else (grid(self.plan, size), (1, 1), np.dtype("int64"), _NOT_DONE)
        if (found.shape, found.chunks, found.dtype, found.fill_value) != wanted:
            raise StoreError(f"{self.path} is damaged: {name}/zarr.json does not say what the manifest says. Put it back from a copy.")
        return found

    def _read(self, name: str, where: Any, what: str = "its checksums") -> np.ndarray:
        try:
            return self._array(name)[where]
        except (MemoryError, StoreError):
            raise
        except LostFile as error:
            raise self._damaged(what, f"its checksum differs: {error}") from error
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            raise self._damaged(what, f"{type(error).__name__}: {error}") from error

    def _damaged(self, what: str, why: str) -> StoreError:
        mend = f"Drop what is damaged with `npk verify-store {self.path} --drop`, then run the command that wrote it again"
        return StoreError(f"{self.path} is damaged at {what}: {why}. {mend}.")

    def _place(self, tile: Tile) -> tuple[str, tuple[int, int], tuple[slice, slice]]:
        """Block of a tile, its number in the block down and across, and its slices in the block."""
        (down, across), where, inside = place(self.plan, tile)
        return f"{down}-{across}", where, inside

    def _mark(self, tile: Tile) -> int:
        block, where, _ = place(self.plan, tile)
        return mark(self.identities, block, where)


def _make_arrays(group: Any, plan: TilePlan, dtype: str, more_than: TilePlan | None = None) -> None:
    """Empty arrays for the blocks of a plan, in the place of those that a killed run may have left."""
    there = blocks(more_than) if more_than else {}
    plain: dict[str, Any] = {"compressors": None, "filters": None, "overwrite": True}
    for name, shape in blocks(plan).items():
        if name not in there:
            group.create_array(f"tiles/{name}", shape=shape, chunks=chunks(plan, shape), dtype=dtype, **plain)
            flags = {"shape": grid(plan, shape), "chunks": (1, 1), "dtype": "int64", "fill_value": _NOT_DONE}
            group.create_array(f"checksums/{name}", **flags, **plain)


def _checksum(values: np.ndarray, begin: int) -> int:
    return zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data, begin)
