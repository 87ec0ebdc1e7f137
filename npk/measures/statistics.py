"""What the gates of a table do: how many are on, which never change, how many patterns there are,
and which flip between two tables.
"""

import dataclasses
import math
from hashlib import blake2b
from typing import Literal

import numpy as np

from npk.errors import ShapeError
from npk.gates.table import GateTable, unpack
from npk.graph.node import PathNode
from npk.measures.given import Floats, Gates, blocks, checked_table, refuse_soft, values_in
from npk.results import Result
from npk.shown import Shown
from npk.typed import Typed

_BYTES = 16  # of the digest that stands for a pattern


@dataclasses.dataclass(frozen=True)
class LayerStatistics(Typed):
    """What the gates of one layer do over some samples. A unit is a gate: a channel at a position."""

    name: str  # of the gate layer
    operator: str  # of the node that reads it, in words
    source: str  # line of the user's code where it comes from
    kind: Literal["hard", "soft"]
    shape: tuple[int, ...]  # (channels, *positions)
    activity: float  # mean share of the units that are on; of soft gates their mean
    dead: int  # units that are 0 for all samples
    always_on: int  # units that are 1 for all samples
    patterns: int | None  # distinct rows of the layer; None: soft gates
    entropy: float | None  # mean over units of the entropy of on and off, in bits; None: soft gates
    channels: tuple[float, ...]  # activity of each channel
    dead_channels: int  # channels all of whose units are dead

    @property
    def units(self) -> int:
        """Gates of the layer."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class GateStatistics(Result):
    """What the gates of all layers do over some samples."""

    samples: int
    patterns: int | None  # distinct rows of all layers together; None: some gates are soft
    layers: tuple[LayerStatistics, ...]  # from the input on


@dataclasses.dataclass(frozen=True)
class GateReport(Result):
    """What `npk gates --statistics` tells of a network on a data set."""

    of: str  # the checkpoint, or the folder of the gate table
    data: str  # DATA notation; empty for a gate table, which holds its samples
    statistics: GateStatistics
    naswot: float | None  # None: there is none
    naswot_samples: int  # the first so many
    no_naswot: str  # why there is none


@dataclasses.dataclass(frozen=True, eq=False)
class Flips(Shown):
    """Which gates differ between two tables of the same samples, layer by layer from the input on."""

    names: tuple[str, ...]  # of the gate layers
    share: Floats  # of a layer's gates that differ, (layers,)
    error: Floats  # standard error of the share, over samples, (layers,); NaN for one sample
    channels: tuple[Floats, ...]  # of each layer the share of each channel's gates, (channels,)


def gate_statistics(table: Gates) -> GateStatistics:
    r"""Activity, dead and always-on units, distinct patterns and entropy, layer by layer.

    With :math:`p_u` the share of the samples that unit u is on for,

    .. math::

        \text{activity} = \operatorname{mean}_u p_u, \qquad
        \text{entropy} = -\operatorname{mean}_u \big( p_u \log_2 p_u + (1 - p_u) \log_2 (1 - p_u) \big)

    Args:
        table: gates of n samples, in memory or in a store, which is read in blocks. Of soft gates
            activity is the mean value, a unit is dead or always on where it is 0 or 1 for all
            samples, and patterns and entropy are not defined.

    Returns:
        The statistics, with the operator that reads each layer. Patterns are told apart by digests
        of 16 bytes.

    Raises:
        DataError: no gate table, or one without samples or gate layers.
    """
    names = checked_table(table).names
    layers = [_Layer(table, name) for name in names]
    rows: set[bytes] = set()
    for _, (part,) in blocks(table):
        keys = [layer.take(part, name) for layer, name in zip(layers, names, strict=True)]
        rows.update(_digest(b"".join(row)) for row in zip(*keys, strict=True))
    n, hard = len(table), all(layer.hard for layer in layers)
    each = zip(layers, names, strict=True)
    found = tuple(layer.statistics(table, name, n) for layer, name in each)
    return GateStatistics(n, len(rows) if hard else None, found)


def flips(table: Gates, other: Gates) -> Flips:
    r"""Share of the gates that differ between two tables: two checkpoints of one network on the
    same samples, or one network on samples and on the same samples disturbed.

    .. math:: \operatorname{mean}_{x, u}\, | G_u(x) - G'_u(x) |

    Args:
        table: gates of n samples, in memory or in a store, all of them hard.
        other: the same layers of other gates, sample by sample.

    Returns:
        Shares by layer, with their standard error over samples, and by channel. Bits are compared
        with bits.

    Raises:
        ShapeError: the tables have other layers, or other numbers of samples.
        DataError: no gate table, or one without samples or gate layers.
        OptionError: soft gates, which do not flip.
    """
    forms = [_form(each, name) for each, name in ((table, "table"), (other, "other"))]
    if forms[0] != forms[1]:
        raise ShapeError(
            f"table is of {len(table)} samples with layers {_words(table)}, other of {len(other)} "
            f"with {_words(other)}. Give gates of one architecture over as many samples."
        )
    n, counts = len(table), [_Differing(table, name) for name in table.names]
    for _, (first, second) in blocks(table, other):
        for count, name in zip(counts, table.names, strict=True):
            count.take(first, second, name)
    shares = [count.by_sample() for count in counts]
    error = [np.std(s, ddof=1) / np.sqrt(n) if n > 1 else np.nan for s in shares]
    channels = tuple(count.of_channel / (n * count.positions) for count in counts)
    means = np.array([np.mean(s) for s in shares], np.float64)
    return Flips(table.names, means, np.array(error, np.float64), channels)


class _Differing:
    """Gates of a layer that differ, counted while two tables go by."""

    def __init__(self, table: Gates, name: str) -> None:
        channels, *grid = table.entries[name].shape
        self.positions, self.of_channel = math.prod(grid), np.zeros(channels, np.int64)
        self.of_sample: list[np.ndarray] = []

    def take(self, table: GateTable, other: GateTable, name: str) -> None:
        """Count some samples."""
        a, b = table.entries[name], other.entries[name]
        differ = unpack(a.data ^ b.data, a.channels)  # (n, positions, channels)
        self.of_sample.append(differ.sum((1, 2)))
        self.of_channel += differ.sum((0, 1))

    def by_sample(self) -> Floats:
        """Share of each sample's gates."""
        return np.concatenate(self.of_sample) / (self.positions * len(self.of_channel))


class _Layer:
    """What is kept of a layer while a table goes by."""

    def __init__(self, table: Gates, name: str) -> None:
        entry = table.entries[name]
        self.hard, units = entry.packed, math.prod(entry.shape)
        self.patterns: set[bytes] = set()
        self.sums = np.zeros(units, np.int64 if self.hard else np.float64)
        self.least, self.most = np.full(units, np.inf), np.full(units, -np.inf)

    def take(self, part: GateTable, name: str) -> list[bytes]:
        """Count some samples; gives the digest of each one's pattern."""
        gates = values_in(part, name)
        self.sums += gates.sum(0, dtype=self.sums.dtype)
        self.least = np.minimum(self.least, gates.min(0))
        self.most = np.maximum(self.most, gates.max(0))
        keys = [_digest(np.ascontiguousarray(row)) for row in part.entries[name].data]
        self.patterns.update(keys)
        return keys

    def statistics(self, table: Gates, name: str, n: int) -> LayerStatistics:
        """All that was counted."""
        entry, node = table.entries[name], _reader(table, name)
        share = self.sums / n  # units are position by position, channels together
        by_channel = share.reshape(-1, entry.channels)
        dead = (self.least == 0) & (self.most == 0)
        return LayerStatistics(
            name=name,
            operator=node.describe(),
            source=node.source,
            kind="hard" if self.hard else "soft",
            shape=tuple(entry.shape),
            activity=float(share.mean()),
            dead=int(dead.sum()),
            always_on=int(((self.least == 1) & (self.most == 1)).sum()),
            patterns=len(self.patterns) if self.hard else None,
            entropy=float(_entropy(share).mean()) if self.hard else None,
            channels=tuple(by_channel.mean(0).tolist()),
            dead_channels=int(dead.reshape(by_channel.shape).all(0).sum()),
        )


def _digest(data: bytes | np.ndarray) -> bytes:
    return blake2b(data if isinstance(data, bytes) else data.tobytes(), digest_size=_BYTES).digest()


def _entropy(share: Floats) -> Floats:
    """Of a unit that is on for a share of the samples, in bits."""
    both = np.stack([share, 1 - share])
    return -(both * np.log2(both, out=np.zeros_like(both), where=both > 0)).sum(0)


def _reader(table: Gates, name: str) -> PathNode:
    """The first node that reads a layer."""
    return next(node for node in table.graph.gates if name in node.entries)


def _form(table: Gates, name: str) -> tuple:
    refuse_soft(checked_table(table, name), "flips")
    return len(table), [(layer, table.entries[layer].shape) for layer in table.names]


def _words(table: Gates) -> str:
    return ", ".join(
        f"{name} {'x'.join(map(str, table.entries[name].shape))}" for name in table.names
    )
