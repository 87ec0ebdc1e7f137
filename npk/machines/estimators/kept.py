"""Kernels that were computed once: a search over alpha, C and folds asks for the same pairs of
samples again and again, and they are cut out of what is there.

A pair is known by the *content* of its samples and of their gates, so that it does not matter which
copy of a network recorded them, nor in which order the samples come.
"""

import dataclasses
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from npk.errors import StoreError
from npk.files import digest
from npk.gates.table import GateTable
from npk.gram.kernel import Columns, NeuralPathKernel, report_dead
from npk.gram.matrix import Gram
from npk.gram.store import GramStore
from npk.graph.path_graph import to_dict
from npk.stores.blocks import raw

Side = Columns | GateTable
Compute = Callable[[NeuralPathKernel, Side, Side | None], Any]
_FEW = 16  # part of the columns that as many new rows are too few to be kept


class Grams:
    """Kernels that are kept in memory, those used last, up to so many bytes.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple[str, int], _Rectangle] = OrderedDict()
        self._lock = threading.RLock()  # of two threads the second finds what the first computes
        self._number = 0

    def matrix(
        self,
        made: NeuralPathKernel,
        compute: Compute,
        rows: Side,
        cols: Side | None = None,
        folder: str | Path | None = None,
    ) -> NDArray:
        """The kernel of rows and columns: what is known is cut out, the rest computed and kept.

        Args:
            made: the kernel.
            compute: what computes a part of it, called with the kernel, rows, and columns if others.
            rows: samples, n.
            cols: other ones, m; ``None``: the rows.
            folder: where parts are kept, as stores; other processes find them there. ``None``: in
                the memory of this process.

        Returns:
            The matrix, (n, m), read-only: it may be that of the next call too.

        Raises:
            StoreError: the folder cannot be read or written.
        """
        asked = _Asked(rows, cols)
        size = asked.shape[0] * asked.shape[1] * np.dtype(made.options.dtype).itemsize
        if folder is None and size > self.limit:
            return compute(made, rows, cols)
        key = _key(made, asked)
        with self._lock:
            if folder is None:
                return self._filled(key, made, asked, compute, compute)
            disk = _Folder(Path(folder) / key[:24])
            with disk.lock:
                self._keep(key, *disk.others(self._known(key)))
                return self._filled(key, made, asked, compute, disk.compute)

    def renew(self) -> None:
        """A lock of this process's own: threads that hold the one of before may be in another."""
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget all of them, and free their memory."""
        with self._lock:
            self._kept.clear()

    def _filled(
        self, key: str, made: NeuralPathKernel, asked: "_Asked", compute: Compute, keep: Compute
    ) -> NDArray:
        """``compute`` gives what is not to be kept, ``keep`` what is."""
        near = [n for n, r in self._kept.items() if n[0] == key and r.meets(asked)]
        if not near and not asked.few:
            values = keep(made, *asked.sides)
            self._keep(key, _Rectangle(asked.rows, asked.cols, values))
            return _read_only(np.asarray(values))
        found = np.empty(asked.shape, made.options.dtype)
        known = np.zeros(asked.shape, bool)
        for name in near:
            self._kept[name].cut(found, known, asked)
            self._kept.move_to_end(name)
        if asked.few and not known.all():
            return compute(made, *asked.sides)
        if asked.symmetric and known.all():  # else those are told of that are computed now
            report_dead(found)
        while (gap := _largest_gap(known, symmetric=asked.symmetric)) is not None:
            part = asked.part(*gap)
            rectangle = _Rectangle(part.rows, part.cols, keep(made, *part.sides))
            rectangle.cut(found, known, asked)
            self._keep(key, rectangle)
        return _read_only(found)

    def _known(self, key: str) -> set[Path]:
        return {r.values.store.path for (of, _), r in self._kept.items() if of == key and r.on_disk}

    def _keep(self, key: str, *rectangles: "_Rectangle") -> None:
        for rectangle in rectangles:
            self._number += 1
            self._kept[key, self._number] = rectangle
        while sum(r.nbytes for r in self._kept.values()) > self.limit:
            self._kept.popitem(last=False)


GRAMS = Grams(1 << 30)  # of this process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GRAMS.renew)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rectangle:
    """Part of a kernel: digests of its rows and columns, and the values, in memory or on disk."""

    rows: list[bytes]
    cols: list[bytes]
    values: Any

    @property
    def on_disk(self) -> bool:
        return isinstance(self.values, Gram)

    @property
    def nbytes(self) -> int:
        return 16 * len(self.rows) if self.on_disk else self.values.nbytes

    def meets(self, asked: "_Asked") -> bool:
        """Whether a pair that is asked for is here."""
        return any(len(i) and len(j) for i, _, j, _, _ in self._cuts(asked))

    def cut(self, found: NDArray, known: NDArray[np.bool_], asked: "_Asked") -> None:
        """Fill in what is asked for and here, in both orders of a pair."""
        values = np.asarray(self.values)
        for i, a, j, b, turned in self._cuts(asked):
            found[np.ix_(i, j)] = (values.T if turned else values)[np.ix_(a, b)]
            known[np.ix_(i, j)] = True

    def _cuts(self, asked: "_Asked") -> list[tuple[NDArray, NDArray, NDArray, NDArray, bool]]:
        cuts = [(*_common(asked.rows, self.rows), *_common(asked.cols, self.cols), False)]
        if self.rows is not self.cols:
            cuts.append((*_common(asked.rows, self.cols), *_common(asked.cols, self.rows), True))
        return cuts


class _Asked:
    """Rows and columns of a matrix, with the digest of each sample."""

    def __init__(
        self, left: Side, right: Side | None, digests: tuple[list[bytes], list[bytes]] | None = None
    ) -> None:
        self.sides = left, right
        if digests is None:
            rows = _digests(left)
            digests = rows, rows if right is None else _digests(right)
        self.rows, self.cols = digests

    @property
    def symmetric(self) -> bool:
        return self.rows is self.cols

    @property
    def few(self) -> bool:
        """Whether it is of a few new samples with others, which are not kept."""
        return not self.symmetric and len(self.rows) * _FEW < len(self.cols)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.cols)

    def part(self, rows: NDArray, cols: NDArray | None) -> "_Asked":
        """The matrix of some rows and columns (``None``: the same ones)."""
        left, right = self.sides
        some = _taken(left, rows)
        names = [self.rows[i] for i in rows]
        if cols is None:
            return _Asked(some, None, (names, names))
        others = _taken(left if right is None else right, cols)
        return _Asked(some, others, (names, [self.cols[j] for j in cols]))


class _Folder:
    """Parts of one kernel on disk, a store each; one process at a time looks and computes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot keep kernels in {path.parent}: {error.strerror}. Give cache= a folder "
                f"that can be written."
            ) from error
        self.lock = FileLock(path / ".lock")

    def others(self, known: set[Path]) -> list[_Rectangle]:
        """Finished parts that this process does not know yet."""
        found = []
        for path in sorted(self.path.glob("*.zarr")):
            if path.absolute() in known or not (gram := Gram.load(path)).complete:
                continue
            store = GramStore.open(path)
            rows = _digests(store.rows.take(slice(None)))
            cols = rows if gram.symmetric else _digests(store.cols.take(slice(None)))
            found.append(_Rectangle(rows, cols, gram))
        return found

    def compute(self, made: NeuralPathKernel, rows: Side, cols: Side | None) -> Gram:
        """Compute a part into a store of its own; one that was interrupted is gone on with."""
        tables = [_table(side) for side in (rows, cols) if side is not None]
        name = digest(*(sample for table in tables for sample in _digests(table)))[:24]
        return made.to_store(tables[0], (*tables, None)[1], self.path / f"{name}.zarr")


def _read_only(values: NDArray) -> NDArray:
    values.setflags(write=False)
    return values


def _key(made: NeuralPathKernel, asked: _Asked) -> str:
    """What a kernel is of, its samples aside."""
    table = _table(asked.sides[0])
    entries = [(name, entry.kind, entry.shape) for name, entry in table.entries.items()]
    options = dataclasses.asdict(made.options)
    return digest(*(json.dumps(each).encode() for each in (to_dict(table.graph), entries, options)))


def _digests(side: Side) -> list[bytes]:
    """Of each sample and its gates."""
    totals = [blake2b(digest_size=16) for _ in range(len(side))]
    for array in _table(side).arrays:
        for total, sample in zip(totals, array, strict=True):
            total.update(raw(sample))
    return [total.digest() for total in totals]


def _table(side: Side) -> GateTable:
    return side.table if isinstance(side, Columns) else side


def _taken(side: Side, some: NDArray) -> Side:
    """Some samples of a side: all of them keep what is known of their columns."""
    whole = len(some) == len(side) and np.array_equal(some, np.arange(len(side)))
    return side if whole else _table(side).take(some)


def _common(asked: list[bytes], known: list[bytes]) -> tuple[NDArray, NDArray]:
    """Where samples that are asked for stand among those asked for, and among the known ones."""
    at = {sample: place for place, sample in enumerate(known)}
    pairs = [(i, at[sample]) for i, sample in enumerate(asked) if sample in at]
    here, there = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(here, np.intp), np.array(there, np.intp)


def _largest_gap(
    known: NDArray[np.bool_], *, symmetric: bool
) -> tuple[NDArray, NDArray | None] | None:
    """Rows that lack the same columns, and these columns (``None``: the rows themselves)."""
    if known.all():
        return None
    patterns, which, counts = np.unique(
        np.packbits(known, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    lacking = known.shape[1] - np.unpackbits(patterns, axis=1, count=known.shape[1]).sum(1)
    rows = np.flatnonzero(which.ravel() == np.argmax(lacking * counts))
    cols = np.flatnonzero(~known[rows[0]])
    # of a symmetric matrix the columns hold all of these rows, or none
    return rows, None if symmetric and rows[0] in cols else cols
