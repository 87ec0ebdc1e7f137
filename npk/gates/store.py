"""GateStore: gates of many samples on disk, written and read a few samples at a time.

A piece counts as written when its checksum is there, and that is written last: whatever kills a
run, a piece is whole or it is missing.
"""

import bisect
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npk.errors import ShapeError
from npk.gates.pieces import GatePieces, blocks_of
from npk.gates.table import GateTable, fingerprint_of, shown_gates

_KEPT = "Pieces written so far are kept"


class GateStore(GatePieces):
    """A gate table in a zarr group.

    It stands for one wherever samples are taken of it: ``take``, ``len``, ``graph``, ``entries``.
    ``empty``: the table of 0 samples; ``entries`` are its own, for their kinds and shapes.
    """

    def __init__(self, path: Path, group: Any, manifest: dict[str, Any]) -> None:
        super().__init__(path, group, manifest)
        self.empty = GateTable.of(self.form, self.form.empty(0))
        self.graph, self.entries = self.empty.graph, self.empty.entries
        self.names, self.layers = self.empty.names, self.empty.layers

    def __repr__(self) -> str:
        return f"<GateStore: {len(self)} samples, {self.layers} gate layers, in {self.path}>"

    def _repr_html_(self) -> str:
        return shown_gates(self.graph, self.entries, self.names, repr(self))

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample and its gates."""
        return self.form.bytes_a_sample

    @property
    def bytes_to_take(self) -> int:
        """Bytes that :meth:`take` needs beside what it returns, at most."""
        return 2 * self.at_once * self.piece * self.bytes_a_sample

    def groups(self) -> list[list[tuple[int, int]]]:
        """All pieces, those together that are recorded at once.

        They are the same ones whatever is missing, so that a run again rounds alike.
        """
        return [self.pieces[i:j] for i, j in self.runs(range(len(self.pieces)))]

    def missing(self) -> list[tuple[int, int]]:
        """The pieces that are not written yet; a StoreError if checksums are damaged."""
        return [self.pieces[i] for i in np.flatnonzero(~self.written())]

    def verify(self) -> Iterator[tuple[int, int]]:
        """Read everything that is written.

        Yields:
            The pieces that are damaged; :meth:`forget` them to write them again.

        Raises:
            StoreError: the checksums are damaged.
        """
        pieces = np.flatnonzero(self.written()).tolist()
        yield from (self.pieces[i] for i in pieces if not self.is_sound((i,)))

    def write(self, start: int, table: GateTable) -> None:
        """Write a piece, or several neighbors of one part; checksums last.

        Args:
            start: number of its first sample.
            table: of exactly the samples of the pieces.

        Raises:
            ShapeError: no piece starts there, or the table is another one or of no whole pieces.
            StoreError: the disk is full or gone, or another store is in its place.
        """
        with self.kept(_KEPT):
            self.put(start, table)

    def put(self, start: int, table: GateTable) -> None:
        """As :meth:`write`, with the disk's own errors: for a store that is thrown away then."""
        i, stop = self._find(start), start + len(table)
        j = bisect.bisect_left(self.pieces, (stop,))
        whole = i < j and self.pieces[j - 1][1] == stop and self.are_one(i, j - 1)
        if not whole or table.form != self.form:
            what = f"that of samples {start} to {stop - 1} of {self.path}"
            why = "other gates, or no whole pieces"
            raise ShapeError(f"the table of {len(table)} samples is not {what}: {why}.")
        self.write_chunks((i,), table.arrays, j - i)

    def forget(self, start: int) -> None:
        """Count the piece that starts at a sample as not written; errors as in :meth:`write`."""
        piece = self._find(start)
        with self.kept(_KEPT):
            self.forget_chunk((piece,))

    def _find(self, start: int) -> int:
        """Number of the piece that starts at a sample."""
        piece = bisect.bisect_left(self.pieces, (start,))
        if piece == len(self.pieces) or self.pieces[piece][0] != start:
            what = f"no piece of {self.path} starts at sample {start}"
            raise ShapeError(f"{what}. Take the first number of one of its pieces.")
        return piece

    def take(self, rows: slice | np.ndarray) -> GateTable:
        """The table of a subset of the samples, in memory; only the pieces they are in are read.

        Args:
            rows: a slice, or numbers of samples in any order.

        Returns:
            The table.

        Raises:
            StoreError: a piece is damaged, or not written yet.
        """
        return GateTable.of(self.form, self.arrays(rows))

    def extend(self, n: int, *, about: Any = None, identity: str | None = None) -> None:
        """Make room for more samples behind the others; no piece changes.

        Args:
            n: number of samples to add.
            about: takes the place of what the store says of its gates; ``None``: nothing new.
            identity: of the part; ``None``: a new one.

        Raises:
            StoreError: the disk is full or gone, or another store is here; this one is as it was.
        """
        names = [[*self.identities[0], identity or uuid.uuid4().hex]]
        cut = {"parts": [*self.manifest["parts"], n], "identities": names}
        manifest = {**self.manifest, **cut, "about": self.about if about is None else about}
        self.grow_to(manifest, blocks_of(self.form, manifest))

    def fingerprint(self, first: int | None = None) -> str:
        """That of the table of all samples (of the first ones), which need not fit into memory.

        See :meth:`GateTable.fingerprint`.
        """
        end = len(self) if first is None else min(first, len(self))
        spans = (slice(start, min(stop, end)) for start, stop in self.pieces if start < end)
        return fingerprint_of(self.empty, map(self.take, spans))
