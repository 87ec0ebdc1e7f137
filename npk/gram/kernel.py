r"""The neural path kernel of a network on samples.

.. math:: K(x, x') = \langle \phi_x, \phi_{x'} \rangle

the inner product of neural path features (arXiv 2006.10529, 2110.03403), computed by the recursion of ``npk.dual.recursion``, never by enumeration.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from npk.dual.gate_table import GateTable, as_samples, record_trace
from npk.dual.recursion import Recursion, plan
from npk.errors import BackendError, DataError, KernelWarning, OptionError, ScaleError, ShapeError
from npk.gram.matrix import Gram, mirror, put
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, TilePlan, parse_bytes, plan_tiles
from npk.progress import Progress, as_progress

if TYPE_CHECKING:
    import torch

Samples = Union[np.ndarray, GateTable, "torch.Tensor"]
_SAMPLES_FOR_RANGE = 3


class NeuralPathKernel:
    """The kernel of one network with fixed options; traces and compiles once, then serves many data sets.

    Args:
        net: a network in eval mode, or ``None`` when only gate tables will come.
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1), "cosine".
        dtype: "float32" or "float64", of the arithmetic and of the result.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "ignore", or "paths": biases start paths of their own.
        backend: "reference", "cpu" or "auto".
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result together.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Raises:
        OptionError: an option with another value.
        BackendError: a backend that is not available.
    """

    def __init__(
        self,
        net: "torch.nn.Module | None",
        *,
        scale: str = "fan_in",
        dtype: str = "float32",
        gates: str = "auto",
        value_input: str = "auto",
        bias: str = "ignore",
        backend: str = "auto",
        memory: int | str | None = None,
        progress: bool | Progress = True,
    ) -> None:
        if str(dtype) not in ("float32", "float64"):
            raise OptionError(f'dtype={dtype!r} is not known. Choose "float32" or "float64".')
        if gates not in ("auto", "hard", "soft"):
            raise OptionError(f'gates={gates!r} is not known. Choose "auto", "hard" or "soft".')
        self.net, self.scale, self.dtype, self.gates = net, scale, str(dtype), gates
        self.value_input, self.bias, self.backend = value_input, bias, _known_backend(backend)
        self.memory, self.progress = parse_bytes(memory), as_progress(progress)
        self._trace: Any = None
        self._backends: dict[tuple, Any] = {}

    def __call__(self, X: Samples, Y: Samples | None = None) -> np.ndarray:
        """The kernel matrix.

        Args:
            X: n samples ``(n, *input_shape)``, or their gate table.
            Y: m samples or their gate table; ``None`` for X itself.

        Returns:
            ``(n, m)`` array of ``dtype``; ``(n, n)``, symmetric to the bit, without Y.

        Raises:
            DataError: samples that are empty or not finite.
            ShapeError: X and Y do not belong to one network.
            ScaleError: values outside the range of ``dtype``.
            OptionError: the memory promise cannot be kept.
            UnsupportedGraphError: the network's paths are not wholly understood.
        """
        work = _Work(self, *self._tables(X, Y))
        result = np.empty((work.plan.n, work.plan.m), self.dtype)
        for tile, values in work.tiles():
            put(result, tile.rows, tile.cols, values, symmetric=work.plan.symmetric)
        work.report(result)
        return result

    def to_store(self, X: Samples, Y: Samples | None, out: str | Path, *, resume: bool = True) -> Gram:
        """The kernel matrix as a zarr store of tiles; finished tiles of an interrupted run are kept.

        Args:
            X: as in a call.
            Y: as in a call.
            out: path of the store.
            resume: go on with a store of the same kernel; ``False`` refuses one that exists.

        Returns:
            The matrix on disk.

        Raises:
            StoreError: the store is of another kernel, or cannot be written.
        """
        rows, cols = self._tables(X, Y)
        about = self._about(rows, cols)
        store = None
        if resume and Path(out).exists():
            store = GramStore.open(out, write=True)
            store.compare(about)
        work = _Work(self, rows, cols, side=store.plan.side if store else None)
        store = store or GramStore.create(out, work.plan, self.dtype, about)
        for tile, values in work.tiles(skip=store.is_done):
            store.write(tile, values)
        return Gram(store)

    def diagonal(self, X: Samples) -> np.ndarray:
        """K(x, x) of each sample, ``(n,)`` float64, on the scale of the kernel ("cosine": on that of "fan_in")."""
        table = self._tables(X, None)[0]
        backend, exponents = self.prepare(table)
        return np.ldexp(diagonal(backend, table, exponents), int(exponents[-1]))

    def record(self, X: Samples) -> GateTable:
        """The gate table of samples under the kernel's network and options."""
        if isinstance(X, GateTable):
            return X
        if self.net is None:
            raise DataError(f"X is a {type(X).__name__}, but there is no network to record its gates. Give a gate table, or a network.")
        from npk.dual.tracing import trace_network

        X = as_samples(X)
        if self._trace is None or self._trace.graph.input_shape != X.shape[1:]:
            self._trace = trace_network(self.net, X.shape[1:])
        return record_trace(self._trace, X, gates=self.gates, progress=self.progress)

    def prepare(self, table: GateTable) -> tuple[Any, np.ndarray]:
        """Backend and exponents for tables like this one."""
        backend = self._backend(table)
        few = table.take(np.linspace(0, len(table) - 1, min(_SAMPLES_FOR_RANGE, len(table))).astype(int))
        from npk.backends.reference import find_exponents

        return backend, find_exponents(backend.recursion, few)

    def _tables(self, X: Samples, Y: Samples | None) -> tuple[GateTable, GateTable | None]:
        rows = self.record(X)
        cols = None if Y is None else self.record(Y)
        if cols is not None and cols.graph != rows.graph:
            raise ShapeError("X and Y have different path graphs. Record the gates of both with the same network.")
        return rows, cols

    def _backend(self, table: GateTable) -> Any:
        kinds = tuple(entry.kind for entry in table.entries.values())
        key = (table.graph, kinds)
        if key not in self._backends:
            recursion = plan(table.graph, scale=self.scale, bias=self.bias, value_input=self.value_input)
            self._backends = {key: _make_backend(self.backend, recursion, table, self.dtype)}
        return self._backends[key]

    def _about(self, rows: GateTable, cols: GateTable | None) -> dict[str, Any]:
        from npk import __version__

        options = {"scale": self.scale, "dtype": self.dtype, "gates": self.gates, "value_input": self.value_input, "bias": self.bias}
        sides = {"rows": rows.fingerprint(), "cols": cols.fingerprint() if cols is not None else "the rows"}
        return {**options, "backend": self.backend, **sides, "npk": __version__}


class _Work:
    """One matrix: tables, backend, plan; gives the tiles."""

    def __init__(self, kernel: NeuralPathKernel, rows: GateTable, cols: GateTable | None, side: int | None = None) -> None:
        self.kernel, self.rows, self.cols = kernel, rows, cols if cols is not None else rows
        self.backend, self.exponents = kernel.prepare(self.cols)
        held = rows.nbytes + (cols.nbytes if cols is not None else 0)
        demand = memory_demand(self.backend, kernel.dtype, (len(rows), len(self.cols)), held)
        self.plan: TilePlan = plan_tiles(len(rows), len(self.cols), demand, budget=kernel.memory, symmetric=cols is None, side=side)
        self.roots = self._roots() if kernel.scale == "cosine" else None

    def _roots(self) -> tuple[np.ndarray, np.ndarray]:
        """Square roots of both diagonals (scaled); 0 for dead inputs."""
        right = np.sqrt(diagonal(self.backend, self.cols, self.exponents))
        return (right if self.rows is self.cols else np.sqrt(diagonal(self.backend, self.rows, self.exponents))), right

    def tiles(self, skip: Any = lambda tile: False) -> Any:
        """Pairs (tile, values on the kernel's scale), in the plan's order."""
        todo = [tile for tile in self.plan if not skip(tile)]
        band, left = None, None
        with self.kernel.progress.task("kernel tiles", len(self.plan)) as advance:
            advance(len(self.plan) - len(todo))
            for tile in todo:
                if band != tile.row:
                    band, left = tile.row, self.backend.side(self.rows.take(tile.rows))
                right = self.backend.side(self.cols.take(tile.cols))
                offset = tile.cols.start - tile.rows.start if self.plan.symmetric else None
                values = self._finish(tile, self.backend.tile(left, right, self.exponents, offset))
                yield tile, values
                advance(1)

    def _finish(self, tile: Any, scaled: np.ndarray) -> np.ndarray:
        if not np.isfinite(scaled).all():
            raise ScaleError(
                f"kernel values leave the range of {self.kernel.dtype} between layers. "
                'Use dtype="float64"; if it is float64 already, the samples differ too much in size: normalize them.'
            )
        if self.plan.symmetric and tile.row == tile.col:
            scaled = mirror(scaled)
        if self.roots is None:
            return to_range(scaled, int(self.exponents[-1]), self.kernel)
        roots = np.outer(self.roots[0][tile.rows], self.roots[1][tile.cols])
        values = np.divide(scaled, roots, out=np.zeros(scaled.shape), where=roots > 0)
        if self.plan.symmetric and tile.row == tile.col:
            alive = self.roots[0][tile.rows] > 0
            np.fill_diagonal(values, alive.astype(float))
        return values.astype(self.kernel.dtype)

    def report(self, result: np.ndarray) -> None:
        """Say how many inputs are dead, and how many entries may have underflowed."""
        if not self.plan.symmetric:
            return
        dead = np.diagonal(result) == 0
        if dead.any():
            warnings.warn(f"{int(dead.sum())} of {len(dead)} samples have no active path: K(x, x) = 0.", KernelWarning, stacklevel=4)
        smallest = least_share(self.backend.recursion)
        if smallest < np.log(np.finfo(self.kernel.dtype).tiny):
            lost = int(np.count_nonzero(result == 0) - (len(dead) ** 2 - int((~dead).sum()) ** 2))
            if lost > 0:
                warnings.warn(
                    f"{lost} of {result.size} entries are 0 between live samples; in a network this deep they may have underflowed. "
                    'Use dtype="float64" to tell.',
                    KernelWarning,
                    stacklevel=4,
                )


def kernel(
    net: "torch.nn.Module | GateTable",
    X: Samples | None = None,
    Y: Samples | None = None,
    *,
    scale: str = "fan_in",
    dtype: str = "float32",
    gates: str = "auto",
    value_input: str = "auto",
    bias: str = "ignore",
    backend: str = "auto",
    memory: int | str | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool | Progress = True,
) -> np.ndarray | Gram:
    """The neural path kernel of a network on samples.

    Args:
        net: a network in eval mode; or a gate table in the place of ``(net, X)``, with ``X`` then the table of the columns.
        X: samples ``(n, *input_shape)``.
        Y: other samples; ``None``: X itself.
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1), "cosine".
        dtype: "float32" or "float64", of the arithmetic and of the result.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "ignore", or "paths": biases start paths of their own.
        backend: "reference", "cpu" or "auto".
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result together.
        out: path of a zarr store; the result is then a :class:`npk.Gram` on disk.
        resume: go on with an interrupted store of the same kernel.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        ``(n, n)`` or ``(n, m)`` array, or a :class:`npk.Gram` with ``out``.

    Raises:
        DataError: no samples, or samples that are not finite.
        OptionError: an option with another value, or a memory promise that cannot be kept.
        BackendError: a backend that is not available.
        UnsupportedGraphError: the network's paths are not wholly understood.
        ScaleError: values outside the range of ``dtype``.
        StoreError: ``out`` holds something else, or cannot be written.
    """
    if isinstance(net, GateTable):
        if Y is not None:
            raise OptionError("a gate table stands for network and samples together: call kernel(table) or kernel(table_rows, table_columns).")
        net, X, Y = None, net, X
    if X is None:
        raise DataError("there are no samples: call kernel(net, X) or kernel(table).")
    made = NeuralPathKernel(
        net, scale=scale, dtype=dtype, gates=gates, value_input=value_input, bias=bias, backend=backend, memory=memory, progress=progress
    )
    return made(X, Y) if out is None else made.to_store(X, Y, out, resume=resume)


def memory_demand(backend: Any, dtype: str, shape: tuple[int, int], held: int) -> Demand:
    """What a kernel of this shape takes: ``held`` bytes of samples and gates, the result, two sides of a tile and its pairs."""
    item = np.dtype(dtype).itemsize
    fixed = held + shape[0] * shape[1] * item + 2 * backend.bytes_a_thread
    return Demand(fixed, 3 * backend.bytes_a_sample, getattr(backend, "bytes_a_pair", 3 * item))


def diagonal(backend: Any, table: GateTable, exponents: np.ndarray) -> np.ndarray:
    """K(x, x) of each sample divided by 2**exponents[-1], ``(n,)`` float64."""
    found = np.empty(len(table))
    for tile in TilePlan(len(table), 1, 16, symmetric=False):
        side = backend.side(table.take(tile.rows))
        found[tile.rows] = np.diagonal(backend.tile(side, side, exponents))
    return found


def to_range(scaled: np.ndarray, exponent: int, kernel: NeuralPathKernel) -> np.ndarray:
    """K from K / 2**exponent; exact, or an error.

    Raises:
        ScaleError: values outside the range of the dtype.
    """
    with np.errstate(over="ignore", under="ignore"):
        values = np.ldexp(scaled, exponent)
    info = np.finfo(scaled.dtype)
    top = float(np.abs(scaled).max(initial=0.0))
    if not np.isfinite(values).all() or (top > 0 and np.log2(top) + exponent < np.log2(info.tiny) + info.nmant):
        raise ScaleError(
            f'with scale="{kernel.scale}" the largest kernel values are about 2**{exponent}, outside the range of {kernel.dtype}. '
            'Use scale="cosine", or dtype="float64".'
        )
    return values


def least_share(recursion: Recursion) -> float:
    """Logarithm of the smallest value other than 0 that a product of overlaps can have relative to the diagonal's bound."""
    return -sum(float(np.log(step.channels * step.positions)) for step in recursion.steps if hasattr(step, "channels"))


def _known_backend(backend: str) -> str:
    if backend == "cuda":
        raise BackendError('backend="cuda" is not in this version of npk. Use "cpu".')
    if backend not in ("auto", "cpu", "reference"):
        raise OptionError(f'backend={backend!r} is not known. Choose "auto", "cpu" or "reference".')
    return "cpu" if backend == "auto" else backend


def _make_backend(name: str, recursion: Recursion, table: GateTable, dtype: str) -> Any:
    if name == "reference":
        from npk.backends.reference import ReferenceBackend

        return ReferenceBackend(recursion, table, dtype)
    from npk.backends.cpu import CpuBackend

    return CpuBackend(recursion, table, dtype)

