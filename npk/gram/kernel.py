r"""The neural path kernel of a network on samples.

.. math:: K(x, x') = \langle \phi_x, \phi_{x'} \rangle

the inner product of neural path features (arXiv 2006.10529, 2110.03403), computed by the recursion of ``npk.dual.recursion``, never by
enumeration.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from npk.backends import Backend
from npk.dual.balance import balance_of
from npk.dual.device_gates import DeviceGates
from npk.dual.gate_store import GateStore
from npk.dual.gate_table import GateTable
from npk.dual.inputs import shape_explained
from npk.dual.options import CHOICES, chosen
from npk.dual.planning import plan
from npk.dual.recording import record_trace
from npk.dual.recursion import Recursion
from npk.errors import DataError, OptionError, ShapeError
from npk.gram.matrix import Gram, put
from npk.gram.options import check_store_place, dtype_named, parse_bytes
from npk.gram.sides import Sides
from npk.gram.sources import Recorded, Source, Unrecorded, spread
from npk.gram.store import GramStore
from npk.gram.stored import plan_in_memory, tell, write_store
from npk.gram.tiles import plan_tiles
from npk.gram.work import Work, memory_demand
from npk.progress import Progress, as_progress
from npk.samples import as_samples

if TYPE_CHECKING:
    import distributed
    import torch

    from npk.dual.tracing import Trace

Samples = Union[np.ndarray, GateTable, GateStore, "torch.Tensor"]
_SHARE = 0.5  # of a GPU's free memory that gates may take: masks and results of tiles need room too
_NO_SAMPLES = "a gate table of 0 samples has no kernel. Take at least one."


class NeuralPathKernel:
    """The kernel of one network with fixed options; traces and compiles once, then serves many data sets.

    Args:
        net: a network in eval mode, or ``None`` when only gate tables will come.
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1), "cosine".
        dtype: "float32" or "float64", of the arithmetic and of the result.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "ignore", or "paths": biases start paths of their own.
        backend: "reference", "cpu", "cuda" or "auto" (the CPU).
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result together.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Raises:
        OptionError: no torch module, or an option with another value.
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
        if net is not None:
            _check_network(net)
        self.net, self.scale, self.dtype, self.gates = net, scale, dtype, gates
        self.value_input, self.bias, self.backend = value_input, bias, backend
        self.memory, self.progress = parse_bytes(memory), as_progress(progress)
        self.beside = 0  # bytes that the process holds beside, where the promise is for all of it
        self._traced: tuple[Trace, list] | None = None  # and the state of the network that it rests on
        self._backends: dict[tuple, Backend] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Options are seen to when they are given, and hold from the next call on when they are given later."""
        object.__setattr__(self, name, _option(name, value) if name in CHOICES else value)

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
        self.keep_promise(X, Y)
        rows, cols = self._tables(X, Y)
        backend, exponents = self.prepare(rows if cols is None else cols)
        shape = (len(rows), len(rows if cols is None else cols))
        held = rows.nbytes + (cols.nbytes if cols is not None else 0)
        demand = memory_demand(backend, self, held, shape)
        plan = plan_tiles(*shape, demand, budget=self.memory, symmetric=cols is None)
        tell(self, plan, demand, len(plan), backend)
        result = np.empty(shape, self.dtype)
        for tile, values in Work(self, rows, cols, plan, backend, exponents).tiles():
            put(result, tile.rows, tile.cols, values, symmetric=plan.symmetric)
        return result

    def keep_promise(self, X: Samples, Y: Samples | None = None) -> None:
        """Refuse a memory promise that cannot be kept, before the gates of all samples are recorded or read.

        Args:
            X: as in a call.
            Y: as in a call.

        Raises:
            OptionError: the promise cannot be kept.
        """
        if self.memory is not None:
            sources = self.sources(X, Y)
            few = sources[-1].few()
            plan_in_memory(self, self.prepare(few)[0], sources, few.nbytes // len(few))

    def to_store(
        self, X: Samples, Y: Samples | None, out: str | Path, *, resume: bool = True, client: "distributed.Client | None" = None
    ) -> Gram:
        """The kernel matrix as a zarr store of gates and tiles; gates and tiles of an interrupted run are kept.

        Samples behind those of the store make it grow; its tiles stay as they are.

        Args:
            X: as in a call, or a gate table on disk.
            Y: as in a call.
            out: path of the store.
            resume: go on with a store of the same kernel; ``False`` refuses one that exists.
            client: of a cluster whose workers see ``out`` under the same path; they compute the tiles.

        Returns:
            The matrix on disk.

        Raises:
            StoreError: the store is of another kernel, is damaged, is being written by another process, or cannot be written.
            OptionError: ``out`` is no name of a store, or ``client`` no client.
        """
        out = check_store_place(out)
        if client is not None and not (callable(getattr(client, "submit", None)) and hasattr(client, "scheduler_info")):
            raise OptionError(f"client is of type {type(client).__name__}. Give a dask.distributed.Client(address).")
        write_store(self, self.sources(X, Y), out, resume=resume, client=client)
        return Gram(GramStore.open(out), self.memory)

    def diagonal(self, X: Samples) -> np.ndarray:
        """K(x, x) of each sample, ``(n,)`` float64, on the scale of the kernel ("cosine": on that of "fan_in")."""
        table = self._tables(X, None)[0]
        sides = Sides(self, *self.prepare(table))
        values, powers = sides.diagonal(table)
        return np.ldexp(values, sides.unit + 2 * powers)

    def sources(self, X: Samples, Y: Samples | None) -> tuple[Source, ...]:
        """Where the gates of the rows, and of other columns, come from."""
        sources = tuple(self._source(samples) for samples in (X, Y) if samples is not None)
        if sources[0].graph != sources[-1].graph:
            raise ShapeError("X and Y have different path graphs. Record the gates of both with the same network.")
        return sources

    def _source(self, X: Samples) -> Source:
        if isinstance(X, (GateTable, GateStore)):
            _check_kind(X, self.gates)
            if len(X) == 0:
                raise DataError(_NO_SAMPLES)
            return Recorded(X)
        X = self._as_samples(X)
        return Unrecorded(self.trace(X.shape[1:]), X, self.gates)

    def on(self, store: GramStore, *, one_device: bool = False) -> Work:
        """The work on a store, from what is in it alone; ``one_device``: on the current device only, since others have processes too."""
        rows, cols = store.rows, None if store.plan.symmetric else store.cols
        return Work(self, rows, cols, store.plan, self._backend(store.cols.take(slice(0, 1)), one_device), store.exponents)

    def record(self, X: Samples) -> GateTable:
        """The gate table of samples under the kernel's network and options, in memory."""
        if isinstance(X, (GateTable, GateStore)):
            _check_kind(X, self.gates)
            return X if isinstance(X, GateTable) else X.take(slice(None))
        X = self._as_samples(X)
        memory = self.memory and max(1, self.memory - self.beside)
        return record_trace(self.trace(X.shape[1:]), X, gates=self.gates, progress=self.progress, memory=memory)

    def trace(self, input_shape: tuple[int, ...]) -> "Trace":
        """The traced network, traced when samples have another shape, or the network is not what it was."""
        from npk.dual.apart import apart
        from npk.dual.state import state_of
        from npk.dual.tracing import trace_network

        net = self.net
        assert net is not None
        if self._traced is not None:
            trace, state = self._traced
            if trace.graph.input_shape == input_shape and apart(lambda: trace.holds() and state == state_of(net)):
                return trace
        trace = trace_network(net, input_shape)
        self._traced = trace, apart(state_of, net)  # behind the trace: a network may keep what its forward made
        return trace

    def _as_samples(self, X: Any) -> np.ndarray:
        if self.net is None:
            raise DataError(f"X is a {type(X).__name__}, but there is no network to record its gates. Give a gate table, or a network.")
        X = as_samples(X)
        with shape_explained(self.net, X.shape):
            self.trace(X.shape[1:])
        return X

    def prepare(self, table: GateTable | DeviceGates) -> tuple[Backend, np.ndarray]:
        """Backend for tables like this one, and exponents: of each step of the recursion, and of the size of the matrix."""
        from npk.backends.exponents import find_exponents

        some = table.take(spread(len(table)))
        few = some.host() if isinstance(some, DeviceGates) else some
        backend = self._backend(few)
        balanced, powers = balance_of(backend.recursion).balanced(few)
        exponents = find_exponents(backend.recursion, balanced)
        return backend, np.append(exponents, exponents[-1] + 2 * powers.max())

    def in_float64(self, table: GateTable | DeviceGates) -> Backend:
        """The backend for samples whose values the dtype does not hold."""
        few = table.host() if isinstance(table, DeviceGates) else table
        return self._backend(few, one_device=True, dtype="float64")

    def _tables(self, X: Samples, Y: Samples | None) -> tuple[GateTable | DeviceGates, GateTable | DeviceGates | None]:
        rows = self._gates_of(X)
        cols = None if Y is None else self._gates_of(Y)
        if len(rows) == 0 or (cols is not None and len(cols) == 0):
            raise DataError(_NO_SAMPLES)
        if cols is not None and cols.graph != rows.graph:
            raise ShapeError("X and Y have different path graphs. Record the gates of both with the same network.")
        return rows, cols

    def _gates_of(self, X: Samples) -> GateTable | DeviceGates:
        """The gates, left on the GPU where network and tiles are there, and they take no more than their share of what is free."""
        if self.backend != "cuda" or isinstance(X, (GateTable, GateStore)):
            return self.record(X)
        from npk.dual import device_recording as there

        X = self._as_samples(X)
        trace = self.trace(X.shape[1:])
        free, needed = there.free_on_device(trace), there.device_bytes(trace, X)
        if free is None:
            return self.record(X)
        if needed > free * _SHARE:
            text = f"gates and samples take {needed / 1e9:.2f} GB, more than half of the {free / 1e9:.2f} GB that the GPU has free"
            self.progress.note("gates", f"{text}: they go through the host's memory", bytes=needed, free=free)
            return self.record(X)
        return there.record_on_device(trace, X, gates=self.gates, progress=self.progress)

    def _backend(self, table: GateTable, one_device: bool = False, dtype: str | None = None) -> Backend:
        kinds, dtype = tuple(entry.kind for entry in table.entries.values()), dtype or self.dtype
        common = (table.graph, kinds, *(getattr(self, name) for name in CHOICES))
        key = (common, one_device, dtype)
        if key not in self._backends:
            recursion = plan(table.graph, scale=self.scale, bias=self.bias, value_input=self.value_input)
            kept = {known: backend for known, backend in self._backends.items() if known[0] == common and known[2] != dtype}
            self._backends = {**kept, key: _make_backend(self.backend, recursion, table, dtype, self.progress, one_device)}
        return self._backends[key]


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
    client: "distributed.Client | None" = None,
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
        backend: "reference", "cpu", "cuda" or "auto" (the CPU).
        memory: bytes (or text such as "8GB") for samples, gates, working memory and result together.
        out: path of a zarr store; the result is then a :class:`npk.Gram` on disk.
        resume: go on with an interrupted store of the same kernel.
        client: a ``dask.distributed.Client``: the tiles are computed on its cluster, whose workers see ``out`` under the same path.
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
        raise OptionError("client= needs out=: workers write their tiles into a store that all of them see. Add for instance out='K.zarr'.")
    network, rows, cols = (None, net, X) if isinstance(net, (GateTable, GateStore)) else (net, X, Y)
    if network is None and Y is not None:
        raise OptionError("a gate table stands for network and samples together: call kernel(table) or kernel(table_rows, table_columns).")
    if rows is None:
        raise DataError("there are no samples: call kernel(net, X) or kernel(table).")
    made = NeuralPathKernel(
        network,
        scale=scale,
        dtype=dtype,
        gates=gates,
        value_input=value_input,
        bias=bias,
        backend=backend,
        memory=memory,
        progress=progress,
    )
    return made(rows, cols) if out is None else made.to_store(rows, cols, out, resume=resume, client=client)


def _check_network(net: Any) -> None:
    from npk.networks.given import as_network

    as_network(net, "or a gate table")


def _check_kind(table: GateTable | GateStore, gates: str) -> None:
    """A table holds the gates that were recorded: another kind cannot be made of them."""
    for name, kind in ((name, table.entries[name].kind) for name in table.names):
        if gates not in ("auto", kind):
            raise OptionError(
                f"gates={gates!r}, but the gate table has {kind} gates at layer {name!r}. Record the gates with gates={gates!r}."
            )


def _option(name: str, value: Any) -> str:
    """An option as it is kept."""
    value = chosen(name, dtype_named(value) if name == "dtype" else value)
    if (name, value) == ("backend", "cuda"):
        from npk.backends.cuda import launcher

        launcher.find_launcher()  # says what is missing now, not behind a recording
    return "cpu" if (name, value) == ("backend", "auto") else value


def _make_backend(name: str, recursion: Recursion, table: GateTable, dtype: str, progress: Progress, one_device: bool) -> Backend:
    if name == "reference":
        from npk.backends.reference import ReferenceBackend

        return ReferenceBackend(recursion, table, dtype)
    if name == "cuda":
        from npk.backends.cuda.several import on_devices

        return on_devices(recursion, table, dtype, one=one_device)
    from npk.backends.cpu import CpuBackend

    backend = CpuBackend(recursion, table, dtype)
    backend.compile(table, progress)
    return backend
