"""Recording: run a network over samples and keep its gates."""

import dataclasses
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npk.choices import GatesName, chosen
from npk.errors import DataError, OptionError, ShapeError
from npk.files import digest
from npk.gates.device_table import DeviceLayer
from npk.gates.entries import NARROW, kind_of, read_entry
from npk.gates.table import GateTable
from npk.progress import Progress, Silent, as_progress
from npk.reading.inputs import trace_for
from npk.samples import as_samples

if TYPE_CHECKING:
    import torch
    from torch import fx

    from npk.gates.store import GateStore
    from npk.reading.builder import Recording
    from npk.reading.tracing import Trace

_RUN_BYTES = 64 << 20  # working memory of one batch while recording, unless one sample needs more
# samples of a batch, at most: so that what is read off a layer is still in the cache
_LARGEST = 1024


def record_gates(
    net: "torch.nn.Module",
    X: ArrayLike,
    *,
    gates: GatesName = "auto",
    fixed: str | Sequence[str] = (),
    progress: bool | Progress = False,
) -> GateTable:
    """Run a network over samples and keep its gates.

    Args:
        net: a network in eval mode.
        X: samples, ``(n, *input_shape)``, in any of the forms that :mod:`npk.samples` lists.
        gates: "hard" (q > 0), "soft" (the real gate values), "auto": as the network evaluates.
        fixed: names of tensors that are coefficients and no weights, as in :func:`npk.trace`.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        The gates of all samples, packed.

    Raises:
        DataError: X is empty, not finite or in a form that is refused, or the network gives values
            that are not finite.
        ShapeError: the network does not take samples of X's shape.
        OptionError: soft gates of a network that has only hard ones, or names in ``fixed`` of no
            filters.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    X = as_samples(X)
    return record_trace(trace_for(net, X, fixed), X, gates=gates, progress=as_progress(progress))


def record_trace(
    trace: "Trace", X: np.ndarray, *, gates: str, progress: Progress, memory: int | None = None
) -> GateTable:
    """Gates of ``X`` under a traced network; see :func:`record_gates`.

    Args:
        trace: of the network.
        X: finite samples.
        gates: as there.
        progress: as there.
        memory: bytes for samples, gates and activations together.

    Returns:
        The gates of all samples.

    Raises:
        DataError: the network gives values that are not finite.
        OptionError: soft gates of a network that has only hard ones, or ``memory`` is too little.
    """
    from npk.reading.apart import apart

    entries = record_entries(trace, X, gates, progress, size=batch_size(trace, X, memory))
    return GateTable(
        trace.graph,
        as_the_first_weight_sees(trace, X),
        apart(lambda: {name: entry.host() for name, entry in entries.items()}),
    )


def as_the_first_weight_sees(trace: "Trace", X: np.ndarray) -> np.ndarray:
    """Samples with what the network adds to them before its first weight.

    Args:
        trace: of the network.
        X: samples.

    Returns:
        ``X`` itself where nothing is added; float64 where samples or network are, else float32.
    """
    if trace.added is None:
        return X
    wide = X.dtype == np.float64 or str(place_of(trace)[1]) == "torch.float64"
    return (X + trace.added).astype(np.float64 if wide else np.float32, copy=False)


def place_of(trace: "Trace") -> "tuple[torch.device, torch.dtype]":
    """Where a traced network is, and the type of number that it takes.

    Args:
        trace: of the network.

    Returns:
        Device and type.
    """
    import torch

    tensor = next(iter([*trace.program.parameters(), *trace.program.buffers()]), None)
    if tensor is None:
        return torch.device("cpu"), torch.float32
    return tensor.device, tensor.dtype if tensor.dtype.is_floating_point else torch.float32


def record_entries(
    trace: "Trace",
    X: np.ndarray,
    gates: str,
    progress: Progress,
    *,
    size: int,
    inputs: "torch.Tensor | None" = None,
) -> dict[str, DeviceLayer]:
    """Run a traced network over samples.

    Args:
        trace: of the network.
        X: finite samples.
        gates: as in :func:`record_gates`.
        progress: as there.
        size: samples of a batch.
        inputs: where the samples are put as they go through the network; gates are kept on the same
            device. ``None``: gates are kept in the host's memory.

    Returns:
        The entries of the table by name, in the graph's order.
    """
    import torch

    from npk.reading.apart import thread_of_its_own

    keep = torch.device("cpu") if inputs is None else inputs.device
    entries = [_Entry(_as_asked(recording, gates), len(X), keep) for recording in trace.recordings]
    program, (device, dtype) = (
        _reader(trace, tuple(entry.recording.node for entry in entries)),
        place_of(trace),
    )

    def run(start: int) -> int:
        some = slice(start, start + size)
        batch = _tensor(X[some]).to(device)
        if inputs is not None:
            shifted = trace.added is not None
            inputs[some] = _tensor(as_the_first_weight_sees(trace, X[some])) if shifted else batch
        _run(program, batch.to(dtype), entries)
        return len(batch)

    with thread_of_its_own() as quietly, progress.task("recording gates", len(X)) as advance:
        for start in range(0, len(X), size):
            advance(quietly(run, start))
    by_name = {entry.recording.gate: entry.layer() for entry in entries}
    return {name: by_name[name] for node in trace.graph.gates for name in node.entries}


def example_table(trace: "Trace", X: np.ndarray, gates: str) -> GateTable:
    """Gates of the first samples, which say what a store of all must hold.

    Args:
        trace: of the network.
        X: finite samples.
        gates: as in :func:`record_gates`.

    Returns:
        The table of at most two samples.
    """
    return record_trace(trace, X[:2], gates=gates, progress=Silent())


def record_into(
    store: "GateStore",
    trace: "Trace",
    X: np.ndarray,
    gates: str,
    progress: Progress,
    memory: int | None = None,
    *,
    keep: bool = True,
) -> None:
    """Record the pieces of a store that are missing.

    Args:
        store: open for writing.
        trace: of the network.
        X: finite samples, as many as the store has.
        gates: as in :func:`record_gates`.
        progress: counts samples.
        memory: as in :func:`record_trace`, for a group of pieces.
        keep: the store stays when the disk is full; ``False``: it is thrown away then, and the
            disk's own error comes.

    Raises:
        ShapeError: another number of samples.
        StoreError: the disk is full or gone.
    """
    if len(X) != len(store):
        raise ShapeError(
            f"X has {len(X)} samples, {store.path} is made for {len(store)}. Give the "
            f"samples that it was made for."
        )
    missing, write = set(store.missing()), store.write if keep else store.put
    done = len(X) - sum(stop - start for start, stop in missing)
    with progress.task("recording gates", len(X), done) as advance:
        for group in (group for group in store.groups() if missing.intersection(group)):
            first = group[0][0]
            table = record_trace(
                trace, X[first : group[-1][1]], gates=gates, progress=Silent(), memory=memory
            )
            if missing.issuperset(group):
                todo = [(first, group[-1][1])]
            else:
                todo = [piece for piece in group if piece in missing]
            for start, stop in todo:
                write(start, table.take(slice(start - first, stop - first)))
                advance(stop - start)


def weights_digest(trace: "Trace") -> str:
    """SHA-256 over what a traced network computes: its weights and buffers, and its operators with
    their numbers; names do not matter.

    Args:
        trace: of the network.

    Returns:
        The digest.
    """
    import torch
    from torch.fx.node import map_arg

    nodes = list(trace.program.graph.nodes)
    place = {node: f"%{i}" for i, node in enumerate(nodes)}
    parts: list[bytes | memoryview] = [b"" if trace.added is None else b"samples are shifted"]
    for node in nodes:
        what = (
            f"{node.target.__module__}.{node.target.__name__}" if node.op == "call_function" else ""
        )
        parts.append(
            f"{node.op} {what} {map_arg(node.args, place.get)} "
            f"{map_arg(node.kwargs, place.get)}".encode()
        )
        if node.op == "get_attr":
            value = attrgetter(node.target)(trace.program).detach().cpu().contiguous()
            parts += [
                f"{value.dtype} {tuple(value.shape)}".encode(),
                value.reshape(-1).view(torch.uint8).numpy().data,
            ]
    return digest(*parts)


def batch_size(trace: "Trace", X: np.ndarray, memory: int | None = None) -> int:
    """Samples that go through the network at once: as many whatever the memory, because torch may
    round otherwise in other batches.

    Args:
        trace: of the network.
        X: all samples.
        memory: bytes for samples, gates and activations together.

    Returns:
        The number.

    Raises:
        OptionError: the batch does not fit.
    """
    size, least = _batch(trace, len(X)), X.nbytes + bytes_to_record(trace, len(X))
    if memory is not None and memory < least:
        raise OptionError(
            f"memory={memory} bytes is too little to record the gates of {len(X)} samples: the "
            f"smallest that works is {least} bytes. Give that or more."
        )
    return size


def bytes_to_record(trace: "Trace", n: int) -> int:
    """Bytes that the recording of n samples takes beside the samples: the gates, and a batch on its
    way through the network.

    Args:
        trace: of the network.
        n: samples.

    Returns:
        The bytes.
    """
    shifted = 0 if trace.added is None else 2 * trace.added.nbytes
    gates = n * (bytes_of_entries(trace) + shifted)
    return gates + _batch(trace, n) * max(1, _bytes_a_sample(trace.program))


def bytes_of_entries(trace: "Trace") -> int:
    """Bytes of one sample's gates.

    Args:
        trace: of the network.

    Returns:
        The bytes.
    """
    return sum(_bytes_of_entry(recording, trace.program) for recording in trace.recordings)


def _batch(trace: "Trace", n: int) -> int:
    return max(1, min(n, _LARGEST, _RUN_BYTES // max(1, _bytes_a_sample(trace.program))))


def _bytes_of_entry(recording: "Recording", program: "fx.GraphModule") -> int:
    """Bytes of one sample in an entry of the table."""
    channels, positions = recording.shape[0], math.prod(recording.shape[1:])
    if recording.window is not None:
        return positions * channels * (1 if recording.window.size <= NARROW else 4)
    if kind_of(recording) != "soft":
        return positions * -(-channels // 64) * 8
    node = next(node for node in program.graph.nodes if node.name == recording.node)
    return positions * channels * node.meta["val"].dtype.itemsize


def _bytes_a_sample(program: "fx.GraphModule") -> int:
    """Most bytes that the values of one sample take while the program runs, each freed after its
    last use.

    A convolution may lay its input out as columns, once an offset of its kernel; reading a gate
    takes less.
    """
    last = {used: node for node in program.graph.nodes for used in node.all_input_nodes}
    alive, most = 0, 0
    for node in program.graph.nodes:
        alive += _bytes(node)
        most = max(most, alive + _bytes_of_columns(node))
        alive -= sum(
            _bytes(done) for done in {node, *node.all_input_nodes} if last.get(done, node) is node
        )
    return most


def _bytes(node: "fx.Node") -> int:
    """Bytes a sample of what a node computes."""
    import torch
    from torch.utils._pytree import tree_leaves

    held = () if node.op in ("get_attr", "output") else tree_leaves(node.meta.get("val"))
    sizes = (
        (value.dtype.itemsize, [side for side in value.shape if isinstance(side, int)])
        for value in held
        if isinstance(value, torch.Tensor)
    )
    return sum(item * math.prod(sides) for item, sides in sizes)


def _bytes_of_columns(node: "fx.Node") -> int:
    if "conv" not in str(node.target) or len(node.all_input_nodes) < 2:
        return 0
    image, weight = node.all_input_nodes[:2]
    return _bytes(image) * math.prod(weight.meta["val"].shape[2:])


def _as_asked(recording: "Recording", gates: str) -> "Recording":
    chosen("gates", gates)
    if gates == "soft" and kind_of(recording) == "hard":
        raise OptionError(
            f'gates="soft", but layer {recording.gate!r} has hard gates. Choose "auto" or "hard".'
        )
    if gates != "hard" or kind_of(recording) != "soft":
        return recording
    if recording.hard is None:
        raise OptionError(
            f'gates="hard", but layer {recording.gate!r} has soft gates without a '
            f'pre-activation. Choose "auto" or "soft".'
        )
    node, units = recording.hard
    return dataclasses.replace(recording, node=node, units=units, rule="positive")


@dataclasses.dataclass
class _Entry:
    """An entry of the table that grows batch by batch, in place."""

    recording: "Recording"
    n: int
    keep: "torch.device"
    data: "torch.Tensor | None" = None
    done: int = 0

    def read(self, value: "torch.Tensor") -> None:
        """Read the next samples off the recorded value."""
        import torch

        part = read_entry(self.recording, value)
        if self.data is None:
            data = torch.empty((self.n, *part.shape[1:]), dtype=part.dtype, device=self.keep)
        else:
            data = self.data
        data[self.done : self.done + len(part)].copy_(part)
        self.data = data
        self.done += len(part)

    def layer(self) -> DeviceLayer:
        """The finished entry."""
        assert self.data is not None
        return DeviceLayer(kind_of(self.recording), self.recording.shape, self.data)


def _reader(trace: "Trace", names: tuple[str, ...]) -> "fx.GraphModule":
    """The program as compiled Python with a second input, entries, of which each is handed its
    node's value as soon as that is there.

    Values are freed after their last use, so that a recorded one need not outlive its layer.
    """
    import torch

    if names in trace.readers:
        return trace.readers[names]
    graph, copies = torch.fx.Graph(), {}
    graph.output(graph.graph_copy(trace.program.graph, copies))
    nodes = {node.name: copy for node, copy in copies.items()}
    with graph.inserting_after([node for node in graph.nodes if node.op == "placeholder"][-1]):
        entries = graph.placeholder("entries")
    for number, name in enumerate(names):
        with graph.inserting_after(nodes[name]):
            graph.call_function(_hand_over, (entries, number, nodes[name]))
    for node in graph.nodes:
        if node.target is torch.ops.aten.view.default:
            # traced as a view, flatten must copy where a convolution has put the channels last
            node.target = torch.ops.aten.reshape.default
    trace.readers[names] = torch.fx.GraphModule(trace.program, graph)
    return trace.readers[names]


def _hand_over(entries: list[_Entry], number: int, value: "torch.Tensor") -> None:
    entries[number].read(value)


def _tensor(X: np.ndarray) -> "torch.Tensor":
    """A copy (X may be read-only) with plain strides: those of an axis of length 1 are arbitrary,
    and convolutions round by them.
    """
    import torch

    batch = torch.empty(
        X.shape, dtype=torch.float64 if X.dtype == np.float64 else torch.float32, device="cpu"
    )
    batch.numpy()[...] = X
    return batch


def _run(program: "fx.GraphModule", batch: "torch.Tensor", entries: list[_Entry]) -> None:
    import torch
    from torch.utils._pytree import tree_leaves

    # not by its __call__, which another thread's torch.export may have taken over
    results = program.forward(batch, entries)
    if not all(bool(torch.isfinite(result).all()) for result in tree_leaves(results)):
        raise DataError(
            "the network gives NaN or infinite values. Are its weights finite, and X "
            "of the size it was trained on?"
        )
