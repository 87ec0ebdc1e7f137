"""Masks formed by torch on the device where the gates are: what
:meth:`npk.backends.layout.Layout.side` does in the host's memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npk.backends.layout import BITS, Layout
from npk.gates.device_table import DeviceGates
from npk.gates.table import pack_on_device
from npk.graph.node import units_of
from npk.recursion.masks import Factor, Mask, pieces

if TYPE_CHECKING:
    import torch


class DeviceMasks:
    """How the masks of a layout are formed on one device; what they are read by goes there once.

    Args:
        layout: of the masks.
        table: any gates of the kind that will come.
        device: torch's name of it.
    """

    def __init__(self, layout: Layout, table: DeviceGates, device: "torch.device") -> None:
        self.layout, self.device = layout, device
        self.reads = [
            [_Read.of(mask, number, table, device) for number in range(len(mask.factors))]
            for mask in layout.masks
        ]

    def side(self, table: DeviceGates) -> "tuple[torch.Tensor, torch.Tensor]":
        """Form the masks of samples.

        Args:
            table: gates of the samples, on the device.

        Returns:
            Bits ``(n, words)`` as int32, and numbers ``(n, numbers)`` in the layout's dtype.
        """
        import torch

        n, real = len(table), torch.float32 if self.layout.dtype == np.float32 else torch.float64
        bits = torch.empty((n, self.layout.words), dtype=torch.int32, device=self.device)
        reals = torch.empty((n, self.layout.numbers), dtype=real, device=self.device)
        for mask, reads, (form, where) in zip(
            self.layout.masks, self.reads, self.layout.places, strict=True
        ):
            if form == BITS:
                bits[:, where] = _bits(mask, reads, table).reshape(n, -1)
            else:
                reals[:, where] = self._numbers(mask, reads, table).to(real).reshape(n, -1)
        return bits, reals

    def _numbers(self, mask: Mask, reads: "list[_Read]", table: DeviceGates) -> "torch.Tensor":
        """Values ``(n, positions, channels)``, multiplied and added in float64."""
        import torch

        if mask.weights is None:
            return self._product(mask, reads, table)
        weights = torch.tensor(mask.weights, device=self.device)
        values = torch.zeros(
            (len(table), mask.size, mask.width), dtype=torch.float64, device=self.device
        )
        for piece in pieces(mask, len(table)):
            product = self._product(mask, reads, table.take(piece)).double()
            family = product.reshape(len(product), *weights.shape, mask.width)
            for member in range(weights.shape[1]):
                values[piece] += family[:, :, member] * weights[:, member, None]
        return values

    def _product(self, mask: Mask, reads: "list[_Read]", table: DeviceGates) -> "torch.Tensor":
        """Products of the factors, ``(n, products, channels)``."""
        import torch

        product: torch.Tensor | None = None
        for read in reads:
            values = read.values(table)
            product = values if product is None else product.double() * values.double()
        if product is None:
            return torch.ones((len(table), mask.products, mask.width), device=self.device)
        return product


def _bits(mask: Mask, reads: "list[_Read]", table: DeviceGates) -> "torch.Tensor":
    """Packed bits of a hard mask, ``(n, positions, words)``, each segment in words of its own."""
    import torch

    if reads and len(mask.segments) == 1 and all(read.channels is None for read in reads):
        packed = reads[0].packed(table)
        for read in reads[1:]:
            packed = packed & read.packed(table)
        parts = [packed]
    else:
        values = torch.ones(
            (len(table), mask.size, mask.width), dtype=torch.bool, device=table.inputs.device
        )
        for read in reads:
            values &= read.hard(table)
        parts = [
            pack_on_device(part.transpose(1, 2).contiguous())
            for part in values.split(mask.segments, dim=2)
        ]
    words = [
        part.contiguous().view(torch.int32)[..., : -(-size // 32)]
        for part, size in zip(parts, mask.segments, strict=True)
    ]
    return torch.cat(words, dim=2)


@dataclass(frozen=True)
class _Read:
    """How one factor of a mask is read; ``None``: all channels, or all places, in order."""

    factor: Factor
    size: int  # channels of the entry
    channels: "torch.Tensor | None"
    places: "torch.Tensor | None"
    offsets: "torch.Tensor"
    slope: "torch.Tensor"
    units: "torch.Tensor | None"

    @classmethod
    def of(cls, mask: Mask, number: int, table: DeviceGates, device: "torch.device") -> "_Read":
        import torch

        factor, units = mask.factors[number], None
        if factor.kind == "input":
            node = table.graph[factor.name]
            shape = node.channels, node.positions
            if (shown := units_of(node)) is not None:
                units = torch.tensor(shown, device=device)
        else:
            entry = table.entries[factor.name]
            shape = entry.channels, entry.data.shape[1]
        channels, places = (
            _index(read[number], size, device)
            for read, size in zip((mask.channels, mask.positions), shape, strict=True)
        )
        offsets = torch.tensor(mask.offsets[number], device=device)
        slope = torch.tensor(factor.slope, dtype=torch.float64, device=device)
        return cls(factor, shape[0], channels, places, offsets, slope, units)

    def values(self, table: DeviceGates) -> "torch.Tensor":
        """Numbers, or truth values, ``(n, positions, channels)``."""
        import torch

        if self.factor.kind == "input":
            return self._taken(_taken(self._input(table), self.places, 2).transpose(1, 2))
        entry = table.entries[self.factor.name]
        if self.factor.kind == "selection" or not entry.packed:
            return self._taken(self._data(table))
        one = torch.ones((), dtype=torch.float64, device=self.slope.device)
        return self._taken(torch.where(_unpacked(self._data(table), self.size), one, self.slope))

    def hard(self, table: DeviceGates) -> "torch.Tensor":
        """Truth values ``(n, positions, channels)``."""
        data = self._data(table)
        return self._taken(data if self.factor.kind == "selection" else _unpacked(data, self.size))

    def packed(self, table: DeviceGates) -> "torch.Tensor":
        """Bits of all channels in bytes, ``(n, positions, bytes)``."""
        data = self._data(table)
        if self.factor.kind == "selection":
            return pack_on_device(data.transpose(1, 2).contiguous())
        return data

    def _data(self, table: DeviceGates) -> "torch.Tensor":
        """The entry at its places; of a selection whether it chose the offsets."""
        data = _taken(table.entries[self.factor.name].data, self.places, 1)
        return data == self.offsets[:, None] if self.factor.kind == "selection" else data

    def _input(self, table: DeviceGates) -> "torch.Tensor":
        """What the input node shows of the samples, ``(n, channels, positions)``."""
        flat = table.inputs.reshape(len(table), -1)
        if self.units is not None:
            flat = flat[:, self.units.clamp(min=0)].where(self.units >= 0, flat.new_zeros(()))
        return flat.reshape(len(table), self.size, -1)

    def _taken(self, values: "torch.Tensor") -> "torch.Tensor":
        return _taken(values, self.channels, 2)


def _index(index: np.ndarray, size: int, device: "torch.device") -> "torch.Tensor | None":
    import torch

    whole = len(index) == size and bool((index == np.arange(size)).all())
    return None if whole else torch.tensor(index, dtype=torch.int64, device=device)


def _taken(values: "torch.Tensor", index: "torch.Tensor | None", axis: int) -> "torch.Tensor":
    return values if index is None else values.index_select(axis, index)


def _unpacked(data: "torch.Tensor", channels: int) -> "torch.Tensor":
    """Bits in bytes ``(n, positions, bytes)`` as truth values ``(n, positions, channels)``."""
    import torch

    shifts = torch.arange(8, dtype=torch.uint8, device=data.device)
    return ((data[..., None] >> shifts) & 1).flatten(2)[..., :channels].bool()
