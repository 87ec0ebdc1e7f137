"""Grams on disk: zarr, one chunk a tile, a checksum a tile, a manifest that says what the matrix is of.

A tile counts as done when its checksum is written, and that is written last: a killed run loses the tile in flight and nothing else.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from npk.dual.gate_table import FORMAT, open_store
from npk.errors import StoreError
from npk.files import written_whole
from npk.gram.tiles import Tile, TilePlan

CONTENT = "gram"
_NOT_DONE = -1


class GramStore:
    """A matrix of tiles in a zarr group."""

    def __init__(self, path: str | Path, group: Any, manifest: dict) -> None:
        self.path, self.group, self.manifest = Path(path), group, manifest
        n, m = manifest["shape"]
        self.plan = TilePlan(n, m, manifest["side"], manifest["symmetric"])

    @classmethod
    def create(cls, path: str | Path, plan: TilePlan, dtype: str, about: dict) -> "GramStore":
        """Make an empty store.

        Raises:
            StoreError: something is there already, or the folder cannot be written.
        """
        import zarr

        path = Path(path)
        if path.exists():
            raise StoreError(f"{path} exists and is not a kernel that can be resumed. Choose another name or remove it.")
        cut = {"shape": [plan.n, plan.m], "side": plan.side, "symmetric": plan.symmetric}
        manifest = {"format": FORMAT, "content": CONTENT, **cut, "dtype": dtype, "about": about}
        with written_whole(path) as temporary:
            group = zarr.open_group(temporary, mode="w-")
            side = (min(plan.side, plan.n), min(plan.side, plan.m))
            group.create_array("tiles", shape=(plan.n, plan.m), chunks=side, dtype=dtype)
            group.create_array("checksums", shape=plan.grid, chunks=(1, 1), dtype="int64", fill_value=_NOT_DONE)
            group.attrs["npk"] = manifest
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> "GramStore":
        """Open a store, for reading or to go on.

        Raises:
            StoreError: not a kernel that npk wrote.
        """
        group, manifest = open_store(path, CONTENT)
        if write:
            import zarr

            group = zarr.open_group(path, mode="r+")
        return cls(path, group, manifest)

    def compare(self, about: dict) -> None:
        """Refuse a store that is of something else.

        Raises:
            StoreError: names what differs.
        """
        there = self.manifest["about"]
        different = [f"{key} is {there.get(key)!r} there and {about.get(key)!r} here" for key in about if there.get(key) != about.get(key)]
        if different:
            raise StoreError(
                f"{self.path} holds another kernel: {'; '.join(different)}. Choose another name, or the same network, data and options."
            )

    def is_done(self, tile: Tile) -> bool:
        """Whether a tile is whole on disk.

        Raises:
            StoreError: its checksum is damaged.
        """
        return self._stored_checksum(tile) != _NOT_DONE

    def _stored_checksum(self, tile: Tile) -> int:
        try:
            return int(self.group["checksums"][tile.row, tile.col])
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            raise StoreError(f"{self.path} is damaged at tile ({tile.row}, {tile.col}): {error}. Remove it and compute it anew.") from error

    def write(self, tile: Tile, values: np.ndarray) -> None:
        """Write a tile, then its checksum.

        Raises:
            StoreError: the disk is full or gone; finished tiles stay.
        """
        try:
            self.group["tiles"][tile.rows, tile.cols] = values
            self.group["checksums"][tile.row, tile.col] = _checksum(values)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror or error}. Finished tiles are kept: make room and run again."
            ) from error

    def read(self, tile: Tile) -> np.ndarray:
        """A finished tile.

        Raises:
            StoreError: not computed yet, or damaged on disk.
        """
        there = self._stored_checksum(tile)
        if there == _NOT_DONE:
            raise StoreError(
                f"{self.path} is not complete: tile ({tile.row}, {tile.col}) is missing. Run the same `npk kernel` command to finish it."
            )
        try:
            values = self.group["tiles"][tile.rows, tile.cols]
            sound = _checksum(values) == there
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            raise StoreError(f"{self.path} is damaged at tile ({tile.row}, {tile.col}): {error}. Remove it and compute it anew.") from error
        if not sound:
            raise StoreError(
                f"{self.path} is damaged at tile ({tile.row}, {tile.col}): its checksum differs. Remove it and compute it again."
            )
        return values


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)
