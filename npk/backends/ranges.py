"""Which samples the numbers of a dtype can hold: what the recursion loses to underflow and
overflow, bounded sample by sample.

The bound of ``exponents`` on the pairs (x, x) is carried on together with a bound on what was lost
so far, which later steps treat like a value. Both are covariances over positions, so that what a
pair (x, x') loses is at most the root of what (x, x) and (x', x') lose.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.backends.product import as_product
from npk.gates.device_table import DeviceGates
from npk.gates.table import GateTable, ones_in
from npk.recursion.masks import Mask, form_bits, form_real, form_support
from npk.recursion.steps import Collapse, Field, Recursion, Term

if TYPE_CHECKING:
    import torch

_TOLERATED = {"float32": 1e-6, "float64": 1e-12}  # of K(x, x): a tenth of what is promised
_SPARE = 12  # powers of two between what is certain and the end of the range
_CHUNK = 1 << 19  # numbers of the largest array


@dataclass(frozen=True)
class Found:
    """Of each sample: whether a path is active, whether the dtype holds it, and log2 K(x, x)."""

    live: np.ndarray
    held: np.ndarray
    size: np.ndarray


class Ranges:
    """Looks at samples under one recursion.

    Args:
        recursion: what is computed.
        exponents: power of two of each step.
        dtype: "float32" or "float64", of the arithmetic.
    """

    def __init__(self, recursion: Recursion, exponents: np.ndarray, dtype: str) -> None:
        self.recursion, self.exponents, self.dtype = recursion, exponents, dtype
        self.info = np.finfo(dtype)
        self.positions = as_product(recursion) is None
        self.spread = _spread(recursion, exponents)
        self.factors = {factor for mask in recursion.masks for factor in mask.factors}

    def surely_held(self, table: GateTable | DeviceGates, lowest: float) -> bool:
        """Whether no value can leave the range, whatever the gates are: hard gates of a network
        that is not too deep.

        Args:
            table: balanced gates and samples.
            lowest: power of two that the smallest K(x, x) is multiplied with at the end.
        """
        gates = (factor for factor in self.factors if factor.kind == "gate")
        sharp = all(
            factor.slope == 0 and table.entries[factor.name].kind != "soft" for factor in gates
        )
        room = -self.info.minexp - self.info.nmant - _SPARE
        if not sharp or self.spread > room:
            return False
        spread = self.spread + (
            self._spread_of(table.inputs) if any(f.kind == "input" for f in self.factors) else 0.0
        )
        return spread < room and lowest - spread > self.info.minexp + _SPARE

    def _spread_of(self, inputs: "np.ndarray | torch.Tensor") -> float:
        """Powers of two between 1 and the square of what is farthest from it."""
        flat = abs(inputs.reshape(len(inputs), -1))
        seen: Any = (
            flat
            if self.positions
            else flat.max(1)
            if isinstance(flat, np.ndarray)
            else flat.amax(1)
        )
        seen = seen[seen > 0]
        if len(seen):
            return 2 * max(abs(np.log2(float(end))) for end in (seen.min(), seen.max()))
        return 0.0

    def look(self, table: GateTable) -> Found:
        """Look at the samples of a balanced table."""
        largest = [
            term.cells.size
            for step in self.recursion.steps
            if isinstance(step, Collapse)
            for term in step.terms
        ]
        largest += [mask.products * mask.width for mask in self.recursion.masks]
        pieces = -(-len(table) // max(1, _CHUNK // max(largest)))
        parts = [
            _Walk(self, table.take(rows)).run()
            for rows in np.array_split(np.arange(len(table)), pieces)
        ]
        return Found(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("live", "held", "size")
            )
        )


def _spread(recursion: Recursion, exponents: np.ndarray) -> float:
    """Powers of two between the largest and the smallest share other than 0 that hard gates can
    leave of a value, coefficients included.
    """
    total, constants = 0.0, False
    for step in recursion.steps:
        if isinstance(step, Field):
            constants |= step.bias > 0
            continue
        weights = np.abs(np.concatenate([term.weights[term.cells >= 0] for term in step.terms]))
        weights = weights[weights > 0]
        total += np.log2(max(1, step.channels * step.positions)) + (
            2 * np.log2(weights.max() / weights.min()) if weights.size else 0.0
        )
        constants |= any(term.field is None for term in step.terms) and len(step.terms) > 1
    return float(total + (np.ptp([0, *exponents[: len(recursion.steps)]]) if constants else 0))


@dataclass
class _Values:
    """A step's values on the pairs (x, x): ``value``, ``lost`` and ``live`` are ``(n, groups,
    positions)``, numbers times 2**power.
    """

    value: np.ndarray
    lost: np.ndarray
    live: np.ndarray
    power: np.ndarray  # (n,)

    def on(self, power: np.ndarray) -> "_Values":
        """The same on larger powers."""
        by = (self.power - power)[:, None, None]
        return _Values(np.ldexp(self.value, by), np.ldexp(self.lost, by), self.live, power)

    def normal(self) -> "_Values":
        """The same with the largest value of each sample between 1/2 and 1."""
        top = np.maximum(self.value.max((1, 2)), self.lost.max((1, 2)))
        return self.on(self.power + np.where(np.isfinite(top), np.frexp(top)[1], 0))


class _Walk:
    """The recursion on the pairs (x, x) of a few samples."""

    def __init__(self, ranges: Ranges, table: GateTable) -> None:
        self.recursion = ranges.recursion
        self.exponents = ranges.exponents
        self.info = ranges.info
        self.n = len(table)
        self.tolerated = _TOLERATED[ranges.dtype]
        self.eta = float(self.info.smallest_subnormal)
        self.masks = [_overlaps(mask, table, self.eta) for mask in self.recursion.masks]
        self.over = np.zeros(self.n, bool)
        for size, *_ in self.masks:
            self.over |= ~(size.reshape(self.n, -1).max(1) < self.info.max / 4)
        self.values: list[_Values] = []

    def run(self) -> Found:
        """Walk through all steps."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for number, step in enumerate(self.recursion.steps):
                made = (
                    self._field(number, step)
                    if isinstance(step, Field)
                    else self._collapse(number, step)
                ).normal()
                self.over |= made.power - self.exponents[number] >= self.info.maxexp - 2
                self.values.append(made)
            last = self.values[-1]
            value, lost = (a[:, :, 0].sum(1) for a in (last.value, last.lost))  # of all parts
            live = np.asarray(last.live[:, :, 0].any(1))
            held = (lost <= self.tolerated * value) & ~self.over
            return Found(
                live,
                held | ~live,
                np.where(value > 0, np.log2(np.maximum(value, 1e-300)) + last.power, -np.inf),
            )

    def _unit(self, number: int, power: np.ndarray) -> np.ndarray:
        """What one rounding below the range loses at a step, on powers of its values, by sample."""
        return np.ldexp(self.eta, self.exponents[number] - power)[:, None, None]

    def _coefficient(self, value: float, power: int) -> None:
        """A coefficient that is infinite spoils all pairs, those of value 0 too."""
        self.over |= not np.ldexp(value, power) < self.info.max

    def _field(self, number: int, step: Field) -> _Values:
        before, shape = self.values[step.collapse], (self.n, step.groups, step.positions)
        self._coefficient(step.factor, int(self.exponents[step.collapse] - self.exponents[number]))
        if step.bias:
            before = before.on(np.maximum(before.power, 0))
        value, lost, live = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        for tap in step.taps:
            inside, at = tap >= 0, np.maximum(tap, 0)
            value += before.value[:, :, at] * inside
            lost += before.lost[:, :, at] * inside
            live |= before.live[:, :, at] & inside
        value = value * step.factor
        if step.bias:
            value = value + np.ldexp(step.bias, -before.power)[:, None, None]
            live = np.ones(shape, bool)
        lost = lost * step.factor + live * self._unit(number, before.power)
        return _Values(value, lost, live, before.power)

    def _collapse(self, number: int, step: Collapse) -> _Values:
        powers = [
            np.zeros(self.n, np.int64) if term.field is None else self.values[term.field].power
            for term in step.terms
        ]
        power, shape = np.max(powers, 0), (self.n, step.groups, step.positions)
        self.over |= power - self.exponents[number] >= self.info.maxexp - 2
        total = _Values(np.zeros(shape), np.zeros(shape), np.zeros(shape, bool), power)
        for term in step.terms:
            self._add(total, term, number)
        return total

    def _add(self, total: _Values, term: Term, number: int) -> None:
        """Add (sum over the family of weight * root of V * overlap)^2, and what it loses."""
        inside = term.cells >= 0
        cells = np.maximum(term.cells, 0)
        places = np.maximum(term.places, 0)
        weights, unit = np.abs(term.weights) * inside, self._unit(number, total.power)
        field = None if term.field is None else self.values[term.field].on(total.power)
        moved = self.exponents[number] - (0 if term.field is None else self.exponents[term.field])
        self._coefficient(weights.max(initial=0.0) ** 2, int(moved))
        # the coefficient itself is lost
        gone = (weights > 0) & (np.ldexp(weights**2, -int(moved)) < self.info.tiny)
        for into, source, segment, channels in term.blocks:
            if field is None:
                value = np.ldexp(1.0, -total.power)[:, None, None]
                lost = 0.0
                live = np.ones((self.n, 1, 1), bool)
            else:
                value, lost, live = (
                    a[:, source][:, cells] for a in (field.value, field.lost, field.live)
                )
            size, off, some = (
                (channels, 0.0, True)
                if term.mask is None
                else (a[:, places, segment] for a in self.masks[term.mask])
            )
            live = live & some & (weights > 0)
            missed = lost * size + (value + lost) * off + gone * value * size
            total.value[:, into] += (weights * np.sqrt(value * size)).sum(2) ** 2
            total.lost[:, into] += (weights * np.sqrt(missed)).sum(2) ** 2 + (
                live.sum(2) ** 2
            ) * unit[:, 0]
            total.live[:, into] |= live.any(2)


def _overlaps(
    mask: Mask, table: GateTable, eta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlap of each position with itself, what is lost in it, and whether it is other than 0;
    each ``(n, positions, segments)``.
    """
    if mask.is_hard(table):
        counts = np.add.reduceat(
            ones_in(form_bits(mask, table)), np.cumsum([0, *mask.words])[:-1], axis=2
        ).astype(float)
        return counts, np.zeros(()) * counts, counts > 0
    firsts = np.cumsum([0, *mask.segments])[:-1]
    with np.errstate(over="ignore", under="ignore"):
        sizes = np.add.reduceat(form_real(mask, table).astype(float) ** 2, firsts, axis=2)
    counts = np.add.reduceat(form_support(mask, table).astype(np.int64), firsts, axis=2)
    return sizes, eta * (counts + 2 * np.sqrt(counts * sizes)), counts > 0
