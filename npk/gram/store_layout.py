"""What the folder of a kernel is made of: its arrays, and how its manifest describes them."""

import contextlib
import os
import uuid
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

from npk.errors import StoreError
from npk.gram.tiles import Tile, TilePlan
from npk.stores.files import MOST_PARTS, are_counts, are_names
from npk.stores.manifests import FORMAT, sealed

CONTENT = "gram"
_LARGEST_SIDE, _MOST_SAMPLES, _MOST_GROWTHS, _LARGEST_EXPONENT = 4096, 1 << 40, 1 << 12, 1 << 24
_MOST_TILES = MOST_PARTS
_DTYPES = ("float32", "float64")
Identities = list[list[str]]


def plan_of(manifest: dict[str, Any]) -> TilePlan:
    """The tiles that a manifest describes.

    Args:
        manifest: JSON values, whole.

    Returns:
        The plan, of a number of tiles that can be counted.

    Raises:
        ValueError: npk writes no such manifest.
    """
    shape, side, ends = (manifest[key] for key in ("shape", "side", "ends"))
    if not are_counts(shape, 1, _MOST_SAMPLES) or len(shape) != 2 or not are_counts([side], 1, _LARGEST_SIDE):
        raise ValueError("its manifest has no shape, or no side of tiles")
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_are_ends, ends, shape)):
        raise ValueError("its manifest does not say where its parts end")
    names = manifest["identities"]
    if not are_names(names, 2) or [len(each) for each in names] != [len(each) + 1 for each in ends]:
        raise ValueError("its manifest does not name its parts")
    symmetric, exponents = manifest["symmetric"], manifest["exponents"]
    if not isinstance(symmetric, bool) or (symmetric and (shape[0] != shape[1] or ends[0] != ends[1] or names[0] != names[1])):
        raise ValueError("its manifest names other columns than rows, or does not say whether they are others")
    if manifest["dtype"] not in _DTYPES or not isinstance(manifest["about"], dict):
        raise ValueError("its manifest does not say what its entries are")
    if not are_counts(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT):
        raise ValueError("its manifest has no exponents")
    plan = TilePlan(shape[0], shape[1], side, symmetric, tuple(ends[0]), tuple(ends[1]))
    if _at_most(plan) > _MOST_TILES:
        raise ValueError("its manifest has more tiles than a store takes")
    return plan


def _are_ends(ends: Any, size: int) -> bool:
    return are_counts(ends, 1, size - 1) and len(ends) <= _MOST_GROWTHS and all(a < b for a, b in pairwise(ends))


def check_number(plan: TilePlan) -> None:
    """See that the tiles of a plan are few enough for a store: each is a file, and its checksum another.

    Args:
        plan: the tiles; they are not counted one by one.

    Raises:
        StoreError: there are too many.
    """
    if _at_most(plan) > _MOST_TILES:
        raise StoreError(
            f"a kernel of {plan.n} x {plan.m} has about {_at_most(plan)} tiles of {plan.side} x {plan.side}, and a store takes "
            f"{_MOST_TILES}. Give more memory=, so that tiles are larger."
        )


def _at_most(plan: TilePlan) -> int:
    """As many tiles as a plan has, or a few more; of a symmetric one about half."""
    down, across = (size // plan.side + len(ends) + 1 for size, ends in ((plan.n, plan.row_ends), (plan.m, plan.col_ends)))
    return down * (across + 1) // 2 if plan.symmetric else down * across


def manifest_of(plan: TilePlan, more: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a plan, under its seal.

    Args:
        plan: the tiles.
        more: what else it says.

    Returns:
        JSON values.
    """
    cut = {"shape": [plan.n, plan.m], "side": plan.side, "ends": [list(plan.row_ends), list(plan.col_ends)], "symmetric": plan.symmetric}
    return sealed({**more, "format": FORMAT, "content": CONTENT, **cut})


def grown_identities(identities: Identities, plan: TilePlan) -> Identities:
    """The names of all parts of a plan: those that are known, and new ones for the others.

    Args:
        identities: of the parts of the rows, and of the columns, that are there.
        plan: the tiles.

    Returns:
        Names that no other part in the world has; the same ones on both sides of a symmetric matrix.
    """
    rows, cols = (
        [*names, *(uuid.uuid4().hex for _ in range(len(ends) + 1 - len(names)))]
        for names, ends in zip(identities, (plan.row_ends, plan.col_ends), strict=True)
    )
    return [rows, rows if plan.symmetric else cols]


def blocks(plan: TilePlan) -> dict[str, tuple[int, int]]:
    """Name and shape of each pair of parts: its tiles are in an array of their own."""
    heights, widths = (
        [end - start for start, end in pairwise((0, *ends))] for ends in ((*plan.row_ends, plan.n), (*plan.col_ends, plan.m))
    )
    return {
        f"{i}-{j}": (height, width) for i, height in enumerate(heights) for j, width in enumerate(widths) if not plan.symmetric or j >= i
    }


def chunks(plan: TilePlan, shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of the chunks of a block's tiles."""
    return min(plan.side, shape[0]), min(plan.side, shape[1])


def grid(plan: TilePlan, shape: tuple[int, int]) -> tuple[int, int]:
    """Number of tiles of a block, down and across."""
    return -(-shape[0] // plan.side), -(-shape[1] // plan.side)


def place(plan: TilePlan, tile: Tile) -> tuple[tuple[int, int], tuple[int, int], tuple[slice, slice]]:
    """Numbers of a tile's block, its numbers in the block, down and across, and its slices in the block."""
    (down, top), (across, left) = _part(plan.row_ends, tile.rows), _part(plan.col_ends, tile.cols)
    inside = slice(tile.rows.start - top, tile.rows.stop - top), slice(tile.cols.start - left, tile.cols.stop - left)
    return (down, across), (inside[0].start // plan.side, inside[1].start // plan.side), inside


def _part(ends: tuple[int, ...], span: slice) -> tuple[int, int]:
    """Number of the part that a slice is in, and where the part begins."""
    number = sum(end <= span.start for end in ends)
    return number, (0, *ends)[number]


def mark(identities: Identities, block: tuple[int, int], where: tuple[int, int]) -> int:
    """Where the checksum of a tile begins: it is another one in each store, and in each place of a store.

    Args:
        identities: of the store.
        block: number of the tile's block, down and across.
        where: number of the tile in it.

    Returns:
        A checksum of these.
    """
    return zlib.crc32(f"{identities[0][block[0]]} {identities[1][block[1]]} {where[0]} {where[1]}".encode())


def sweep(path: Path) -> None:
    """Remove what a killed run was writing, and see that no folder is a link, through which others would be written.

    Args:
        path: the store, locked.

    Raises:
        StoreError: a folder is a link.
    """
    for folder, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if links:
            raise StoreError(f"{path} has a link, {links[0]}, and npk neither writes nor follows any. Put what it leads to in its place.")
        for name in files:
            if name.endswith(".partial"):
                with contextlib.suppress(OSError):  # gone by now; or it stays, and does no harm
                    os.unlink(os.path.join(folder, name))
