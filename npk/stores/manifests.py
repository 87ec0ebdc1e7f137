"""Manifests: what a store says of itself, under a seal, in one format."""

import json
from pathlib import Path
from typing import Any

from npk.errors import StoreError
from npk.files import digest, put_back
from npk.stores.files import read_manifest

FORMAT = 3  # of gate tables and kernels on disk


def open_store(
    path: str | Path, content: str, *, write: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Open a zarr group that npk wrote.

    Args:
        path: its folder.
        content: what it must hold, as its manifest names it.
        write: it will be written to.

    Returns:
        The group, and its manifest.

    Raises:
        StoreError: nothing there, not npk's, other content, damaged, or another format.
    """
    from npk.stores.plain import open_group  # zarr, which takes a while to import

    put_back(path := Path(path))
    try:
        manifest = read_manifest(path)
        group = open_group(path, write=write)
    except StoreError:
        raise
    except Exception as error:  # zarr raises many kinds; the cause is kept
        raise StoreError(
            f"cannot read {path} as a {content}: {_why(path, error)}. Name a folder that npk wrote."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("content") != content:
        if isinstance(manifest, dict):
            found = manifest.get("content")
        else:
            found = "something that npk did not write"
        raise StoreError(
            f"{path} holds {found}, not a {content}. Name a folder that npk wrote as a {content}."
        )
    if manifest.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {manifest.get('format')}, this npk reads format "
            f"{FORMAT}. Make it again."
        )
    if manifest != sealed(manifest):
        raise StoreError(
            f"{path} is damaged: its manifest, zarr.json, does not match its "
            f"checksum. Make it again."
        )
    return group, manifest


def content_of(path: str | Path) -> str | None:
    """What a folder holds that npk wrote, by its manifest; ``None``: something else, or broken."""
    put_back(path := Path(path))
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError):  # :func:`open_store` says which
        return None
    return manifest.get("content") if isinstance(manifest, dict) else None


def _why(path: Path, error: Exception) -> str:
    """Why a group could not be opened."""
    if not path.is_dir():
        return "it is a file" if path.exists() else "there is nothing"
    if isinstance(error, FileNotFoundError):
        older = any((path / name).exists() for name in (".zgroup", ".zarray"))
        if older:
            return "it is of zarr format 2, and npk reads format 3 alone"
        return "it has no zarr.json"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"its zarr.json is damaged ({type(error).__name__})"


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the checksum that :func:`open_store` compares."""
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return {**content, "seal": digest(json.dumps(content, sort_keys=True).encode())}


def write_manifest(group: Any, manifest: dict[str, Any]) -> None:
    """Write what a store says of itself, under its seal; it takes the place of what it said before."""
    group.attrs["npk"] = sealed(manifest)
