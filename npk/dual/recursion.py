r"""PathGraph -> Recursion: the second moment of the value network, planned from shapes alone.

Between two parametric layers the second moment of an activation is a sum of terms, each a field V over pairs of positions and a
mask M of one sample:

.. math:: E[h_c(s) h'_c(t)] = \sum_{terms} \sum_{a,b} w_{sa} w_{tb}\, V(\pi_a(s), \pi_b(t))\, M_a(c, s)\, M'_b(c, t)

A *collapse* sums a node's terms over channels: V times the overlap of two masks. A *field* is a parametric layer applied to a collapse:
V(s, t) = factor * sum over the window of W(ks+d, kt+d) + bias. Nothing else happens, and every backend runs these two steps.
"""

from dataclasses import dataclass, field

import numpy as np

from npk.dual.masks import Factor, Mask
from npk.dual.path_graph import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Pad,
    PathGraph,
    PathNode,
    average_weights,
    fan_in,
    window_taps,
)
from npk.dual.positions import OUTSIDE, Grid, look_up
from npk.errors import OptionError, UnsupportedGraphError


@dataclass(frozen=True)
class Term:
    """One term of a collapse.

    ``field``: step that computes V, or ``None`` for V = 1. ``cells``, ``places`` and ``weights`` are ``(positions, family)``: position
    in the field's grid, position in the mask, and coefficient of each member of the family; -1 outside. ``mask``: number of the mask,
    or ``None`` for ones.
    """

    field: int | None
    cells: np.ndarray
    mask: int | None
    places: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Collapse:
    """W(s, t) = sum over terms and channels."""

    name: str
    terms: tuple[Term, ...]
    grid: Grid
    positions: int
    channels: int

    @property
    def sources(self) -> tuple[int, ...]:
        """Steps whose results it reads."""
        return tuple(term.field for term in self.terms if term.field is not None)


@dataclass(frozen=True)
class Field:
    """V(s, t) = factor * sum over offsets k of W(taps[k, s], taps[k, t]) + bias."""

    name: str
    collapse: int
    taps: np.ndarray
    factor: float
    bias: float
    grid: Grid
    positions: int

    @property
    def sources(self) -> tuple[int, ...]:
        """Steps whose results it reads."""
        return (self.collapse,)


@dataclass(frozen=True)
class Recursion:
    """Steps in order; the last one is a collapse on one position, the kernel itself. ``print`` shows them."""

    steps: tuple[Collapse | Field, ...]
    masks: tuple[Mask, ...]

    def __str__(self) -> str:
        rows = []
        for number, step in enumerate(self.steps):
            side = "x".join(map(str, step.grid)) or "1"
            if isinstance(step, Field):
                rows.append(f"{number:4}  V {step.name}: {len(step.taps)} offsets on {side} from {step.collapse}, factor {step.factor:g}")
            else:
                parts = ", ".join(f"V{t.field if t.field is not None else '=1'}*M{'=1' if t.mask is None else t.mask}" for t in step.terms)
                rows.append(f"{number:4}  W {step.name}: {step.channels} channels on {side}, {parts}")
        return "\n".join([*rows, f"{len(self.masks)} masks a sample"])


def plan(graph: PathGraph, *, scale: str = "fan_in", bias: str = "ignore", value_input: str = "auto") -> Recursion:
    """Plan the recursion of a path graph.

    Args:
        graph: what a path may pass.
        scale: "fan_in" or "cosine" (every parametric layer divides by its fan-in), or "count".
        bias: "ignore", or "paths": biases and shifts start paths of their own.
        value_input: "x", "ones" or "auto" (as the graph has it).

    Returns:
        The steps and the masks they need.

    Raises:
        OptionError: an option with another value.
        UnsupportedGraphError: the output has positions or gates, so that no single kernel serves all output units; or a bias of two
            layers whose paths are asked for.
    """
    for name, value, known in (
        ("scale", scale, ("fan_in", "count", "cosine")),
        ("bias", bias, ("ignore", "paths")),
        ("value_input", value_input, ("auto", "x", "ones")),
    ):
        if value not in known:
            raise OptionError(f"{name}={value!r} is not known. Choose one of {', '.join(known)}.")
    if bias == "paths":
        _refuse_shared_biases(graph)
    return _Planner(graph, scale != "count", bias == "paths", value_input).run()


def _refuse_shared_biases(graph: PathGraph) -> None:
    """Paths that start at a bias of two nodes may have one monomial: their features would have to be added before the product."""
    first: dict[str, PathNode] = {}
    for node in graph.nodes:
        match node.operator:
            case Convolution(bias=str(name)) | BatchNorm(mean=name):
                if first.setdefault(name, node) is not node:
                    raise UnsupportedGraphError(
                        f'nodes {first[name].name} and {node.name} ({node.source}) share the bias {name}, which bias="paths" does not '
                        'understand. Use bias="ignore", or give the layers biases of their own.'
                    )


@dataclass(frozen=True)
class _Live:
    """A term on its way: factors with the place where each is read, for every position and family member."""

    field: int | None
    cells: np.ndarray  # (positions, family)
    factors: tuple[Factor, ...]
    places: tuple[np.ndarray, ...]
    offsets: tuple[np.ndarray, ...]
    weights: np.ndarray

    def times(self, factor: Factor, place: np.ndarray, offset: np.ndarray) -> "_Live":
        shaped = (np.broadcast_to(place, self.cells.shape), np.broadcast_to(offset, self.cells.shape))
        return _Live(self.field, self.cells, (*self.factors, factor), (*self.places, shaped[0]), (*self.offsets, shaped[1]), self.weights)

    def moved(self, taps: np.ndarray, weights: np.ndarray) -> "_Live":
        """Positions of the result see the old positions ``taps`` (offsets, positions): the family grows by the offsets."""
        index, new = taps.T, taps.shape[1]
        gather = lambda old: look_up(old, index).reshape(new, -1)  # noqa: E731
        grown = np.where(index >= 0, weights.T, 0.0)[..., None] * self.weights[np.maximum(index, 0)]
        return _Live(
            self.field,
            gather(self.cells),
            self.factors,
            tuple(map(gather, self.places)),
            tuple(map(gather, self.offsets)),
            grown.reshape(new, -1),
        )


def _fresh(field: int | None, cells: np.ndarray) -> _Live:
    return _Live(field, cells[:, None], (), (), (), np.ones((len(cells), 1)))


@dataclass
class _Planner:
    graph: PathGraph
    divide: bool
    bias: bool
    value_input: str
    steps: list[Collapse | Field] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    mask_numbers: dict[tuple, int] = field(default_factory=dict)
    collapses: dict[str, int] = field(default_factory=dict)
    terms: dict[str, list[_Live]] = field(default_factory=dict)

    def run(self) -> Recursion:
        for node in self.graph.nodes:
            self.terms[node.name] = self.rule(node, [self.terms[name] for name in node.inputs])
        output = self.graph.output
        self.check_output(output, self.terms[output.name])
        self.collapse(output, channels=1)
        return Recursion(tuple(self.steps), tuple(self.masks))

    def rule(self, node: PathNode, inputs: list[list[_Live]]) -> list[_Live]:
        """What each operator does to the terms (math.md, section 2)."""
        here = np.arange(node.positions)
        match node.operator:
            case Input(ones=ones):
                start = _fresh(None, np.zeros(node.positions, np.int64))
                plain = self.value_input == "ones" or (self.value_input == "auto" and ones)
                return [start if plain else start.times(Factor("input", node.name), here[:, None], np.array(0))]
            case Convolution() as operator:
                return [_fresh(self.parametric(node, operator), here)]
            case BatchNorm():
                return inputs[0] + ([_fresh(None, np.zeros(node.positions, np.int64))] if self.bias else [])
            case Gate(gate=gate, slope=slope):
                return [term.times(Factor("gate", gate, slope), here[:, None], np.array(0)) for term in inputs[0]]
            case Add():
                return inputs[0] + inputs[1]
            case MaxPool(gate=gate):
                return [self.select(node, gate, term) for term in inputs[0]]
            case AveragePool() | Pad() as operator:
                taps = window_taps(self.graph, node)
                weights = average_weights(operator, taps) if isinstance(operator, AveragePool) else np.ones(taps.shape)
                return [term.moved(taps, weights) for term in inputs[0]]

    def select(self, node: PathNode, gate: str, term: _Live) -> _Live:
        """A max pool: the family grows by the window, each member masked by "this offset was chosen"."""
        taps = window_taps(self.graph, node)
        moved = term.moved(taps, np.ones(taps.shape))
        family = term.cells.shape[1]
        offsets = np.repeat(np.arange(len(taps)), family)[None, :]
        return moved.times(Factor("selection", gate), np.arange(node.positions)[:, None], offsets)

    def parametric(self, node: PathNode, operator: Convolution) -> int:
        """The field of a layer. Pads before it only say where its window looks, so the collapse is on the grid before them."""
        before, taps = self.graph.input_of(node), window_taps(self.graph, node)
        while isinstance(before.operator, Pad):
            taps = look_up(window_taps(self.graph, before)[0], taps)
            before = self.graph.input_of(before)
        if before.name not in self.collapses:
            self.collapses[before.name] = self.collapse(before, before.channels)
        factor = 1.0 / fan_in(self.graph, node) if self.divide else 1.0
        bias = factor if self.bias and operator.bias else 0.0
        self.steps.append(Field(node.name, self.collapses[before.name], taps, factor, bias, node.grid, node.positions))
        return len(self.steps) - 1

    def collapse(self, node: PathNode, channels: int) -> int:
        made = tuple(self.term(term, channels) for term in self.terms[node.name])
        self.steps.append(Collapse(node.name, made, node.grid, node.positions, channels))
        return len(self.steps) - 1

    def term(self, live: _Live, channels: int) -> Term:
        """Give the term's product of factors a mask on its distinct positions only."""
        if not live.factors or (live.cells < 0).all():  # nothing but padding in sight: no mask is needed
            return Term(live.field, live.cells, None, np.zeros_like(live.cells), live.weights)
        rows = np.stack([a.reshape(-1) for a in (*live.places, *live.offsets)])
        outside = (live.cells < 0).reshape(-1)
        distinct, inverse = np.unique(rows[:, ~outside], axis=1, return_inverse=True)
        places = np.full(outside.shape, OUTSIDE)
        places[~outside] = inverse.reshape(-1)
        count = len(live.factors)
        mask = Mask(live.factors, distinct[:count], distinct[count:], channels)
        number = self.mask_numbers.setdefault(mask.key(), len(self.masks))
        if number == len(self.masks):
            self.masks.append(mask)
        return Term(live.field, live.cells, number, places.reshape(live.cells.shape), live.weights)

    def check_output(self, node: PathNode, terms: list[_Live]) -> None:
        if node.positions != 1:
            raise UnsupportedGraphError(
                f"node {node.name} ({node.source}): the network returns {node.shape[0]} channels on {node.positions} positions. "
                "Add a read-out: a global pool, or flatten, and a linear layer."
            )
        if any(term.factors for term in terms):
            raise UnsupportedGraphError(
                f"node {node.name} ({node.source}): the output itself is gated, so every output unit has a kernel of its own. "
                "End the network with a linear layer."
            )
