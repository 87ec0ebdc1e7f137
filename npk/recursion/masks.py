"""Masks: products of gates that a term of the recursion carries, formed once a sample and never a
pair.

A mask has its own list of positions. At each of them it multiplies one entry of every factor: a
gate at some position, the indicator that a max pool chose some offset, or the input itself. Before
the first weight a pool only adds up numbers of one sample: there a mask is a weighted sum of such
products, so that positive and negative ones cancel in float64, once a sample.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.files import digest
from npk.gates.table import GateTable, input_values, pack, unpack

_PRODUCT_BYTES = 1 << 25  # of a mask before they are added, unless one sample has more


@dataclass(frozen=True)
class Factor:
    """One factor of a mask: ``kind`` is "input", "gate" or "selection"; ``name`` its entry in the
    gate table (or node of the input).
    """

    kind: str
    name: str
    slope: float | tuple[float, ...] = 0.0


@dataclass(frozen=True, eq=False)
class Mask:
    """Product of factors, in segments of channels whose overlaps are taken apart (one, but for
    grouped layers). Equal masks are one in a set or a dictionary.

    ``channels`` is ``(factors, channels)``, ``positions`` ``(factors, positions)``: where each
    factor is read. ``offsets``, like positions:
    the offset that a selection must have chosen. ``segments``: number of channels of each segment.
    ``weights (positions, family)``: of a mask that adds up the products of a family at each of its
    positions; these follow one another in ``positions`` and ``offsets``.
    """

    factors: tuple[Factor, ...]
    channels: np.ndarray
    positions: np.ndarray
    offsets: np.ndarray
    segments: tuple[int, ...]
    weights: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.products if self.weights is None else len(self.weights)

    @property
    def products(self) -> int:
        """Number of products a channel."""
        return self.positions.shape[1]

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.channels.shape[1]

    @property
    def words(self) -> tuple[int, ...]:
        """Words of 64 bits that each segment takes."""
        return tuple(-(-size // 64) for size in self.segments)

    @cached_property
    def key(self) -> str:
        """Equal for equal masks."""
        arrays = [self.channels, self.positions, self.offsets]
        arrays += [] if self.weights is None else [self.weights]
        said = repr((self.factors, self.segments, [array.shape for array in arrays])).encode()
        return digest(said, *(array.tobytes() for array in arrays))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def is_hard(self, table: GateTable) -> bool:
        """Whether every value is 0 or 1, so that overlaps are counts of bits."""
        return self.weights is None and all(
            f.kind != "input" and f.slope == 0 and table.entries[f.name].kind != "soft"
            for f in self.factors
        )


def form_real(mask: Mask, table: GateTable, dtype: str | np.dtype = "float64") -> np.ndarray:
    """Values of a mask, ``(n, positions, channels)``, segment after segment; multiplied and
    added in float64, then rounded to ``dtype``. What that does not hold is infinite.

    A mask that is one whole layer may come without a copy: do not write into it.
    """
    with np.errstate(over="ignore"):
        if mask.weights is None:
            return _product(mask, table).astype(dtype, copy=False)
        values = np.empty((len(table), mask.size, mask.width), dtype)
        for piece in pieces(mask, len(table)):
            family = _by_family(_product(mask, table.take(piece)), mask)
            values[piece] = _added(family, mask.weights)
        return values


def pieces(mask: Mask, n: int) -> Iterator[slice]:
    """Samples whose products are held together before they are added: a pool of a whole picture
    adds up many numbers, and the kernel holds only their sum.
    """
    size = max(1, _PRODUCT_BYTES // (8 * mask.products * mask.width))
    return (slice(first, min(n, first + size)) for first in range(0, n, size))


def _product(mask: Mask, table: GateTable) -> np.ndarray:
    """Products of the factors, ``(n, products, channels)``."""
    product: np.ndarray | None = None
    for factor, channels, at, offset in zip(
        mask.factors, mask.channels, mask.positions, mask.offsets, strict=True
    ):
        values = _taken(_values(factor, table, at, offset), channels, axis=2)
        product = values if product is None else np.multiply(product, values, dtype=np.float64)
    return np.ones((len(table), mask.products, mask.width)) if product is None else product


def _added(family: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums over the family, member after member: the same bits however many samples come
    together, and on a device.
    """
    total = np.zeros_like(family[:, :, 0], np.float64)
    for member in range(weights.shape[1]):
        total += family[:, :, member] * weights[:, member, None]
    return total


def form_support(mask: Mask, table: GateTable) -> np.ndarray:
    """Where a mask is other than 0, ``(n, positions, channels)`` bool: products of its factors may
    be too small for any number. Not where those of a sum cancel to nothing.
    """
    if mask.weights is None:
        return _support(mask, table)
    found = np.empty((len(table), mask.size, mask.width), bool)
    for piece in pieces(mask, len(table)):
        part = table.take(piece)
        reached = (_by_family(_support(mask, part), mask) & (mask.weights != 0)[..., None]).any(2)
        family = _by_family(_product(mask, part), mask)
        found[piece] = np.where((family != 0).any(2), _added(family, mask.weights) != 0, reached)
    return found


def _support(mask: Mask, table: GateTable) -> np.ndarray:
    """Where no factor is 0, ``(n, products, channels)``."""
    found = np.ones((len(table), mask.products, mask.width), bool)
    for factor, channels, at, offset in zip(
        mask.factors, mask.channels, mask.positions, mask.offsets, strict=True
    ):
        found &= _taken(_values(factor, table, at, offset), channels, axis=2) != 0
    return found


def _by_family(products: np.ndarray, mask: Mask) -> np.ndarray:
    """Products as ``(n, positions, family, channels)``."""
    return products.reshape(len(products), mask.size, -1, mask.width)


def form_bits(mask: Mask, table: GateTable) -> np.ndarray:
    """Values of a hard mask in packed bits, ``(n, positions, words)`` uint64, each segment in words
    of its own.

    A mask that is one whole layer may come without a copy: do not write into it.
    """
    if (
        mask.factors
        and len(mask.segments) == 1
        and all(_is_whole(mask, k, table) for k in range(len(mask.factors)))
    ):
        read = zip(mask.factors, mask.positions, mask.offsets, strict=True)
        return functools.reduce(
            np.bitwise_and, (_bits(factor, table, at, offset) for factor, at, offset in read)
        )
    values = np.ones((len(table), mask.size, mask.width), bool)
    for factor, channels, at, offset in zip(
        mask.factors, mask.channels, mask.positions, mask.offsets, strict=True
    ):
        entry = table.entries[factor.name]
        data = _taken(entry.data, at, axis=1)
        values &= _taken(
            unpack(data, entry.channels) if factor.kind == "gate" else data == offset[:, None],
            channels,
            axis=2,
        )
    return np.concatenate(
        [pack(part) for part in np.split(values, np.cumsum(mask.segments)[:-1], axis=2)], axis=2
    )


def _is_whole(mask: Mask, number: int, table: GateTable) -> bool:
    """Whether a factor is read at all channels of its entry in order."""
    return _is_all(mask.channels[number], table.entries[mask.factors[number].name].channels)


def _is_all(index: np.ndarray, size: int) -> bool:
    return len(index) == size and bool((index == np.arange(size)).all())


def _taken(values: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    """Entries along an axis; all of them in order are no copy."""
    return values if _is_all(index, values.shape[axis]) else np.take(values, index, axis=axis)


def _bits(factor: Factor, table: GateTable, at: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """One factor at all channels, packed."""
    data = _taken(table.entries[factor.name].data, at, axis=1)
    return data if factor.kind == "gate" else pack(data == offset[:, None])


def _values(factor: Factor, table: GateTable, at: np.ndarray, offset: np.ndarray) -> np.ndarray:
    if factor.kind == "input":
        return _taken(input_values(table, table.graph[factor.name]), at, axis=2).swapaxes(1, 2)
    entry = table.entries[factor.name]
    data = _taken(entry.data, at, axis=1)
    if factor.kind == "selection":
        return data == offset[:, None]
    return np.where(unpack(data, entry.channels), 1.0, factor.slope) if entry.packed else data
