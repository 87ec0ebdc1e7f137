"""The motions that a check of invariance looks at: groups by name, permutations and functions of
the user's, all of them or some that are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import numpy as np

from npk.errors import DataError, OptionError
from npk.graph.positions import Grid
from npk.structure import motions
from npk.structure.motions import Motion, Permutation, Shift

Given = Sequence[int] | np.ndarray | Callable[[np.ndarray], np.ndarray]
Group = str | Mapping[str, Given]
Shifts = str | int | Sequence[tuple[int, ...]]

GROUPS: dict[str, tuple[str, Callable[[Grid], tuple[Motion, ...]]]] = {
    "circular": ("circular shifts", motions.shifts),
    "filled": ("shifts that fill with zeros", lambda grid: motions.shifts(grid, circular=False)),
    "reflections": ("reflections", motions.reflections),
    "turns": ("turns", motions.turns),
    "dihedral": ("turns and reflections", lambda grid: motions.turns(grid, reflected=True)),
}
_FEW = 256  # elements that are looked at where nothing else is said


@dataclass(frozen=True)
class Mapped:
    """A function of the user's on samples, of which structure tells nothing."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]
    by: Grid = ()
    distance: float = 0.0
    is_identity: bool = False

    def moved(self, X: np.ndarray) -> np.ndarray:
        """What it makes of samples.

        Raises:
            DataError: other shapes, or numbers that are not finite.
        """
        result = np.asarray(self.function(X.copy()))
        if result.shape != X.shape or not np.isfinite(result).all():
            raise DataError(
                f"the function {self.name!r} of group= makes {result.shape} of samples of shape "
                f"{X.shape}, or values that are not finite. Let it give samples of one shape."
            )
        return result.astype(X.dtype, copy=False)


Element = Motion | Mapped


@dataclass(frozen=True)
class Family:
    """What is looked at: ``elements`` of a group of ``size``; ``title`` in words."""

    title: str
    elements: tuple[Element, ...]
    size: int


def family(
    group: Group, grid: Grid, shifts: Shifts, keeps: Callable[[Motion], bool], seed: int
) -> Family:
    """The elements to look at.

    Args:
        group: a name of ``GROUPS``, or permutations of positions and functions by name.
        grid: sides of a sample.
        shifts: "auto" (all where they are at most 256, else so many that are drawn), "all", how
            many to draw, or a list of them.
        keeps: what structure says of a motion: half of those that are drawn are kept, if there are
            so many.
        seed: of the draw.

    Returns:
        The elements, the identity first where there is one.

    Raises:
        OptionError: no such group, or shifts that do not fit.
    """
    if isinstance(group, Mapping):
        _only_auto(shifts, "named elements")
        made = tuple(_element(name, value, grid) for name, value in group.items())
        if not made:
            raise OptionError("group={} has no elements. Name at least one.")
        return Family("elements of the user's", made, len(made))
    if not isinstance(group, str) or group not in GROUPS:
        raise OptionError(
            f"group={group!r} is not known. Choose one of {', '.join(GROUPS)}, or give permutations "
            f"and functions by name."
        )
    title, make = GROUPS[group]
    if group not in ("circular", "filled"):
        if len(grid) < 2 and group != "reflections":
            raise OptionError(f"samples with positions {grid} do not turn. Give images.")
        _only_auto(shifts, title)
        return Family(title, whole := make(grid), len(whole))
    if not isinstance(shifts, str | Integral):
        return _listed(title, shifts, grid, group == "circular", len(make(grid)))
    whole = sorted(make(grid), key=lambda motion: not motion.is_identity)
    # no shift that loses something is ever promised, and asking of each would take long
    known = keeps if group == "circular" else (lambda motion: motion.is_identity)
    return Family(title, _drawn(whole, _count(shifts, len(whole)), known, seed), len(whole))


def _only_auto(shifts: Shifts, title: str) -> None:
    if not isinstance(shifts, str) or shifts not in ("auto", "all"):
        raise OptionError(f"shifts={shifts!r} is for groups of shifts, not {title}. Leave it out.")


def _element(name: str, value: Any, grid: Grid) -> Element:
    if callable(value):
        return Mapped(name, cast(Callable[[np.ndarray], np.ndarray], value))
    places, count = np.asarray(value), int(np.prod(grid))
    if places.dtype.kind not in "iu" or not np.array_equal(
        np.sort(places.reshape(-1)), np.arange(count)
    ):
        raise OptionError(
            f"element {name!r} of group= is no permutation of the {count} positions of {grid}. Give "
            f"each of 0 to {count - 1} once, or a function."
        )
    return Permutation(grid, tuple(places.reshape(-1).tolist()), name)


def _listed(title: str, shifts: Any, grid: Grid, circular: bool, size: int) -> Family:
    try:
        steps = [tuple(int(side) for side in shift) for shift in shifts]
    except TypeError:
        steps = []
    if not steps or any(len(shift) != len(grid) for shift in steps):
        raise OptionError(
            f"shifts={shifts!r} does not fit positions {grid}. Give at least one "
            f"shift with {len(grid)} numbers each."
        )
    return Family(title, tuple(Shift(grid, step, circular) for step in steps), size)


def _count(shifts: str | int, size: int) -> int:
    """How many of all elements."""
    if shifts == "auto":
        return min(size, _FEW)
    if shifts == "all":
        return size
    if isinstance(shifts, str) or isinstance(shifts, bool) or shifts < 2:
        raise OptionError(
            f'shifts={shifts!r} is not known. Give "auto", "all", how many to draw (2 or more), or '
            f"a list of shifts such as [(0, 1), (2, 2)]."
        )
    return min(size, int(shifts))


def _drawn(
    whole: Sequence[Motion], count: int, keeps: Callable[[Motion], bool], seed: int
) -> tuple[Motion, ...]:
    """All, or the identity and some of each kind, in order."""
    if count == len(whole):
        return tuple(whole)
    rng, kept = np.random.default_rng(seed), np.array([keeps(motion) for motion in whole])
    kept[0] = False  # the identity is taken anyway
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)[1:]
    half = min(len(inside), max((count - 1) // 2, count - 1 - len(outside)))
    chosen = [rng.choice(inside, half, False), rng.choice(outside, count - 1 - half, False)]
    return tuple(whole[i] for i in [0, *np.sort(np.concatenate(chosen)).tolist()])
