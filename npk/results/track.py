"""What was found of a network on the way through its training."""

import dataclasses
from typing import Literal

from npk.errors import DataError
from npk.results.base import Result
from npk.results.study import Accuracy, KernelSummary, Measure, NetworkSummary
from npk.typed import Typed


@dataclasses.dataclass(frozen=True)
class Move(Typed):
    """How far kernel and gates went between two epochs, on the same samples."""

    since: int  # the earlier epoch
    epoch: int
    angle: float | None  # arccos of the CKA, in radians; None: there is none, as of few samples
    angle_low: float | None
    angle_high: float | None
    level: float | None  # of the bootstrap interval
    layers: tuple[str, ...]  # gate layers; empty: soft gates, which do not flip
    flips: tuple[float, ...]  # share of each layer's gates that differ
    flips_error: tuple[float | None, ...]  # standard error over samples
    samples: int

    @property
    def velocity(self) -> float | None:
        """Radians an epoch."""
        return None if self.angle is None else self.angle / (self.epoch - self.since)


@dataclasses.dataclass(frozen=True)
class TrackResult(Result):
    """Everything that `npk track` found; its page is made from this and nothing else.

    Networks, accuracies, measures and kernels are those of :class:`npk.results.StudyResult`; the
    network of epoch e is called "epoch e".
    """

    version: str  # npk's version
    command: str  # what makes all of it again; empty where Python was called
    data: str
    test: str
    classes: list[str]  # empty: no labels
    seen: Literal["seen", "fresh", "not known"]
    samples_fresh: int  # in all draws together
    samples_test: int
    size: int  # fresh samples of each draw
    splits: int
    disjoint: bool  # no sample is in two draws
    scale: str
    seed: int
    seconds: float
    machine: str
    epochs: tuple[int, ...]  # ascending
    networks: tuple[NetworkSummary, ...]
    accuracies: tuple[Accuracy, ...]
    gain: float | None  # of ridge on the gates, last epoch less first, in shares; None: no labels
    gain_error: float | None  # standard error of the paired difference
    measures: tuple[Measure, ...]
    from_start: tuple[Move, ...]  # of each epoch but the first
    steps: tuple[Move, ...]  # between neighbors
    kernels: tuple[KernelSummary, ...]
    curve_train: list[float]  # loss of each epoch; empty: not known
    curve_validation: list[float | None]  # accuracy of each epoch
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or epochs that do not ascend.
        """
        super().__post_init__()
        if sorted(set(self.epochs)) != list(self.epochs):
            raise DataError(f"epochs are {self.epochs}, and must ascend")
