"""Gates on disk as arrays: the samples of a table are cut into pieces, which are read whole.

Samples that are added later begin a part of their own, so that no piece ever changes.
"""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from npk.errors import StoreError
from npk.gates.form import TableForm, form_of
from npk.stores.blocks import Axis, Blocks, Numbers
from npk.stores.chunks import ChunkStore, make_store
from npk.stores.files import DTYPES
from npk.stores.manifests import FORMAT, open_store

CONTENT = "gate table"
_PIECE_BYTES, _PIECE_SAMPLES = 16 << 20, 1024
_READ_BYTES = 16 << 20  # read, or recorded, at once, at most: more takes memory and no less time


class GatePieces(ChunkStore):
    """The arrays of a gate table in a zarr group, in pieces.

    ``form``: of the table. ``piece``: samples of a piece; the last one of a part may have fewer.
    """

    clears, differs = True, "their checksum differs"

    def __init__(self, path: Path, group: Any, manifest: dict[str, Any]) -> None:
        self.form, self.piece = form_of(manifest), int(manifest["piece"])
        super().__init__(path, group, manifest, blocks_of(self.form, manifest))
        self.open_arrays()

    @classmethod
    def create(
        cls,
        where: str | Path,
        form: TableForm,
        n: int,
        *,
        about: dict[str, Any] | None = None,
        piece: int | None = None,
        identity: str | None = None,
    ) -> Self:
        """Make a store in which no piece is written.

        Its manifest comes last; inside :func:`npk.files.written_whole` it is safe.

        Args:
            where: a folder that does not exist.
            form: of the table.
            n: number of samples.
            about: JSON values that say what the gates are of.
            piece: samples of a piece; ``None``: about 4 MB of them.
            identity: of the samples; ``None``: a new one.

        Returns:
            The store, to be written.

        Raises:
            StoreError: something is there already, or values are of a kind that stores do not hold.
            OSError: the folder cannot be written.
        """
        if (where := Path(where)).exists():
            raise StoreError(f"{where} exists already. Choose another name or remove it.")
        if strange := ", ".join({each.dtype for each in form.arrays} - set(DTYPES)):
            what, allowed = f"a gate table with values of type {strange}", ", ".join(DTYPES)
            raise StoreError(f"{what} cannot be saved. Take one of {allowed}.")
        cut = {"piece": piece or piece_of(form.bytes_a_sample), "parts": [n]}
        name = {"identities": [[identity or uuid.uuid4().hex]], "about": about or {}}
        manifest = {"format": FORMAT, "content": CONTENT, **form.manifest(), **cut, **name}
        make_store(where, manifest, blocks_of(form, manifest))
        return cls.open(where, write=True)

    @classmethod
    def open(cls, where: str | Path, *, write: bool = False) -> Self:
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
            why = f"{type(error).__name__}: {error}"
            raise StoreError(f"{where} is damaged ({why}). Record the gates again.") from error

    def __len__(self) -> int:
        return sum(self.manifest["parts"])

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Of each piece, the number of its first sample and of the one after its last."""
        return self.blocks.axes[0].spans

    @property
    def nbytes(self) -> int:
        """Bytes of all samples and gates."""
        return len(self) * self.form.bytes_a_sample

    @property
    def at_once(self) -> int:
        """Pieces that are read together."""
        return max(1, _READ_BYTES // (self.piece * self.form.bytes_a_sample))

    def arrays(self, rows: slice | np.ndarray) -> list[np.ndarray]:
        """The arrays of a subset of the samples; only the pieces that they are in are read.

        Args:
            rows: a slice, or numbers of samples in any order.

        Returns:
            The samples, then the data of each entry.
        """
        wanted = np.arange(len(self))[rows]
        taken = self.form.empty(len(wanted))
        firsts = np.array([start for start, _ in self.pieces], dtype=np.int64)
        for i, j in self.runs(np.unique(np.searchsorted(firsts, wanted, side="right") - 1)):
            start, stop = self.pieces[i][0], self.pieces[j - 1][1]
            here = np.flatnonzero((wanted >= start) & (wanted < stop))
            to, of = _as_slice(here), _as_slice(wanted[here] - start)
            for whole, read in zip(taken, self.read_chunks((i,), j - i), strict=True):
                whole[to] = read[of]
        return taken

    def runs(self, pieces: Iterable[int]) -> list[tuple[int, int]]:
        """Pieces that are read together: neighbors of one part, not too many."""
        runs: list[tuple[int, int]] = []
        for piece in map(int, pieces):
            first, after = runs[-1] if runs else (0, -1)
            if piece == after and piece - first < self.at_once and self.are_one(first, piece):
                runs[-1] = (first, piece + 1)
            else:
                runs.append((piece, piece + 1))
        return runs

    def are_one(self, piece: int, other: int) -> bool:
        """Whether two pieces are of one part."""
        place = self.blocks.axes[0].place
        return place(piece)[0] == place(other)[0]

    def _samples(self, first: Numbers, count: int) -> str:
        return f"samples {self.pieces[first[0]][0]} to {self.pieces[first[0] + count - 1][1] - 1}"

    def _incomplete(self, chunk: Numbers) -> str:
        what = f"the gates of {self._samples(chunk, 1)} are missing"
        return f"{self.path} is not complete: {what}. Run the same command again to finish it."

    def _damaged(self, first: Numbers, count: int, why: str) -> str:
        what = f"{self.path} is damaged at {self._samples(first, count)} ({why})"
        mend = "in the store of a kernel, `npk verify-store --drop` helps"
        return f"{what}. Record the gates again; {mend}."

    def _unreadable(self, first: Numbers, count: int, why: str) -> str:
        all_of_them = f"{self.path} has damaged checksums ({why}). Record the gates again."
        return self._damaged(first, count, why) if count else all_of_them

    def _unopened(self, name: str, error: Exception) -> str:
        why = f"{type(error).__name__}: {error}"
        return f"{self.path} is damaged ({why}). Record the gates again."

    def _unlike(self, name: str, found: Any, expected: dict[str, Any]) -> str:
        said = f"the manifest says {expected['dtype']} {expected['shape']}"
        return self._unopened(name, ValueError(f"{name} is {found.dtype} {found.shape}, {said}"))


def blocks_of(form: TableForm, manifest: dict[str, Any]) -> Blocks:
    """How the arrays of a table are cut: along the samples."""
    names = ["{}/inputs", *(f"{{}}/gates/{i}" for i in range(len(form.entries)))]
    axis = Axis(manifest["piece"], tuple(manifest["parts"]), tuple(manifest["identities"][0]))
    return Blocks((axis,), dict(zip(names, form.arrays, strict=True)), "{}/checksums")


def samples_at_once(bytes_a_sample: int) -> int:
    """How many samples of so many bytes, gates included, are read or recorded at once, at most."""
    piece = piece_of(bytes_a_sample)
    return piece * max(1, _READ_BYTES // (piece * bytes_a_sample))


def piece_of(bytes_a_sample: int) -> int:
    """How many samples of so many bytes are a piece."""
    return max(1, min(_PIECE_BYTES // bytes_a_sample, _PIECE_SAMPLES))


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Numbers that follow one another as a slice, which is faster."""
    follow = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
    return slice(int(numbers[0]), int(numbers[-1]) + 1) if follow else numbers
