"""Stage -> Schedule: in what order a block computes the values, and which of them wait."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from npk.backends.cuda.stage import NO_BIAS, PLAIN, Convolution, Masked, Stage, Sum, Window

NONE, MULTIPLIED, UNMASKED = -1, -1, -2  # as the kernel has them


@dataclass(frozen=True)
class Row:
    """What the kernel does with the cells, in this order: read slot ``load``; the window; write
    slot ``keep``; the mask.

    ``mask``: the cells are ``MULTIPLIED`` with the term's overlap, or the slot of this number times
    it is added, or they stay ``UNMASKED``.
    """

    load: int = NONE
    window: Window = PLAIN
    keep: int = NONE
    mask: int = UNMASKED
    term: Masked | None = None


@dataclass(frozen=True)
class Schedule:
    """``slots``: how many there are; what a stage begins with after the first one is in those from
    0 on. ``outputs``: slots of what is wanted after it, beside what it ends with.
    """

    rows: tuple[Row, ...]
    slots: int
    outputs: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether each row is a window and a mask."""
        return (
            all((row.load, row.keep, row.mask) == (NONE, NONE, MULTIPLIED) for row in self.rows)
            and not self.slots
        )

    @property
    def terms(self) -> tuple[Masked, ...]:
        """Masks in the order of the rows."""
        return tuple(row.term for row in self.rows if row.term)

    @property
    def biased(self) -> bool:
        """Whether anything is added to a field before its mask."""
        return any(term.bias != NO_BIAS for term in self.terms)


def schedule(stage: Stage) -> Schedule:
    """The rows of a stage.

    Args:
        stage: the stage.

    Returns:
        The rows; values that are taken once, right after they are computed, never leave the chip.
    """
    made = _Rows(stage)
    for step in stage.steps:
        if isinstance(step, Convolution):
            made.convolve(step)
        else:
            made.add_up(step)
    return Schedule(
        tuple(made.rows), made.slots, tuple(made.held[output] for output in stage.outputs[1:])
    )


class _Rows:
    """Rows so far; ``here``: step whose value the cells are; ``left``: how often each value will be
    taken; ``held``: slots of values.
    """

    def __init__(self, stage: Stage) -> None:
        self.left = Counter(
            [*stage.outputs[1:], *(root for step in stage.steps for root in step.roots)]
        )
        self.held = {step: slot for slot, step in enumerate(stage.begins[1:])}
        self.here, self.slots = stage.begins[0], len(self.held)
        self.free: list[int] = []
        self.rows: list[Row] = []

    def convolve(self, step: Convolution) -> None:
        """Replace the cells by the window's sums of a value."""
        self._reach(step.root)
        self._do(window=step.window)
        self.here = step.step

    def add_up(self, step: Sum) -> None:
        """Replace the cells by a sum of terms, that of the cells first."""
        first, *others = sorted(step.terms, key=lambda term: term.root != self.here)
        self._reach(first.root)
        self._do(mask=MULTIPLIED, term=first)
        for term in others:
            self.rows.append(Row(mask=self.held[term.root], term=term))
            self._take(term.root)
        self.here = step.step

    def _reach(self, root: int) -> None:
        """Have a value in the cells, for the last time or kept."""
        if self.here != root:
            self._keep()
            self._do(load=self.held[root])
            self.here = root
        self._take(root)
        self._keep()

    def _keep(self) -> None:
        """Write the cells to a slot if they will be taken again, and are in none."""
        if self.left[self.here] and self.here not in self.held:
            self.held[self.here] = self.free.pop() if self.free else self.slots
            self.slots = max(self.slots, self.held[self.here] + 1)
            self._do(keep=self.held[self.here])

    def _take(self, root: int) -> None:
        self.left[root] -= 1
        if not self.left[root] and root in self.held:
            self.free.append(self.held.pop(root))

    def _do(self, **what: Any) -> None:
        """In the last row, unless that does such a thing already, or one that comes after it."""
        names = ("load", "window", "keep", "mask")
        later = names[names.index(next(iter(what))) :]
        if self.rows and all(
            getattr(self.rows[-1], name) == getattr(Row(), name) for name in ("mask", *later)
        ):
            self.rows[-1] = replace(self.rows[-1], **what)
        else:
            self.rows.append(Row(**what))
