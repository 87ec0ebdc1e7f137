"""Sums of reductions that live in the cache: units in an order in which what one adds is soon read,
and the memory of sums that were read used again.

Planned units come level by level, so that all sums of a level wait for its last unit. Here each
unit runs once those that add to its sums have run. Only the order changes in which contributions
are added to a sum.
"""

from typing import NamedTuple

import numpy as np

from npk.backends.program.program import COLUMNS, DRAIN, LOAD, REDUCE, Program
from npk.backends.program.unit import Slots
from npk.recursion.needed import ranges

_KIND, _OUT, _CELLS, _SUMS = (COLUMNS.index(name) for name in ("kind", "out", "cells", "sums"))


class Arranged(NamedTuple):
    """A program whose sums are 0 again as soon as they are loaded: its operations, the number of
    each in the program, the sums that contributions go to (in the place of the program's own
    tables of them), and how many it needs.
    """

    operations: np.ndarray
    order: np.ndarray
    targets: np.ndarray
    sums: int


class _Added(NamedTuple):
    """What reductions add: the sum of each contribution; of those pieces of them that follow one
    another in one operation, to sums that one load takes, the operation, the load and the size.
    """

    sum: np.ndarray
    operation: np.ndarray
    load: np.ndarray
    size: np.ndarray


def arrange(program: Program) -> Arranged:
    """Order the units of a program, and give its sums memory for as long as they live.

    Args:
        program: with operations in any order that fits.
    """
    operations = program.operations
    loads, added = np.flatnonzero(operations[:, _KIND] == LOAD), _added(program)
    order = _order(program, loads, added)
    when = np.empty_like(order)
    when[order] = np.arange(len(order))
    places, sums = _places(operations, loads, added, when)
    found, (at, counts) = operations.copy(), _reductions(operations)
    found[loads, _SUMS] = places
    found[at, _OUT], found[at, _SUMS] = np.cumsum(counts) - counts, 0
    moves = (places - operations[loads, _SUMS])[added.load].astype(np.int32)
    targets = added.sum + np.repeat(moves, added.size)
    return Arranged(np.ascontiguousarray(found[order]), order, targets, sums)


def _reductions(operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The operations that add to sums, and how many targets each has."""
    at = np.flatnonzero(np.isin(operations[:, _KIND], (REDUCE, DRAIN)))
    return at, np.where(operations[at, _KIND] == DRAIN, 1, operations[at, _CELLS])


def _added(program: Program) -> _Added:
    operations = program.operations
    at, counts = _reductions(operations)
    loads = operations[operations[:, _KIND] == LOAD]
    targets = program.tables[ranges(operations[at, _OUT], counts)]
    sums = targets + np.repeat(operations[at, _SUMS].astype(np.int32), counts)
    taken = np.full(program.sums, -1, np.int32)
    numbers = np.arange(len(loads), dtype=np.int32)
    taken[ranges(loads[:, _SUMS], loads[:, _CELLS])] = np.repeat(numbers, loads[:, _CELLS])
    load, begins = taken[sums], np.cumsum(counts) - counts
    turns = np.diff(load, prepend=-1) != 0
    turns[begins[counts > 0]] = True
    first = np.flatnonzero(turns)
    operation = at[np.searchsorted(begins, first, side="right") - 1]
    return _Added(sums, operation, load[first], np.diff(first, append=len(sums)))


def _order(program: Program, loads: np.ndarray, added: _Added) -> np.ndarray:
    """Operations in their new order: each unit right behind those that it waits for."""
    unit = np.cumsum(program.begins) - 1
    units = int(unit[-1]) + 1
    edges = np.unique(units * unit[loads][added.load] + unit[added.operation])
    sources: dict[int, list[int]] = {}
    for reader, source in zip(*(part.tolist() for part in np.divmod(edges, units)), strict=True):
        sources.setdefault(reader, []).append(source)
    read, ordered, done = {s for some in sources.values() for s in some}, [], set()
    stack = [one for one in range(units - 1, -1, -1) if one not in read]
    while stack:
        one = stack[-1]
        waits = [] if one in done else [s for s in sources.pop(one, ()) if s not in done]
        stack += waits[::-1]
        if not waits:
            stack.pop()
            ordered += [one] if one not in done else []
            done.add(one)
    begins = np.append(np.flatnonzero(program.begins), len(unit))
    chosen = np.array(ordered, np.intp)
    return ranges(begins[chosen], np.diff(begins)[chosen])


def _places(
    operations: np.ndarray, loads: np.ndarray, added: _Added, when: np.ndarray
) -> tuple[np.ndarray, int]:
    """First sum of each load, which is its own from the first addition on until it is loaded, and
    how many there are.
    """
    first = when[loads].copy()
    np.minimum.at(first, added.load, when[added.operation])
    slots, places = Slots([(0, 1 << 62)], 0), np.zeros(len(loads), np.int64)
    events = np.concatenate([first, when[loads]])
    begins = np.arange(len(events)) < len(loads)
    for event in np.lexsort((~begins, events)).tolist():
        load = event % len(loads)
        cells = int(operations[loads[load], _CELLS])
        if event < len(loads):
            places[load] = slots.take(cells)
        else:
            slots.give(int(places[load]), cells)
    return places, slots.top
