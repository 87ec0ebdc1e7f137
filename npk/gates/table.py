"""GateTable: the gates of many samples, and the samples themselves.

The tie rule of npk lives here and nowhere else: a gate is on when its pre-activation is greater
than 0.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npk.errors import ShapeError, StoreError
from npk.files import digest, written_whole
from npk.gates.form import EntryForm, TableForm, other_shape
from npk.gates.pieces import GatePieces
from npk.graph.node import PathNode, refuse_other_ones, units_of
from npk.graph.path_graph import LISTED, MOST_LISTED, PathGraph, to_dict
from npk.shown import table as shown_table
from npk.stores.blocks import Form, raw

if TYPE_CHECKING:
    import torch


def pack(gates: np.ndarray) -> np.ndarray:
    """Bits of the last axis in words of 64, padded with zeros: bool to uint64."""
    channels = gates.shape[-1]
    padded = np.zeros((*gates.shape[:-1], -(-channels // 64) * 64), bool)
    padded[..., :channels] = gates
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def pack_on_device(gates: "torch.Tensor") -> "torch.Tensor":
    """As :func:`pack`, by torch on the gates' own device: bool ``(n, channels, positions)`` to
    uint8 ``(n, positions, words * 8)``.
    """
    import torch

    n, channels, positions = gates.shape
    pad = torch.nn.functional.pad
    if channels % 8:
        bits = pad(gates.view(torch.uint8), (0, 0, 0, -channels % 8))
    else:
        bits = gates.view(torch.uint8)
    # eight neighbors at once: the product moves the lowest bit of byte i to bit 56 + i
    if positions == 1:
        octets = bits.contiguous().view(n, -1).view(torch.int64) * 0x0102040810204080 >> 56
        bits = octets.to(torch.uint8).view(n, -1, 1)
    else:
        for shift in (1, 2, 4):
            bits = bits[:, 1::2].bitwise_left_shift(shift).bitwise_or_(bits[:, ::2])
    return (pad(bits, (0, 0, 0, -bits.shape[1] % 8)) if bits.shape[1] % 8 else bits).transpose(1, 2)


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """Inverse of :func:`pack`: bool ``(..., channels)``."""
    raw = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(raw, axis=-1, count=channels, bitorder="little").view(bool)


def ones_in(words: np.ndarray) -> np.ndarray:
    """Number of ones in each word of 64 bits, int64."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words).astype(np.int64)
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1)
    return bits.reshape(*words.shape, 64).sum(-1, dtype=np.int64)


@dataclass(frozen=True)
class GateForm:
    """What an entry of a table is, wherever its data are: kind and ``(channels, *positions)``."""

    kind: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def packed(self) -> bool:
        """Whether the data are bits."""
        return self.kind in ("hard", "saturation")


@dataclass(frozen=True)
class GateLayer(GateForm):
    """One entry of the table. Arrays have positions before channels.

    ``kind``: "hard" (``data`` is packed bits ``(n, positions, words)``), "soft" (real gates ``(n,
    positions, channels)``), "saturation" (packed bits: where a ReLU6 or Hardtanh gives a constant)
    or "selection" (offset that each window of a max pool lets pass, ``(n, positions, channels)``).
    """

    data: np.ndarray


@dataclass(frozen=True)
class GateTable:
    """Gates of all layers for n samples, with the samples and the path graph they belong to.

    ``table[l]`` (number or name) gives gate layer l unpacked: bool ``(n, channels, *positions)``,
    or real values of soft gates.

    Raises:
        ShapeError: a layer does not have the shape that the graph says.
    """

    graph: PathGraph
    inputs: np.ndarray  # (n, *input_shape)
    entries: Mapping[str, GateLayer]

    def __post_init__(self) -> None:
        _ = self.form  # which checks itself
        for name, node in ((name, gate) for gate in self.graph.gates for name in gate.entries):
            if len(self.entries[name].data) != len(self):
                raise ShapeError(other_shape(name, self.entries[name].shape, node.shape))

    @classmethod
    def of(cls, form: TableForm, arrays: Sequence[np.ndarray]) -> "GateTable":
        """The table of a form whose arrays are given, the samples first."""
        each = zip(form.entries, arrays[1:], strict=True)
        layers = {entry.name: GateLayer(entry.kind, entry.shape, data) for entry, data in each}
        return cls(form.graph, arrays[0], layers)

    @property
    def form(self) -> TableForm:
        """All that two tables of one network have in common."""
        each = [(name, e.kind, e.shape, _form(e.data)) for name, e in self.entries.items()]
        return TableForm(self.graph, _form(self.inputs), tuple(EntryForm(*e) for e in each))

    def __repr__(self) -> str:
        return (
            f"<npk.GateTable: {len(self)} samples, {self.layers} gate layers, {self.nbytes} bytes>"
        )

    def _repr_html_(self) -> str:
        return shown_gates(self.graph, self.entries, self.names, repr(self))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the gate layers, from the input on; selections and saturations are none."""
        return tuple(name for name, entry in self.entries.items() if entry.kind in ("hard", "soft"))

    @property
    def layers(self) -> int:
        """Number of gate layers."""
        return len(self.names)

    def __getitem__(self, layer: int | str) -> np.ndarray:
        entry = self.entries[self.names[layer] if isinstance(layer, int) else layer]
        values = unpack(entry.data, entry.channels) if entry.packed else entry.data
        return np.moveaxis(values, 2, 1).reshape(len(self), *entry.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[layer] for layer in range(self.layers))

    def take(self, rows: slice | np.ndarray) -> "GateTable":
        """The table of a subset of the samples."""
        entries = {
            name: GateLayer(e.kind, e.shape, e.data[rows]) for name, e in self.entries.items()
        }
        return GateTable(self.graph, self.inputs[rows], entries)

    @property
    def nbytes(self) -> int:
        """Bytes of gates and samples."""
        return self.inputs.nbytes + sum(entry.data.nbytes for entry in self.entries.values())

    @property
    def arrays(self) -> list[np.ndarray]:
        """The samples, then the data of each entry."""
        return [self.inputs, *(entry.data for entry in self.entries.values())]

    def fingerprint(self, first: int | None = None) -> str:
        """SHA-256 over graph, samples and gates, of the first samples alone if so many are given."""
        return fingerprint_of(self, [self.take(slice(first))])

    def save(self, path: str | Path) -> None:
        """Write the table as a zarr group, whole or not at all.

        Args:
            path: the folder; one that exists is replaced.

        Raises:
            StoreError: the folder cannot be written.
        """
        with written_whole(path) as temporary:
            store = GatePieces.create(temporary, self.form, len(self))
            for i, (start, stop) in enumerate(store.pieces):
                store.write_chunks((i,), [array[start:stop] for array in self.arrays])

    @classmethod
    def load(cls, path: str | Path) -> "GateTable":
        """Read a table that :meth:`save` or a :class:`~npk.gates.store.GateStore` wrote.

        Args:
            path: the folder.

        Returns:
            The table, in memory.

        Raises:
            StoreError: no such table, another version, not complete, larger than memory, or its
                content does not match its checksums.
        """
        store = GatePieces.open(path)
        try:
            return cls.of(store.form, store.arrays(slice(None)))
        except MemoryError as error:
            much = f"{path} takes {store.nbytes} bytes, more than there is memory"
            raise StoreError(
                f"{much}. Read parts of it: GateStore.open(path).take(rows)."
            ) from error


def shown_gates(
    graph: PathGraph, entries: Mapping[str, GateLayer], names: Sequence[str], said: str
) -> str:
    """The nodes of a graph with the gates of each, for a notebook; no gate is read.

    Args:
        graph: of the table.
        entries: of the table.
        names: of its gate layers.
        said: the table in a line.

    Returns:
        HTML.
    """
    counts = {name: math.prod(entries[name].shape) for name in names}
    rows = [
        (*graph.listed(number), counts.get(node.gate, ""))
        for number, node in enumerate(graph.nodes)
    ]
    return shown_table((*LISTED, "gates"), rows, said[1:-1], most=MOST_LISTED)


def _form(array: np.ndarray) -> Form:
    return Form(array.shape[1:], array.dtype.name)


def fingerprint_of(example: GateTable, tables: Iterable[GateTable]) -> str:
    """SHA-256 over graph, samples and gates of a table that comes in pieces.

    Args:
        example: any table of the same network.
        tables: the pieces, in order.

    Returns:
        The digest, which does not depend on how the table is cut.
    """
    totals = [sha256() for _ in example.arrays]
    for table in tables:
        for total, array in zip(totals, table.arrays, strict=True):
            total.update(raw(array))
    return digest(
        json.dumps(to_dict(example.graph)).encode(), *(total.digest() for total in totals)
    )


def samples_digest(X: np.ndarray, first: int | None = None) -> str:
    """SHA-256 over dtype, shape of a sample, and samples.

    Args:
        X: samples, ``(n, *input_shape)``.
        first: only so many; ``None``: all.

    Returns:
        The digest; that of the first samples is the digest of an array of them.
    """
    total = sha256(json.dumps([X.dtype.name, X.shape[1:]]).encode())
    for sample in X[:first]:
        total.update(raw(sample))
    return total.hexdigest()


def input_values(table: GateTable, node: PathNode) -> np.ndarray:
    """What an input node shows of the samples, ``(n, channels, positions)``.

    Raises:
        OptionError: it shows ones of a shape of their own, in whose place no sample can stand.
    """
    refuse_other_ones(node, table.inputs.shape[1:])
    flat = table.inputs.reshape(len(table), math.prod(table.inputs.shape[1:]))
    if (shown := units_of(node)) is not None:
        units = np.array(shown)
        flat = np.where(units >= 0, flat[:, units], 0)
    return flat.reshape(len(table), node.channels, node.positions)
