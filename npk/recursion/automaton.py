r"""Paths weighed by the layers that they pass: a recursion becomes another one over the same masks.

An automaton reads the layers of a path, from the input on. Every step of a recursion comes once for
each state in which paths may be behind it: with the states *value* and *slope* the slopes of a
product, with a state a degree the coefficients of a polynomial. What is computed is

.. math:: \sum_p w(p)\, \phi_x[p]\, \phi_{x'}[p],

where w(p) is the sum, over all runs of the automaton on p, of the products of their moves' weights.
Weights are never negative, so nothing cancels that does not cancel in the kernel itself. Copies of
which no path makes a part, or that nothing reads, are left out.
"""

from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npk.graph.positions import OUTSIDE
from npk.recursion.steps import Collapse, Field, Recursion, Term

START = 0  # the state in which a path begins
Row = tuple[tuple[int, float], ...]  # states and their weights, none of them 0


class Automaton(ABC):
    """How paths are weighed; a new one says where states come from.

    A move of weight 0 is left out.
    """

    states: int

    def behind_layer(self, field: int, state: int) -> Row:
        """The states before a field from which its layer leads to a state, with their weights.

        Args:
            field: number of the step.
            state: behind the field.
        """
        return ((state, 1.0),)

    def begun_at(self, field: int, state: int) -> float:
        """The weight in a state of a path that begins at a field's layer, with its bias.

        Args:
            field: number of the step.
            state: behind the field.
        """
        return dict(self.behind_layer(field, state)).get(START, 0.0)

    def in_sum(self, collapse: int, field: int | None, state: int) -> Row:
        """The states behind a field from which a term of a collapse goes on in a state.

        Args:
            collapse: number of the step.
            field: of the term; ``None`` where paths begin.
            state: in the collapse.
        """
        return ((state, 1.0),)


@dataclass(frozen=True)
class _Source:
    """A field in a state, and how often a term reads it: ``field`` is ``None`` for V = 1."""

    field: int | None
    state: int
    weight: float


def weighed(recursion: Recursion, automaton: Automaton, outputs: Sequence[Row]) -> Recursion:
    """The recursion whose paths are weighed by an automaton.

    Args:
        recursion: the plan of a kernel.
        automaton: reads the layers of its paths.
        outputs: of each kernel that is wanted, the states at the end, with their weights.

    Returns:
        The other plan. A kernel without any path is 0 in it.
    """
    reached = reached_states(recursion, automaton)
    return _Copies(recursion, automaton, reached).made(outputs)


def reached_states(recursion: Recursion, automaton: Automaton) -> list[set[int]]:
    """For each step, the states in which a path may be there.

    Args:
        recursion: the plan of a kernel.
        automaton: reads the layers of its paths.

    Returns:
        The states.
    """
    reached: list[set[int]] = []
    for number, step in enumerate(recursion.steps):
        states = range(automaton.states)
        if isinstance(step, Field):
            before = reached[step.collapse]
            found = {
                state
                for state in states
                if any(q in before for q, _ in automaton.behind_layer(number, state))
                or (step.bias and automaton.begun_at(number, state))
            }
        else:
            found = set()
            for field in dict.fromkeys(term.field for term in step.terms if contributes(term)):
                before = {START} if field is None else reached[field]
                rows = {state: automaton.in_sum(number, field, state) for state in states}
                found |= {s for s, row in rows.items() if any(q in before for q, _ in row)}
        reached.append(found)
    return reached


def contributes(term: Term) -> bool:
    """Whether a term sees anything but padding."""
    return bool((term.cells != OUTSIDE).any())


def _scaled(row: Row) -> tuple[Row, float]:
    """The row with 1 for its largest weight, and that: rows that differ by a factor share a step."""
    top = max((weight for _, weight in row), default=1.0)
    return tuple((state, weight / top) for state, weight in row), top


class _Copies:
    """The steps of the new recursion.

    A field has a copy a state, a collapse one for each row of states that is read of it.
    """

    def __init__(self, recursion: Recursion, automaton: Automaton, reached: list[set[int]]) -> None:
        self.recursion, self.automaton, self.reached = recursion, automaton, reached
        self.fields: list[set[int]] = [set() for _ in recursion.steps]  # states that are read
        self.rows: list[dict[Row, None]] = [{} for _ in recursion.steps]  # of collapses
        self.at: dict[tuple[int, int | Row], int] = {}  # where copies are in the new recursion
        self.steps: list[Collapse | Field] = []
        self.masks: dict[int, int] = {}

    def made(self, outputs: Sequence[Row]) -> Recursion:
        """The recursion whose last step has a group for each output."""
        last = len(self.recursion.steps) - 1
        for row in outputs:
            self._need(last, self._within(last, row))
        for number in range(last, -1, -1):
            self._need_sources(number)
        for number in range(last):
            self._copy(number)
        end = self.recursion.steps[last]
        assert isinstance(end, Collapse)
        parts = [self._terms(last, end, self._within(last, row)) for row in outputs]
        terms = tuple(_in_group(h, term) for h, part in enumerate(parts) for term in part)
        self.steps.append(replace(end, terms=terms, groups=len(outputs)))
        return Recursion(tuple(self.steps), tuple(self.recursion.masks[k] for k in self.masks))

    def _within(self, number: int, row: Row) -> Row:
        """A row without states that no path reaches."""
        return tuple((state, weight) for state, weight in row if state in self.reached[number])

    def _row_of(self, number: int, state: int) -> Row:
        """What a field in a state reads of its collapse."""
        step = self.recursion.steps[number]
        assert isinstance(step, Field)
        return self._within(step.collapse, self.automaton.behind_layer(number, state))

    def _bias(self, number: int, state: int) -> float:
        """What paths that begin at a field give it in a state."""
        step = self.recursion.steps[number]
        assert isinstance(step, Field)
        return step.bias * self.automaton.begun_at(number, state) if step.bias else 0.0

    def _need(self, number: int, row: Row) -> None:
        """Ask for what a row of a collapse reads."""
        for term in self._reading(number):
            for source in self._sources(number, term, row):
                if source.field is not None:
                    self.fields[source.field].add(source.state)

    def _need_sources(self, number: int) -> None:
        """Ask for what a step reads, in the states in which it is read."""
        step = self.recursion.steps[number]
        if isinstance(step, Field):
            for state in sorted(self.fields[number]):
                self.rows[step.collapse][_scaled(self._row_of(number, state))[0]] = None
        else:
            for row in self.rows[number]:
                self._need(number, row)

    def _reading(self, number: int) -> Iterable[Term]:
        step = self.recursion.steps[number]
        assert isinstance(step, Collapse)
        return (term for term in step.terms if contributes(term))

    def _sources(self, number: int, term: Term, row: Row) -> list[_Source]:
        """What a term reads for a row of its collapse.

        A field that has nothing but paths of its bias is a constant, and so V = 1 with a weight.
        """
        total: dict[int, float] = {}
        before = {START} if term.field is None else self.reached[term.field]
        for state, weight in row:
            for source, moves in self.automaton.in_sum(number, term.field, state):
                if source in before:
                    total[source] = total.get(source, 0.0) + weight * moves
        if term.field is None:
            return [_Source(None, START, weight) for weight in total.values()]
        return [
            _Source(term.field, state, weight)
            if self._row_of(term.field, state)
            else _Source(None, START, weight * self._bias(term.field, state))
            for state, weight in total.items()
        ]

    def _terms(self, number: int, step: Collapse, row: Row) -> list[Term]:
        """The terms of a collapse for a row of its states."""
        found = []
        for term in self._reading(number):
            for source in self._sources(number, term, row):
                field = None if source.field is None else self.at[source.field, source.state]
                found.append(self._term(term, field, source.weight))
        return found

    def _term(self, term: Term, field: int | None, weight: float) -> Term:
        cells, blocks, mask = term.cells, term.blocks, term.mask
        if field is None and term.field is not None:  # V = 1 has one cell and one group
            cells, blocks = np.where(cells == OUTSIDE, OUTSIDE, 0), blocks * np.array([1, 0, 1, 1])
        weights = term.weights if weight == 1 else term.weights * weight**0.5
        if mask is not None:
            mask = self.masks.setdefault(mask, len(self.masks))
        return replace(term, field=field, cells=cells, blocks=blocks, mask=mask, weights=weights)

    def _copy(self, number: int) -> None:
        """Add a step, once for each state or row that is read of it."""
        step = self.recursion.steps[number]
        if isinstance(step, Collapse):
            for row in self.rows[number]:
                if row:
                    terms = tuple(self._terms(number, step, row))
                    self._append((number, row), replace(step, terms=terms))
            return
        for state in sorted(self.fields[number]):
            row, factor = _scaled(self._row_of(number, state))
            made = replace(
                step,
                collapse=self.at[step.collapse, row],
                factor=step.factor * factor,
                bias=self._bias(number, state),
            )
            self._append((number, state), made)

    def _append(self, copy: tuple[int, int | Row], step: Collapse | Field) -> None:
        self.at[copy] = len(self.steps)
        self.steps.append(step)


def _in_group(number: int, term: Term) -> Term:
    """A term of the last step, for one of its groups."""
    blocks = term.blocks.copy()
    blocks[:, 0] = number
    return replace(term, blocks=blocks)
