"""Which motions of the input leave the kernel as it is, whatever the weights: what the structure of
a network promises.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from npk.structure.motions import Motion, Shift
from npk.structure.probe import Probe
from npk.structure.shifts import (
    STILL,
    ShiftGroup,
    left_behind,
    outside_gates,
    shift_group,
    why_broken,
)

if TYPE_CHECKING:
    from npk.gates.table import GateTable
    from npk.reading.tracing import Trace

_LOOKED_AT = 2  # samples whose hard gates from outside are put into the copy


class Prediction:
    """What the structure of a traced network says of motions of its input.

    Args:
        trace: of the network.
    """

    def __init__(self, trace: "Trace") -> None:
        self.graph, self.outside = trace.graph, outside_gates(trace)
        self.probe = Probe(self.graph, self.outside)
        self._kept: dict[Motion, bool] = {}

    @cached_property
    def shifts(self) -> ShiftGroup:
        """The circular shifts that are kept, gates from outside assumed to move with the input."""
        return shift_group(self.graph, self.outside)

    def keeps(self, motion: Motion) -> bool:
        """Whether K(g x, x') = K(x, x') for all samples, gates from outside assumed to move."""
        if motion not in self._kept:
            self._kept[motion] = self._keeps(motion)
        return self._kept[motion]

    def _keeps(self, motion: Motion) -> bool:
        if motion.is_identity:
            return True
        if isinstance(motion, Shift) and motion.circular:
            steps = self.shifts.steps
            return steps is not None and not any(
                r % s for r, s in zip(motion.by, steps, strict=True)
            )
        return self.probe.keeps(motion)

    def reason(self, motion: Motion) -> str:
        """What breaks a motion."""
        return why_broken(self.probe, motion)

    def places(self, motion: Motion) -> dict[str, np.ndarray | None]:
        """For each gate layer, which of its positions each one shows after a motion of the input;
        ``None`` where it does not move by whole positions.
        """
        own = {node.gate: motion.taps(node.grid) for node in self.graph.gates}
        axes = len(motion.grid)
        others = [n for n in self.graph.gates if n.positions > 1 and len(n.grid) != axes]
        told = isinstance(motion, Shift) and all(own[name] is not None for name in self.outside)
        if not others and (told or not self.outside):
            return own
        found = self.probe.places(motion)
        return {
            name: found[name] if taps is None or name in self.outside else taps
            for name, taps in own.items()
        }

    def holds(
        self,
        motion: Motion,
        table: "GateTable",
        moved: "GateTable",
        places: dict[str, np.ndarray | None],
    ) -> tuple[bool, str]:
        """The prediction on samples, whose gates from outside are known.

        Args:
            motion: of the input.
            table: gates of the samples.
            moved: gates of the moved samples.
            places: as :meth:`places` gives them.

        Returns:
            Whether the motion is kept, and what breaks it where gates from outside do.
        """
        kept = self.keeps(motion)
        if not self.outside or motion.is_identity:
            return kept, ""
        if kept:
            still = left_behind(table, moved, places, self.outside)
            return not still, f"{STILL} at {still}" if still else ""
        if any(table.entries[name].kind != "hard" for name in self.outside):
            return False, ""
        few = range(min(_LOOKED_AT, len(table)))
        return all(
            self.probe.keeps_under(motion, self._of(table, i), self._of(moved, i)) for i in few
        ), ""

    def _of(self, table: "GateTable", sample: int) -> dict[str, np.ndarray]:
        one = table.take(slice(sample, sample + 1))
        return {name: one[name][0] for name in self.outside}
