"""Blocks: how arrays are cut into chunks, part by part, and what the checksum of a chunk is.

Arrays that are cut alike lie together in a block, and a chunk is one cut of all of them. An axis
grows by parts, and the blocks of a new part are arrays of their own, so that no chunk ever changes.
"""

import bisect
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

NOT_WRITTEN = -1  # in the place of a checksum
Numbers = tuple[int, ...]  # one for each axis that is cut


@dataclass(frozen=True)
class Axis:
    """An axis that is cut into chunks of ``side``; cuts begin anew in each part.

    ``sizes``, ``identities`` of the parts: no two parts in the world have one identity.
    """

    side: int
    sizes: tuple[int, ...]
    identities: tuple[str, ...]

    @cached_property
    def firsts(self) -> list[int]:
        """Number of the first chunk of each part, and at the end that of all chunks."""
        return list(itertools.accumulate((-(-n // self.side) for n in self.sizes), initial=0))

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Where each chunk begins on the axis, and where it ends."""
        starts = itertools.accumulate(self.sizes, initial=0)
        parts, k = zip(self.sizes, starts, strict=False), self.side
        chunks = ((i * k, n, start) for n, start in parts for i in range(-(-n // k)))
        return [(start + first, start + min(n, first + k)) for first, n, start in chunks]

    def place(self, chunk: int) -> tuple[int, int]:
        """Number of the part that a chunk is in, and its number there."""
        part = bisect.bisect_right(self.firsts, chunk) - 1
        return part, chunk - self.firsts[part]


@dataclass(frozen=True)
class Form:
    """What an array is: the axes that are not cut, and the type of its values."""

    width: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of all that has one place on the axes that are cut."""
        return math.prod(self.width) * np.dtype(self.dtype).itemsize


class Run(NamedTuple):
    """Chunks that follow one another along the first axis: ``place`` of the first in its block.

    ``flags``, ``inside``: where checksums and values are in the block's arrays.
    """

    block: Numbers
    place: Numbers
    flags: tuple[slice, ...]
    inside: tuple[slice, ...]


@dataclass(frozen=True)
class Blocks:
    """Arrays that are cut along their first one or two ``axes``.

    In names ``{}`` stands for numbers of parts. ``symmetric``: no block is below the diagonal.
    """

    axes: tuple[Axis, ...]
    arrays: Mapping[str, Form]
    checksums: str
    symmetric: bool = False

    def all(self) -> list[Numbers]:
        """The blocks: numbers of parts."""
        indices = itertools.product(*(range(len(axis.sizes)) for axis in self.axes))
        return [block for block in indices if not self.symmetric or block[0] <= block[1]]

    def described(self, block: Numbers) -> dict[str, dict[str, Any]]:
        """What zarr says of each array of a block; of the checksums last."""
        cuts = [(axis.sizes[part], axis.side) for axis, part in zip(self.axes, block, strict=True)]
        sizes, chunks = [n for n, _ in cuts], [max(1, min(n, side)) for n, side in cuts]
        arrays: dict[str, dict[str, Any]] = {}
        for name, form in self.arrays.items():
            rest = [max(1, n) for n in form.width]
            shape = {"shape": (*sizes, *form.width), "chunks": (*chunks, *rest)}
            arrays[name.format(*block)] = {**shape, "dtype": np.dtype(form.dtype), "fill_value": 0}
        grid = {"shape": tuple(-(-n // side) for n, side in cuts), "chunks": (1,) * len(cuts)}
        flags = {**grid, "dtype": np.dtype("int64"), "fill_value": NOT_WRITTEN}
        return {**arrays, self.checksums.format(*block): flags}

    def run(self, first: Numbers, count: int = 1) -> Run:
        """Where chunks are, by the number of the first one along each axis."""
        places = [axis.place(chunk) for axis, chunk in zip(self.axes, first, strict=True)]
        block, place = tuple(part for part, _ in places), tuple(i for _, i in places)
        flags = slice(place[0], place[0] + count), *(slice(i, i + 1) for i in place[1:])
        cuts = [(cut, axis.side) for cut, axis in zip(flags, self.axes, strict=True)]
        inside = tuple(slice(cut.start * side, cut.stop * side) for cut, side in cuts)
        return Run(block, place, flags, inside)  # what is behind the end zarr leaves out

    def sums(self, run: Run, arrays: Iterable[np.ndarray]) -> np.ndarray:
        """Checksums of chunks, whose values are one behind the other.

        They begin with identities and place: in another store, or place, a chunk has another one.
        """
        arrays, side, (first, *others) = list(arrays), self.axes[0].side, run.place
        names = [axis.identities[part] for axis, part in zip(self.axes, run.block, strict=True)]
        checksums = []
        for i in range(run.flags[0].stop - first):
            mark = zlib.crc32(" ".join(map(str, (*names, first + i, *others))).encode())
            checksums.append(_checksum((data[i * side : (i + 1) * side] for data in arrays), mark))
        return np.array(checksums).reshape(-1, *(1 for _ in others))


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array, little-endian on every machine."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _checksum(arrays: Iterable[np.ndarray], checksum: int) -> int:
    for array in arrays:
        checksum = zlib.crc32(raw(array), checksum)
    return checksum
