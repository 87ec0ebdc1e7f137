"""The way between zarr and a store's folder: what zarr reads was looked at before, and nothing is
read or written through a link.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from npk.stores.files import LostFile, chunk_bytes, look, read_description, read_plain

_DESCRIPTION = "zarr.json"
_FLAGS = -1  # what a checksum reads as that is not written: its file may be missing


class PlainStore(WrapperStore[LocalStore]):
    """A folder as a store of zarr."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.root = store.root
        self._known: dict[str, dict[str, Any]] = {}

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """The bytes under a key; ``None``: none. A ValueError where a part of a chunk is wanted."""
        if byte_range is not None:
            raise ValueError(f"a part of {key} is wanted, and npk's chunks are read whole")
        content = await asyncio.to_thread(self._content, key)
        buffer = (prototype or default_buffer_prototype()).buffer
        return None if content is None else buffer.from_bytes(content)

    def _content(self, key: str) -> bytes | None:
        *folders, name = key.split("/")
        if name == _DESCRIPTION:
            description = read_description(self.root, key)
            return None if description is None else _bytes(description)
        if "c" not in folders:  # files of other formats of zarr
            return None
        return self._chunk(key, key[: key.rindex("/c/")] if "/c/" in key else "")

    def _chunk(self, key: str, array: str) -> bytes | None:
        if array not in self._known:
            description = read_description(self.root, f"{array}/{_DESCRIPTION}")
            if description is None or description["node_type"] != "array":
                raise ValueError(f"{array}/{_DESCRIPTION} describes no array")
            self._known[array] = description
        size = chunk_bytes(self._known[array])
        content = read_plain(self.root, key, size, size)
        if content is None and self._known[array]["fill_value"] != _FLAGS:
            raise LostFile(f"{key} is missing")
        return content

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
        """One after another as :meth:`get` gives them."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def _get_many(self, requests: Any) -> AsyncGenerator[Any, None]:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    async def set(self, key: str, value: Any) -> None:
        """Write a file whole; what was known of an array is forgotten where it is described anew."""
        self._known.pop(key.removesuffix(f"/{_DESCRIPTION}"), None)
        look(self.root, key)
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Write a file that is not there."""
        look(self.root, key)
        await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Remove a file."""
        look(self.root, key)
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove a folder."""
        look(self.root, prefix.rstrip("/"))
        await super().delete_dir(prefix)


def open_group(path: Path, *, write: bool = False) -> zarr.Group:
    """The group of a store, through a :class:`PlainStore`; ``write``: it will be written to."""
    store = PlainStore(LocalStore(path, read_only=not write))
    return zarr.open_group(
        store, mode="r+" if write else "r", zarr_format=3, use_consolidated=False
    )


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """An array of a group. What is written to it is a file even where it is all zeros.

    Raises:
        ValueError: a group is there.
    """
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} is a group")
    inner: Any = zarr.AsyncArray(
        metadata=array.metadata, store_path=array.store_path, config={"write_empty_chunks": True}
    )
    return zarr.Array(inner)


def _bytes(description: dict[str, Any]) -> bytes:
    return json.dumps(description).encode()
