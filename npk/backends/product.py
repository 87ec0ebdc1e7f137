"""Recursion -> Product: without positions, the kernel is a product of overlaps, to which biases are
added on the way.
"""

from dataclasses import dataclass

import numpy as np

from npk.recursion.masks import Mask
from npk.recursion.steps import Collapse, Field, Recursion, Term


@dataclass(frozen=True)
class Product:
    """K = ((overlap * factor + bias) * overlap * factor + bias) ..., over ``masks``; ``steps``: the
    last step of each factor.
    """

    masks: tuple[int, ...]
    factors: tuple[float, ...]
    biases: tuple[float, ...]
    steps: tuple[int, ...]

    @property
    def is_biased(self) -> bool:
        """Whether anything is added."""
        return any(self.biases)

    def scales(self, exponents: np.ndarray) -> np.ndarray:
        """Factor of each overlap under the exponents of the steps."""
        reached = exponents[list(self.steps)]
        return np.ldexp(np.array(self.factors), -np.diff(reached, prepend=0))

    def constants(self, exponents: np.ndarray) -> np.ndarray:
        """What is added behind each overlap under the exponents of the steps."""
        return np.ldexp(np.array(self.biases), -exponents[list(self.steps)])


@dataclass(frozen=True)
class _Link:
    """A step: overlaps so far times ``factor``, constants so far times ``carried``, plus ``bias``."""

    factor: float
    carried: float
    bias: float


def as_product(recursion: Recursion) -> Product | None:
    """The recursion as a product of overlaps, where it is one: dense layers and nothing beside."""
    masks: list[int] = []
    # of what lies before the first mask, then of each mask
    factors, biases, steps = [1.0], [0.0], [0]
    for number, step in enumerate(recursion.steps):
        if isinstance(step, Field):
            link, mask = _link_of_field(recursion, step, number), None
        else:
            link, mask = _link_of_collapse(step, number), _main(step).mask
        if link is None:
            return None
        if mask is not None:
            masks, steps = [*masks, mask], [*steps, number]
            factors, biases = [*factors, 1.0], [*biases, 0.0]
        factors[-1] *= link.factor
        biases[-1] = biases[-1] * link.carried + link.bias
        steps[-1] = number
    if not masks:
        return None
    first = (factors[0] + biases[0]) * factors[1]
    return Product(tuple(masks), (first, *factors[2:]), tuple(biases[1:]), tuple(steps[1:]))


def _main(step: Collapse) -> Term:
    """The term that is more than a constant, or else the first one."""
    more = (term for term in step.terms if not _is_constant(term))
    return next(more, step.terms[0])


def _is_constant(term: Term) -> bool:
    return term.field is None and term.mask is None


def _link_of_collapse(step: Collapse, number: int) -> _Link | None:
    """A collapse of one term with one mask or none, and constants beside; the first one may have
    positions.
    """
    if step.groups != 1 or (number and step.positions != 1):
        return None
    main = _main(step)
    beside = [term for term in step.terms if term is not main]
    if not all(map(_is_constant, beside)) or not all(map(_is_alike, step.terms)):
        return None
    if main.field != (number - 1 if number else None):
        return None
    return _Link(_factor(main), _factor(main), sum(map(_factor, beside)))


def _is_alike(term: Term) -> bool:
    """Whether a term has no family, and all of its positions one weight and one cell."""
    alike = bool((term.weights == term.weights[0, 0]).all()) and bool((term.cells == 0).all())
    return alike and term.family == 1 and len(term.blocks) == 1


def _factor(term: Term) -> float:
    return float(term.weights[0, 0]) ** 2 * (int(term.blocks[0, 3]) if term.mask is None else 1)


def _link_of_field(recursion: Recursion, step: Field, number: int) -> _Link | None:
    """A dense layer; the first one may add up all positions of the input."""
    first = recursion.steps[0]
    if (
        step.collapse != number - 1
        or step.positions != 1
        or step.groups != 1
        or not isinstance(first, Collapse)
    ):
        return None
    read = recursion.steps[step.collapse]
    if read.positions == 1 and len(step.taps) == 1 and step.taps[0, 0] == 0:
        return _Link(step.factor, step.factor, step.bias)
    term, taps = _main(first), np.sort(step.taps[:, 0])
    if number != 1 or not np.array_equal(taps, np.arange(first.positions)):
        return None
    several = step.factor * len(taps)
    if term.mask is None:
        return _Link(several, several, step.bias)
    if not _is_read_once(recursion.masks[term.mask], term.places[:, 0]):
        return None
    return _Link(step.factor, several, step.bias)


def _is_read_once(mask: Mask, places: np.ndarray) -> bool:
    return np.array_equal(np.sort(places), np.arange(mask.size))
