"""The engine of a kernel: backends planned and compiled once for a graph and kinds of gates."""

import numpy as np

from npk.backends import Backend, make_backend
from npk.backends.exponents import find_exponents
from npk.gates.device_table import DeviceGates
from npk.gates.table import GateTable
from npk.gram.options import KernelOptions, Promise
from npk.gram.sources import spread
from npk.graph.path_graph import PathGraph
from npk.progress import Progress
from npk.recursion.balance import balance_of
from npk.recursion.instruments import Instrument
from npk.recursion.planning import plan
from npk.recursion.steps import Recursion


class Engine:
    """What computes a kernel under fixed options, whatever network and samples the gates are of.

    Args:
        options: of the kernel.
        promise: bytes that a call may take.
        progress: where it is told.
        instrument: another one than that of the options, such as one that gives several kernels.
    """

    def __init__(
        self,
        options: KernelOptions,
        promise: Promise,
        progress: Progress,
        instrument: Instrument | None = None,
    ) -> None:
        self.options, self.promise, self.progress = options, promise, progress
        self.instrument = options.instrument if instrument is None else instrument
        self._backends: dict[tuple, Backend] = {}  # of one path graph

    def holding(self, beside: int) -> "Engine":
        """The same engine, with all that is compiled, in a process that holds so many bytes beside."""
        promise = self.promise.holding(beside)
        engine = Engine(self.options, promise, self.progress, self.instrument)
        engine._backends = dict(self._backends)
        return engine

    def prepare(self, table: GateTable | DeviceGates) -> tuple[Backend, np.ndarray]:
        """What tables like this one need.

        Args:
            table: gates of at least one sample.

        Returns:
            The backend, and the exponents: of each step of the recursion, and of the size of the
                matrix.
        """
        few = _on_host(table.take(spread(len(table))))
        backend = self.backend(few)
        balanced, powers = balance_of(backend.recursion).balanced(few)
        exponents = find_exponents(backend.recursion, balanced)
        return backend, np.append(exponents, exponents[-1] + 2 * powers.max())

    def in_float64(self, table: GateTable | DeviceGates) -> Backend:
        """The backend for samples whose values the dtype does not hold."""
        return self.backend(_on_host(table), one_device=True, dtype="float64")

    def backend(
        self, table: GateTable, *, one_device: bool = False, dtype: str | None = None
    ) -> Backend:
        """The backend for tables of this graph and these kinds of gates.

        Args:
            table: gates of any samples.
            one_device: on the current device only, since others have processes too.
            dtype: another one than that of the options.

        Returns:
            The backend, compiled.
        """
        kinds = tuple(entry.kind for entry in table.entries.values())
        dtype = dtype or self.options.dtype
        key = (table.graph, kinds, one_device, dtype)
        if key not in self._backends:
            kept = {
                known: backend
                for known, backend in self._backends.items()
                if known[:2] == key[:2] and known[3] != dtype
            }
            self._backends = {**kept, key: self._compiled(table, dtype, one_device)}
        return self._backends[key]

    def _compiled(self, table: GateTable, dtype: str, one_device: bool) -> Backend:
        graph = self.instrument.left(table.graph)
        recursion = self.instrument.applied(graph, self.paths(graph))
        return make_backend(
            self.options.backend, recursion, table, dtype, self.progress, one_device=one_device
        )

    def paths(self, graph: PathGraph) -> Recursion:
        """The plan of the neural path kernel itself, under these options.

        Args:
            graph: of a network.

        Returns:
            What the instrument is applied to.
        """
        of, merged = self.options, not self.instrument.weighs
        return plan(graph, scale=of.scale, bias=of.bias, value_input=of.value_input, merged=merged)


def _on_host(table: GateTable | DeviceGates) -> GateTable:
    return table.host() if isinstance(table, DeviceGates) else table
