"""Gates that stay on the device of the network that made them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npk.gates.table import GateForm, GateLayer, GateTable
from npk.graph.path_graph import PathGraph

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DeviceLayer(GateForm):
    """As :class:`~npk.gates.table.GateLayer`, of a tensor; bits are in bytes."""

    data: "torch.Tensor"

    def host(self) -> GateLayer:
        """The entry in the host's memory."""
        layer = GateLayer(self.kind, self.shape, self.data.cpu().numpy())
        if layer.packed:
            return replace(layer, data=layer.data.view("<u8").astype(np.uint64, copy=False))
        return layer


@dataclass(frozen=True)
class DeviceGates:
    """Gates of all layers for n samples, and the samples, in the memory of one device.

    It serves in the place of a :class:`~npk.gates.table.GateTable` wherever masks are formed on
    that device.
    """

    graph: PathGraph
    inputs: "torch.Tensor"  # (n, *input_shape)
    entries: Mapping[str, DeviceLayer]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def nbytes(self) -> int:
        """Bytes of the host's memory: the samples are there too, the gates are not."""
        return self.inputs.nbytes

    def take(self, rows: slice | np.ndarray) -> "DeviceGates":
        """The gates of a subset of the samples, on the device."""
        entries = {
            name: replace(entry, data=entry.data[rows]) for name, entry in self.entries.items()
        }
        return replace(self, inputs=self.inputs[rows], entries=entries)

    def to(self, device: "torch.device") -> "DeviceGates":
        """The gates on another device; on their own they are not copied."""
        entries = {
            name: replace(entry, data=entry.data.to(device)) for name, entry in self.entries.items()
        }
        return replace(self, inputs=self.inputs.to(device), entries=entries)

    def host(self) -> GateTable:
        """The table in the host's memory."""
        return GateTable(
            self.graph,
            self.inputs.cpu().numpy(),
            {name: entry.host() for name, entry in self.entries.items()},
        )
