"""The files of a store, read without believing any of them: plain files of the right size, and zarr
3 as npk writes it.

Whatever is not wholly that is refused: zarr is never asked what to make of it, so no codec, filter
or type but npk's own is looked up.
"""

import errno
import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npk.errors import StoreError

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")
MOST_PARTS = 1 << 20  # tiles, or pieces of gates
MOST_BYTES = 1 << 29  # of a tile, or of a piece of gates
# bytes of a zarr.json: the first of a store, and those below
_MANIFEST, _DESCRIPTION = 32 << 20, 1 << 16
_MOST_AXES, _MOST = 16, 1 << 48
_GROUP = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
_ARRAY = {
    *(
        "zarr_format node_type attributes shape data_type chunk_grid chunk_key_encoding "
        "fill_value codecs"
    ).split(),
    *("storage_transformers", "dimension_names"),
}


class LostFile(ValueError):
    """A file that must be there, since what it holds counts as written."""


def look(root: Path, key: str) -> os.stat_result | None:
    """What lies in a store under a key; no link below its folder is followed.

    Args:
        root: the store's folder.
        key: names of folders and a file, with slashes between.

    Returns:
        What the system says of it; ``None``: nothing is there.

    Raises:
        StoreError: a link is on the way.
    """
    status, place = None, str(root)
    for part in key.split("/"):
        place = f"{place}/{part}"
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):
            raise StoreError(
                f"{root} has a link at {key}, and npk neither writes nor follows any. "
                f"Put what it leads to in its place."
            )
    return status


def read_plain(root: Path, key: str, most: int, exactly: int | None = None) -> bytes | None:
    """The bytes of a file of a store.

    Args:
        root: the store's folder.
        key: of the file.
        most: bytes that are read at most.
        exactly: bytes that it must have.

    Returns:
        The bytes; ``None``: there is no such file.

    Raises:
        StoreError: a link is on the way, or it is no plain file.
        ValueError: it has another size.
    """
    status = look(root, key)
    if status is None or stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(_foreign(root, key, "which is no plain file"))
    if status.st_size > most or exactly not in (None, status.st_size):
        raise ValueError(
            f"{key} has {status.st_size} bytes, not "
            f"{f'at most {most}' if exactly is None else exactly}"
        )
    with (root / key).open("rb") as file:
        return file.read(most + 1)


def read_description(root: Path, key: str) -> dict[str, Any] | None:
    """A ``zarr.json``, looked at from end to end.

    Args:
        root: the store's folder.
        key: of the file.

    Returns:
        What it says, of a group or an array as npk writes them; ``None``: there is none.

    Raises:
        StoreError: it describes something else.
        ValueError: it is cut short or damaged.
    """
    content = read_plain(root, key, _MANIFEST if key == "zarr.json" else _DESCRIPTION)
    if content is None:
        return None
    try:
        description = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{key} is nested too deeply") from error
    if not isinstance(description, dict):
        raise ValueError(f"{key} holds no JSON object")
    if description.get("zarr_format") != 3:
        raise StoreError(
            _foreign(
                root,
                key,
                f"of zarr format {_short(description.get('zarr_format'))}, and npk reads format 3 alone",
            )
        )
    wrong = (
        _wrong_group(description)
        if description.get("node_type") == "group"
        else _wrong_array(description)
    )
    if wrong is not None and key == "zarr.json" and not _is_npks(description):
        raise StoreError(
            f"{root} holds something that npk did not write. Name a folder that npk "
            f"wrote, or one that is not there."
        )
    if wrong is not None:
        raise StoreError(
            _foreign(
                root,
                key,
                f"whose {wrong} is {_short(description.get(wrong))}, which npk does not write",
            )
        )
    return description


def _is_npks(found: dict[str, Any]) -> bool:
    attributes = found.get("attributes")
    return isinstance(attributes, dict) and "npk" in attributes


def read_manifest(path: str | Path) -> Any:
    """What a store says of itself.

    Args:
        path: its folder.

    Returns:
        JSON values; ``None``: nothing that npk wrote.

    Raises:
        FileNotFoundError: there is no such folder, or no ``zarr.json`` in it.
    """
    description = read_description(Path(path), "zarr.json")
    if description is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return description["attributes"].get("npk")


def prove(path: Path, identities: Sequence[Sequence[str]]) -> None:
    """See that a folder is still the store that was opened; it may have grown.

    Args:
        path: the folder.
        identities: of the store that was opened.

    Raises:
        StoreError: another store is there, or what is there cannot be read.
        OSError: nothing is there.
    """
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged: its zarr.json cannot be read ({error}). Nothing is written to it."
        ) from error
    if not isinstance(manifest, dict) or not _begins_with(manifest.get("identities"), identities):
        raise StoreError(
            f"{path} is not, or no longer, the store that was opened: it was removed or replaced "
            f"meanwhile. Nothing is written to it; run again to go on with what is there."
        )


def _begins_with(there: Any, identities: Sequence[Sequence[str]]) -> bool:
    try:
        return len(there) == len(identities) and all(
            list(a)[: len(b)] == list(b) for a, b in zip(there, identities, strict=True)
        )
    except TypeError:
        return False


def chunk_bytes(description: dict[str, Any]) -> int:
    """Bytes of each chunk file of an array; npk compresses none."""
    return (
        math.prod(description["chunk_grid"]["configuration"]["chunk_shape"])
        * np.dtype(description["data_type"]).itemsize
    )


def _wrong_group(found: dict[str, Any]) -> str | None:
    """What of a group's description is not as npk writes it."""
    if not isinstance(found.get("attributes"), dict):
        return "attributes"
    if found.get("consolidated_metadata") is not None:
        return "consolidated_metadata"
    return next((str(key) for key in found if key not in _GROUP), None)


def _wrong_array(found: dict[str, Any]) -> str | None:
    """What of an array's description is not as npk writes it."""
    if found.get("node_type") != "array" or found.get("attributes") != {}:
        return "node_type" if found.get("node_type") != "array" else "attributes"
    if not isinstance(found.get("data_type"), str) or found["data_type"] not in DTYPES:
        return "data_type"
    if not are_counts(found.get("shape"), 0, _MOST) or len(found["shape"]) > _MOST_AXES:
        return "shape"
    size = np.dtype(found["data_type"]).itemsize
    grid = found.get("chunk_grid")
    if isinstance(grid, dict) and _is_plain(grid):
        chunks = grid.get("configuration", {}).get("chunk_shape")
    else:
        chunks = None
    if grid != {"name": "regular", "configuration": {"chunk_shape": chunks}} or not _fit(
        chunks, found["shape"], size
    ):
        return "chunk_grid"
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    expected = {
        "chunk_key_encoding": [{"name": "default", "configuration": {"separator": "/"}}],
        "codecs": [[little], [{"name": "bytes"}], [{"name": "bytes", "configuration": {}}]]
        if size == 1
        else [[little]],
        "fill_value": [0, -1],
        "storage_transformers": [[], None],
        "dimension_names": [None, [None] * len(found["shape"])],
    }
    wrong = next((key for key, values in expected.items() if found.get(key) not in values), None)
    return wrong or next((str(key) for key in found if key not in _ARRAY), None)


def _is_plain(grid: dict[str, Any]) -> bool:
    return isinstance(grid.get("configuration"), dict)


def _fit(chunks: Any, shape: list[int], size: int) -> bool:
    return (
        are_counts(chunks, 1, _MOST)
        and len(chunks) == len(shape)
        and math.prod(chunks) * size <= MOST_BYTES
    )


def are_counts(values: Any, least: int, most: int) -> bool:
    """Whether a value of a file is a list of whole numbers from ``least`` to ``most``."""
    return isinstance(values, list) and all(
        type(value) is int and least <= value <= most for value in values
    )


def are_names(values: Any, lists: int) -> bool:
    """Whether a value of a file is so many lists of names that no two parts of stores share."""
    if not isinstance(values, list) or len(values) != lists:
        return False
    return all(
        isinstance(names, list)
        and all(isinstance(name, str) and 0 < len(name) <= 64 for name in names)
        for names in values
    )


def _foreign(root: Path, key: str, what: str) -> str:
    return (
        f"{root} is no store of npk, or a damaged one: it has a {key} {what}. Name a folder "
        f"that npk wrote."
    )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
