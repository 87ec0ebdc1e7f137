"""Recursion -> Chain, where it is one: convolutions and residual streams, pooled or flattened."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from npk.backends.cuda.stage import (
    PLAIN,
    Bias,
    Chain,
    Convolution,
    Masked,
    Passage,
    Scale,
    Stage,
    Sum,
    Window,
)
from npk.recursion.steps import Collapse, Field, Recursion, Term


def as_chain(recursion: Recursion, hard: Sequence[bool]) -> Chain | None:
    """The recursion as a chain of stages, where it is one.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
    """
    walk = _Walk(recursion, hard)
    return (
        walk.chain() if all(walk.takes(number) for number in range(len(recursion.steps))) else None
    )


@dataclass(frozen=True)
class _Value:
    """A step's value: ``factor`` times that of step ``root``, on the scale of step ``exponent``,
    plus ``added``, the latest of it in step ``biased``.
    """

    root: int
    factor: float
    exponent: int
    added: float = 0.0
    biased: int | None = None

    def times(self, factor: float) -> "_Value":
        return replace(self, factor=self.factor * factor, added=self.added * factor)

    def plus(self, bias: float, step: int) -> "_Value":
        return replace(self, added=self.added + bias, biased=step) if bias else self

    def masked(self, mask: int | None, factor: float, step: int) -> Masked:
        """The value times an overlap and a factor, as a term of the sum of a step."""
        if not self.added:
            return Masked(self.root, mask, Scale(factor * self.factor, self.exponent, step))
        bias = Bias(
            Scale(self.factor, self.exponent, self.biased), Scale(self.added, None, self.biased)
        )
        return Masked(self.root, mask, Scale(factor, self.biased, step), bias)


class _Walk:
    """The chain as far as the steps taken so far."""

    def __init__(self, recursion: Recursion, hard: Sequence[bool]) -> None:
        self.recursion, self.hard = recursion, hard
        self.mask: int | None = None
        self.scale = Scale(1.0, None, 0)
        self.stages: list[Stage] = []
        self.passages: list[list[Passage]] = []
        self.values: dict[int, _Value] = {}
        self.home: dict[int, int] = {}  # stage in which a value is
        # fields from other grids: what they are of, and where it is read
        self.fetched: dict[int, tuple[int, np.ndarray]] = {}
        self.keys: dict[int, set[tuple[int, int | None, float, Bias]]] = {}  # terms of each sum

    def takes(self, number: int) -> bool:
        """Take the next step; whether that goes."""
        step = self.recursion.steps[number]
        if step.groups != 1 or len(step.grid) > 2:
            return False
        if isinstance(step, Field):
            return self._field(number, step)
        return self._collapse(number, step) if number else self._input(step)

    def _input(self, step: Collapse) -> bool:
        (term, *more), added = _apart(step)
        read_in_order = term.mask is None or (not self.hard[term.mask] and _in_order(term.places))
        if (
            more
            or added is None
            or term.field is not None
            or term.family > 1
            or not _alike(term)
            or not read_in_order
        ):
            return False
        self.mask, self.scale = term.mask, Scale(_factor(term), None, 0)
        self.stages, self.home = [Stage(_shape(step.grid), [0])], {0: 0}
        self.values[0] = _Value(0, 1.0, 0).plus(added, 0)
        return self.stages[0].positions == step.positions

    def _field(self, number: int, step: Field) -> bool:
        value = self.values[step.collapse]
        home = self.home[value.root]
        stage, last = self.stages[home], home == len(self.stages) - 1
        window = _window(step.taps, stage) if last else None
        if window != PLAIN and value.added:
            if not last:
                return False
            value = self._settled(step.collapse)
        seen = value if window == PLAIN else replace(value, root=number)
        self.values[number] = seen.times(step.factor).plus(step.bias, number)
        if window is None:
            passage = Passage("paired", step.taps.T.astype(np.int32), value.root)
            return self._leaves(number, passage, step)
        if window != PLAIN:
            stage.steps.append(Convolution(number, value.root, window))
            self.home[number] = home
        return True

    def _settled(self, number: int) -> _Value:
        """A value of the last stage, with what is added to it in the cells."""
        there, term = ~number, self.values[number].masked(None, 1.0, number)
        self.stages[-1].steps.append(Sum(there, (term,)))
        self.values[number], self.home[there] = _Value(there, 1.0, number), len(self.stages) - 1
        return self.values[number]

    def _collapse(self, number: int, step: Collapse) -> bool:
        stage, (some, added) = self.stages[-1], _apart(step)
        first, *more = some
        cells = (first.cells if self._is_here(first) else first.places).astype(np.int32)
        if added is None or not all(self._fits(term, cells, stage) for term in some):
            return False
        stays = cells.shape == (stage.positions, 1) and _in_order(cells)
        value = self.values[first.field or 0]
        if first.mask is None and not more and (stays or not value.added):  # nothing but a factor
            self.values[number] = value = value.times(_factor(first)).plus(added, number)
        else:
            terms = [self._masked(term, number) for term in some]
            if None in terms:
                return False
            stage.steps.append(self._sum(number, [term for term in terms if term], stage))
            value = _Value(number, 1.0, number)
            self.values[number] = value.plus(added, number)
            self.home[number] = len(self.stages) - 1
        if stays:
            return True
        whole = len(cells) == 1 and np.array_equal(np.sort(cells[0]), np.arange(stage.positions))
        self.values[number] = replace(self.values[number], root=number)
        return self._leaves(number, Passage("sum" if whole else "crossed", cells, value.root), step)

    def _is_here(self, term: Term) -> bool:
        """Whether the term's field is on the grid of the last stage."""
        return (
            term.field is not None
            and self.home[self.values[term.field].root] == len(self.stages) - 1
        )

    def _fits(self, term: Term, cells: np.ndarray, stage: Stage) -> bool:
        """Whether the term is masked on the stage's grid before positions are added up; without a
        mask it has to be there already.
        """
        mask = None if term.mask is None else self.recursion.masks[term.mask]
        there = term.cells if self._is_here(term) else term.places
        if (
            term.field is None
            or not _alike(term)
            or not np.array_equal(there, cells)
            or cells.max() >= stage.positions
        ):
            return False
        if mask is None:
            return self._is_here(term)
        return (
            self.hard[term.mask or 0]
            and mask.size == stage.positions
            and np.array_equal(term.places, cells)
        )

    def _masked(self, term: Term, number: int) -> Masked | None:
        value = self.values[term.field or 0]
        root: int | None = value.root
        # a shortcut that leaves positions out: the field comes from another grid as it is
        if not self._is_here(term):
            table = np.full((self.stages[-1].positions, 1), -1, np.int32)
            table[term.places] = term.cells[..., None]
            read_once = table.min() >= 0 and np.array_equal(table[term.places, 0], term.cells)
            root = self._fetched(value.root, table, len(self.stages) - 1) if read_once else None
        if root is None:
            return None
        return replace(value, root=root).masked(term.mask, _factor(term), number)

    def _fetched(self, root: int, table: np.ndarray, to: int) -> int | None:
        """A field of an earlier stage as another begins with it: V(s, t) = U(table(s), table(t))."""
        for between, (source, seen) in self.fetched.items():
            if source != root:
                continue
            if self.home[between] == to and np.array_equal(seen, table):
                return between
            place = {int(position): number for number, position in enumerate(seen[:, 0])}
            if self.home[between] < to and all(int(position) in place for position in table[:, 0]):
                return self._fetched(
                    between,
                    np.array([[place[int(position)]] for position in table[:, 0]], np.int32),
                    to,
                )
        if self.home[root] != to - 1:
            return None
        number = len(self.recursion.steps) + len(self.fetched)
        self.stages[to].begins.append(number)
        self.passages[to - 1].append(Passage("paired", table, root))
        self.fetched[number], self.home[number] = (root, table), to
        return number

    def _sum(self, number: int, terms: list[Masked], stage: Stage) -> Sum:
        """The sum, with the latest earlier one that has its first terms: it grows by a block."""
        self.keys[number] = {term.key for term in terms}
        for step in reversed(stage.steps):
            known = self.keys.get(step.step)
            if known and known <= self.keys[number]:
                rest = (term for term in terms if term.key not in known)
                return Sum(number, (Masked(step.step, None, Scale(1.0, step.step, number)), *rest))
        return Sum(number, tuple(terms))

    def _leaves(self, number: int, passage: Passage, step: Collapse | Field) -> bool:
        """Lead what a stage ends with to the next one, which may begin with several fields."""
        home, shape = self.home[passage.source], _shape(step.grid)
        if passage.source != self.stages[home].result or shape[0] * shape[1] != step.positions:
            return False
        if home == len(self.stages) - 1:
            self.stages.append(Stage(shape))
            self.passages.append([])
        if home != len(self.stages) - 2 or self.stages[-1].shape != shape:
            return False
        self.stages[-1].begins.append(number)
        self.passages[-1].append(passage)
        self.home[number] = home + 1
        return True

    def chain(self) -> Chain | None:
        """What was taken, with a passage to one position at the end, and no stage behind it."""
        number, end = len(self.recursion.steps) - 1, self.stages[-1]
        value = self.values[number]
        if end.positions > 1 or end.result != value.root or len(self.stages) == 1:
            return None
        if end.steps:
            self.passages.append([Passage("sum", np.zeros((1, 1), np.int32), value.root)])
        else:
            self.stages.pop()
        steps = next((stage.steps for stage in reversed(self.stages) if stage.steps), [])
        if not steps or not isinstance(steps[-1], Sum):
            return None
        steps[-1] = _ends(steps[-1], value.factor, number)
        for stage, passages in zip(self.stages[1:], self.passages, strict=False):
            _sort(stage, passages)
        for stage, passages in zip(self.stages, self.passages, strict=True):
            stage.outputs = sorted(
                dict.fromkeys(passage.source for passage in passages),
                key=lambda step: step != _last(stage),
            )
        added = Scale(value.added, None, number)
        return Chain(self.mask, self.scale, self.stages, self.passages, added)


def _ends(last: Sum, factor: float, number: int) -> Sum:
    """The last sum, on the scale of the last step, with the factor of what lies between."""
    scales = [Scale(term.scale.factor * factor, term.scale.before, number) for term in last.terms]
    return replace(
        last,
        terms=tuple(
            replace(term, scale=scale) for term, scale in zip(last.terms, scales, strict=True)
        ),
    )


def _sort(stage: Stage, passages: list[Passage]) -> None:
    """Have what the first step takes come first."""
    first = stage.begins.index(stage.steps[0].roots[0]) if stage.steps else 0
    stage.begins.insert(0, stage.begins.pop(first))
    passages.insert(0, passages.pop(first))


def _last(stage: Stage) -> int:
    """The value that a stage has in its cells at its end."""
    return stage.steps[-1].step if stage.steps else stage.begins[0]


def _shape(grid: Sequence[int]) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = (1, 1, *grid)[-2:]
    return rows, columns


def _alike(term: Term) -> bool:
    """Whether all members of a term without groups have one weight."""
    return len(term.blocks) == 1 and bool((term.weights == term.weights[0, 0]).all())


def _factor(term: Term) -> float:
    return float(term.weights[0, 0]) ** 2 * (int(term.blocks[0, 3]) if term.mask is None else 1)


def _apart(step: Collapse) -> tuple[Sequence[Term], float | None]:
    """The terms of a sum, but for constants beside them, and what these add to every pair: ``None``
    where it is not the same to all.
    """
    constants = [term for term in step.terms if term.field is None and term.mask is None]
    others = [term for term in step.terms if term.field is not None or term.mask is not None]
    if not constants or not others:
        return step.terms, 0.0
    sums = [np.where(term.cells < 0, 0.0, term.weights).sum(1) for term in constants]
    if not all((total == total[0]).all() for total in sums):
        return others, None
    both = zip(sums, constants, strict=True)
    return others, sum(float(total[0]) ** 2 * float(term.blocks[0, 3]) for total, term in both)


def _in_order(table: np.ndarray) -> bool:
    return np.array_equal(table.reshape(-1), np.arange(table.size))


def _window(taps: np.ndarray, stage: Stage) -> Window | None:
    """The window of stride 1 on the grid of a stage that has these taps, in any order, with the
    padding of the windows before it.
    """
    if taps.shape[1] != stage.positions:
        return None
    for circular in (True, False):
        window = _window_with(taps, stage.shape, circular)
        fits = all(
            np.array_equal(w.taps(stage.shape, circular), w.taps(stage.shape, stage.circular))
            for w in stage.windows
        )
        if window is not None and fits:
            same = np.array_equal(
                window.taps(stage.shape, stage.circular), window.taps(stage.shape, circular)
            )
            stage.circular = stage.circular if same else circular
            return window
    return None


def _window_with(taps: np.ndarray, shape: tuple[int, int], circular: bool) -> Window | None:
    spans = []
    for size, moves in zip(shape, _moves(taps, shape), strict=True):
        steps = np.unique((moves + (size - 1) // 2) % size - (size - 1) // 2 if circular else moves)
        if (
            not len(steps)
            or steps[0] > 0
            or steps[-1] < 0
            or (circular and steps[-1] - steps[0] >= size)
        ):
            return None
        spans += [int(steps[-1] - steps[0]) + 1, int(steps[0])]
    window = Window(*spans)
    return window if _offsets(window.taps(shape, circular)) == _offsets(taps) else None


def _offsets(taps: np.ndarray) -> list[bytes]:
    """What each offset sees, in any order of offsets; without those that see nothing."""
    return sorted(row.tobytes() for row in taps.astype(np.int32) if (row >= 0).any())


def _moves(taps: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """How many rows and columns away each tap is that looks at a position."""
    here = np.broadcast_to(np.arange(shape[0] * shape[1]), taps.shape)[taps >= 0]
    return [
        there - at
        for there, at in zip(
            np.divmod(taps[taps >= 0], shape[1]), np.divmod(here, shape[1]), strict=True
        )
    ]
