"""Tiles of convolutional networks: the planes of a pair stay on the chip for a whole stage."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from npk.backends.cuda.launcher import Launcher, Masks
from npk.backends.cuda.registry import KERNELS, Specialization, stage_kernel
from npk.backends.cuda.schedule import Schedule, schedule
from npk.backends.cuda.stage import Chain, Passage, Stage
from npk.backends.layout import Layout

# bytes of the device for the fields of the pairs in flight, unless those of one pair take more
WORK = 1 << 30
CHUNK = 4  # words that a fragment holds of each position


def specialized(chain: Chain, layout: Layout, capability: int) -> list[Specialization] | None:
    """How the kernel is made for each stage, or ``None`` where it cannot run: another device or
    dtype, a grid that does not fit.

    Args:
        chain: the stages.
        layout: of their masks.
        capability: compute capability of the device, times ten.
    """
    made = []
    for number, (stage, passages) in enumerate(zip(chain.stages, chain.passages, strict=True)):
        planned = schedule(stage)
        places = [_place(chain, layout, term.mask) for term in planned.terms]
        chunks = max(
            (
                -(-(place.stop - place.start) // stage.positions // CHUNK)
                for place in places
                if place
            ),
            default=1,
        )
        windows = [row.window.numbers for row in planned.rows]
        fields = (number > 0, passages[0].kind != "sum")
        made.append(
            stage_kernel(
                stage.shape,
                stage.circular,
                chunks,
                windows,
                layout.dtype.name,
                capability,
                fields,
                not planned.plain,
                planned.biased,
            )
        )
    return None if None in made else made


def _place(chain: Chain, layout: Layout, mask: int | None) -> slice | None:
    """Where a mask lies among a sample's words."""
    return None if mask is None else layout.places[chain.masks.index(mask)][1]


@dataclass(frozen=True)
class _Way:
    """A passage on the device; ``after``: cells of a field behind it."""

    passage: Passage
    after: int
    table: Any
    wanted: Any


@dataclass(frozen=True)
class _Step:
    """One stage on the device, and the ways to the next; ``masks`` and ``offset``: of its first."""

    made: Specialization
    stage: Stage
    planned: Schedule
    ways: list[_Way]
    masks: int
    offset: int
    rows: Any
    differences: Any

    @property
    def cells(self) -> int:
        """Cells of a field."""
        return self.stage.positions**2

    @property
    def kept(self) -> int:
        """Bytes of what a pair leaves in memory: fields, or the parts of a sum."""
        return 8 * len(self.differences) if self.sums else 4 * self.cells * len(self.stage.outputs)

    @property
    def sums(self) -> bool:
        """Whether nothing but the sum of all cells is wanted."""
        return self.ways[0].passage.kind == "sum"

    @property
    def waiting(self) -> int:
        """Bytes of a pair's fields that wait."""
        return len(self.differences) * self.planned.slots * self.made.slot

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of the device that a pair takes."""
        return self.kept + self.waiting + sum(4 * way.after for way in self.ways)


class StageRunner:
    """A chain of stages.

    Args:
        chain: the stages.
        layout: of their masks, in the order of the chain.
        launcher: of the device.
        made: how the kernel is made for each stage.
    """

    def __init__(
        self, chain: Chain, layout: Layout, launcher: Launcher, made: list[Specialization]
    ) -> None:
        self.chain, self.layout, self.launcher = chain, layout, launcher
        self.steps: list[_Step] = []
        self.masks, self.words = 0, 0
        for number, (differences, wanted) in enumerate(self._looked_at()):
            step = self._step(number, made[number], differences, wanted)
            self.steps.append(step)
            self.masks += len(step.planned.terms)
            self.words += len(step.planned.terms) * step.stage.positions * step.made.words
        terms = [term for step in self.steps for term in step.planned.terms]
        self.scales = [chain.scale, *(term.scale for term in terms)]
        self.biases = [scale for term in terms for scale in (term.bias.factor, term.bias.added)]
        self.pairs = max(1, WORK // sum(step.bytes_a_pair for step in self.steps))

    def _looked_at(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each stage: the row differences that are looked at, and which of the next one's."""
        wanted, after, looked_at = np.arange(1), (1, 1), []
        for stage, passages in reversed(
            list(zip(self.chain.stages, self.chain.passages, strict=True))
        ):
            flags = np.isin(np.arange(after[0]), wanted)
            wanted = functools.reduce(
                np.union1d,
                [passage.differences(stage.shape, after, wanted) for passage in passages],
            )
            looked_at.append((wanted, flags))
            after = stage.shape
        return looked_at[::-1]

    def _step(
        self, number: int, made: Specialization, differences: np.ndarray, wanted: np.ndarray
    ) -> _Step:
        stage, passages = self.chain.stages[number], self.chain.passages[number]
        planned = schedule(stage)
        windows = [made.windows.index(row.window.numbers) for row in planned.rows]
        rows = [
            n
            for w, r in zip(windows, planned.rows, strict=True)
            for n in ([w] if planned.plain else [w, r.load, r.keep, r.mask])
        ]
        rows.extend(planned.outputs)
        ways = [
            _Way(
                passage,
                len(passage.table) ** 2,
                self._numbers(passage.table),
                self._numbers(wanted),
            )
            for passage in passages
        ]
        return _Step(
            made,
            stage,
            planned,
            ways,
            self.masks,
            self.words,
            self._numbers(rows),
            self._numbers(differences),
        )

    def _numbers(self, values: Any) -> Any:
        return self.launcher.to_device(np.array(values, np.int32, order="C"))

    @property
    def workspace(self) -> int:
        """Bytes of the device that work takes beside masks and result."""
        return max(WORK, sum(step.bytes_a_pair for step in self.steps))

    def arranged(self, values: Any) -> Any:
        """Masks of the device as the kernel reads them: for each stage ``(masks, positions,
        words)`` with whole chunks of words, in the order in which they are read, and the input's
        numbers ``(positions, channels)``, sample by sample.
        """
        n, xp = len(values), self.launcher.xp
        if values.dtype != np.uint32:
            if self.chain.mask is None:
                return xp.ones((n, self.chain.stages[0].positions), values.dtype)
            return values
        words = xp.empty((n, self.words), np.uint32)
        for step in self.steps:
            positions, width, start = step.stage.positions, step.made.words, step.offset
            for term in step.planned.terms:
                mask = xp.zeros((n, positions, width), np.uint32)
                if (place := _place(self.chain, self.layout, term.mask)) is None:
                    mask[:, :, 0] = 1  # one channel
                else:
                    taken = (place.stop - place.start) // positions
                    mask[:, :, :taken] = values[:, place].reshape(n, positions, taken)
                words[:, start : start + positions * width] = mask.reshape(n, positions * width)
                start += positions * width
        return words

    def run(self, rows: Masks, cols: Masks, exponents: np.ndarray, left: int, out: Any) -> None:
        """Fill ``out``; arguments as those of :meth:`DenseRunner.run`, masks arranged."""
        (n, m), result = out.shape, out.reshape(-1)
        scales, biases = (
            self.launcher.to_device(np.array([s.value(exponents) for s in some], np.float32))
            for some in (self.scales, self.biases)
        )
        added = self.chain.added.value(exponents)
        for launch in range(-(-n * m // self.pairs)):
            first = launch * self.pairs
            pairs = min(self.pairs, n * m - first)
            tile, fields = _Tile(first, m, pairs, left), scales  # the first stage reads no field
            for step in self.steps:
                kept = self._run_stage(step, tile, rows, cols, (scales, biases), fields)
                if step is self.steps[-1]:
                    fields = result[first : first + pairs]
                else:
                    fields = self._empty(pairs * sum(w.after for w in step.ways))
                start = 0
                for way in step.ways:
                    output = step.stage.outputs.index(way.passage.source) * pairs * step.cells
                    constant = np.float32(added if step is self.steps[-1] else 0)
                    self._pass(step, way, tile, kept[output:], fields[start:], constant)
                    start += pairs * way.after

    def _run_stage(
        self,
        step: _Step,
        tile: "_Tile",
        rows: tuple[Any, Any],
        cols: tuple[Any, Any],
        numbers: tuple[Any, Any],
        fields: Any,
    ) -> Any:
        """The stage's fields, or the parts of their sums."""
        count, planned = len(step.differences), step.planned
        if step.sums:
            kept = self._empty(tile.pairs * step.kept // 8, np.float64)
        else:
            kept = self._empty(tile.pairs * step.kept // 4)
        slots = self._empty(tile.pairs * step.waiting // 4)
        bits = [side[0].reshape(-1)[step.offset :] for side in (rows, cols)]
        scales, biases = numbers
        arrays = (
            *bits,
            rows[1],
            cols[1],
            fields,
            step.rows,
            scales[step.masks :],
            biases[2 * step.masks :],
            step.differences,
            kept,
            slots,
        )
        channels = self.layout.numbers // self.chain.stages[0].positions or 1
        sizes = (
            np.int64(self.words),
            *tile.sizes,
            *(np.int32(size) for size in (channels, len(planned.rows), count)),
            np.int64(tile.left),
        )
        counts = (planned.slots, len(step.stage.begins), len(step.stage.outputs))
        waiting = (*(np.int32(number) for number in counts), np.int64(tile.pairs * step.cells))
        self.launcher.launch(step.made.spec, tile.pairs * count, (*arrays, *sizes, *waiting))
        return kept

    def _pass(
        self, step: _Step, way: _Way, tile: "_Tile", kept: Any, target: Any, added: np.float32
    ) -> None:
        """The passage, from what a stage kept to a field that the next one begins with, or to the
        kernel, with what is ``added`` at the end.
        """
        end = (np.int64(tile.pairs), np.int64(tile.left), added)
        if way.passage.kind == "sum":
            spec, cells = KERNELS["sums", "any", "float32"], tile.pairs
            arguments = (kept, target, *tile.sizes, np.int32(len(step.differences)), *end)
        else:
            spec, cells = KERNELS["gather", "any", "float32"], tile.pairs * way.after
            width, family = way.passage.table.shape
            sizes = [
                np.int32(size)
                for size in (
                    step.stage.positions,
                    width,
                    family,
                    len(way.wanted),
                    way.passage.kind == "crossed",
                )
            ]
            arguments = (kept, target, way.table, way.wanted, *tile.sizes, *sizes, *end)
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
