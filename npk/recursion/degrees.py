r"""All depths at once: the recursion with a group for each number of layers that its paths pass.

The kernel under a variance s of every layer is a polynomial in s; its coefficients are added, and
moved on by one at a layer, never subtracted. All of one step lie beside one another, so that masks
are formed and overlaps taken once for all degrees.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from npk.graph.positions import OUTSIDE
from npk.recursion.automaton import Automaton, Row, contributes
from npk.recursion.steps import Collapse, Field, Recursion, Term

_NO_LAYERS = (0,)


def depths(recursion: Recursion) -> tuple[int, ...]:
    """The numbers of layers that the paths of a recursion pass.

    Args:
        recursion: the plan of a kernel.

    Returns:
        The numbers, ascending.
    """
    return _degrees(recursion)[-1]


def by_depth(recursion: Recursion) -> Recursion:
    """The recursion of the kernels of all depths.

    Args:
        recursion: the plan of a kernel.

    Returns:
        Another plan over the same masks, with a part for each of :func:`depths`.
    """
    return _ByDegree(recursion, _degrees(recursion)).made()


def _degrees(recursion: Recursion) -> list[tuple[int, ...]]:
    """For each step, how many layers the paths there have passed, ascending; of a field without
    those that its bias begins.
    """
    found: list[tuple[int, ...]] = []
    for step in recursion.steps:
        if isinstance(step, Field):
            degrees = {degree + step.layer for degree in found[step.collapse]}
        else:
            degrees = set()
            for number in {term.field for term in step.terms if contributes(term)}:
                if number is None:
                    degrees.add(0)
                    continue
                read = recursion.steps[number]
                assert isinstance(read, Field)  # as that of every term that was not merged
                degrees |= {*found[number], *([int(read.layer)] if read.bias else [])}
        found.append(tuple(sorted(degrees)))
    return found


class Degrees(Automaton):
    """One depth alone: the state is the number of layers passed."""

    def __init__(self, recursion: Recursion) -> None:
        self.layer = [isinstance(step, Field) and step.layer for step in recursion.steps]
        self.states = _longest(recursion) + 1

    def behind_layer(self, field: int, state: int) -> Row:
        """One layer fewer."""
        before = state - self.layer[field]
        return ((before, 1.0),) if before >= 0 else ()


def _longest(recursion: Recursion) -> int:
    """Most layers on a path."""
    found: list[int] = []
    for step in recursion.steps:
        before = max((found[source] for source in step.sources), default=0)
        found.append(before + (isinstance(step, Field) and step.layer))
    return found[-1]


@dataclass
class _ByDegree:
    """Makes the steps that some path reaches and something reads; group ``degree * groups + group``
    of a step belongs to one of its degrees and one of its groups.
    """

    recursion: Recursion
    degrees: list[tuple[int, ...]]
    steps: list[Collapse | Field] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)  # where steps are in the new recursion
    masks: dict[int, int] = field(default_factory=dict)

    def made(self) -> Recursion:
        for number in self.needed():
            step = self.recursion.steps[number]
            groups = step.groups * len(self.degrees[number])
            if isinstance(step, Field):
                made = replace(step, collapse=self.at[step.collapse], bias=0.0, groups=groups)
            else:
                terms = (one for term in step.terms for one in self.terms(number, term))
                made = replace(step, terms=tuple(terms), groups=groups)
            self.at[number] = len(self.steps)
            self.steps.append(made)
        return Recursion(tuple(self.steps), tuple(self.recursion.masks[k] for k in self.masks))

    def needed(self) -> list[int]:
        """The steps that are read, and the last one, in order."""
        last = len(self.recursion.steps) - 1
        read = {last}
        for number in range(last, -1, -1):
            if number in read:
                step = self.recursion.steps[number]
                sources = (
                    step.sources
                    if isinstance(step, Field)
                    else [t.field for t in step.terms if t.field is not None and contributes(t)]
                )
                read |= {source for source in sources if self.degrees[source]}
        return sorted(read)

    def terms(self, number: int, term: Term) -> Iterator[Term]:
        """What a term becomes: one for all degrees of its field, and one for its bias."""
        if not contributes(term):
            return
        if term.field is None:
            yield self.with_blocks(term, number, 1, _NO_LAYERS, _NO_LAYERS)
            return
        read = self.recursion.steps[term.field]
        assert isinstance(read, Field)  # as that of every term that was not merged
        if known := self.degrees[term.field]:
            here = replace(term, field=self.at[term.field])
            yield self.with_blocks(here, number, read.groups, known, known)
        if read.bias:  # V = 1 has one cell and one group
            cells = np.where(term.cells == OUTSIDE, OUTSIDE, 0)
            blocks, weights = term.blocks * np.array([1, 0, 1, 1]), term.weights * read.bias**0.5
            begun = replace(term, field=None, cells=cells, blocks=blocks, weights=weights)
            yield self.with_blocks(begun, number, 1, (int(read.layer),), _NO_LAYERS)

    def with_blocks(
        self, term: Term, number: int, groups: int, degrees: tuple[int, ...], known: tuple[int, ...]
    ) -> Term:
        """The term with its blocks once for each degree; ``known``: those of its source, which has
        so many ``groups`` a degree.
        """
        into = np.searchsorted(self.degrees[number], degrees) * self.recursion.steps[number].groups
        moves = np.stack([into, np.arange(len(known)) * groups, *2 * [np.zeros_like(into)]], 1)
        mask = term.mask
        if mask is not None:
            mask = self.masks.setdefault(mask, len(self.masks))
        blocks = (moves[:, None] + term.blocks).reshape(-1, 4)
        return replace(term, blocks=blocks, mask=mask)
