"""GateTable: the gates of many samples, and the samples themselves.

The tie rule of npk lives here and nowhere else: a gate is on when its pre-activation is greater than 0.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.dual.path_graph import PathGraph, from_dict, to_dict
from npk.errors import DataError, OptionError, ShapeError, StoreError
from npk.files import digest, written_whole
from npk.progress import Progress, as_progress

if TYPE_CHECKING:
    import torch

    from npk.dual.tracing import Recording, Trace

FORMAT = 1
_RUN_BYTES = 64 << 20  # activations of one batch while recording


def is_on(preactivation: "np.ndarray | torch.Tensor") -> Any:
    """The tie rule: a gate is on where q > 0; q = 0 is off."""
    return preactivation > 0


def pack(gates: np.ndarray) -> np.ndarray:
    """Bits of the last axis in words of 64: bool ``(..., channels)`` to uint64 ``(..., words)``, padded with zeros."""
    channels = gates.shape[-1]
    padded = np.zeros((*gates.shape[:-1], -(-channels // 64) * 64), bool)
    padded[..., :channels] = gates
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """Inverse of :func:`pack`: bool ``(..., channels)``."""
    raw = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(raw, axis=-1, count=channels, bitorder="little").view(bool)


@dataclass(frozen=True)
class GateLayer:
    """One entry of the table. Arrays have positions before channels.

    ``kind``: "hard" (``data`` is packed bits ``(n, positions, words)``), "soft" (real gates ``(n, positions, channels)``) or
    "selection" (offset that each window of a max pool lets pass, ``(n, positions, channels)``).
    """

    kind: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]


@dataclass(frozen=True)
class GateTable:
    """Gates of all layers for n samples, with the samples and the path graph they belong to.

    ``table[l]`` (number or name) gives gate layer l unpacked: bool ``(n, channels, *positions)``, or real values of soft gates.

    Raises:
        ShapeError: a layer does not have the shape that the graph says.
    """

    graph: PathGraph
    inputs: np.ndarray  # (n, *input_shape)
    entries: Mapping[str, GateLayer]

    def __post_init__(self) -> None:
        for node in self.graph.gates:
            name = node.operator.gate
            if name not in self.entries:
                raise ShapeError(f"GateTable has no layer {name!r}, the graph needs it. Were the gates recorded with another checkpoint?")
            entry = self.entries[name]
            if entry.channels != node.channels or entry.data.shape[:2] != (len(self), node.positions):
                raise ShapeError(
                    f"GateTable has shape {entry.shape} at layer {name!r}, the graph says {node.shape}. "
                    "Were the gates recorded with another checkpoint?"
                )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the gate layers, from the input on; selections of max pools are not gates."""
        return tuple(name for name, entry in self.entries.items() if entry.kind != "selection")

    @property
    def layers(self) -> int:
        """Number of gate layers."""
        return len(self.names)

    def __getitem__(self, layer: int | str) -> np.ndarray:
        entry = self.entries[self.names[layer] if isinstance(layer, int) else layer]
        values = unpack(entry.data, entry.channels) if entry.kind == "hard" else entry.data
        return np.moveaxis(values, 2, 1).reshape(len(self), *entry.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[layer] for layer in range(self.layers))

    def take(self, rows: slice | np.ndarray) -> "GateTable":
        """The table of a subset of the samples."""
        entries = {name: GateLayer(e.kind, e.shape, e.data[rows]) for name, e in self.entries.items()}
        return GateTable(self.graph, self.inputs[rows], entries)

    @property
    def nbytes(self) -> int:
        """Bytes of gates and samples."""
        return self.inputs.nbytes + sum(entry.data.nbytes for entry in self.entries.values())

    def fingerprint(self) -> str:
        """SHA-256 over graph, samples and gates."""
        arrays = [np.ascontiguousarray(a) for a in (self.inputs, *(e.data for e in self.entries.values()))]
        return digest(json.dumps(to_dict(self.graph)).encode(), *(memoryview(a).cast("B") for a in arrays if a.size))

    def save(self, path: str | Path) -> None:
        """Write the table as a zarr group, whole or not at all.

        Raises:
            StoreError: the folder cannot be written.
        """
        import zarr

        with written_whole(path) as temporary:
            group = zarr.open_group(temporary, mode="w")
            group.create_array("inputs", data=self.inputs)
            for i, entry in enumerate(self.entries.values()):
                group.create_array(f"gates/{i}", data=entry.data)
            layers = [{"name": name, "kind": e.kind, "shape": e.shape} for name, e in self.entries.items()]
            group.attrs["npk"] = {
                "format": FORMAT, "content": "gate table", "graph": to_dict(self.graph), "layers": layers, "sha256": self.fingerprint()
            }  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "GateTable":
        """Read a table that :meth:`save` wrote.

        Raises:
            StoreError: no such table, another version, or its content does not match its checksum.
        """
        group, manifest = open_store(path, "gate table")
        layers = manifest["layers"]
        try:
            entries = {v["name"]: GateLayer(v["kind"], tuple(v["shape"]), group[f"gates/{i}"][...]) for i, v in enumerate(layers)}
            table = cls(from_dict(manifest["graph"]), group["inputs"][...], entries)
        except Exception as error:  # noqa: BLE001 - zarr raises many kinds for damaged chunks; the cause is kept
            raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}). Record the gates again.") from error
        if table.fingerprint() != manifest["sha256"]:
            raise StoreError(f"{path} does not match its checksum: a byte changed on disk. Record the gates again.")
        return table


def open_store(path: str | Path, content: str) -> tuple[Any, dict]:
    """Open a zarr group that npk wrote and return it with its manifest.

    Raises:
        StoreError: nothing there, not npk's, other content, or a newer format.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        manifest = dict(group.attrs).get("npk")
    except Exception as error:  # noqa: BLE001 - zarr raises many kinds; the cause is kept
        raise StoreError(f"cannot read {path} as a {content} ({type(error).__name__}). Name a folder that npk wrote.") from error
    if not isinstance(manifest, dict) or manifest.get("content") != content:
        found = manifest.get("content") if isinstance(manifest, dict) else "something that npk did not write"
        raise StoreError(f"{path} holds {found}, not a {content}. Name a folder that npk wrote as a {content}.")
    if manifest["format"] > FORMAT:
        raise StoreError(f"{path} has format {manifest['format']}, this npk reads up to {FORMAT}. Update npk.")
    return group, manifest


def record_gates(net: "torch.nn.Module", X: np.ndarray, *, gates: str = "auto", progress: bool | Progress = False) -> GateTable:
    """Run a network over samples and keep its gates.

    Args:
        net: a network in eval mode.
        X: samples, ``(n, *input_shape)``; NumPy array or tensor.
        gates: "hard" (q > 0), "soft" (the real gate values), "auto": as the network evaluates.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        The gates of all samples, packed.

    Raises:
        DataError: X is empty or not finite, or the network gives values that are not finite.
        OptionError: soft gates of a network that has only hard ones.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    from npk.dual.tracing import trace_network

    X = as_samples(X)
    return record_trace(trace_network(net, X.shape[1:]), X, gates=gates, progress=as_progress(progress))


def as_samples(X: "np.ndarray | torch.Tensor") -> np.ndarray:
    """Samples as a finite floating-point array with at least one row.

    Raises:
        DataError: empty, of no number type, or not finite.
    """
    X = X.detach().cpu().numpy() if hasattr(X, "detach") else np.asarray(X)
    if X.dtype.kind not in "fiub":
        raise DataError(f"X has dtype {X.dtype}. Give an array of numbers.")
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)
    if X.ndim < 2 or X.size == 0:
        raise DataError(f"X has shape {X.shape}. Give samples as (n, *input_shape) with n at least 1.")
    if not np.isfinite(X).all():
        raise DataError(f"X has {np.count_nonzero(~np.isfinite(X))} values that are NaN or infinite. Clean the data first.")
    return X


def record_trace(trace: "Trace", X: np.ndarray, *, gates: str, progress: Progress) -> GateTable:
    """Gates of ``X`` under a traced network; see :func:`record_gates`."""
    import torch

    recordings = [_as_asked(recording, gates) for recording in trace.recordings]
    tensor = next(iter([*trace.program.parameters(), *trace.program.buffers()]), torch.zeros(()))
    dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
    size = _batch_size(trace)
    parts: dict[str, list[np.ndarray]] = {recording.gate: [] for recording in recordings}
    with torch.no_grad(), progress.task("recording gates", len(X)) as advance:
        for start in range(0, len(X), size):
            batch = torch.tensor(X[start : start + size]).to(tensor.device, dtype)  # a copy: X may be read-only
            values = _run(trace, recordings, batch)
            for recording in recordings:
                parts[recording.gate].append(_read(recording, values[recording.node]))
            advance(len(batch))
    entries = {r.gate: GateLayer(_KINDS[r.rule], r.shape, np.concatenate(parts[r.gate])) for r in _in_order(trace.graph, recordings)}
    return GateTable(trace.graph, X, entries)


_KINDS = {"positive": "hard", "value": "soft", "selection": "selection"}


def _in_order(graph: PathGraph, recordings: "list[Recording]") -> "list[Recording]":
    by_name = {recording.gate: recording for recording in recordings}
    return [by_name[node.operator.gate] for node in graph.gates]


def _as_asked(recording: "Recording", gates: str) -> "Recording":
    import dataclasses

    if gates not in ("auto", "hard", "soft"):
        raise OptionError(f'gates={gates!r} is not known. Choose "auto", "hard" or "soft".')
    if gates == "soft" and recording.rule == "positive":
        raise OptionError(f'gates="soft", but layer {recording.gate!r} has hard gates. Choose "auto" or "hard".')
    if gates == "hard" and recording.rule == "value":
        return dataclasses.replace(recording, node=recording.hard, rule="positive")
    return recording


def _batch_size(trace: "Trace") -> int:
    """Samples whose recorded values fill about 64 MB."""
    cells = sum(int(np.prod(node.shape)) for node in trace.graph.nodes)
    return max(1, min(4096, _RUN_BYTES // (8 * max(cells, 1))))


def _run(trace: "Trace", recordings: "list[Recording]", batch: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Values of the nodes to record; the others are freed as soon as they are used."""
    import torch

    wanted, kept = {recording.node for recording in recordings}, {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in wanted:
                kept[n.name] = result
            if n.op == "output" and not all(bool(torch.isfinite(r).all()) for r in result):
                raise DataError("the network gives NaN or infinite values. Are its weights finite, and X of the size it was trained on?")
            return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on the user's operators came when the user ran the network
        Keep(trace.program).run(batch)
    return kept


def _read(recording: "Recording", value: "torch.Tensor") -> np.ndarray:
    """One recorded value as the table keeps it, positions before channels."""
    if recording.rule == "selection":
        return _selection(recording, value)
    channels = recording.shape[0]
    gate = is_on(value) if recording.rule == "positive" else value
    gate = gate.expand(len(value), *recording.shape) if gate.dim() == len(recording.shape) + 1 else gate
    flat = gate.reshape(len(value), channels, -1).transpose(1, 2).contiguous().cpu().numpy()
    return pack(flat) if recording.rule == "positive" else flat


def _selection(recording: "Recording", value: "torch.Tensor") -> np.ndarray:
    """Offset of the first maximum of each window."""
    import torch

    taps = torch.as_tensor(recording.window.taps(tuple(value.shape[2:])), device=value.device)
    flat = value.reshape(*value.shape[:2], -1)
    seen = torch.where(taps >= 0, flat[..., taps.clamp(min=0)], -torch.inf)
    best = seen.argmax(2).transpose(1, 2).contiguous().cpu().numpy()
    return best.astype(np.uint8 if recording.window.size <= 256 else np.int32)
