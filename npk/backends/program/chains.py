"""Chains: masks of one cell that each have one factor more than the mask before.

The stream of a residual network meets one gate a block, so the terms of a collapse carry the
products of the last 1, 2, 3, ... gates. Kept for each sample they would be b^2 / 2 masks a stage;
in the order of their sources, latest first, each follows from the one before by the gate that is
new.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from npk.recursion.masks import Mask

SHORTEST = 3  # masks of a chain


class Step(NamedTuple):
    """A term as a member of a chain: whose it is, its mask, where that is read, and whether it can
    be a member at all.
    """

    owner: tuple[int, int]
    mask: Mask | None
    places: tuple[int, int]
    fit: bool


@dataclass
class Chains:
    """Finds chains; remembers what was found for each pair of masks."""

    found: dict[tuple[Mask, Mask], Mask | None] = field(default_factory=dict)

    def link(self, steps: list[Step]) -> list[tuple[Mask | None, int, int]]:
        """For each step the mask to read, the number of its chain (-1: none) and whether it starts
        one.
        """
        added = self._added(steps)
        runs: list[list[int]] = []
        latest: dict[tuple[int, int], list[int]] = {}
        for number, step in enumerate(steps):
            if added[number] is None:
                latest[step.owner] = []
                runs.append(latest[step.owner])
            latest[step.owner].append(number)
        linked: list[tuple[Mask | None, int, int]] = [(step.mask, -1, 0) for step in steps]
        for chain, run in enumerate([run for run in runs if len(run) >= SHORTEST]):
            for number in run:
                linked[number] = (added[number] or steps[number].mask, chain, int(number == run[0]))
        return linked

    def _added(self, steps: list[Step]) -> list[Mask | None]:
        """What each mask has more than the one before of its owner; ``None`` where it does not
        follow.
        """
        before: dict[tuple[int, int], Step] = {}
        found: list[Mask | None] = []
        for step in steps:
            last = before.get(step.owner)
            follows = last is not None and last.fit and step.fit and last.places == step.places
            found.append(self._difference(last.mask, step.mask) if follows else None)  # type: ignore[union-attr, arg-type]
            before[step.owner] = step
        return found

    def _difference(self, first: Mask, second: Mask) -> Mask | None:
        """The factors of the second mask that the first one lacks, where it has all others."""
        if (first, second) not in self.found:
            self.found[first, second] = self._subtract(first, second)
        return self.found[first, second]

    def _subtract(self, first: Mask, second: Mask) -> Mask | None:
        if first.segments != second.segments or first.size != second.size:
            return None
        if first.weights is not None or second.weights is not None:
            return None  # a sum has no factors
        has, rows = set(_rows(first)), _rows(second)
        new = [k for k, row in enumerate(rows) if row not in has]
        if not new or len(has - set(rows)):
            return None
        factors = tuple(second.factors[k] for k in new)
        return Mask(
            factors,
            second.channels[new],
            second.positions[new],
            second.offsets[new],
            second.segments,
        )


def _rows(mask: Mask) -> list[tuple]:
    """One entry a factor, equal for equal factors read alike."""
    arrays = zip(mask.channels, mask.positions, mask.offsets, strict=True)
    return [
        (factor, *(a.tobytes() for a in row))
        for factor, row in zip(mask.factors, arrays, strict=True)
    ]
