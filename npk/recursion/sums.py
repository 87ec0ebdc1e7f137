r"""Terms that read the same mask are one: their fields are added before the overlap.

.. math:: \sum_i V_i O + c\, O = \big(\sum_i V_i + c\big) O

with the overlap O taken once. The sums of a stream that no gate masks grow by a field a block.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from npk.recursion.steps import Collapse, Field, Term

# fields, what each is multiplied by at either end, and how often it is there
_Parts = frozenset[tuple[int, float, int]]


@dataclass
class Sums:
    """Sums of fields as steps of a plan, equal ones once.

    Args:
        steps: of the plan so far; sums are added to them.
    """

    steps: list[Collapse | Field]
    known: dict[tuple[_Parts, float], int] = field(default_factory=dict)

    def merged(self, name: str, terms: Iterable[Term]) -> tuple[Term, ...]:
        """The terms of a collapse, those of equal masks, places and blocks as one.

        Args:
            name: of the node.
            terms: of the collapse.

        Returns:
            Terms that add up to the same.
        """
        alike: dict[tuple, list[Term]] = {}
        for number, term in enumerate(terms):
            alike.setdefault(_key(term, number), []).append(term)
        return tuple(one for some in alike.values() for one in self._merged(name, some))

    def _merged(self, name: str, terms: list[Term]) -> Iterator[Term]:
        """Terms of one mask: a sum for all fields that are read at the same cells, the first of
        which takes the constants too.
        """
        read: dict[tuple, list[Term]] = {}
        for term in terms:
            if term.field is not None:
                key = (term.cells.tobytes(), *self._form(term.field))
                read.setdefault(key, []).append(term)
        constants = [term for term in terms if term.field is None]
        if not read:
            yield from constants
        for some in read.values():
            yield self._one(name, some, constants)
            constants = []

    def _form(self, number: int) -> tuple:
        step = self.steps[number]
        return step.grid, step.positions, step.groups

    def _one(self, name: str, terms: list[Term], constants: list[Term]) -> Term:
        first, *more = terms
        if not more and not constants:
            return first
        often = Counter((term.field or 0, abs(_top(term) / _top(first))) for term in terms)
        parts = frozenset((*part, count) for part, count in often.items())
        added = sum((_top(term) / _top(first)) ** 2 for term in constants)
        return Term(
            self._sum(name, parts, added),
            *(first.cells, first.mask, first.places, first.weights, first.blocks),
        )

    def _sum(self, name: str, parts: _Parts, added: float) -> int:
        """The step that has a sum: from the largest one that is known and a part of it."""
        known, there, has = self._largest(parts, added)
        if rest := parts - known:
            terms = [self._part(there, 1.0, 1)] if known else []
            terms += [self._part(*part) for part in sorted(rest)]
            grid, positions, groups = self._form(min(parts)[0])
            self.steps.append(Collapse(f"sum for {name}", tuple(terms), grid, positions, groups))
            there = self.known[parts, has] = len(self.steps) - 1
        if added > has:
            grid, positions, groups = self._form(there)
            taps, rest = np.arange(positions)[None], added - has
            made = (f"bias for {name}", there, taps, 1.0, rest, grid, positions, groups)
            self.steps.append(Field(*made, layer=False))
            there = self.known[parts, added] = len(self.steps) - 1
        return there

    def _largest(self, parts: _Parts, added: float) -> tuple[_Parts, int, float]:
        """A part of a sum, its step, and the constant that it has."""
        alone = {(frozenset([part]), 0.0): part[0] for part in parts if part[1:] == (1.0, 1)}
        fits = (
            (known, step, has)
            for (known, has), step in (alone | self.known).items()
            if known <= parts and has <= added
        )
        return max(fits, key=lambda fit: (len(fit[0]), fit[2]), default=(frozenset(), 0, 0.0))

    def _part(self, number: int, times: float, often: int) -> Term:
        """A field as it is, in a sum of fields."""
        _, positions, groups = self._form(number)
        cells, group = np.arange(positions)[:, None], np.arange(groups)
        blocks = np.stack([group, group, np.zeros_like(group), np.full_like(group, often)], 1)
        return Term(number, cells, None, np.zeros_like(cells), np.full(cells.shape, times), blocks)


def _top(term: Term) -> float:
    """The largest weight, with its sign, which comes twice in every product of two."""
    weights = term.weights[term.cells >= 0]
    return float(weights[np.abs(weights).argmax()])


def _key(term: Term, number: int) -> tuple:
    """Equal for terms whose sum has one overlap."""
    inside = term.cells >= 0
    if term.mask is None or not inside.any() or not _top(term):
        return (number,)
    shares = np.where(inside, term.weights / _top(term), 0.0)
    tables = (inside, np.where(inside, term.places, 0), shares, term.blocks)
    return (term.mask, *(part for table in tables for part in (table.shape, table.tobytes())))
