"""Masks: products of gates that a term of the recursion carries, formed once a sample and never a pair.

A mask has its own list of positions. At each of them it multiplies one entry of every factor: a gate at some position, the
indicator that a max pool chose some offset, or the input itself.
"""

from dataclasses import dataclass

import numpy as np

from npk.dual.gate_table import GateTable, pack, unpack


@dataclass(frozen=True)
class Factor:
    """One factor of a mask: ``kind`` is "input", "gate" or "selection"; ``name`` its entry in the gate table (or node of the input)."""

    kind: str
    name: str
    slope: float = 0.0


@dataclass(frozen=True)
class Mask:
    """Product of factors.

    ``positions`` is ``(factors, positions)``: where each factor is read. ``offsets`` likewise: the offset that a selection must
    have chosen.
    """

    factors: tuple[Factor, ...]
    positions: np.ndarray
    offsets: np.ndarray
    channels: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.positions.shape[1]

    def key(self) -> tuple:
        """Equal for equal masks."""
        return (self.factors, self.channels, self.positions.tobytes(), self.offsets.tobytes())

    def is_hard(self, table: GateTable) -> bool:
        """Whether every value is 0 or 1, so that overlaps are counts of bits."""
        return all(f.kind != "input" and f.slope == 0 and table.entries[f.name].kind != "soft" for f in self.factors)


def form_real(mask: Mask, table: GateTable) -> np.ndarray:
    """Values of a mask, ``(n, positions, channels)`` float64."""
    product = np.ones((len(table), mask.size, mask.channels))
    for factor, at, offset in zip(mask.factors, mask.positions, mask.offsets, strict=True):
        product *= _values(factor, table, mask.channels, at, offset)
    return product


def form_bits(mask: Mask, table: GateTable) -> np.ndarray:
    """Values of a hard mask in packed bits, ``(n, positions, words)`` uint64."""
    product = np.full((len(table), mask.size, -(-mask.channels // 64)), np.iinfo(np.uint64).max)
    for factor, at, offset in zip(mask.factors, mask.positions, mask.offsets, strict=True):
        data = table.entries[factor.name].data
        product &= data[:, at] if factor.kind == "gate" else pack(data[:, at] == offset[:, None])
    return product


def _values(factor: Factor, table: GateTable, channels: int, at: np.ndarray, offset: np.ndarray) -> np.ndarray:
    if factor.kind == "input":
        return table.inputs.reshape(len(table), channels, -1)[:, :, at].swapaxes(1, 2)
    data = table.entries[factor.name].data[:, at]
    if factor.kind == "selection":
        return data == offset[:, None]
    if table.entries[factor.name].kind == "hard":
        return np.where(unpack(data, channels), 1.0, factor.slope)
    return data
