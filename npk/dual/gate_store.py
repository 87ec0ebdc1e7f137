"""GateStore: gates of many samples on disk, written and read a few samples at a time.

The samples are cut into pieces. A piece counts as written when its checksum is there, and that is written last: whatever kills a run, a
piece is whole or it is missing. Samples that are added later begin a part of their own, so that no piece ever changes.
"""

import bisect
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npk.dual.gate_table import FORMAT, GateLayer, GateTable, fingerprint_of, open_store, raw, sealed
from npk.dual.path_graph import from_dict, to_dict
from npk.errors import ShapeError, StoreError

CONTENT = "gate table"
_NOT_WRITTEN = -1
_PIECE_BYTES, _PIECE_SAMPLES = 16 << 20, 1024
_READ_BYTES = 16 << 20  # read, or recorded, at once, at most: more takes memory and no less time


@dataclass(frozen=True)
class _Part:
    """Samples that were added together: the numbers of their first sample and piece, and arrays of their own, the inputs first."""

    sample: int
    piece: int
    arrays: list[Any]
    checksums: Any


class GateStore:
    """A gate table in a zarr group. It stands for one wherever samples are taken of it: ``take``, ``len``, ``graph``, ``entries``.

    ``empty``: the table of 0 samples; ``entries`` are its own, for their kinds and shapes.
    ``pieces``: of each piece, the number of its first sample and of the one after its last.
    ``piece``: samples of a piece; the last one of a part may have fewer.
    """

    def __init__(self, path: Path, group: Any, manifest: dict[str, Any]) -> None:
        self.path, self.manifest, self._group = path, manifest, group
        self.empty, self.piece = _empty(manifest), int(manifest["piece"])
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
            StoreError: something is there already.
            OSError: the folder cannot be written.
        """
        import zarr

        if Path(where).exists():
            raise StoreError(f"{where} exists already. Choose another name or remove it.")
        kinds = {name: {"kind": entry.kind, "shape": list(entry.shape)} for name, entry in example.entries.items()}
        layers = [{"name": name, **kinds[name], **_form(entry.data)} for name, entry in example.entries.items()]
        cut = {"piece": piece or _piece(_bytes_a_sample(example)), "parts": [n]}
        what = {"graph": to_dict(example.graph), "inputs": _form(example.inputs), "layers": layers}
        group = zarr.open_group(where, mode="w-")
        _make_part(group, 0, example, n, cut["piece"])
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
        except Exception as error:  # zarr raises many kinds for damaged arrays; the cause is kept
            raise StoreError(f"{where} is damaged ({type(error).__name__}: {error}). Record the gates again.") from error

    def _open_part(self, n: int) -> None:
        sample, group = len(self), self._group[str(len(self._parts))]
        arrays, checksums, pieces = [group[name] for name in _names(self.empty)], group["checksums"], -(-n // self.piece)
        expected = [((n, *empty.shape[1:]), empty.dtype) for empty in self.empty.arrays]
        for array, (shape, dtype) in zip([*arrays, checksums], [*expected, ((pieces,), np.dtype("int64"))], strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{array.path} is {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
        self._parts.append(_Part(sample, len(self.pieces), arrays, checksums))
        self.pieces += [(sample + i * self.piece, sample + min(n, (i + 1) * self.piece)) for i in range(pieces)]

    def __len__(self) -> int:
        return self.pieces[-1][1] if self.pieces else 0

    @property
    def about(self) -> dict[str, Any]:
        """What the gates are of."""
        return self.manifest["about"]

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample and its gates."""
        return _bytes_a_sample(self.empty)

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
        return [piece for piece, checksum in zip(self.pieces, found, strict=True) if checksum == _NOT_WRITTEN]

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
            StoreError: the disk is full or gone.
        """
        try:
            self.put(start, table)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"cannot write {self.path}: {reason}. Pieces written so far are kept: make room and run again.") from error

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
        if not whole or not _alike(table, self.empty):
            what = f"samples {start} to {stop - 1} of {self.path}"
            raise ShapeError(f"the table of {len(table)} samples is not that of {what}: other gates, or no whole pieces.")
        where = slice(i - part.piece, j - part.piece)
        part.checksums[where] = _NOT_WRITTEN
        for array, data in zip(part.arrays, table.arrays, strict=True):
            array[start - part.sample : stop - part.sample] = data
        spans = [slice(first - start, after - start) for first, after in self.pieces[i:j]]
        part.checksums[where] = np.array([_checksum([data[span] for data in table.arrays]) for span in spans])

    def forget(self, start: int) -> None:
        """Count a piece as not written.

        Args:
            start: number of its first sample.

        Raises:
            ShapeError: no piece starts there.
        """
        piece, part = self._find(start)
        part.checksums[piece - part.piece] = _NOT_WRITTEN

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
            to, of = _as_slice(here), _as_slice(wanted[here] - start)
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
            arrays = [array[start - part.sample : stop - part.sample] for array in part.arrays]
        except MemoryError:
            raise
        except Exception as error:  # zarr raises many kinds for damaged chunks; the cause is kept
            for piece in range(i, j if j - i > 1 else i):  # to name the one
                self._read(piece, piece + 1)
            raise self._damaged(i, f"{type(error).__name__}: {error}") from error
        for piece, checksum in zip(range(i, j), checksums, strict=True):
            first, after = self.pieces[piece]
            if checksum == _NOT_WRITTEN:
                what = f"the gates of samples {first} to {after - 1} are missing"
                raise StoreError(f"{self.path} is not complete: {what}. Run the same command again to finish it.")
            if checksum != _checksum([array[first - start : after - start] for array in arrays]):
                raise self._damaged(piece, "their checksum differs")
        return arrays

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

    def extend(self, n: int, *, about: dict[str, Any] | None = None) -> None:
        """Make room for more samples behind the others; no piece changes. The manifest is written last.

        Args:
            n: number of samples to add.
            about: takes the place of what the store says of its gates; ``None``: nothing new.

        Raises:
            StoreError: the disk is full or gone; the store is as it was.
        """
        manifest = {**self.manifest, "parts": [*self.manifest["parts"], n], "about": self.about if about is None else about}
        try:
            _make_part(self._group, len(self._parts), self.empty, n, self.piece)
            self._group.attrs["npk"] = sealed(manifest)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"cannot write {self.path}: {reason}. It is as it was: make room and run again.") from error
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


def _empty(manifest: dict[str, Any]) -> GateTable:
    """The table of 0 samples that a manifest describes."""
    inputs, *data = (np.empty((0, *form["width"]), form["dtype"]) for form in (manifest["inputs"], *manifest["layers"]))
    layers = zip(manifest["layers"], data, strict=True)
    return GateTable(
        from_dict(manifest["graph"]), inputs, {v["name"]: GateLayer(v["kind"], tuple(v["shape"]), empty) for v, empty in layers}
    )


def _form(array: np.ndarray) -> dict[str, Any]:
    return {"width": list(array.shape[1:]), "dtype": array.dtype.name}


def _bytes_a_sample(table: GateTable) -> int:
    return max(1, sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in table.arrays))


def _alike(table: GateTable, other: GateTable) -> bool:
    """Whether two tables differ in nothing but their samples."""
    kinds = [[(name, e.kind, e.shape) for name, e in t.entries.items()] for t in (table, other)]
    return kinds[0] == kinds[1] and [_form(a) for a in table.arrays] == [_form(a) for a in other.arrays] and table.graph == other.graph


def _names(table: GateTable) -> list[str]:
    """Names of a part's arrays."""
    return ["inputs", *(f"gates/{i}" for i in range(len(table.entries)))]


def _make_part(group: Any, number: int, example: GateTable, n: int, piece: int) -> None:
    """Empty arrays for n samples, in the place of those that a killed run may have left."""
    for name, array in zip(_names(example), example.arrays, strict=True):
        shape = (n, *array.shape[1:])
        chunks = (max(1, min(piece, n)), *(max(1, side) for side in shape[1:]))
        group.create_array(f"{number}/{name}", shape=shape, chunks=chunks, dtype=array.dtype, compressors=None, overwrite=True)
    sides = {"shape": (-(-n // piece),), "chunks": (1,)}  # a chunk is replaced as a whole
    group.create_array(f"{number}/checksums", **sides, dtype="int64", fill_value=_NOT_WRITTEN, compressors=None, overwrite=True)


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Numbers that follow one another as a slice, which is faster."""
    follow = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
    return slice(int(numbers[0]), int(numbers[-1]) + 1) if follow else numbers


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(raw(array), checksum)
    return checksum
