"""Recursion -> Product: without positions, the kernel is a product of overlaps."""

from dataclasses import dataclass

import numpy as np

from npk.recursion.masks import Mask
from npk.recursion.steps import Collapse, Field, Recursion


@dataclass(frozen=True)
class Product:
    """K = product over ``masks`` of overlap * factor; ``steps``: the last step of each factor."""

    masks: tuple[int, ...]
    factors: tuple[float, ...]
    steps: tuple[int, ...]

    def scales(self, exponents: np.ndarray) -> np.ndarray:
        """Factor of each overlap under the exponents of the steps."""
        reached = exponents[list(self.steps)]
        return np.ldexp(np.array(self.factors), -np.diff(reached, prepend=0))


def as_product(recursion: Recursion) -> Product | None:
    """The recursion as a product of overlaps, where it is one: dense layers and nothing beside."""
    masks: list[int] = []
    factors, steps = [1.0], [0]  # of what lies before the first mask, then of each mask
    for number, step in enumerate(recursion.steps):
        if isinstance(step, Field):
            factor = factor_of_field(recursion, step, number)
        else:
            factor = factor_of_link(step, number)
        if factor is None:
            return None
        if isinstance(step, Collapse) and (mask := step.terms[0].mask) is not None:
            masks, factors, steps = [*masks, mask], [*factors, 1.0], [*steps, number]
        factors[-1], steps[-1] = factors[-1] * factor, number
    if not masks:
        return None
    return Product(tuple(masks), (factors[0] * factors[1], *factors[2:]), tuple(steps[1:]))


def factor_of_link(step: Collapse, number: int) -> float | None:
    """Factor of a collapse of one term with one mask or none; the first one may have positions."""
    if len(step.terms) != 1 or step.groups != 1 or (number and step.positions != 1):
        return None
    (term,) = step.terms
    alike = bool((term.weights == term.weights[0, 0]).all()) and bool((term.cells == 0).all())
    if (
        term.family != 1
        or len(term.blocks) != 1
        or not alike
        or term.field != (number - 1 if number else None)
    ):
        return None
    return float(term.weights[0, 0]) ** 2 * (int(term.blocks[0, 3]) if term.mask is None else 1)


def factor_of_field(recursion: Recursion, step: Field, number: int) -> float | None:
    """Factor of a dense layer; the first one may add up all positions of the input."""
    first = recursion.steps[0]
    if (
        step.collapse != number - 1
        or step.bias
        or step.positions != 1
        or step.groups != 1
        or not isinstance(first, Collapse)
    ):
        return None
    read = recursion.steps[step.collapse]
    if read.positions == 1 and len(step.taps) == 1 and step.taps[0, 0] == 0:
        return step.factor
    term, taps = first.terms[0], np.sort(step.taps[:, 0])
    if number != 1 or not np.array_equal(taps, np.arange(first.positions)):
        return None
    if term.mask is None:
        return step.factor * len(taps)
    return step.factor if _is_read_once(recursion.masks[term.mask], term.places[:, 0]) else None


def _is_read_once(mask: Mask, places: np.ndarray) -> bool:
    return np.array_equal(np.sort(places), np.arange(mask.size))
