"""Where the gates on one side of a kernel come from: recorded already, or to be recorded from
samples.

A source is of one run: what it was asked once, it keeps.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from npk.gates.store import GateStore
from npk.gates.table import GateTable, samples_digest
from npk.graph.path_graph import PathGraph
from npk.progress import Progress, Silent

if TYPE_CHECKING:
    from npk.reading.tracing import Trace

_FEW = 64  # samples; the first three with an active path tell the range of a kernel's values


class Source(Protocol):
    """Samples, and how their gates get into a store."""

    network: str  # digest of what the gates are recorded with
    graph: PathGraph
    given: dict[str, Any]  # what is known of the samples: JSON values

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes in memory as long as the store is written."""
        ...

    def few(self) -> GateTable:
        """Gates of a few samples from all over."""
        ...

    def bytes_to_fill(self, together: int) -> int:
        """Bytes that :meth:`fill` takes where so many samples are recorded together."""
        ...

    def bytes_to_load(self) -> int:
        """Bytes of the samples and of what it takes to have all their gates in memory."""
        ...

    def digest(self, first: int) -> str:
        """Digest of the first samples."""
        ...

    def fill(self, store: GateStore, progress: Progress) -> None:
        """Write the pieces of a store that are missing."""
        ...


class Recorded:
    """Gates that are in memory or on disk."""

    network = "that of the gate table"

    def __init__(self, table: GateTable | GateStore) -> None:
        self.table, self.graph = table, table.graph
        self.given = table.about if isinstance(table, GateStore) else {}
        self._digests: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def nbytes(self) -> int:
        """Bytes of a table in memory."""
        return self.table.nbytes if isinstance(self.table, GateTable) else 0

    def few(self) -> GateTable:
        """Gates of a few samples from all over."""
        return self._few

    @cached_property
    def _few(self) -> GateTable:
        return self.table.take(spread(len(self.table)))

    def bytes_to_fill(self, together: int) -> int:
        """Those of the gates, and of a copy."""
        return 2 * together * (self.table.nbytes // len(self.table))

    def bytes_to_load(self) -> int:
        """Those of the table, and of what is read at once."""
        if isinstance(self.table, GateTable):
            reading = 0
        else:
            reading = min(self.table.bytes_to_take, 2 * self.table.nbytes)
        return self.table.nbytes + reading

    def digest(self, first: int) -> str:
        """That of the table of the first samples."""
        if first not in self._digests:
            self._digests[first] = self.table.fingerprint(first)
        return self._digests[first]

    def fill(self, store: GateStore, progress: Progress) -> None:
        """Copy the pieces that are missing."""
        missing = store.missing()
        todo = sum(stop - start for start, stop in missing)
        with progress.task("copying gates", len(store), len(store) - todo) as advance:
            for start, stop in missing:
                store.write(start, self.table.take(slice(start, stop)))
                advance(stop - start)


class Unrecorded:
    """Samples in memory, and the network that their gates are recorded with."""

    def __init__(
        self, trace: "Trace", X: np.ndarray, gates: str, given: dict[str, Any] | None = None
    ) -> None:
        from npk.gates.recording import weights_digest

        self.trace, self.X, self.gates, self.given = trace, X, gates, given or {}
        self._digests: dict[int, str] = {}
        self.network, self.graph = weights_digest(trace), trace.graph

    def __len__(self) -> int:
        return len(self.X)

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return self.X.nbytes

    def few(self) -> GateTable:
        """Gates of a few samples from all over."""
        return self._few

    @cached_property
    def _few(self) -> GateTable:
        from npk.gates.recording import record_trace

        return record_trace(
            self.trace, self.X[spread(len(self.X))], gates=self.gates, progress=Silent()
        )

    def bytes_to_fill(self, together: int) -> int:
        """Those of the gates and of a copy, and of a batch on its way through the network."""
        from npk.gates.recording import bytes_to_record

        return 2 * bytes_to_record(self.trace, together)

    def bytes_to_load(self) -> int:
        """Those of samples and gates, and of a batch on its way through the network."""
        from npk.gates.recording import bytes_to_record

        return self.X.nbytes + bytes_to_record(self.trace, len(self.X))

    def digest(self, first: int) -> str:
        """That of the samples alone."""
        if first not in self._digests:
            self._digests[first] = samples_digest(self.X, first)
        return self._digests[first]

    def fill(self, store: GateStore, progress: Progress) -> None:
        """Record the pieces that are missing."""
        from npk.gates.recording import record_into

        record_into(store, self.trace, self.X, self.gates, progress)


def spread(n: int) -> np.ndarray:
    """Numbers of a few samples among n, of which the first few are far apart."""
    some = np.linspace(0, n - 1, min(_FEW, n)).astype(int)
    return some[np.argsort(np.arange(len(some)) * 0.618 % 1)]
