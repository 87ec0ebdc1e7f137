r"""Random value networks of a path graph, and the columns that each of them gives.

.. math:: E[\,z_r(x)^\top z_r(x')\,] = K(x, x')

for every network r with weights of random sign under the frozen gates (moment identity). Where the
last layer is linear, nothing is drawn for it: the mean over its weights is known, and the values of
the units behind it, divided by the root of their number, have K as the mean of their inner products.
A network then gives as many columns as it has such units, for the price of one output.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from npk.definition.value_network import ValueNetwork, random_weights
from npk.gates.table import GateTable
from npk.graph.operators import Convolution
from npk.graph.path_graph import PathGraph, window_taps

_NETWORKS = 16  # fewer are too few to say how far they are from their mean


@dataclass(frozen=True)
class Behind:
    """The units behind the last layer, all of which its one window sees."""

    name: str  # of the node
    places: np.ndarray  # positions that the window sees, (offsets,)
    channels: int
    factor: float  # standard deviation of a weight of the layer
    biased: bool  # whether a bias starts paths there: a column of its own

    @property
    def width(self) -> int:
        """Columns."""
        return self.channels * len(self.places) + self.biased

    def columns(self, values: torch.Tensor) -> torch.Tensor:
        """Of values ``(n, channels, positions)``: (n, width)."""
        seen = values[:, :, torch.as_tensor(self.places)].flatten(1) * self.factor
        if not self.biased:
            return seen
        return torch.cat([seen, torch.full((len(seen), 1), self.factor, dtype=seen.dtype)], 1)


def behind(graph: PathGraph, scale: str, bias: bool) -> Behind | None:
    """The units behind the last layer; ``None`` where the output is no layer that sees all of them
    at once.

    Args:
        graph: of the network.
        scale: "count" or "fan_in".
        bias: whether biases start paths.

    Returns:
        The units.
    """
    node = graph.output
    if not isinstance(layer := node.operator, Convolution):
        return None
    if node.positions != 1 or layer.groups != 1 or layer.window.transposed:
        return None
    before = graph.input_of(node)
    taps = window_taps(graph, node)[:, 0]
    fan_in = layer.fan_in(before.channels)
    factor = fan_in**-0.5 if scale == "fan_in" else 1.0
    return Behind(
        before.name, taps[taps >= 0], before.channels, factor, bias and layer.bias is not None
    )


class Draws:
    """Independent random value networks that together give so many columns.

    Args:
        graph: of the network.
        components: columns of all networks together.
        scale: "count" or "fan_in".
        bias: whether biases start paths.
        rng: source of randomness.
        per_network: columns of a network at most; ``None``: as many as it has units behind the last
            layer, if that leaves 16 networks.
    """

    def __init__(
        self,
        graph: PathGraph,
        components: int,
        *,
        scale: str,
        bias: bool,
        rng: np.random.Generator,
        per_network: int | None = None,
    ) -> None:
        self.graph, self.scale, self.bias, self.components = graph, scale, bias, components
        self.units = behind(graph, scale, bias)
        wanted = max(1, components // _NETWORKS) if per_network is None else per_network
        self.counts = _dealt(components, wanted, self.units.width if self.units else None)
        self.seeds = rng.integers(2**63, size=len(self.counts))

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def shares(self) -> np.ndarray:
        """Weight of each network in the mean: its part of the columns."""
        return np.array(self.counts) / self.components

    def columns(self, table: GateTable, value_input: str) -> Iterator[np.ndarray]:
        """Columns of samples, network by network.

        Args:
            table: gates of n samples.
            value_input: "x", "ones" or "auto".

        Yields:
            (n, count) float32; of each network the mean of its columns' products has K as its mean.
        """
        until = self.units.name if self.units else None
        network = ValueNetwork(table, value_input=value_input, dtype=torch.float32, until=until)
        for seed, count in zip(self.seeds, self.counts, strict=True):
            yield self._of_network(network, int(seed), count)

    def _of_network(self, network: ValueNetwork, seed: int, count: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        weights = random_weights(self.graph, rng, scale=self.scale, bias=self.bias)
        with torch.no_grad():
            values = network.tensor(weights)
            values = values.reshape(*values.shape[:2], -1)
            if self.units is None:
                # the kernel is the mean over the units of the output
                mixed = values.flatten(1) / math.sqrt(values[0].numel())
            else:
                mixed = self.units.columns(values)
            width = mixed.shape[1]
            if count == width:
                return (mixed * math.sqrt(width)).numpy()
            signs = rng.integers(0, 2, size=(width, count), dtype=np.int8) * 2 - 1
            return (mixed @ torch.as_tensor(signs, dtype=torch.float32)).numpy()


def _dealt(components: int, wanted: int, width: int | None) -> list[int]:
    """Columns of each network: the width of the layer where so many are wanted, fewer otherwise."""
    each = min(int(wanted), components) if width is None else min(int(wanted), width, components)
    full, rest = divmod(components, each)
    return [each] * full + [rest] * bool(rest)
