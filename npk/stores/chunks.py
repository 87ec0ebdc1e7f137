"""ChunkStore: chunks of arrays on disk, a checksum each. It alone knows the order of writes.

A chunk counts as written when its checksum is there, and that is written last, after a proof that
the folder is still the same store: whatever kills a run, a chunk is whole or it is missing.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npk.errors import StoreError
from npk.stores.blocks import NOT_WRITTEN, Blocks, Numbers
from npk.stores.files import LostFile, prove
from npk.stores.manifests import write_manifest

_Says = Callable[[Numbers, int, str], str]  # of chunks: number of the first, how many, why


class ChunkStore:
    """Chunks in a zarr group, each named by its number along every axis that is cut.

    A subclass says what the chunks are to its users, in errors too, and whether a chunk ``clears``:
    counts as missing while it is written again. One of many files has to, or a kill between them
    would damage it; one of a single file is replaced as a whole.
    """

    clears = False
    thing, again = "chunk", "Run again"
    differs, mend = "its checksum differs", "Write that again"
    room = "make room"

    def __init__(self, path: Path, group: Any, manifest: dict[str, Any], blocks: Blocks) -> None:
        self.path, self.manifest, self.blocks, self._group = path, manifest, blocks, group
        self._opened: dict[str, Any] = {}

    @property
    def identities(self) -> list[list[str]]:
        """The names of the parts of each axis: they say which store this is, and prove it."""
        return self.manifest["identities"]

    @property
    def about(self) -> dict[str, Any]:
        """What the values are of."""
        return self.manifest["about"]

    def write_chunks(self, first: Numbers, arrays: Sequence[np.ndarray], count: int = 1) -> None:
        """Write chunks, checksums last.

        Args:
            first: number of the first chunk.
            arrays: values of the chunks, one behind the other.
            count: of chunks that follow one another along the first axis, in one part.

        Raises:
            StoreError: another store is in its place.
            OSError: the disk is full or gone.
        """
        run = self.blocks.run(first, count)
        self._prove()
        if self.clears:
            self._flags(run.block)[run.flags] = NOT_WRITTEN
        for array, data in zip(self._values(run.block), arrays, strict=True):
            array[run.inside] = data
        checksums = self.blocks.sums(run, arrays)
        self._prove()
        self._flags(run.block)[run.flags] = checksums

    def forget_chunk(self, chunk: Numbers) -> None:
        """Count a chunk as not written; it raises what :meth:`write_chunks` does."""
        run = self.blocks.run(chunk)
        self._prove()
        self._flags(run.block)[run.flags] = NOT_WRITTEN

    def written(self) -> np.ndarray:
        """Whether each chunk is written, by its numbers; a StoreError if checksums are damaged."""
        firsts = [axis.firsts for axis in self.blocks.axes]
        is_written = np.zeros([first[-1] for first in firsts], bool)
        for block in self.blocks.all():
            where = (slice(*f[part : part + 2]) for f, part in zip(firsts, block, strict=True))
            with self._reading(self._unreadable):
                is_written[tuple(where)] = self._flags(block)[...] != NOT_WRITTEN
        return is_written

    def is_written(self, chunk: Numbers) -> bool:
        """Whether a chunk is written; a StoreError if its checksum is damaged."""
        run = self.blocks.run(chunk)
        with self._reading(self._unreadable, chunk, 1):
            return bool((self._flags(run.block)[run.flags] != NOT_WRITTEN).all())

    def read_chunks(self, first: Numbers, count: int = 1) -> list[np.ndarray]:
        """Chunks, compared with their checksums.

        Args:
            first: number of the first one.
            count: how many follow one another along the first axis, in one part.

        Returns:
            The values in each array, one chunk behind the other.

        Raises:
            StoreError: one is missing or damaged.
        """
        run = self.blocks.run(first, count)
        with self._reading(self._unreadable, first, count):
            checksums = self._flags(run.block)[run.flags]
        for i in np.flatnonzero(checksums == NOT_WRITTEN):
            raise StoreError(self._incomplete(_behind(first, i)))
        with self._reading(self._damaged, first, count):
            arrays = [array[run.inside] for array in self._values(run.block)]
        for i in np.flatnonzero(checksums != self.blocks.sums(run, arrays)):
            raise StoreError(self._damaged(_behind(first, i), 1, self.differs))
        return arrays

    def is_sound(self, chunk: Numbers) -> bool:
        """Whether a chunk can be read."""
        try:
            self.read_chunks(chunk)
        except StoreError:
            return False
        return True

    def open_arrays(self) -> None:
        """See that all arrays are there and as the manifest says: a StoreError if not."""
        for block in self.blocks.all():
            self._values(block)
            self._flags(block)

    def grow_to(self, manifest: dict[str, Any], blocks: Blocks) -> None:
        """Make room behind what is there: new arrays, then the manifest that names them.

        Args:
            manifest: takes the place of that which is there.
            blocks: these, and those of more parts.

        Raises:
            StoreError: the disk is full or gone, or another store is here; this one is as it was.
        """
        with self.kept("It is as it was"):
            self._prove()
            _make_arrays(self._group, blocks, beside=self.blocks)
            write_manifest(self._group, manifest)
        self.manifest, self.blocks = manifest, blocks

    @contextlib.contextmanager
    def kept(self, what: str) -> Iterator[None]:
        """Tell errors of the disk in a sentence that says what is kept, as a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            why = error.strerror or str(error) if self.path.exists() else "the folder is gone"
            then = f"{what}: {self.room} and run again"
            raise StoreError(f"cannot write {self.path}: {why}. {then}.") from error

    def _incomplete(self, chunk: Numbers) -> str:
        what = f"{self.thing} {chunk} is missing"
        return f"{self.path} is not complete: {what}. {self.again} to finish it."

    def _damaged(self, first: Numbers, count: int, why: str) -> str:
        return f"{self.path} is damaged at {self.thing} {first}: {why}. {self.mend}."

    def _unreadable(self, first: Numbers, count: int, why: str) -> str:
        """Says that checksums of chunks cannot be read; of all of them where ``count`` is 0."""
        return f"{self.path} is damaged at its checksums: {why}. {self.mend}."

    def _unopened(self, name: str, error: Exception) -> str:
        what = f"{name}/zarr.json is missing or cut short ({type(error).__name__})"
        again = "remove the store and run the command that wrote it again"
        return f"{self.path} is damaged: {what}. Put it back from a copy, or {again}."

    def _unlike(self, name: str, found: Any, expected: dict[str, Any]) -> str:
        what = f"{name}/zarr.json does not say what the manifest says"
        return f"{self.path} is damaged: {what}. Put it back from a copy."

    def _prove(self) -> None:
        prove(self.path, self.identities)  # zarr would make a folder that is gone again

    @contextlib.contextmanager
    def _reading(self, says: _Says, first: Numbers = (), count: int = 0) -> Iterator[None]:
        try:
            yield
        except (MemoryError, StoreError):
            raise
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            for i in range(count if count > 1 else 0):
                self.read_chunks(_behind(first, i))  # names the one
            why = self.differs if isinstance(error, LostFile) else type(error).__name__
            raise StoreError(says(first, count, f"{why}: {error}")) from error

    def _values(self, block: Numbers) -> list[Any]:
        *values, _ = self.blocks.described(block).items()
        return [self._open(*each) for each in values]

    def _flags(self, block: Numbers) -> Any:
        *_, flags = self.blocks.described(block).items()
        return self._open(*flags)

    def _open(self, name: str, expected: dict[str, Any]) -> Any:
        if name not in self._opened:
            from npk.stores.plain import open_array  # zarr, which takes a while to import

            flags = expected["fill_value"] == NOT_WRITTEN  # what is not written has no file then
            try:
                array: Any = self._group[name] if flags else open_array(self._group, name)
                is_other = {key: getattr(array, key) for key in expected} != expected
            except OSError:
                raise
            except Exception as error:  # zarr raises many kinds; the cause is kept
                raise StoreError(self._unopened(name, error)) from error
            if is_other:
                raise StoreError(self._unlike(name, array, expected))
            self._opened[name] = array
        return self._opened[name]


def make_store(where: Path, manifest: dict[str, Any], blocks: Blocks) -> None:
    """Make a store in which nothing is written; the manifest comes last.

    Args:
        where: a folder that does not exist; an OSError says that it cannot be written.
        manifest: JSON values, "identities" of the parts of each axis among them.
        blocks: its arrays.
    """
    import zarr

    group = zarr.open_group(where, mode="w-", zarr_format=3)
    _make_arrays(group, blocks)
    write_manifest(group, manifest)


def _make_arrays(group: Any, blocks: Blocks, beside: Blocks | None = None) -> None:
    """Empty arrays, in the place of those that a killed run may have left."""
    present = set(beside.all()) if beside else set()
    plain: dict[str, Any] = {"compressors": None, "filters": None, "overwrite": True}
    for block in blocks.all():
        for name, described in blocks.described(block).items() if block not in present else ():
            group.create_array(name, **described, **plain)


def _behind(first: Numbers, i: Any) -> Numbers:
    """The number of a chunk behind another one on the first axis."""
    return first[0] + int(i), *first[1:]
