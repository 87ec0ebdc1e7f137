"""Recursion -> Chain: convolutions of stride 1 on one grid are a stage, which one kernel runs on the chip; passages lead to other grids."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from npk.backends.product import Product
from npk.dual.recursion import Collapse, Field, Recursion

Step = Collapse | Field


@dataclass(frozen=True)
class Window:
    """Offsets (row, column) that a convolution adds up: ``rows`` x ``columns`` of them from (``top``, ``first``) on."""

    rows: int
    top: int
    columns: int
    first: int

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Rows, first row, columns, first column."""
        return self.rows, self.top, self.columns, self.first

    def taps(self, shape: tuple[int, int], circular: bool) -> np.ndarray:
        """Position under each offset, -1 outside: ``(offsets, positions)``."""
        size = np.array(shape)[:, None, None]
        offsets = np.indices((self.rows, self.columns)).reshape(2, -1, 1) + np.array([self.top, self.first])[:, None, None]
        seen = np.indices(shape).reshape(2, 1, -1) + offsets
        inside = ((seen >= 0) & (seen < size)).all(0)
        row, column = seen % size
        return np.where(inside | circular, row * shape[1] + column, -1)


PLAIN = Window(1, 0, 1, 0)  # sees the position itself


@dataclass
class Stage:
    """Layers on one grid of ``shape`` (rows, columns): a window before each mask, ``circular`` or with zeros around the grid."""

    shape: tuple[int, int]
    windows: list[Window] = field(default_factory=list)
    circular: bool = False

    @property
    def positions(self) -> int:
        """Number of positions of the grid."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Passage:
    """From the last masked field U of a stage to the first one of the next.

    ``kind``: "paired", V(s, t) = sum over k of U(at(s, k), at(t, k)); "crossed", over all k and k'; "sum", over everything, to one
    position. ``table``: the positions, ``(positions, family)``, -1 for none.
    """

    kind: str
    table: np.ndarray

    def differences(self, before: tuple[int, int], after: tuple[int, int], wanted: np.ndarray) -> np.ndarray:
        """Differences of rows, around the grid ``before``, of the cells that those ``wanted`` around the grid ``after`` look at."""
        if self.kind == "sum":
            return np.arange(before[0])
        rows = self.table.reshape(*after, -1).max(1) // before[1]  # of each offset, seen from each row; -1: none
        found = []
        for step in wanted:
            there = np.roll(rows, -int(step), axis=0)
            pairs = (rows[:, :, None], there[:, None]) if self.kind == "crossed" else (rows, there)
            found.append(((pairs[1] - pairs[0]) % before[0])[(pairs[0] >= 0) & (pairs[1] >= 0)])
        return np.unique(np.concatenate(found))


@dataclass
class Chain:
    """K = what remains after all stages, at one position.

    ``product``: the masks, that of the input first, and the factors, first that of the input; ``has_input``: whether the input has a mask,
    or is ones. ``passages``: between the stages, and a last one.
    """

    product: Product
    has_input: bool
    stages: list[Stage]
    passages: list[Passage]


def as_chain(recursion: Recursion, hard: Sequence[bool]) -> Chain | None:
    """The recursion as a chain of stages, where it is one.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
    """
    collapses, fields = _turns(recursion.steps)
    passed = [_passed(step, 2 * n - 1 if n else None) for n, step in enumerate(collapses)]
    if not collapses or not fields or None in passed or len(collapses[0].grid) > 2:
        return None
    first, *masks = (step.terms[0].mask for step in collapses)
    if (first is not None and hard[first]) or any(mask is not None and not hard[mask] for mask in masks):
        return None
    found = _stages(collapses, fields)
    if found is None:
        return None
    weights = [weight for weight in passed if weight is not None]
    product = _product((first, *masks), [weights[0], *(w * f.factor for w, f in zip(weights[1:], fields, strict=True))])
    return Chain(product, first is not None, *found)


def _turns(steps: Sequence[Step]) -> tuple[list[Collapse], list[Field]]:
    """Collapses and fields that take turns, each field on the collapse before it, without groups or bias; nothing if they do not."""
    collapses = [step for step in steps[::2] if isinstance(step, Collapse)]
    fields = [s for n, s in enumerate(steps[1::2]) if isinstance(s, Field) and s.collapse == 2 * n and s.groups == 1 and not s.bias]
    return (collapses, fields) if len(collapses) + len(fields) == len(steps) else ([], [])


def _passed(step: Collapse, before: int | None) -> float | None:
    """Factor of a collapse of one term whose mask is read where the field is, all positions in their order or some of them together."""
    term, *more = step.terms
    alike = bool((term.weights == term.weights[0, 0]).all())
    if more or step.groups != 1 or term.field != before or len(term.blocks) != 1 or not alike:
        return None
    if before is None and (term.family > 1 or (term.mask is not None and not _in_order(term.places))):
        return None
    if before is not None and term.mask is not None and not np.array_equal(term.places, term.cells):
        return None
    return float(term.weights[0, 0]) ** 2 * (int(term.blocks[0, 3]) if term.mask is None else 1)


def _in_order(table: np.ndarray) -> bool:
    return np.array_equal(table.reshape(-1), np.arange(table.size))


def _stages(collapses: Sequence[Collapse], fields: Sequence[Field]) -> tuple[list[Stage], list[Passage]] | None:
    """The stages and the passages between them and after the last one."""
    stages, passages = [Stage((1, 1, *collapses[0].grid)[-2:])], []  # type: ignore[list-item]
    for step, collapse in zip(fields, collapses[1:], strict=True):
        stage = stages[-1]
        window = _window(step.taps, stage)
        if window is None:
            passages.append(Passage("paired", step.taps.T.astype(np.int32)))
            stage, window = Stage((1, 1, *step.grid)[-2:]), PLAIN  # type: ignore[arg-type]
            stages.append(stage)
        cells, masked = collapse.terms[0].cells, collapse.terms[0].mask is not None
        if len(step.grid) > 2 or stage.positions != step.positions or (masked and np.unique(cells[cells >= 0]).size < step.positions):
            return None
        if masked:
            stage.windows.append(window)
        elif window != PLAIN:
            return None
        if cells.shape != (step.positions, 1) or not _in_order(cells):
            whole = len(cells) == 1 and np.array_equal(np.sort(cells[0]), np.arange(stage.positions))
            passages.append(Passage("sum" if whole else "crossed", cells.astype(np.int32)))
            stages.append(Stage((1, 1, *collapse.grid)[-2:]))  # type: ignore[arg-type]
            if stages[-1].positions != collapse.positions:
                return None
    return _finished(stages, passages)


def _finished(stages: list[Stage], passages: list[Passage]) -> tuple[list[Stage], list[Passage]] | None:
    """With a passage to one position at the end, and no stage behind it."""
    if stages[-1].positions > 1 or len(stages) == 1:
        return None
    if not stages[-1].windows:
        return stages[:-1], passages
    return stages, [*passages, Passage("sum", np.zeros((1, 1), np.int32))]


def _product(masks: Sequence[int | None], factors: Sequence[float]) -> Product:
    """Masks and factors, those of collapses without a mask with the one before."""
    kept, steps = [factors[0]], [0]
    for number, (mask, factor) in enumerate(zip(masks[1:], factors[1:], strict=True), 1):
        if mask is None:
            kept[-1] *= factor
        else:
            kept, steps = [*kept, factor], [*steps, 2 * number]
        steps[-1] = 2 * number
    return Product(tuple(mask for mask in masks if mask is not None), tuple(kept), tuple(steps))


def _window(taps: np.ndarray, stage: Stage) -> Window | None:
    """The window of stride 1 on the grid of a stage that has these taps, in any order, with the padding of the windows before it."""
    if taps.shape[1] != stage.positions:
        return None
    for circular in (True, False):
        found = _window_with(taps, stage.shape, circular)
        fits = all(np.array_equal(w.taps(stage.shape, circular), w.taps(stage.shape, stage.circular)) for w in stage.windows)
        if found is not None and fits:
            same = np.array_equal(found.taps(stage.shape, stage.circular), found.taps(stage.shape, circular))
            stage.circular = stage.circular if same else circular
            return found
    return None


def _window_with(taps: np.ndarray, shape: tuple[int, int], circular: bool) -> Window | None:
    spans = []
    for size, moves in zip(shape, _moves(taps, shape), strict=True):
        steps = np.unique((moves + (size - 1) // 2) % size - (size - 1) // 2 if circular else moves)
        if not len(steps) or steps[0] > 0 or steps[-1] < 0 or steps[-1] - steps[0] >= size:
            return None
        spans += [int(steps[-1] - steps[0]) + 1, int(steps[0])]
    window = Window(*spans)
    expected = window.taps(shape, circular)
    alike = expected.shape == taps.shape and np.array_equal(np.sort(expected, axis=0), np.sort(taps, axis=0))
    return window if alike else None


def _moves(taps: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """How many rows and columns away each tap is that looks at a position."""
    here = np.broadcast_to(np.arange(shape[0] * shape[1]), taps.shape)[taps >= 0]
    return [there - at for there, at in zip(np.divmod(taps[taps >= 0], shape[1]), np.divmod(here, shape[1]), strict=True)]
