"""Where the units of a traced value are.

torch moves values about: views, permutations, slices, concatenations. None of it changes a path, so
none of it is an operator of the path graph. A layout remembers instead which unit of which path
node stands behind each element of a tensor. Only where an operator needs channels and positions in
their places does a rearrangement enter the graph, cut into rectangles of channels and positions.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.graph.node import PathNode
from npk.graph.operators import Part


@dataclass(frozen=True)
class Layout:
    """The units behind a tensor of shape ``shape`` (without the batch axis).

    ``units``: number + 1 of the unit behind each element, 0 for a zero; the units of the sources
    are numbered one source after the other, each in order (channel, position). ``None``: the units
    of the one source in this order.
    """

    sources: tuple[PathNode, ...]
    shape: tuple[int, ...]
    units: np.ndarray | None = None

    @classmethod
    def of(cls, node: PathNode, shape: tuple[int, ...]) -> "Layout":
        """The units of a node in order."""
        return cls((node,), shape)

    @cached_property
    def numbers(self) -> np.ndarray:
        """``units``, written out."""
        if self.units is None:
            return np.arange(1, math.prod(self.shape) + 1).reshape(self.shape)
        return self.units

    @cached_property
    def firsts(self) -> np.ndarray:
        """Number of the first unit of each source, and the end."""
        return np.cumsum([0, *(math.prod(source.shape) for source in self.sources)])

    @property
    def node(self) -> PathNode:
        """The one source."""
        (node,) = self.sources
        return node

    @cached_property
    def is_whole(self) -> bool:
        """Whether each unit of one source stands behind exactly one element."""
        if len(self.sources) != 1 or math.prod(self.shape) != self.firsts[-1]:
            return False
        return self.units is None or bool(
            (np.bincount(self.units.reshape(-1), minlength=self.firsts[-1] + 1)[1:] == 1).all()
        )

    def elements(self) -> np.ndarray | None:
        """Flat element behind which each unit stands; ``None``: its own. The layout is whole."""
        return None if self.units is None else np.argsort(self.units.reshape(-1), kind="stable")

    def has_units_of(self, other: "Layout") -> bool:
        """Whether the numbers are equal."""
        return self.shape == other.shape and (
            self.units is other.units or np.array_equal(self.numbers, other.numbers)
        )

    def has_channels_first(self) -> bool:
        """Whether each index of the first axis shows one channel of one source, or zeros."""
        if not self.sources:
            return True
        rows = self.numbers.reshape(self.shape[0] if self.shape else 1, -1)
        starts = np.concatenate(
            [
                first + 1 + np.arange(s.channels) * s.positions
                for s, first in zip(self.sources, self.firsts, strict=False)
            ]
        )
        channel = np.searchsorted(starts, rows, side="right")
        shown = np.where(rows > 0, channel, 0)
        return bool(((shown == 0) | (shown == shown.max(1, keepdims=True))).all())

    def on(self, node: PathNode) -> "Layout":
        """The same places, with the units of a node that goes unit by unit from the one source."""
        return Layout((node,), self.shape, self.units)

    def with_units(self, units: np.ndarray) -> "Layout":
        """Other elements of the same sources."""
        whole = len(self.sources) == 1 and units.size == self.firsts[-1]
        same = whole and bool((units.reshape(-1) == np.arange(1, units.size + 1)).all())
        return Layout(self.sources, units.shape, None if same else units)

    def with_axis_first(self, axis: int) -> "Layout":
        """The layout of the tensor with one axis moved to the front."""
        return self if axis == 0 else self.with_units(np.moveaxis(self.numbers, axis, 0))

    def with_first_axis_at(self, axis: int) -> "Layout":
        """The layout of the tensor with its first axis moved to a place."""
        return self if axis == 0 else self.with_units(np.moveaxis(self.numbers, 0, axis))

    def broadcast(self, shape: tuple[int, ...]) -> "Layout":
        """The layout of the tensor broadcast to a shape."""
        if shape == self.shape:
            return self
        return self.with_units(np.ascontiguousarray(np.broadcast_to(self.numbers, shape)))


def joined(layouts: "list[Layout]") -> tuple[tuple[PathNode, ...], list[np.ndarray]]:
    """Several layouts with their units numbered over all their sources, each source once."""
    sources = tuple(
        {source.name: source for layout in layouts for source in layout.sources}.values()
    )
    first = dict(
        zip(
            (s.name for s in sources),
            np.cumsum([0, *(math.prod(s.shape) for s in sources)]),
            strict=False,
        )
    )
    renumbered = []
    for layout in layouts:
        table = np.zeros(layout.firsts[-1] + 1, np.int64)
        for source, start, end in zip(
            layout.sources, layout.firsts, layout.firsts[1:], strict=False
        ):
            table[start + 1 : end + 1] = np.arange(1, end - start + 1) + first[source.name]
        renumbered.append(table[layout.numbers])
    return sources, renumbered


def parts_of(layout: Layout) -> tuple[Part, ...]:
    """Cut a layout, channels on its first axis, into rectangles: parts of a rearrangement."""
    rectangles: dict[tuple[int, bytes], tuple[list[int], list[int], np.ndarray]] = {}
    rows = layout.numbers.reshape(layout.shape[0], -1) - 1
    source = np.searchsorted(layout.firsts, rows, side="right") - 1
    # nearly always one channel of one source
    for into, (row, sources) in enumerate(zip(rows, source, strict=True)):
        for number in np.unique(sources[row >= 0]):
            here = (sources == number) & (row >= 0)
            channel, place = np.divmod(
                row - layout.firsts[number], layout.sources[number].positions
            )
            for c in np.unique(channel[here]):
                taps = np.where(here & (channel == c), place, -1)
                part = rectangles.setdefault((int(number), taps.tobytes()), ([], [], taps))
                part[0].append(into)
                part[1].append(int(c))
    return tuple(
        Part(number, tuple(into), tuple(channels), _taps(taps, layout, layout.sources[number]))
        for (number, _), (into, channels, taps) in rectangles.items()
    )


def _taps(taps: np.ndarray, layout: Layout, source: PathNode) -> tuple[int, ...] | None:
    same = source.grid == layout.shape[1:] and bool((taps == np.arange(len(taps))).all())
    return None if same else tuple(taps.tolist())
