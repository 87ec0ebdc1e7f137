"""The options of a training, checked when they are given."""

import dataclasses
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import get_args

from npk.choices import LossName, OptimizerName, ScheduleName, SelectName
from npk.errors import OptionError

CHOICES = {
    "optimizer": get_args(OptimizerName),
    "loss": get_args(LossName),
    "schedule": get_args(ScheduleName),
    "select": (None, *get_args(SelectName)),
}
AUGMENTATIONS = ("shift", "flip", "crop")
_ENDS_AT_ZERO = ("one-cycle", "cosine")


@dataclasses.dataclass(frozen=True)
class Options:
    """What changes the numbers of a training, or what is kept of it."""

    validation: float
    epochs: int
    batch_size: int
    optimizer: str
    loss: str
    learning_rate: float
    weight_decay: float
    momentum: float
    schedule: str
    warm_up: float
    milestones: Sequence[int] | None
    label_smoothing: float
    augment: str | Sequence[str] | None
    shift: int
    select: str | None
    patience: int | None
    snapshots: Sequence[int]
    seed: int

    def __post_init__(self) -> None:
        """Check every option, and those that depend on one another.

        Raises:
            OptionError: a value that cannot be used, or options that contradict each other.
        """
        self._check_choices()
        self._check_numbers()
        self._check_schedule()
        self._check_epochs()
        self._check_selection()
        self._augmentations()

    @property
    def selection(self) -> str:
        """Which epoch's weights the network gets: ``select``, or what suits the other options."""
        if self.select is not None:
            return self.select
        if self.patience is not None:
            return "loss"
        return "last" if self.schedule in _ENDS_AT_ZERO or self.validation == 0 else "accuracy"

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What is done to the images of a batch, in this order."""
        return self._augmentations()

    @property
    def drops(self) -> tuple[float, ...]:
        """After how many epochs the step schedule divides the rate by 10."""
        half_and_later = (0.5 * self.epochs, 0.75 * self.epochs)
        return half_and_later if self.milestones is None else tuple(self.milestones)

    def _check_choices(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in allowed:
                raise OptionError(
                    f"{name} is {value!r}, it must be one of {', '.join(map(str, allowed))}. "
                    f"Choose one of these."
                )

    def _check_numbers(self) -> None:
        patience = () if self.patience is None else ("patience",)
        for name in ("epochs", "batch_size", "shift", *patience):
            value = getattr(self, name)
            if not _is_number(value, Integral) or value < 1:
                raise OptionError(
                    f"{name} is {value!r}, it must be a positive whole number. Correct it."
                )
        if not _is_number(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise OptionError(
                f"seed is {self.seed!r}, it must be a whole number from 0 to 2**32 - 1. Correct it."
            )
        shares = ("validation", "label_smoothing", "momentum")
        for name in (*shares, "weight_decay", "learning_rate", "warm_up"):
            value, top = getattr(self, name), 1 if name in shares else math.inf
            if not _is_number(value, Real) or not 0 <= value < top:
                raise OptionError(
                    f"{name} is {value!r}, it must be at least 0 and below {top}. Correct it."
                )

    def _check_schedule(self) -> None:
        if self.warm_up and self.schedule == "one-cycle":
            raise OptionError(
                f"warm_up is {self.warm_up!r}, but a one-cycle schedule rises for 30 % of the "
                f"epochs already. Leave it out, or choose schedule='cosine', 'step' or "
                f"'constant'."
            )
        if self.warm_up > self.epochs:
            raise OptionError(
                f"warm_up is {self.warm_up!r} epochs of {self.epochs}. Give fewer of them, or "
                f"train longer."
            )
        if self.milestones is not None and self.schedule != "step":
            raise OptionError(
                f"milestones belong to schedule='step', and it is {self.schedule!r}. Leave "
                f"milestones out, or choose that schedule."
            )

    def _check_epochs(self) -> None:
        given = {"snapshots": self.snapshots, "milestones": self.milestones or ()}
        for name, epochs in given.items():
            least = 1 if name == "milestones" else 0
            if not _are_epochs(epochs, least, self.epochs):
                raise OptionError(
                    f"{name} is {epochs!r}, it must hold ascending whole numbers of epochs from "
                    f"{least} to {self.epochs}. Correct it."
                )

    def _check_selection(self) -> None:
        chosen = self.selection
        if chosen != "last" and self.validation == 0:
            why = f"select is {chosen!r}" if self.select else "patience is given"
            raise OptionError(
                f"{why}, but no samples are kept for validation. Give validation= a share above 0, "
                f"or take the last epoch."
            )
        if self.patience is not None and chosen == "last":
            raise OptionError(
                "patience stops where validation gets no better, and select='last' does not look "
                "at it. Leave one of them out."
            )

    def _augmentations(self) -> tuple[str, ...]:
        given = self.augment.split(",") if isinstance(self.augment, str) else self.augment
        names = list(given) if isinstance(given, list | tuple) else [given] * (given is not None)
        if not all(isinstance(name, str) and name in AUGMENTATIONS for name in names):
            raise OptionError(
                f"augment is {self.augment!r}, it must name one or several of "
                f"{', '.join(AUGMENTATIONS)}. Choose of these."
            )
        return tuple(name for name in AUGMENTATIONS if name in names)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_epochs(given: object, least: int, most: int) -> bool:
    if not isinstance(given, list | tuple | range) or not all(
        _is_number(e, Integral) for e in given
    ):
        return False
    return list(given) == sorted(set(given)) and all(least <= epoch <= most for epoch in given)
