"""Gram: a kernel matrix made of tiles on disk, that reads and multiplies like an array."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npk import shown
from npk.errors import DataError, OptionError, ShapeError
from npk.gram.options import parse_bytes
from npk.gram.products import (
    Cosine,
    Tiles,
    Transposed,
    bytes_in_flight,
    is_number,
    multiply,
    positions,
    read_block,
)
from npk.gram.store import GramStore

Floats = NDArray[np.float64]
_FEW_TILES = 6  # that a notebook's picture reads


class Gram:
    r"""A kernel matrix on disk that reads and multiplies like an array.

    ``gram[rows]`` and ``gram[rows, cols]`` read a block, each of its tiles once; ``gram @ V`` and
    ``V @ gram`` multiply without loading the matrix; ``numpy.asarray(gram)`` reads it whole. Every
    tile is compared with its checksum.

    Args:
        store: where the tiles are.
        memory: bytes (or text such as "8GB") that reading and multiplying may take; ``None``: no
            promise.

    Raises:
        OptionError: memory is not a size.
    """

    __array_ufunc__ = None  # array @ gram asks __rmatmul__; NumPy would read the whole matrix first

    def __init__(self, store: Tiles, memory: int | str | None = None) -> None:
        self.store, self.memory = store, parse_bytes(memory)

    @classmethod
    def load(cls, path: str | Path, memory: int | str | None = None) -> "Gram":
        """Open a kernel that ``npk.kernel(..., out=path)`` or `npk kernel` wrote.

        Args:
            path: the store.
            memory: bytes (or text such as "8GB") that reading and multiplying may take; ``None``:
                no promise.

        Returns:
            The matrix; nothing of it is read yet.

        Raises:
            StoreError: not a kernel that npk wrote.
            OptionError: memory is not a size.
        """
        return cls(GramStore.open(path), memory)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.store.plan.n, self.store.plan.m

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return np.dtype(self.store.manifest["dtype"])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix in memory; on disk a symmetric one takes about half."""
        return self._bytes(*self.shape)

    @property
    def about(self) -> dict[str, Any]:
        """What the matrix is of: options and fingerprints of network and data."""
        return dict(self.store.manifest["about"])

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same samples."""
        return self.store.plan.symmetric

    @property
    def complete(self) -> bool:
        """Whether every tile is there."""
        return all(self.store.is_done(tile) for tile in self.store.plan)

    @property
    def T(self) -> "Gram":
        """The transpose, a view: of a symmetric matrix the matrix itself."""
        return self if self.symmetric else Gram(Transposed(self.store), self.memory)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        # nothing is read: a matrix may be large, and its disk far away
        tiles = len(self.store.plan)
        what = f"{self.shape[0]} x {self.shape[1]} {self.dtype} in {self.store.path}"
        return f"<npk.Gram {what}: {tiles} tile{'s' * (tiles != 1)}>"

    def _repr_html_(self) -> str:
        """A picture of it in a notebook: of few tiles all, of more the first one alone."""
        plan, said = self.store.plan, repr(self)[1:-1]
        if len(plan) <= _FEW_TILES:
            rows, cols = self.shape
        else:
            first = next(iter(plan))
            rows, cols = first.rows.stop, first.cols.stop
            said += f"; large: its first {rows} x {cols} entries"
        wanted = [t for t in plan if t.rows.start < rows and t.cols.start < cols]
        missing = sum(not self.store.is_done(tile) for tile in wanted)
        if missing or not rows * cols:
            return shown.paragraph(f"{said}; {missing} of {len(wanted)} tiles are not computed yet")
        return shown.picture(read_block(self.store, np.arange(rows), np.arange(cols)), said)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise OptionError(
                "copy=False asks for an array that is there already, and the matrix "
                "is on disk. Leave copy out."
            )
        kind = self.dtype if dtype is None else np.dtype(dtype)
        advice = (
            "Read rows (gram[a:b]), multiply (gram @ V), or load it with memory={needed} or more"
        )
        self._keep_promise(
            self._bytes(*self.shape, kind),
            f"the whole matrix of {self.shape[0]} x {self.shape[1]} {kind}",
            advice,
        )
        whole = np.empty(self.shape, kind)
        for tile in self.store.plan:
            put(
                whole,
                tile.rows,
                tile.cols,
                self.store.read(tile).astype(kind, copy=False),
                symmetric=self.symmetric,
            )
        return whole

    def __getitem__(self, key: Any) -> Any:
        """Rows, a block, or one entry, in the dtype of the matrix.

        ``gram[rows, cols]`` is the block of **all** those rows with all those columns, as
        ``numpy.ix_`` gives it, arrays of numbers included. Each of the two is a number (that axis
        is dropped), a slice (with any step), an array of numbers (in any order, repeats allowed,
        negative ones count from the end) or a boolean array of the axis's length. Only tiles that
        the block meets are read.

        Args:
            key: rows, or (rows, cols).

        Returns:
            (rows, cols) array; (cols,) for one row, (rows,) for one column, a number for one entry.

        Raises:
            ShapeError: there is no such row or column (an ``IndexError`` too), or the key is of
                another kind.
            OptionError: the block does not fit the memory promise.
            StoreError: a tile that is needed is missing or damaged.
        """
        if isinstance(key, tuple) and len(key) != 2:
            raise ShapeError(
                f"gram[{', '.join(map(repr, key))}]: a kernel has rows and columns. "
                f"Give gram[rows] or gram[rows, cols]."
            )
        rows, cols = key if isinstance(key, tuple) else (key, slice(None))
        down = positions(rows, self.shape[0], "row")
        across = positions(cols, self.shape[1], "column")
        advice = "Read fewer at a time, or load it with memory={needed} or more"
        self._keep_promise(
            self._bytes(len(down), len(across)),
            f"a block of {len(down)} x {len(across)} {self.dtype}",
            advice,
        )
        block = read_block(self.store, down, across)
        return block[0 if is_number(rows) else slice(None), 0 if is_number(cols) else slice(None)]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Row by row; a band of tiles is read at a time, so that none is read for each of its rows."""
        for start, stop in dict.fromkeys(
            (tile.rows.start, tile.rows.stop) for tile in self.store.plan
        ):
            yield from self[start:stop]

    def diagonal(self) -> np.ndarray:
        """The diagonal of a square matrix, from the tiles on it.

        Returns:
            (n,), in the dtype of the matrix: K(x, x) of each sample where rows and columns are the
            same samples.

        Raises:
            ShapeError: the matrix is not square.
            StoreError: a tile that is needed is missing or damaged.
        """
        if self.shape[0] != self.shape[1]:
            raise ShapeError(
                f"a kernel of {self.shape[0]} x {self.shape[1]} has no diagonal: its rows and "
                f"columns are different samples. "
                "K(x, x) of some samples is NeuralPathKernel(net).diagonal(X)."
            )
        values = np.empty(len(self), self.dtype)
        for tile in self.store.plan:
            start, stop = max(tile.rows.start, tile.cols.start), min(tile.rows.stop, tile.cols.stop)
            if start < stop:
                on = np.arange(start, stop)
                values[on] = self.store.read(tile)[on - tile.rows.start, on - tile.cols.start]
        return values

    def cosine(self) -> "Gram":
        r"""The matrix on the scale "cosine", a view: tiles are divided as they are read.

        .. math:: K(x, x') / \sqrt{K(x, x) K(x', x')}

        Returns:
            A Gram with 1 on the diagonal; 0 in the rows and columns of samples that no path is
            active for.

        Raises:
            ShapeError: rows and columns are not the same samples.
            StoreError: a tile on the diagonal is missing or damaged.
        """
        if not self.symmetric:
            raise ShapeError(
                f"this kernel of {self.shape[0]} x {self.shape[1]} is one of rows with other "
                f"columns, and K(x, x) of neither is in it. "
                'Compute it with scale="cosine".'
            )
        return Gram(Cosine(self.store, self.diagonal()), self.memory)

    def __matmul__(self, V: ArrayLike) -> Floats:
        """``gram @ V`` in one pass over the tiles.

        Args:
            V: (m,) or (m, k).

        Returns:
            (n,) or (n, k), float64, summed in float64.

        Raises:
            ShapeError: V has another length than the matrix has columns.
            DataError: V does not hold real numbers.
            OptionError: the result does not fit the memory promise.
            StoreError: a tile is missing or damaged.
        """
        vectors = _vectors(V)
        if vectors.ndim not in (1, 2) or len(vectors) != self.shape[1]:
            raise ShapeError(self._misfit("@ V", vectors.shape, "({1},) or ({1}, k)"))
        return self._product(vectors)

    def __rmatmul__(self, V: ArrayLike) -> Floats:
        vectors = _vectors(V)
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != self.shape[0]:
            raise ShapeError(
                self._misfit("with V @ before it", vectors.shape, "({0},) or (k, {0})")
            )
        return self.T._product(vectors.T).T

    def matvec(self, v: ArrayLike) -> Floats:
        """``gram @ v``: so SciPy's solvers and ``aslinearoperator(gram)`` work."""
        return self @ v

    def rmatvec(self, v: ArrayLike) -> Floats:
        """``gram.T @ v``."""
        return self.T @ v

    def matmat(self, V: ArrayLike) -> Floats:
        """``gram @ V``."""
        return self @ V

    def rmatmat(self, V: ArrayLike) -> Floats:
        """``gram.T @ V``."""
        return self.T @ V

    def _bytes(self, n: int, m: int, dtype: np.dtype | None = None) -> int:
        return n * m * (dtype or self.dtype).itemsize

    def _misfit(self, product: str, shape: tuple[int, ...], fitting: str) -> str:
        n, m = self.shape
        return f"a kernel of {n} x {m} {product}: V has shape {shape}. Give {fitting.format(n, m)}."

    def _product(self, vectors: Floats) -> Floats:
        n, columns = self.shape[0], vectors.size // max(1, self.shape[1])
        advice = "Multiply fewer columns at a time, or load it with memory={needed} or more"
        self._keep_promise(
            n * columns * vectors.itemsize, f"a product of {n} x {columns} float64", advice
        )
        return multiply(self.store, vectors)

    def _keep_promise(self, result: int, what: str, advice: str) -> None:
        """Refuse a result that does not fit the promise beside a tile."""
        needed = result + bytes_in_flight(self.store.plan)
        if self.memory is not None and needed > self.memory:
            raise OptionError(
                f"{what} needs {needed} bytes with the tile in flight, memory={self.memory} is "
                f"promised. {advice.format(needed=needed)}."
            )


def put(
    whole: np.ndarray, rows: slice, cols: slice, values: np.ndarray, *, symmetric: bool
) -> None:
    """Place a tile, and its mirror image below the diagonal of a symmetric matrix."""
    if not symmetric or rows.start == cols.start:
        whole[rows, cols] = values
        return
    from npk.gram.work.passes import settle

    rowwise = np.ascontiguousarray(values)  # a store may give another order
    settle(rowwise, 1.0, whole, rows.start, cols.start, mirrored=True)


def _vectors(V: ArrayLike) -> Floats:
    try:
        return np.asarray(V).astype(np.float64, casting="same_kind", copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a kernel can be multiplied with real numbers only ({error}). Give an array of them."
        ) from error
