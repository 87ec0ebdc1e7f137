"""GateStore: gates of many samples on disk, written and read a few samples at a time.

The samples are cut into pieces. A piece counts as written when its checksum is there, and that is written last: whatever kills a run, a
piece is whole or it is missing. Samples that are added later begin a part of their own, so that no piece ever changes.
"""

import bisect
import contextlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npk.dual.gate_parts import NOT_WRITTEN, alike, as_slice, bytes_of, check_manifest, empty_table, form, make_part, names
from npk.dual.gate_table import GateLayer, GateTable, fingerprint_of, raw
from npk.dual.path_graph import to_dict
from npk.errors import ShapeError, StoreError
from npk.stores.files import DTYPES, LostFile, prove
from npk.stores.manifests import FORMAT, open_store, sealed

CONTENT = "gate table"
_PIECE_BYTES, _PIECE_SAMPLES = 16 << 20, 1024
_READ_BYTES = 16 << 20  # read, or recorded, at once, at most: more takes memory and no less time


@dataclass(frozen=True)
class _Part:
    """Samples that were added together: a name that no other part in the world has, the numbers of their first sample and piece, and
    arrays of their own, the inputs first.
    """

    identity: str
    sample: int
    piece: int
    arrays: list[Any]
    checksums: Any

    def checksum(self, piece: int, arrays: Iterable[np.ndarray]) -> int:
        """That of a piece's arrays, in this place: pieces of other stores, and of other places, have others."""
        return _checksum(arrays, zlib.crc32(f"{self.identity} {piece - self.piece}".encode()))


class GateStore:
    """A gate table in a zarr group. It stands for one wherever samples are taken of it: ``take``, ``len``, ``graph``, ``entries``.

    ``empty``: the table of 0 samples; ``entries`` are its own, for their kinds and shapes.
    ``pieces``: of each piece, the number of its first sample and of the one after its last.
    ``piece``: samples of a piece; the last one of a part may have fewer.
    """

    def __init__(self, path: Path, group: Any, manifest: dict[str, Any]) -> None:
        self.path, self.manifest, self._group = path, manifest, group
        check_manifest(manifest)
        self.empty, self.piece = empty_table(manifest), int(manifest["piece"])
        self.graph, self.entries = self.empty.graph, self.empty.entries
        self.names, self.layers = self.empty.names, self.empty.layers
        self.pieces: list[tuple[int, int]] = []
        self._parts: list[_Part] = []
        for n in manifest["parts"]:
            self._open_part(n)

    @classmethod
    def create(
        cls, where: str | Path, example: GateTable, n: int, *, about: dict[str, Any] | None = None, piece: int | None = None
    ) -> "GateStore":
        """Make a store in which no piece is written. Its manifest comes last; inside :func:`npk.files.written_whole` it is safe.

        Args:
            where: a folder that does not exist.
            example: a table of the same network, of any number of samples.
            n: number of samples.
            about: JSON values that say what the gates are of.
            piece: samples of a piece; ``None``: about 4 MB of them.

        Returns:
            The store, to be written.

        Raises:
            StoreError: something is there already, or the table has values of a kind that stores do not hold.
            OSError: the folder cannot be written.
        """
        import zarr

        if Path(where).exists():
            raise StoreError(f"{where} exists already. Choose another name or remove it.")
        if strange := {array.dtype.name for array in example.arrays} - set(DTYPES):
            raise StoreError(f"a gate table with values of type {', '.join(strange)} cannot be saved. Take one of {', '.join(DTYPES)}.")
        kinds = {name: {"kind": entry.kind, "shape": list(entry.shape)} for name, entry in example.entries.items()}
        layers = [{"name": name, **kinds[name], **form(entry.data)} for name, entry in example.entries.items()]
        cut = {"piece": piece or _piece(bytes_of(example)), "parts": [n], "identities": [[uuid.uuid4().hex]]}
        what = {"graph": to_dict(example.graph), "inputs": form(example.inputs), "layers": layers}
        group = zarr.open_group(where, mode="w-", zarr_format=3)
        make_part(group, 0, example, n, cut["piece"])
        group.attrs["npk"] = sealed({"format": FORMAT, "content": CONTENT, **what, **cut, "about": about or {}})
        return cls.open(where, write=True)

    @classmethod
    def open(cls, where: str | Path, *, write: bool = False) -> "GateStore":
        """Open a store.

        Args:
            where: its folder.
            write: pieces will be written.

        Returns:
            The store.

        Raises:
            StoreError: no gate table that this npk reads, or a damaged one.
        """
        group, manifest = open_store(where, CONTENT, write=write)
        try:
            return cls(Path(where), group, manifest)
        except StoreError:
            raise
        except Exception as error:  # zarr raises many kinds for damaged arrays; the cause is kept
            raise StoreError(f"{where} is damaged ({type(error).__name__}: {error}). Record the gates again.") from error

    def _open_part(self, n: int) -> None:
        from npk.stores.plain import open_array

        number, sample, pieces = len(self._parts), len(self), -(-n // self.piece)
        group, identity = self._group[str(number)], self.identities[0][number]
        arrays, checksums = [open_array(group, name) for name in names(self.empty)], group["checksums"]
        expected = [((n, *empty.shape[1:]), empty.dtype) for empty in self.empty.arrays]
        for array, (shape, dtype) in zip([*arrays, checksums], [*expected, ((pieces,), np.dtype("int64"))], strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{array.path} is {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
        self._parts.append(_Part(identity, sample, len(self.pieces), arrays, checksums))
        self.pieces += [(sample + i * self.piece, sample + min(n, (i + 1) * self.piece)) for i in range(pieces)]

    def __len__(self) -> int:
        return self.pieces[-1][1] if self.pieces else 0

    @property
    def about(self) -> dict[str, Any]:
        """What the gates are of."""
        return self.manifest["about"]

    @property
    def identities(self) -> list[list[str]]:
        """The names of the parts, in a list: they say which store this is, and prove that a folder still holds it."""
        return self.manifest["identities"]

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample and its gates."""
        return bytes_of(self.empty)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples and gates."""
        return len(self) * self.bytes_a_sample

    @property
    def bytes_to_take(self) -> int:
        """Bytes that :meth:`take` needs beside what it returns, at most."""
        return 2 * self._at_once * self.piece * self.bytes_a_sample

    @property
    def _at_once(self) -> int:
        """Pieces that are read together."""
        return max(1, _READ_BYTES // (self.piece * self.bytes_a_sample))

    def groups(self) -> list[list[tuple[int, int]]]:
        """All pieces, those together that are recorded at once: the same ones whatever is missing, so that a run again rounds alike."""
        return [self.pieces[i:j] for i, j in self._runs(range(len(self.pieces)))]

    def missing(self) -> list[tuple[int, int]]:
        """The pieces that are not written yet.

        Returns:
            First sample, and sample after the last, of each.

        Raises:
            StoreError: the checksums are damaged.
        """
        found = [checksum for part in self._parts for checksum in self._checksums(part)]
        return [piece for piece, checksum in zip(self.pieces, found, strict=True) if checksum == NOT_WRITTEN]

    def _checksums(self, part: _Part) -> np.ndarray:
        try:
            return part.checksums[...]
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            raise StoreError(f"{self.path} has damaged checksums ({type(error).__name__}: {error}). Record the gates again.") from error

    def write(self, start: int, table: GateTable) -> None:
        """Write a piece, or several neighbors of one part; checksums last.

        Args:
            start: number of its first sample.
            table: of exactly the samples of the pieces.

        Raises:
            ShapeError: no piece starts there, or the table is another one or of no whole pieces.
            StoreError: the disk is full or gone, or another store is in its place.
        """
        with self._kept("Pieces written so far are kept"):
            self.put(start, table)

    @contextlib.contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror or error}. {what}: make room and run again.") from error

    def put(self, start: int, table: GateTable) -> None:
        """As :meth:`write`, with the disk's own errors: for a store that is thrown away when one occurs.

        Args:
            start: number of its first sample.
            table: of exactly the samples of the pieces.

        Raises:
            ShapeError: no piece starts there, or the table is another one or of no whole pieces.
            OSError: the disk is full or gone.
        """
        (i, part), stop = self._find(start), start + len(table)
        j = bisect.bisect_left(self.pieces, (stop,))
        whole = i < j and self.pieces[j - 1][1] == stop and self._part(j - 1) is part
        if not whole or not alike(table, self.empty):
            what = f"samples {start} to {stop - 1} of {self.path}"
            raise ShapeError(f"the table of {len(table)} samples is not that of {what}: other gates, or no whole pieces.")
        prove(self.path, self.identities)
        where = slice(i - part.piece, j - part.piece)
        part.checksums[where] = NOT_WRITTEN
        for array, data in zip(part.arrays, table.arrays, strict=True):
            array[start - part.sample : stop - part.sample] = data
        spans = [(piece, slice(first - start, after - start)) for piece, (first, after) in enumerate(self.pieces[i:j], i)]
        found = np.array([part.checksum(piece, [data[span] for data in table.arrays]) for piece, span in spans])
        prove(self.path, self.identities)
        part.checksums[where] = found

    def forget(self, start: int) -> None:
        """Count a piece as not written.

        Args:
            start: number of its first sample.

        Raises:
            ShapeError: no piece starts there.
            StoreError: the disk is full or gone, or another store is in its place.
        """
        piece, part = self._find(start)
        with self._kept("Pieces written so far are kept"):
            prove(self.path, self.identities)
            part.checksums[piece - part.piece] = NOT_WRITTEN

    def _find(self, start: int) -> tuple[int, _Part]:
        """Number and part of the piece that starts at a sample."""
        piece = bisect.bisect_left(self.pieces, (start,))
        if piece == len(self.pieces) or self.pieces[piece][0] != start:
            raise ShapeError(f"no piece of {self.path} starts at sample {start}. Take the first number of one of its pieces.")
        return piece, self._part(piece)

    def _part(self, piece: int) -> _Part:
        return self._parts[bisect.bisect_right(self._parts, piece, key=lambda part: part.piece) - 1]

    def take(self, rows: slice | np.ndarray) -> GateTable:
        """The table of a subset of the samples, in memory; only the pieces that they are in are read.

        Args:
            rows: a slice, or numbers of samples in any order.

        Returns:
            The table.

        Raises:
            StoreError: a piece is damaged, or not written yet.
        """
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.arange(len(self))[rows]
        taken = [np.empty((len(wanted), *empty.shape[1:]), empty.dtype) for empty in self.empty.arrays]
        firsts = np.array([start for start, _ in self.pieces], dtype=np.int64)
        for i, j in self._runs(np.unique(np.searchsorted(firsts, wanted, side="right") - 1)):
            start, stop = self.pieces[i][0], self.pieces[j - 1][1]
            here = np.flatnonzero((wanted >= start) & (wanted < stop))
            to, of = as_slice(here), as_slice(wanted[here] - start)
            for whole, read in zip(taken, self._read(i, j), strict=True):
                whole[to] = read[of]
        entries = zip(self.empty.entries.items(), taken[1:], strict=True)
        return GateTable(self.graph, taken[0], {name: GateLayer(e.kind, e.shape, data) for (name, e), data in entries})

    def _runs(self, pieces: Iterable[int]) -> list[tuple[int, int]]:
        """Pieces that are read together: neighbors of one part, not too many."""
        runs: list[tuple[int, int]] = []
        for piece in map(int, pieces):
            first, after = runs[-1] if runs else (0, -1)
            if piece == after and piece - first < self._at_once and self._part(first) is self._part(piece):
                runs[-1] = (first, piece + 1)
            else:
                runs.append((piece, piece + 1))
        return runs

    def _read(self, i: int, j: int) -> list[np.ndarray]:
        """The arrays of pieces i to j - 1, which are of one part, compared with their checksums."""
        part, (start, _), (_, stop) = self._part(i), self.pieces[i], self.pieces[j - 1]
        try:
            checksums = part.checksums[i - part.piece : j - part.piece]
            if (checksums == NOT_WRITTEN).any():
                raise self._incomplete(i + int(np.flatnonzero(checksums == NOT_WRITTEN)[0]))
            arrays = [array[start - part.sample : stop - part.sample] for array in part.arrays]
        except (MemoryError, StoreError):
            raise
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            for piece in range(i, j if j - i > 1 else i):  # to name the one
                self._read(piece, piece + 1)
            why = f"their checksum differs: {error}" if isinstance(error, LostFile) else f"{type(error).__name__}: {error}"
            raise self._damaged(i, why) from error
        for piece, checksum in zip(range(i, j), checksums, strict=True):
            first, after = self.pieces[piece]
            if checksum != part.checksum(piece, [array[first - start : after - start] for array in arrays]):
                raise self._damaged(piece, "their checksum differs")
        return arrays

    def _incomplete(self, piece: int) -> StoreError:
        first, after = self.pieces[piece]
        what = f"the gates of samples {first} to {after - 1} are missing"
        return StoreError(f"{self.path} is not complete: {what}. Run the same command again to finish it.")

    def _damaged(self, piece: int, why: str) -> StoreError:
        (first, after), mend = self.pieces[piece], "Record the gates again; in the store of a kernel, `npk verify-store --drop` helps"
        return StoreError(f"{self.path} is damaged at samples {first} to {after - 1} ({why}). {mend}.")

    def verify(self) -> Iterator[tuple[int, int]]:
        """Read everything that is written.

        Yields:
            The pieces that are damaged: first sample, and sample after the last; :meth:`forget` them to write them again.

        Raises:
            StoreError: the checksums are damaged.
        """
        missing = set(self.missing())
        for i, piece in enumerate(self.pieces):
            if piece not in missing:
                try:
                    self._read(i, i + 1)
                except StoreError:
                    yield piece

    def extend(self, n: int, *, about: dict[str, Any] | None = None, identity: str | None = None) -> None:
        """Make room for more samples behind the others; no piece changes. The manifest is written last.

        Args:
            n: number of samples to add.
            about: takes the place of what the store says of its gates; ``None``: nothing new.
            identity: of the part; ``None``: a new one.

        Raises:
            StoreError: the disk is full or gone, or another store is in its place; the store is as it was.
        """
        parts = {"parts": [*self.manifest["parts"], n], "identities": [[*self.identities[0], identity or uuid.uuid4().hex]]}
        manifest = {**self.manifest, **parts, "about": self.about if about is None else about}
        with self._kept("It is as it was"):
            prove(self.path, self.identities)
            make_part(self._group, len(self._parts), self.empty, n, self.piece)
            self._group.attrs["npk"] = sealed(manifest)
        self.manifest = manifest
        self._open_part(n)

    def fingerprint(self, first: int | None = None) -> str:
        """That of the table of all samples (of the first ones), which need not fit into memory: see :meth:`GateTable.fingerprint`."""
        end = len(self) if first is None else min(first, len(self))
        tables = (self.take(slice(start, min(stop, end))) for start, stop in self.pieces if start < end)
        return fingerprint_of(self.empty, tables)


def samples_at_once(bytes_a_sample: int) -> int:
    """How many samples are read or recorded at once, at most.

    Args:
        bytes_a_sample: of a sample and its gates.

    Returns:
        The number.
    """
    piece = _piece(bytes_a_sample)
    return piece * max(1, _READ_BYTES // (piece * bytes_a_sample))


def _piece(bytes_a_sample: int) -> int:
    return max(1, min(_PIECE_BYTES // bytes_a_sample, _PIECE_SAMPLES))


def _checksum(arrays: Iterable[np.ndarray], checksum: int) -> int:
    for array in arrays:
        checksum = zlib.crc32(raw(array), checksum)
    return checksum
