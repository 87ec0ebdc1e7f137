"""What runs on a tile of plain convolutional networks: the planes of a pair stay on the chip through all layers of a stage."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from npk.backends.cuda.launcher import Launcher
from npk.backends.cuda.registry import KERNELS, Specialization, stage_kernel
from npk.backends.cuda.stage import Chain, Passage
from npk.backends.layout import Layout

WORK = 1 << 30  # bytes of the device for the fields of the pairs in flight, unless those of one pair take more
CHUNK = 4  # words that a fragment holds of each position


def specialized(chain: Chain, layout: Layout, capability: int) -> list[Specialization] | None:
    """How the kernel is made for each stage, or ``None`` where it cannot run: another device or dtype, a grid that does not fit.

    Args:
        chain: the stages.
        layout: of their masks.
        capability: compute capability of the device, times ten.
    """
    made = []
    for number, layers in enumerate(_layers(chain)):
        stage, keep = chain.stages[number], chain.passages[number].kind != "sum"
        places = [place for _, place in layout.places[layers.start + chain.has_input : layers.stop + chain.has_input]]
        chunks = max([-(-(place.stop - place.start) // stage.positions // CHUNK) for place in places], default=1)
        windows = [window.numbers for window in stage.windows]
        made.append(stage_kernel(stage.shape, stage.circular, chunks, windows, layout.dtype.name, capability, (number > 0, keep)))
    return None if None in made else made


def _layers(chain: Chain) -> list[slice]:
    """The layers of each stage among all."""
    ends = np.cumsum([0, *(len(stage.windows) for stage in chain.stages)]).tolist()
    return [slice(*pair) for pair in itertools.pairwise(ends)]


@dataclass(frozen=True)
class _Step:
    """One stage on the device, and the passage after it; ``cells`` and ``after``: of a field before and after the passage."""

    made: Specialization
    passage: Passage
    layers: slice
    offset: int
    cells: int
    after: int
    windows: Any
    differences: Any
    wanted: Any
    table: Any

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of what a pair leaves in memory."""
        return (8 * len(self.differences) if self.passage.kind == "sum" else 4 * self.cells) + 4 * self.after


class StageRunner:
    """A chain of stages.

    Args:
        chain: the stages.
        layout: of their masks, in the order of the chain's product.
        launcher: of the device.
        made: how the kernel is made for each stage.
    """

    def __init__(self, chain: Chain, layout: Layout, launcher: Launcher, made: list[Specialization]) -> None:
        self.chain, self.layout, self.launcher, self.made = chain, layout, launcher, made
        sizes = [m.words * s.positions * len(s.windows) for m, s in zip(made, chain.stages, strict=True)]
        self.offsets = np.cumsum([0, *sizes]).tolist()
        self.steps = [self._step(number, *found) for number, found in enumerate(self._looked_at())]
        self.pairs = max(1, WORK // sum(step.bytes_a_pair for step in self.steps))

    def _looked_at(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each stage: the differences of rows that are looked at, and which of the next one's are."""
        wanted, after, found = np.arange(1), (1, 1), []
        for stage, passage in reversed(list(zip(self.chain.stages, self.chain.passages, strict=True))):
            flags = np.isin(np.arange(after[0]), wanted)
            wanted = passage.differences(stage.shape, after, wanted)
            found.append((wanted, flags))
            after = stage.shape
        return found[::-1]

    def _step(self, number: int, differences: np.ndarray, wanted: np.ndarray) -> _Step:
        chain, made = self.chain, self.made[number]
        stage, passage = chain.stages[number], chain.passages[number]
        windows = [made.windows.index(window.numbers) for window in stage.windows]
        tables = (self.launcher.to_device(np.array(t, np.int32, order="C")) for t in (windows, differences, wanted, passage.table))
        sizes = (stage.positions**2, len(passage.table) ** 2)
        return _Step(made, passage, _layers(chain)[number], self.offsets[number], *sizes, *tables)

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, arranged."""
        return 4 * (self.offsets[-1] + max(self.layout.numbers, self.chain.stages[0].positions))

    @property
    def workspace(self) -> int:
        """Bytes of the device that work takes beside masks and result."""
        return max(WORK, sum(step.bytes_a_pair for step in self.steps))

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Masks as the kernel reads them: for each stage ``(layers, positions, words)`` with whole chunks of words, and the input's numbers
        ``(positions, channels)``, sample by sample.
        """
        n, begin = len(values), int(self.chain.has_input)
        if values.dtype != np.uint32:
            return values if self.chain.has_input else np.ones((n, self.chain.stages[0].positions), values.dtype)
        words = np.zeros((n, self.offsets[-1]), np.uint32)
        for step, stage in zip(self.steps, self.chain.stages, strict=True):
            shape = (len(stage.windows), stage.positions, step.made.words)
            kept = words[:, step.offset : step.offset + math.prod(shape)].reshape(n, *shape)
            for layer, (_, place) in enumerate(self.layout.places[begin + step.layers.start : begin + step.layers.stop]):
                width = (place.stop - place.start) // stage.positions
                kept[:, layer, :, :width] = values[:, place].reshape(n, stage.positions, width)
        return words

    def run(self, rows: tuple[Any, Any], cols: tuple[Any, Any], exponents: np.ndarray, left: int, out: Any) -> None:
        """Fill ``out``.

        Args:
            rows: bits and numbers of the row samples, arranged, on the device.
            cols: of the column samples.
            exponents: power of two of each step.
            left: number of the first column minus that of the first row; what lies left of the diagonal is skipped (give the number of
                rows to compute all).
            out: ``(rows, cols)`` on the device.
        """
        (n, m), result = out.shape, out.reshape(-1)
        scales = self.launcher.to_device(self.chain.product.scales(exponents).astype(np.float32))
        for launch in range(-(-n * m // self.pairs)):
            first = launch * self.pairs
            pairs = min(self.pairs, n * m - first)
            tile, field = _Tile(first, m, pairs, left), scales  # the first stage reads no field
            for step in self.steps:
                target = result[first : first + pairs] if step is self.steps[-1] else self._empty(pairs * step.after)
                self._pass(step, tile, self._run_stage(step, tile, rows, cols, scales, field), target)
                field = target

    def _run_stage(self, step: _Step, tile: "_Tile", rows: tuple[Any, Any], cols: tuple[Any, Any], scales: Any, field: Any) -> Any:
        """The stage's fields, or the parts of their sums."""
        layers, count = step.layers.stop - step.layers.start, len(step.differences)
        kept = self._empty(tile.pairs * count, np.float64) if step.passage.kind == "sum" else self._empty(tile.pairs * step.cells)
        bits = [side[0].reshape(-1)[step.offset :] for side in (rows, cols)]
        arrays = (*bits, rows[1], cols[1], field, step.windows, scales[step.layers.start :], step.differences, kept)
        numbers = self.layout.numbers // self.chain.stages[0].positions or 1
        sizes = (np.int64(self.offsets[-1]), *tile.sizes, np.int32(numbers), np.int32(layers), np.int32(count), np.int64(tile.left))
        self.launcher.launch(step.made.spec, tile.pairs * count, (*arrays, *sizes))
        return kept

    def _pass(self, step: _Step, tile: "_Tile", kept: Any, target: Any) -> None:
        """The passage, from what a stage kept to the next one's fields."""
        end = (np.int64(tile.pairs), np.int64(tile.left))
        if step.passage.kind == "sum":
            spec, cells = KERNELS["sums", "any", "float32"], tile.pairs
            arguments = (kept, target, *tile.sizes, np.int32(len(step.differences)), *end)
        else:
            spec, cells = KERNELS["gather", "any", "float32"], tile.pairs * step.after
            width, family = step.passage.table.shape
            crossed, before = step.passage.kind == "crossed", round(step.cells**0.5)
            sizes = [np.int32(size) for size in (before, width, family, len(step.wanted), crossed)]
            arguments = (kept, target, step.table, step.wanted, *tile.sizes, *sizes, *end)
        self.launcher.launch(spec, -(-cells // spec.threads), arguments)

    def _empty(self, size: int, dtype: type = np.float32) -> Any:
        return self.launcher.empty((size,), np.dtype(dtype))


@dataclass(frozen=True)
class _Tile:
    """The pairs in flight, counted from ``first`` on, row by row of a tile of ``m`` columns."""

    first: int
    m: int
    pairs: int
    left: int

    @property
    def sizes(self) -> tuple[Any, ...]:
        """As kernels take them."""
        return np.int64(self.first), np.int32(self.m)
