"""What the folder of a kernel is made of: its arrays, and how its manifest describes them."""

import contextlib
import os
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

from npk.errors import StoreError
from npk.gram.tiles import TilePlan
from npk.stores.blocks import Axis, Blocks, Form
from npk.stores.files import MOST_PARTS, are_counts, are_names
from npk.stores.manifests import FORMAT

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
    if (
        not are_counts(shape, 1, _MOST_SAMPLES)
        or len(shape) != 2
        or not are_counts([side], 1, _LARGEST_SIDE)
    ):
        raise ValueError("its manifest has no shape, or no side of tiles")
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_are_ends, ends, shape)):
        raise ValueError("its manifest does not say where its parts end")
    names = manifest["identities"]
    if not are_names(names, 2) or [len(each) for each in names] != [len(each) + 1 for each in ends]:
        raise ValueError("its manifest does not name its parts")
    symmetric, exponents = manifest["symmetric"], manifest["exponents"]
    if not isinstance(symmetric, bool) or (
        symmetric and (shape[0] != shape[1] or ends[0] != ends[1] or names[0] != names[1])
    ):
        raise ValueError(
            "its manifest names other columns than rows, or does not say whether they are others"
        )
    if manifest["dtype"] not in _DTYPES or not isinstance(manifest["about"], dict):
        raise ValueError("its manifest does not say what its entries are")
    if not are_counts(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT):
        raise ValueError("its manifest has no exponents")
    plan = TilePlan(shape[0], shape[1], side, symmetric, tuple(ends[0]), tuple(ends[1]))
    if _at_most(plan) > _MOST_TILES:
        raise ValueError("its manifest has more tiles than a store takes")
    return plan


def _are_ends(ends: Any, size: int) -> bool:
    return (
        are_counts(ends, 1, size - 1)
        and len(ends) <= _MOST_GROWTHS
        and all(a < b for a, b in pairwise(ends))
    )


def check_number(plan: TilePlan) -> None:
    """See that the tiles of a plan are few enough for a store: each is a file, and its checksum
    another.

    Args:
        plan: the tiles; they are not counted one by one.

    Raises:
        StoreError: there are too many.
    """
    if _at_most(plan) > _MOST_TILES:
        raise StoreError(
            f"a kernel of {plan.n} x {plan.m} has about {_at_most(plan)} tiles of {plan.side} x "
            f"{plan.side}, and a store takes "
            f"{_MOST_TILES}. Give more memory=, so that tiles are larger."
        )


def _at_most(plan: TilePlan) -> int:
    """As many tiles as a plan has, or a few more; of a symmetric one about half."""
    down, across = (
        size // plan.side + len(ends) + 1
        for size, ends in ((plan.n, plan.row_ends), (plan.m, plan.col_ends))
    )
    return down * (across + 1) // 2 if plan.symmetric else down * across


def manifest_of(plan: TilePlan, more: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a plan.

    Args:
        plan: the tiles.
        more: what else it says.

    Returns:
        JSON values.
    """
    cut = {
        "shape": [plan.n, plan.m],
        "side": plan.side,
        "ends": [list(plan.row_ends), list(plan.col_ends)],
        "symmetric": plan.symmetric,
    }
    return {**more, "format": FORMAT, "content": CONTENT, **cut}


def grown_identities(identities: Identities, plan: TilePlan) -> Identities:
    """The names of all parts of a plan: those that are known, and new ones for the others.

    Args:
        identities: of the parts of the rows, and of the columns, that are there.
        plan: the tiles.

    Returns:
        Names that no other part in the world has; the same ones on both sides of a symmetric
        matrix.
    """
    rows, cols = (
        [*names, *(uuid.uuid4().hex for _ in range(len(ends) + 1 - len(names)))]
        for names, ends in zip(identities, (plan.row_ends, plan.col_ends), strict=True)
    )
    return [rows, rows if plan.symmetric else cols]


def blocks_of(plan: TilePlan, manifest: dict[str, Any]) -> Blocks:
    """How the matrix is cut: each pair of parts has its tiles in an array of its own."""
    ends = ((*plan.row_ends, plan.n), (*plan.col_ends, plan.m))
    sizes = (tuple(b - a for a, b in pairwise((0, *each))) for each in ends)
    sides = zip(sizes, manifest["identities"], strict=True)
    axes = tuple(Axis(plan.side, each, tuple(identities)) for each, identities in sides)
    tiles = {"tiles/{}-{}": Form((), manifest["dtype"])}
    return Blocks(axes, tiles, "checksums/{}-{}", plan.symmetric)


def sweep(path: Path) -> None:
    """Remove what a killed run was writing, and see that no folder is a link, through which others
    would be written.

    Args:
        path: the store, locked.

    Raises:
        StoreError: a folder is a link.
    """
    for folder, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if links:
            raise StoreError(
                f"{path} has a link, {links[0]}, and npk neither writes nor follows "
                f"any. Put what it leads to in its place."
            )
        for name in files:
            if name.endswith(".partial"):
                with contextlib.suppress(OSError):  # gone by now; or it stays, and does no harm
                    os.unlink(os.path.join(folder, name))
