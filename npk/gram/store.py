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
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from npk.dual.gate_store import GateStore
from npk.dual.gate_table import FORMAT, GateTable, open_store, sealed
from npk.errors import StoreError
from npk.files import locked, temporary_beside
from npk.gram.tiles import Tile, TilePlan

CONTENT = "gram"
_NOT_DONE = -1
_LOCK = ".lock"


class GramStore:
    """A matrix of tiles in a zarr group, and the gates it is made from.

    ``rows``, ``cols`` are the folders of two gate stores (of one where the columns are the rows).
    """

    def __init__(self, path: str | Path, group: Any, manifest: dict[str, Any]) -> None:
        self.path, self.manifest, self._group = Path(path), manifest, group
        (n, m), (row_ends, col_ends) = manifest["shape"], manifest["ends"]
        self.plan = TilePlan(n, m, manifest["side"], manifest["symmetric"], tuple(row_ends), tuple(col_ends))
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
            exponents: power of two of each step of the recursion.
            few: gates of a few samples of the rows, and of the columns if those are others; nothing for a matrix without gates.

        Returns:
            The store, to be written.

        Raises:
            StoreError: something is there already, or the folder cannot be written.
        """
        import zarr

        path = Path(path).absolute()
        temporary = temporary_beside(path)
        try:
            os.stat(path.parent)  # zarr would make it
            group = zarr.open_group(temporary, mode="w")
            _make_arrays(group, plan, dtype)
            for name, table, n in zip(("rows", "cols"), few, (plan.n, plan.m), strict=False):
                GateStore.create(temporary / name, table, n)
            steps = [int(exponent) for exponent in exponents]
            group.attrs["npk"] = _manifest(plan, {"dtype": dtype, "exponents": steps, "about": about})
            os.rename(temporary, path)  # never over another store
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
        return cls(path, group, manifest)

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: str | Path) -> Iterator["GramStore"]:
        """Open a store to go on, as the only one that does; a lock that a killed process left does not count.

        Args:
            path: its folder.

        Raises:
            StoreError: not a kernel that npk wrote, or another process writes it.
        """
        cls.open(path)
        with locked(Path(path) / _LOCK, of=path):
            for left in Path(path).rglob("*.partial"):  # a killed run was writing them
                left.unlink(missing_ok=True)
            yield cls.open(path, write=True)

    @cached_property
    def rows(self) -> GateStore:
        """Gates of the rows."""
        return GateStore.open(self.path / "rows", write=not self._group.read_only)

    @cached_property
    def cols(self) -> GateStore:
        """Gates of the columns; those of the rows in a symmetric matrix."""
        return self.rows if self.plan.symmetric else GateStore.open(self.path / "cols", write=not self._group.read_only)

    @property
    def about(self) -> dict[str, Any]:
        """What the matrix is of."""
        return self.manifest["about"]

    @property
    def exponents(self) -> np.ndarray:
        """Power of two of each step of the recursion."""
        return np.array(self.manifest["exponents"], np.int64)

    def grow(self, n: int, m: int, about: dict[str, Any]) -> None:
        """Make room for more samples behind the others.

        Args:
            n: rows.
            m: columns.
            about: what the matrix is of then.

        Raises:
            StoreError: the disk is full or gone; the store is as it was.
        """
        if (n, m) != (self.plan.n, self.plan.m):
            plan = self.plan.grown(n, m)
            with self._kept("It is as it was"):
                _make_arrays(self._group, plan, self.manifest["dtype"], more_than=self.plan)
                self._group.attrs["npk"] = self.manifest = _manifest(plan, {**self.manifest, "about": about})
            self.plan = plan
        for store, size in {self.rows: n, self.cols: m}.items():
            if len(store) < size:
                store.extend(size - len(store))

    def missing(self) -> list[Tile]:
        """The tiles that are not done.

        Raises:
            StoreError: the checksums are damaged.
        """
        known = {name: self._read(f"checksums/{name}", ...) for name in _blocks(self.plan)}
        found = []
        for tile in self.plan:
            name, place, _ = self._place(tile)
            if known[name][place] == _NOT_DONE:
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
        name, place, _ = self._place(tile)
        return int(self._read(f"checksums/{name}", place)) != _NOT_DONE

    def write(self, tile: Tile, values: np.ndarray) -> None:
        """Write a tile, then its checksum.

        Args:
            tile: of the plan.
            values: its entries.

        Raises:
            StoreError: the disk is full, or the folder is gone; finished tiles stay.
        """
        name, place, inside = self._place(tile)
        with self._kept("Finished tiles are kept"):
            os.stat(self.path / "zarr.json")  # zarr would make a folder that is gone again
            self._array(f"tiles/{name}")[inside] = values
            self._array(f"checksums/{name}")[place] = _checksum(values)

    def forget(self, tile: Tile) -> None:
        """Count a tile as not done.

        Args:
            tile: of the plan.

        Raises:
            StoreError: the disk is full or gone.
        """
        name, place, _ = self._place(tile)
        with self._kept("Finished tiles are kept"):
            self._array(f"checksums/{name}")[place] = _NOT_DONE

    def read(self, tile: Tile) -> np.ndarray:
        """A finished tile.

        Args:
            tile: of the plan.

        Raises:
            StoreError: not computed yet, or damaged on disk.
        """
        name, place, inside = self._place(tile)
        there = int(self._read(f"checksums/{name}", place))
        if there == _NOT_DONE:
            raise StoreError(
                f"{self.path} is not complete: tile ({tile.row}, {tile.col}) is missing. Run the same `npk kernel` command to finish it."
            )
        what = f"tile ({tile.row}, {tile.col})"
        values = self._read(f"tiles/{name}", inside, what)
        if _checksum(values) != there:
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
        for name in _blocks(self.plan):
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
            try:
                self._arrays[name] = self._group[name]
            except OSError:
                raise
            except Exception as error:  # zarr raises many kinds for a damaged description; the cause is kept
                raise StoreError(
                    f"{self.path} is damaged: {name}/zarr.json is missing or cut short ({type(error).__name__}). "
                    "Put it back from a copy, or remove the store and run the command that wrote it again."
                ) from error
        return self._arrays[name]

    def _read(self, name: str, where: Any, what: str = "its checksums") -> np.ndarray:
        try:
            return self._array(name)[where]
        except (MemoryError, StoreError):
            raise
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            raise self._damaged(what, f"{type(error).__name__}: {error}") from error

    def _damaged(self, what: str, why: str) -> StoreError:
        mend = f"Drop what is damaged with `npk verify-store {self.path} --drop`, then run the command that wrote it again"
        return StoreError(f"{self.path} is damaged at {what}: {why}. {mend}.")

    def _place(self, tile: Tile) -> tuple[str, tuple[int, int], tuple[slice, slice]]:
        """Block of a tile, its number in the block down and across, and its slices in the block."""
        plan, side = self.plan, self.plan.side
        (down, top), (across, left) = _part(plan.row_ends, tile.rows), _part(plan.col_ends, tile.cols)
        inside = slice(tile.rows.start - top, tile.rows.stop - top), slice(tile.cols.start - left, tile.cols.stop - left)
        return f"{down}-{across}", (inside[0].start // side, inside[1].start // side), inside


def _part(ends: tuple[int, ...], span: slice) -> tuple[int, int]:
    """Number of the part that a slice is in, and where the part begins."""
    number = sum(end <= span.start for end in ends)
    return number, (0, *ends)[number]


def _blocks(plan: TilePlan) -> dict[str, tuple[int, int]]:
    """Name and shape of each pair of parts: its tiles are in an array of their own."""
    heights, widths = (
        [end - start for start, end in pairwise((0, *ends))] for ends in ((*plan.row_ends, plan.n), (*plan.col_ends, plan.m))
    )
    return {
        f"{i}-{j}": (height, width) for i, height in enumerate(heights) for j, width in enumerate(widths) if not plan.symmetric or j >= i
    }


def _make_arrays(group: Any, plan: TilePlan, dtype: str, more_than: TilePlan | None = None) -> None:
    """Empty arrays for the blocks of a plan, in the place of those that a killed run may have left."""
    there = _blocks(more_than) if more_than else {}
    for name, shape in _blocks(plan).items():
        if name not in there:
            chunks, grid = tuple(min(plan.side, size) for size in shape), tuple(-(-size // plan.side) for size in shape)
            group.create_array(f"tiles/{name}", shape=shape, chunks=chunks, dtype=dtype, compressors=None, overwrite=True)
            flags = {"shape": grid, "chunks": (1, 1), "dtype": "int64", "fill_value": _NOT_DONE, "compressors": None}
            group.create_array(f"checksums/{name}", **flags, overwrite=True)


def _manifest(plan: TilePlan, more: dict[str, Any]) -> dict[str, Any]:
    cut = {"shape": [plan.n, plan.m], "side": plan.side, "ends": [list(plan.row_ends), list(plan.col_ends)], "symmetric": plan.symmetric}
    return sealed({**more, "format": FORMAT, "content": CONTENT, **cut})


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
