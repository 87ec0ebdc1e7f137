"""Powers of two that keep deep products inside the range of the arithmetic.

For one sample, V(s, t) is a covariance over positions, so its diagonal bounds it: the recursion on
s = t alone, with the root of the product of two diagonals wherever a pool couples positions, says
how large each step can get.
"""

import numpy as np

from npk.gates.table import GateTable, ones_in
from npk.recursion.masks import Mask, form_bits, form_real
from npk.recursion.needed import slices
from npk.recursion.steps import Field, Recursion, Term

_TOGETHER = 1 << 18  # contributions looked at together


def find_exponents(recursion: Recursion, table: GateTable, most: int = 3) -> np.ndarray:
    """Power of two of a bound on each step's values for the pairs (x, x) of the table.

    The first ``most`` samples with an active path are looked at: dead ones know nothing of the
    range. Scaling by powers of two is exact, so a kernel does not depend on which samples were
    taken; only its range does.
    """
    found: list[np.ndarray] = []
    for few in range(-(-len(table) // most)):
        some = table.take(slice(few * most, (few + 1) * most))
        sizes = [_sizes(mask, some) for mask in recursion.masks]
        bounds = [_bounds(recursion, [size[i] for size in sizes]) for i in range(len(some))]
        found += [exponents for exponents, live in bounds if live]
        if len(found) >= most:
            break
    return np.max(found[:most], 0) if found else np.zeros(len(recursion.steps), np.int64)


def _sizes(mask: Mask, table: GateTable) -> np.ndarray:
    """Overlap of each position of a mask with itself, ``(n, positions, segments)``."""
    if mask.is_hard(table):
        return np.add.reduceat(
            ones_in(form_bits(mask, table)), np.cumsum([0, *mask.words])[:-1], axis=2
        )
    return np.add.reduceat(form_real(mask, table) ** 2, np.cumsum([0, *mask.segments])[:-1], axis=2)


def _bounds(recursion: Recursion, sizes: list[np.ndarray]) -> tuple[np.ndarray, bool]:
    """Exponent of each step for one sample, and whether the sample has an active path; ``sizes``:
    its masks' overlaps with themselves.
    """
    exponents, values = np.zeros(len(recursion.steps), np.int64), []
    for number, step in enumerate(recursion.steps):
        shift = max((int(exponents[s]) for s in step.sources), default=0)
        if isinstance(step, Field):
            inside = step.taps >= 0
            seen = values[step.collapse][:, np.maximum(step.taps, 0)] * inside
            value = np.ldexp(
                step.factor * seen.sum(1), int(exponents[step.collapse]) - shift
            ) + np.ldexp(step.bias, -shift)
        else:
            value = np.zeros((step.groups, step.positions))
            for term in step.terms:
                if term.field is None:
                    scaled = None
                else:
                    scaled = np.ldexp(values[term.field], int(exponents[term.field]) - shift)
                _add_bound(value, term, scaled, sizes, shift)
        grow = int(np.frexp(value.max())[1])
        exponents[number] = shift + grow
        values.append(np.ldexp(value, -grow))
    return exponents, bool(values[-1].any())


def _add_bound(
    total: np.ndarray, term: Term, field: np.ndarray | None, sizes: list[np.ndarray], shift: int
) -> None:
    """Add (sum over the family of weight times root of V times overlap)^2, group by group."""
    cells, places = np.maximum(term.cells, 0), np.maximum(term.places, 0)
    weights = np.abs(term.weights) * (term.cells >= 0)
    for some in slices(len(term.blocks), _TOGETHER // max(cells.size, 1)):
        into, source, segment, channels = term.blocks[some].T
        value = np.ldexp(1.0, -shift) if field is None else field[source[:, None, None], cells]
        overlap = (
            channels[:, None, None]
            if term.mask is None
            else sizes[term.mask][places, segment[:, None, None]]
        )
        np.add.at(total, into, (weights * np.sqrt(value * overlap)).sum(2) ** 2)
