"""The folder of a suite: what an earlier run left there is used again."""

import os
import re
from pathlib import Path

from npk.errors import StoreError
from npk.files import digest


def made(folder: str | os.PathLike) -> Path:
    """The folder, with those above it.

    Args:
        folder: where it shall be.

    Raises:
        StoreError: it cannot be made.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {place}: {error.strerror}. Choose another one."
        ) from error
    return place


def file_of(folder: Path, name: str, *known: object) -> Path:
    """Where what was found of a network is kept.

    Args:
        folder: of the files.
        name: of the network.
        known: all that the result depends on.
    """
    key = digest(repr((name, *known)).encode())[:16]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    return folder / f"{slug}-{key}.json"
