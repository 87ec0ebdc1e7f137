"""Runs: groups of a step that do the same at a distance of some groups, such as all degrees of a
depth spectrum.
"""

from typing import NamedTuple

import numpy as np


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


def runs_of(blocks: np.ndarray) -> tuple[Run, ...]:
    """Blocks of groups, those together that are a step behind one another.

    Args:
        blocks: group of the step, group of the source, segment and factor of each, ``(blocks, 4)``.

    Returns:
        The runs. No group of the step is twice in one.
    """
    steps = np.diff(blocks, axis=0)
    if len(steps) and (steps == steps[0]).all() and _is_behind(*steps[0].tolist()):
        into, group, segment, *ends = map(int, (*blocks[0, :3], *steps[0, :2]))
        return (Run(into, group, segment, float(blocks[0, 3]), len(blocks), *ends),)
    found: list[Run] = []
    latest: dict[tuple[int, float], int] = {}
    rows = zip(*blocks[:, :3].astype(int).T.tolist(), blocks[:, 3].tolist(), strict=True)
    for into, group, segment, scale in rows:
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


def _is_behind(into: float, group: float, segment: float, scale: float) -> bool:
    """Whether blocks that differ by so much may be neighbors in a run."""
    return into > 0 and group >= 0 and segment == scale == 0


def distinct(blocks: np.ndarray) -> bool:
    """Whether no two blocks, as in :func:`runs_of`, have the same segment and factor."""
    pairs = blocks[np.lexsort((blocks[:, 3], blocks[:, 2])), 2:]
    return bool((pairs[1:] != pairs[:-1]).any(1).all())
