"""What runs on the chip: stages of convolutions of stride 1 on one grid, in one kernel each, and
passages that lead to other grids.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Window:
    """Offsets that a convolution adds up: ``rows`` x ``columns`` from (``top``, ``first``) on."""

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
        offsets = (
            np.indices((self.rows, self.columns)).reshape(2, -1, 1)
            + np.array([self.top, self.first])[:, None, None]
        )
        seen = np.indices(shape).reshape(2, 1, -1) + offsets
        inside = ((seen >= 0) & (seen < size)).all(0)
        row, column = seen % size
        return np.where(inside | circular, row * shape[1] + column, -1)


PLAIN = Window(1, 0, 1, 0)  # sees the position itself


@dataclass(frozen=True)
class Scale:
    """``factor`` * 2**(exponent of step ``before`` - that of step ``after``): from one step's scale
    to another's; ``None``: exponent 0.
    """

    factor: float
    before: int | None
    after: int | None

    def value(self, exponents: np.ndarray) -> float:
        """The number."""
        given, taken = (
            0 if step is None else int(exponents[step]) for step in (self.before, self.after)
        )
        return float(np.ldexp(self.factor, given - taken))


@dataclass(frozen=True)
class Bias:
    """V = U * ``factor`` + ``added``: a field with a bias as its window's sums U give it."""

    factor: Scale = Scale(1.0, None, None)
    added: Scale = Scale(0.0, None, None)


NO_BIAS = Bias()


@dataclass(frozen=True)
class Masked:
    """The value of step ``root``, with the ``bias`` that it lacks, times the overlap of ``mask``
    (``None``: 1) times ``scale``.
    """

    root: int
    mask: int | None
    scale: Scale
    bias: Bias = NO_BIAS

    @property
    def key(self) -> tuple[int, int | None, float, Bias]:
        """What it is, whatever the scale of the sum that it is part of."""
        return self.root, self.mask, self.scale.factor, self.bias


@dataclass(frozen=True)
class Convolution:
    """The value of ``step``: the window's sums of that of step ``root``."""

    step: int
    root: int
    window: Window

    @property
    def roots(self) -> tuple[int, ...]:
        """Steps whose values it takes."""
        return (self.root,)


@dataclass(frozen=True)
class Sum:
    """The value of ``step``: the sum of the terms."""

    step: int
    terms: tuple[Masked, ...]

    @property
    def roots(self) -> tuple[int, ...]:
        """Steps whose values it takes."""
        return tuple(term.root for term in self.terms)


@dataclass
class Stage:
    """Steps on one grid of ``shape`` (rows, columns), ``circular`` or with zeros around it.

    ``begins``: the values that it begins with, of which the first step takes the first;
    ``outputs``: those that are wanted after it, what it ends with first.
    """

    shape: tuple[int, int]
    begins: list[int] = field(default_factory=list)
    steps: list[Convolution | Sum] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    circular: bool = False

    @property
    def positions(self) -> int:
        """Number of positions of the grid."""
        return self.shape[0] * self.shape[1]

    @property
    def windows(self) -> list[Window]:
        """Windows of its convolutions."""
        return [step.window for step in self.steps if isinstance(step, Convolution)]

    @property
    def result(self) -> int | None:
        """The step whose value it ends with, where that is a sum or what it began with."""
        if self.steps:
            return self.steps[-1].step if isinstance(self.steps[-1], Sum) else None
        return self.begins[0] if len(self.begins) == 1 else None


@dataclass(frozen=True)
class Passage:
    """From a field U of a stage, the value of step ``source``, to one that the next begins with.

    ``kind``: "paired", V(s, t) = sum over k of U(at(s, k), at(t, k)); "crossed", over all k and k';
    "sum", over everything, to one position. ``table``: the positions, ``(positions, family)``, -1
    for none.
    """

    kind: str
    table: np.ndarray
    source: int

    def differences(
        self, before: tuple[int, int], after: tuple[int, int], wanted: np.ndarray
    ) -> np.ndarray:
        """Row differences, around the grid ``before``, that those ``wanted`` after look at."""
        if self.kind == "sum":
            return np.arange(before[0])
        # of each offset, seen from each row; -1: none
        rows = self.table.reshape(*after, -1).max(1) // before[1]
        rows_seen = []
        for step in wanted:
            there = np.roll(rows, -int(step), axis=0)
            pairs = (rows[:, :, None], there[:, None]) if self.kind == "crossed" else (rows, there)
            rows_seen.append(((pairs[1] - pairs[0]) % before[0])[(pairs[0] >= 0) & (pairs[1] >= 0)])
        return np.unique(np.concatenate(rows_seen))


@dataclass
class Chain:
    """K = what remains after all stages, at one position, plus ``added``.

    ``mask``: number of the input's, or ``None`` for ones; ``scale``: of the input Gram;
    ``passages``: after each stage, in the order of what the next one begins with.
    """

    mask: int | None
    scale: Scale
    stages: list[Stage]
    passages: list[list[Passage]]
    added: Scale

    @property
    def masks(self) -> tuple[int, ...]:
        """Numbers of all masks, that of the input first."""
        terms = (
            term
            for stage in self.stages
            for step in stage.steps
            if isinstance(step, Sum)
            for term in step.terms
        )
        return tuple(
            dict.fromkeys(
                mask for mask in (self.mask, *(term.mask for term in terms)) if mask is not None
            )
        )
