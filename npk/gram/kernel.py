r"""The neural path kernel of a network on samples.

.. math:: K(x, x') = \langle \phi_x, \phi_{x'} \rangle

the inner product of neural path features (arXiv 2006.10529, 2110.03403), computed by the recursion
of ``npk.recursion.steps``, never by enumeration.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, Unpack, overload

import numpy as np

from npk.choices import (
    BackendName,
    BiasName,
    DtypeLike,
    GatesName,
    ScaleName,
    ValueInputName,
    as_patterns,
)
from npk.data import Dataset
from npk.errors import DataError, OptionError, ShapeError
from npk.gates.device_table import DeviceGates
from npk.gates.recording import record_trace
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.cluster import OnCluster
from npk.gram.engine import Engine
from npk.gram.executors import Here
from npk.gram.matrix import Gram
from npk.gram.options import KernelKeywords, KernelOptions, Promise, check_store_place, dtype_named
from npk.gram.sources import Recorded, Source, Unrecorded
from npk.gram.store import GramStore
from npk.gram.work import Findings, Work, memory_demand
from npk.gram.work.columns import Columns
from npk.gram.work.sides import Sides
from npk.gram.writing import plan_in_memory, planned, tell, write_store
from npk.progress import Progress, as_progress
from npk.reading.current import CurrentTrace
from npk.reading.inputs import shape_explained
from npk.recursion.instruments import Instrument
from npk.samples import as_samples

if TYPE_CHECKING:
    import distributed
    import torch

    from npk.reading.tracing import Trace

Tables = GateTable | GateStore
Samples = Union[np.ndarray, Dataset, GateTable, GateStore, "torch.Tensor"]
_SHARE = 0.5  # of a GPU's free memory that gates may take: masks and results of tiles need room too
_NO_SAMPLES = "a gate table of 0 samples has no kernel. Take at least one."


class NeuralPathKernel:
    """The kernel of one network with fixed options; traces and compiles once, then serves many data
    sets.

    It gives the kernel of the network as it is at each call, and does not change itself: other
    options make another object.

    Args:
        net: a network in eval mode, or ``None`` when only gate tables will come.
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1),
            "cosine".
        dtype: "float32" or "float64", or such a type of NumPy or PyTorch, of arithmetic and result.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "auto" (paths where the network has biases, shifts or constants), "paths" (these start
            paths of their own) or "ignore" (the papers' definition).
        backend: "reference", "cpu", "cuda" or "auto" (the CPU).
        fixed: names of tensors that are coefficients and no weights, as in :func:`npk.trace`.
        of: what is asked of the paths: "paths" for the kernel itself, "tangent",
            :class:`npk.Depth` (or "depth=8") and others: :mod:`npk.recursion.instruments`.
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result
            together.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Raises:
        OptionError: no torch module, or an option with another value.
        BackendError: a backend that is not available.
    """

    net: "torch.nn.Module | None"
    engine: Engine
    options: KernelOptions
    _current: CurrentTrace | None

    def __init__(
        self,
        net: "torch.nn.Module | None",
        *,
        scale: ScaleName = "fan_in",
        dtype: DtypeLike = "float32",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        backend: BackendName = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = True,
    ) -> None:
        options = KernelOptions(scale, dtype_named(dtype), gates, value_input, bias, backend, of)
        self._begin(net, Engine(options, Promise(memory), as_progress(progress)), fixed)

    @classmethod
    def of(
        cls, net: "torch.nn.Module | None", engine: Engine, fixed: str | Sequence[str] = ()
    ) -> "NeuralPathKernel":
        """The kernel of a network on an engine, whose options were checked when it was made."""
        kernel = cls.__new__(cls)
        kernel._begin(net, engine, fixed)
        return kernel

    def _begin(
        self, net: "torch.nn.Module | None", engine: Engine, fixed: str | Sequence[str]
    ) -> None:
        if net is not None:
            _check_network(net)
        patterns = as_patterns(fixed)
        if net is None and patterns:
            raise OptionError(
                f"fixed={fixed!r}, but there is no network: a gate table's graph says already what "
                f"is fixed. Record the gates with npk.record_gates(net, X, fixed=...)."
            )
        vars(self).update(
            net=net,
            engine=engine,
            options=engine.options,
            _current=None if net is None else CurrentTrace(net, patterns),
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise OptionError(
            f"a kernel object does not change, and {name} was assigned. Make another "
            f"one: npk.NeuralPathKernel(net, ...)."
        )

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of tensors that are coefficients and no weights."""
        return () if self._current is None else self._current.fixed

    def holding(self, beside: int) -> "NeuralPathKernel":
        """The same kernel, whose memory promise is for a process that holds so many bytes beside."""
        kernel = NeuralPathKernel.of(self.net, self.engine.holding(beside))
        vars(kernel)["_current"] = self._current
        return kernel

    def __call__(self, X: Samples | Columns, Y: Samples | Columns | None = None) -> np.ndarray:
        """The kernel matrix.

        Args:
            X: n samples ``(n, *input_shape)``, or their gate table.
            Y: m samples or their gate table, or what :meth:`columns` gave of them; ``None`` for X
                itself.

        Returns:
            ``(n, m)`` array of ``dtype``; ``(n, n)``, symmetric to the bit, without Y.

        Raises:
            DataError: samples that are empty or not finite.
            ShapeError: X and Y do not belong to one network.
            ScaleError: values outside the range of ``dtype``.
            OptionError: the memory promise cannot be kept.
            UnsupportedGraphError: the network's paths are not wholly understood.
        """
        columns = X if Y is None else Y
        known = columns if isinstance(columns, Columns) else None
        samples = X.table if isinstance(X, Columns) else X
        others = Y.table if isinstance(Y, Columns) else Y
        self.keep_promise(samples, others)
        rows, cols = self._tables(samples, others)
        engine = self.engine
        if known is None:
            backend, exponents = engine.prepare(rows if cols is None else cols)
        else:
            backend, exponents = engine.backend(known.table), known.exponents
        columns = rows if cols is None else cols
        shape = (len(rows), len(columns))
        held = rows.nbytes + (cols.nbytes if cols is not None else 0)
        demand = memory_demand(backend, engine, held, shape)
        each = columns.nbytes // len(columns)
        plan, demand = planned(engine, backend, demand, shape, each, symmetric=cols is None)
        tell(engine, plan, demand, len(plan))
        roots = None if known is None else known.roots
        return Work(engine, rows, cols, plan, backend, exponents, roots, demand.kept).matrix()

    def columns(self, X: Samples) -> Columns:
        """Samples that many calls will have as columns: their gates, and what would be computed of
        them in each call.

        Args:
            X: n samples, or their gate table.

        Returns:
            The Y, or X, of calls of this kernel, which give the same bits with it.
        """
        return Columns.of(self.engine, self.record(X))

    def keep_promise(self, X: Samples, Y: Samples | None = None) -> None:
        """Refuse a memory promise that cannot be kept, before the gates of all samples are recorded
        or read.

        Args:
            X: as in a call.
            Y: as in a call.

        Raises:
            OptionError: the promise cannot be kept.
        """
        if self.engine.promise.bytes is not None:
            sources = self.sources(X, Y)
            few = sources[-1].few()
            plan_in_memory(
                self.engine, self.engine.prepare(few)[0], sources, few.nbytes // len(few)
            )

    def to_store(
        self,
        X: Samples,
        Y: Samples | None,
        out: str | Path,
        *,
        resume: bool = True,
        client: "distributed.Client | None" = None,
    ) -> Gram:
        """The kernel matrix as a zarr store of gates and tiles; gates and tiles of an interrupted
        run are kept.

        Samples behind those of the store make it grow; its tiles stay as they are.

        Args:
            X: as in a call, or a gate table on disk.
            Y: as in a call.
            out: path of the store.
            resume: go on with a store of the same kernel; ``False`` refuses one that exists.
            client: of a cluster whose workers see ``out`` under the same path; they compute the
                tiles.

        Returns:
            The matrix on disk.

        Raises:
            StoreError: the store is of another kernel, is damaged, is being written by another
                process, or cannot be written.
            OptionError: ``out`` is no name of a store, or ``client`` no client.
        """
        out = check_store_place(out)
        executor = Here() if client is None else OnCluster(client)
        write_store(self.engine, self.sources(X, Y), out, executor, resume=resume)
        return Gram(GramStore.open(out), self.engine.promise.bytes)

    def diagonal(self, X: Samples) -> np.ndarray:
        """K(x, x) of each sample, ``(n,)`` float64, on the kernel's scale ("cosine": "fan_in"); of
        an engine whose instrument gives several kernels ``(parts, n)``.
        """
        table = self._tables(X, None)[0]
        sides = Sides(self.engine, *self.engine.prepare(table))
        values, powers = sides.diagonal(table)
        return np.ldexp(values, sides.unit + 2 * powers)

    def parts(self, X: Samples) -> np.ndarray:
        """All kernels of an engine whose instrument gives several, of a few samples.

        Args:
            X: samples that one tile holds, or their gate table.

        Returns:
            ``(parts, n, n)`` float64, on the kernel's scale ("cosine": "fan_in").
        """
        table = self._tables(X, None)[0]
        backend, exponents = self.engine.prepare(table)
        sides = Sides(self.engine, backend, exponents)
        samples = sides.samples(table)
        side = backend.side(samples.table)
        values = backend.tile(side, side, exponents).astype(np.float64)
        powers = sides.unit + samples.powers[:, None] + samples.powers
        return np.ldexp(values.reshape(-1, len(table), len(table)), powers)

    def sources(self, X: Samples, Y: Samples | None) -> tuple[Source, ...]:
        """Where the gates of the rows, and of other columns, come from."""
        sources = tuple(self._source(samples) for samples in (X, Y) if samples is not None)
        if sources[0].graph != sources[-1].graph:
            raise ShapeError(
                "X and Y have different path graphs. Record the gates of both with "
                "the same network."
            )
        return sources

    def _source(self, X: Samples) -> Source:
        if isinstance(X, (GateTable, GateStore)):
            _check_kind(X, self.options.gates)
            if len(X) == 0:
                raise DataError(_NO_SAMPLES)
            return Recorded(X)
        given = X.about() if isinstance(X, Dataset) else None
        X = self._as_samples(X)
        return Unrecorded(self.trace(X.shape[1:]), X, self.options.gates, given)

    def settled(self, X: Samples) -> KernelOptions:
        """The options as they are taken of the network: ``bias`` is "paths" or "ignore".

        Args:
            X: as in a call; the shape of a sample is what counts.
        """
        if isinstance(X, (GateTable, GateStore)):
            return self.options.settled(X.graph)
        return self.options.settled(self.trace(self._as_samples(X).shape[1:]).graph)

    def record(self, X: Samples) -> GateTable:
        """The gate table of samples under the kernel's network and options, in memory."""
        if isinstance(X, (GateTable, GateStore)):
            _check_kind(X, self.options.gates)
            return X if isinstance(X, GateTable) else X.take(slice(None))
        X = self._as_samples(X)
        promise = self.engine.promise
        memory = promise.bytes and max(1, promise.bytes - promise.beside)
        return record_trace(
            self.trace(X.shape[1:]),
            X,
            gates=self.options.gates,
            progress=self.engine.progress,
            memory=memory,
        )

    def trace(self, input_shape: tuple[int, ...]) -> "Trace":
        """The traced network, traced again for another shape or a changed network."""
        assert self._current is not None
        return self._current.of(input_shape)

    def _as_samples(self, X: Any) -> np.ndarray:
        if self.net is None:
            raise DataError(
                f"X is a {type(X).__name__}, but there is no network to record its "
                f"gates. Give a gate table, or a network."
            )
        X = as_samples(X)
        with shape_explained(self.net, X.shape):
            self.trace(X.shape[1:])
        return X

    def _tables(
        self, X: Samples, Y: Samples | None
    ) -> tuple[GateTable | DeviceGates, GateTable | DeviceGates | None]:
        rows = self._gates_of(X)
        cols = None if Y is None else self._gates_of(Y)
        if len(rows) == 0 or (cols is not None and len(cols) == 0):
            raise DataError(_NO_SAMPLES)
        if cols is not None and cols.graph != rows.graph:
            raise ShapeError(
                "X and Y have different path graphs. Record the gates of both with "
                "the same network."
            )
        return rows, cols

    def _gates_of(self, X: Samples) -> GateTable | DeviceGates:
        """The gates, left on the GPU with network and tiles, where they fit their share of it."""
        if self.options.backend != "cuda" or isinstance(X, (GateTable, GateStore)):
            return self.record(X)
        from npk.gates import device_recording as there

        X = self._as_samples(X)
        trace = self.trace(X.shape[1:])
        free, needed = there.free_on_device(trace), there.device_bytes(trace, X)
        if free is None:
            return self.record(X)
        if needed > free * _SHARE:
            text = (
                f"gates and samples take {needed / 1e9:.2f} GB, more than half of the "
                f"{free / 1e9:.2f} GB that the GPU has free"
            )
            self.engine.progress.note(
                "gates", f"{text}: they go through the host's memory", bytes=needed, free=free
            )
            return self.record(X)
        return there.record_on_device(
            trace, X, gates=self.options.gates, progress=self.engine.progress
        )


@overload
def kernel(
    net: "torch.nn.Module",
    X: Samples,
    Y: Samples | None = None,
    *,
    out: None = None,
    **options: Unpack[KernelKeywords],
) -> np.ndarray: ...


@overload
def kernel(
    net: Tables, X: Tables | None = None, *, out: None = None, **options: Unpack[KernelKeywords]
) -> np.ndarray: ...


@overload
def kernel(
    net: "torch.nn.Module",
    X: Samples,
    Y: Samples | None = None,
    *,
    out: str | Path,
    client: "distributed.Client | None" = None,
    **options: Unpack[KernelKeywords],
) -> Gram: ...


@overload
def kernel(
    net: Tables,
    X: Tables | None = None,
    *,
    out: str | Path,
    client: "distributed.Client | None" = None,
    **options: Unpack[KernelKeywords],
) -> Gram: ...


def kernel(
    net: "torch.nn.Module | GateTable | GateStore",
    X: Samples | None = None,
    Y: Samples | None = None,
    *,
    scale: ScaleName = "fan_in",
    dtype: DtypeLike = "float32",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    bias: BiasName = "auto",
    backend: BackendName = "auto",
    fixed: str | Sequence[str] = (),
    of: str | Instrument = "paths",
    memory: int | str | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    client: "distributed.Client | None" = None,
    progress: bool | Progress = True,
) -> np.ndarray | Gram:
    """The neural path kernel of a network on samples.

    Args:
        net: a network in eval mode; or a gate table in the place of ``(net, X)``, with ``X`` then
            the table of the columns.
        X: samples ``(n, *input_shape)``.
        Y: other samples; ``None``: X itself.
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1),
            "cosine".
        dtype: "float32" or "float64", or such a type of NumPy or PyTorch, of arithmetic and result.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "auto" (paths where the network has biases, shifts or constants), "paths" (these start
            paths of their own) or "ignore" (the papers' definition).
        backend: "reference", "cpu", "cuda" or "auto" (the CPU).
        fixed: names of parameters and buffers that are coefficients and no weights, such as
            ``["blur.*"]``, as in :func:`npk.trace`.
        of: what is asked of the paths: "paths" for the kernel itself, "tangent",
            :class:`npk.Depth` (or "depth=8") and others: :mod:`npk.recursion.instruments`.
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result
            together.
        out: path of a zarr store; the result is then a :class:`npk.Gram` on disk.
        resume: go on with an interrupted store of the same kernel.
        client: a ``dask.distributed.Client``: the tiles are computed on its cluster, whose workers
            see ``out`` under the same path.
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
    if client is not None and out is None:
        raise OptionError(
            "client= needs out=: workers write their tiles into a store that all of "
            "them see. Add for instance out='K.zarr'."
        )
    network, rows, cols = (None, net, X) if isinstance(net, (GateTable, GateStore)) else (net, X, Y)
    if network is None and Y is not None:
        raise OptionError(
            "a gate table stands for network and samples together: call "
            "kernel(table) or kernel(table_rows, table_columns)."
        )
    if rows is None:
        raise DataError("there are no samples: call kernel(net, X) or kernel(table).")
    path_kernel = NeuralPathKernel(
        network,
        scale=scale,
        dtype=dtype,
        gates=gates,
        value_input=value_input,
        bias=bias,
        backend=backend,
        fixed=fixed,
        of=of,
        memory=memory,
        progress=progress,
    )
    if out is None:
        return path_kernel(rows, cols)
    return path_kernel.to_store(rows, cols, out, resume=resume, client=client)


def report_dead(K: np.ndarray) -> None:
    """Warn of samples without any active path, as whoever computes a square kernel does.

    Args:
        K: the kernel of some samples, which was computed before.
    """
    Findings(dead=int(np.equal(np.diagonal(K), 0).sum())).report(len(K), str(K.dtype))


def _check_network(net: Any) -> None:
    from npk.networks.given import as_network

    as_network(net, "or a gate table")


def _check_kind(table: GateTable | GateStore, gates: str) -> None:
    """A table holds the gates that were recorded: another kind cannot be made of them."""
    for name, kind in ((name, table.entries[name].kind) for name in table.names):
        if gates not in ("auto", kind):
            raise OptionError(
                f"gates={gates!r}, but the gate table has {kind} gates at layer {name!r}. Record "
                f"the gates with gates={gates!r}."
            )
