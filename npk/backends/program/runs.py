"""Runs: groups of a step that do the same at a distance of some groups, such as all degrees of a
depth spectrum.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """Pairs of groups, each a step behind the one before: group of the step, group of the source,
    segment of the mask, and factor.
    """

    into: int
    group: int
    segment: int
    scale: float
    times: int = 1
    into_step: int = 0
    group_step: int = 0

    @property
    def groups(self) -> slice:
        """The groups of the step."""
        step = self.into_step or 1
        return slice(self.into, self.into + self.times * step, step)

    def part(self, first: int, times: int) -> "Run":
        """Some of the pairs.

        Args:
            first: number of the first one.
            times: how many.
        """
        return self._replace(
            into=self.into + first * self.into_step,
            group=self.group + first * self.group_step,
            times=times,
        )


def runs_of(blocks: Iterable[tuple[int, int, int, float]]) -> tuple[Run, ...]:
    """Blocks of groups, those together that are a step behind one another.

    Args:
        blocks: group of the step, group of the source, segment and factor of each.

    Returns:
        The runs. No group of the step is twice in one.
    """
    found: list[Run] = []
    latest: dict[tuple[int, float], int] = {}
    for into, group, segment, scale in blocks:
        here = latest.get((segment, scale))
        if here is not None:
            run = found[here]
            steps = into - run.part(run.times - 1, 1).into, group - run.part(run.times - 1, 1).group
            fits = steps == (run.into_step, run.group_step) if run.times > 1 else steps[0] > 0
            if fits and steps[1] >= 0:
                found[here] = run._replace(
                    times=run.times + 1, into_step=steps[0], group_step=steps[1]
                )
                continue
        latest[segment, scale] = len(found)
        found.append(Run(into, group, segment, scale))
    return tuple(found)
