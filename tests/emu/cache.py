"""Compiled things are kept between runs, under a digest of all that they were made from."""

import hashlib
import os
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "emu"


def kept(key, make):
    """The file that ``make(path)`` writes, made only if there is none for ``key``.

    Args:
        key: everything the file depends on.
        make: writes it.

    Returns:
        Its path.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / hashlib.sha256(repr(key).encode()).hexdigest()[:24]
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        make(temporary)
        os.replace(temporary, path)
    return path
