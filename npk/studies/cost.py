"""What a study will take: told before it begins, and kept within a budget."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from npk.errors import OptionError
from npk.gates.halfspaces import units
from npk.gram.pace import FEW, measure
from npk.progress import duration
from npk.results import KernelsOf, StudyPlan
from npk.studies.draws import MOST_TEST, SIZES, Draws
from npk.studies.kernels import RANDOM, TRAINED, UNTRAINED, Kernels

LARGER = (*SIZES, 1000, 3000)  # n that a budget may choose
_TESTS = (MOST_TEST, 500, 200, 100)  # test samples that it may choose
_UNITS = {"s": 1, "min": 60, "h": 3600, "": 1}
_PRODUCTS = 1e10  # multiplications a second of random half-spaces, about
_KEPT = 0.8  # share of a budget that kernels may take: fits, checks and the page need the rest


@dataclass(frozen=True)
class Pace:
    """How long parts of a study take for one network, in seconds."""

    name: str
    a_pair: float  # of samples, in a kernel
    a_sample: float  # to record its gates
    a_random_sample: float  # to draw gates of random half-spaces for it
    states: tuple[str, ...]  # gates that are studied

    def seconds(self, draws: Draws) -> float:
        """Of all kernels of the network.

        Args:
            draws: the samples.

        Returns:
            The time.
        """
        n, m, splits = draws.sizes[-1], len(draws.test), draws.splits
        rows = n * splits if draws.disjoint else min(n * splits, len(draws.fresh))
        found = 0.0
        if TRAINED in self.states:
            found += self.a_pair * rows * (rows / 2 + m) + self.a_sample * (rows + m)
        for gates, each in ((UNTRAINED, self.a_sample), (RANDOM, self.a_random_sample)):
            if gates in self.states:
                found += splits * (self.a_pair * n * (n / 2 + m) + each * (n + m))
        return found


@dataclass(frozen=True)
class Estimate:
    """What a study will take: samples, networks and seconds."""

    sizes: tuple[int, ...]
    splits: int
    test: int
    networks: tuple[tuple[str, float], ...]  # name and seconds of the kernels

    @property
    def seconds(self) -> float:
        """Of all kernels."""
        return sum(seconds for _, seconds in self.networks)

    def result(self) -> StudyPlan:
        """The estimate as plain values, as a file has it."""
        each = tuple(KernelsOf(name, seconds) for name, seconds in self.networks)
        return StudyPlan(self.sizes, self.splits, self.test, each, self.seconds)

    def __str__(self) -> str:
        sizes = ", ".join(f"{n:,}" for n in self.sizes)
        each = "; ".join(f"{name} {duration(seconds)}" for name, seconds in self.networks)
        return (
            f"n = {sizes} fresh samples in {self.splits} splits, {self.test:,} test samples: kernels "
            f"take about {duration(self.seconds)} ({each}); fits, measures and checks come on top"
        )


def pace(kernels: Kernels, states: Sequence[str]) -> Pace:
    """Measure on a few samples of a network.

    Args:
        kernels: of the network.
        states: gates that will be studied.

    Returns:
        The pace.
    """
    few = kernels.draws.fresh.X[:FEW]
    kernels.trained.record(few[:2])  # traces the network
    middle = time.perf_counter()
    table = kernels.trained.record(few)
    recorded = (time.perf_counter() - middle) / len(few)
    random = units(table) / _PRODUCTS
    return Pace(
        kernels.subject.name,
        measure(kernels.trained, table).seconds_a_pair,
        recorded,
        random,
        tuple(states),
    )


def estimate(paces: Sequence[Pace], draws: Draws) -> Estimate:
    """What a study of these samples will take.

    Args:
        paces: of the networks.
        draws: the samples.

    Returns:
        The estimate.
    """
    each = tuple((one.name, one.seconds(draws)) for one in paces)
    return Estimate(draws.sizes, draws.splits, len(draws.test), each)


def within(paces: Sequence[Pace], draws: Draws, budget: float) -> Draws:
    """The largest study that a budget allows: first as many fresh samples as possible, then as many
    test samples.

    Args:
        paces: of the networks.
        draws: of as many samples as there are.
        budget: seconds.

    Returns:
        Draws of fewer samples.

    Raises:
        OptionError: the smallest study takes longer.
    """
    tests = [m for m in _TESTS if m < len(draws.test)]
    for n in reversed(draws.sizes):
        for m in (len(draws.test), *tests):
            smaller = draws.smaller(n, m)
            if estimate(paces, smaller).seconds <= _KEPT * budget:
                return smaller
    smallest = estimate(paces, draws.smaller(draws.sizes[0], min(_TESTS[-1], len(draws.test))))
    least = duration(smallest.seconds / _KEPT)
    raise OptionError(
        f"a budget of {duration(budget)} is too small: the smallest study takes about {least}. Give "
        f"more, fewer networks, or fewer baselines."
    )


def parse_budget(budget: Any) -> float | None:
    """Seconds of "10min", "90s", "1.5h", or a number.

    Args:
        budget: what came; ``None`` for no budget.

    Returns:
        The seconds.

    Raises:
        OptionError: no time.
    """
    if budget is None:
        return None
    seconds = -1.0
    if isinstance(budget, Real) and not isinstance(budget, bool):
        seconds = float(budget)
    elif isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|min|h|)\s*", budget, re.ASCII)
        seconds = float(match[1]) * _UNITS[match[2]] if match else seconds
    if not 0 < seconds < float("inf"):
        raise OptionError(f"budget is {budget!r}. Give a time, such as 10min, 90s or 1h.")
    return seconds
