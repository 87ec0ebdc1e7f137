"""PathGraph -> Recursion, planned from shapes alone.

Every operator turns the terms of its inputs into its own (math.md, section 2). A term on its way
carries its field, the factors of its mask, and for each of its channels and positions where they
are read; masks and fields are made only where a layer collapses them.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from npk.choices import chosen
from npk.errors import UnsupportedGraphError
from npk.graph.biases import settled_bias
from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode, refuse_other_ones
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Part,
    Rearrange,
    Scale,
    Shift,
)
from npk.graph.path_graph import PathGraph, fan_in, window_taps
from npk.graph.positions import OUTSIDE, look_up
from npk.recursion.masks import Factor, Mask
from npk.recursion.steps import Collapse, Field, Recursion, Term
from npk.recursion.sums import Sums


def plan(
    graph: PathGraph,
    *,
    scale: str = "fan_in",
    bias: str = "auto",
    value_input: str = "auto",
    merged: bool = True,
) -> Recursion:
    """Plan the recursion of a path graph.

    Args:
        graph: what a path may pass.
        scale: "fan_in" or "cosine" (every parametric layer divides by its fan-in), or "count".
        bias: "paths" (biases and shifts start paths of their own), "ignore", or "auto": paths where
            there are biases.
        value_input: "x", "ones" or "auto" (as the graph has it).
        merged: paths that start behind a layer may be added to its field, and fields that meet one
            mask to each other; not where paths are told apart by the layers that they pass.

    Returns:
        The steps and the masks they need. Where the output is gated or has positions, its units
        have kernels of their own, and the recursion gives their mean.

    Raises:
        OptionError: an option with another value, or samples asked for in the place of ones of
            another shape.
        UnsupportedGraphError: a bias of two layers whose paths are asked for, or an operator that
            is not known here.
    """
    for name, value in (("scale", scale), ("value_input", value_input)):
        chosen(name, value)
    bias = settled_bias(bias, graph)
    if bias == "paths":
        _refuse_shared_biases(graph)
    return _Planner(graph, scale != "count", bias == "paths", value_input, merged).run()


def _refuse_shared_biases(graph: PathGraph) -> None:
    """Paths from a bias of two nodes may have one monomial: features to be added before products."""
    first: dict[str, PathNode] = {}
    for node in graph.nodes:
        name = node.operator.bias_name(node.name)
        if name and first.setdefault(name, node) is not node:
            raise UnsupportedGraphError(
                f"nodes {first[name].name} and {node.name} ({node.source}) share the bias {name}, "
                'whose paths are not understood (bias="auto" and "paths" take them). Use '
                'bias="ignore", or give the layers biases of their own.'
            )


@dataclass(frozen=True)
class _Live:
    """A term on its way.

    ``weights`` and each of ``tables`` are ``(positions, family)``: the first table has the cells,
    and ``reads`` says for each factor which ones have its places and its offsets. Equal ones are
    one, as long as nothing moves. ``into``, ``groups`` and each of ``channels`` are ``(channels,)``:
    the channels of the node where the term lives, the group of the field for each, and where a
    factor is read. ``alone``: whether nothing else reads the field.
    """

    field: int | None
    tables: tuple[np.ndarray, ...]
    weights: np.ndarray
    into: np.ndarray
    groups: np.ndarray
    factors: tuple[Factor, ...] = ()
    channels: tuple[np.ndarray, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()
    alone: bool = False

    @property
    def cells(self) -> np.ndarray:
        """Position in the field's grid."""
        return self.tables[0]

    @property
    def numbers(self) -> list[int]:
        """Tables of the places of all factors, then those of their offsets."""
        return [read[which] for which in (0, 1) for read in self.reads]

    @property
    def is_whole(self) -> bool:
        """Whether the term is its field as it is, with nothing beside it."""
        return self.is_plain and self.alone and bool((self.weights == 1).all())

    @property
    def is_plain(self) -> bool:
        """Whether the term is its field, everywhere and without a mask."""
        alike = self.cells.shape[1] == 1 and bool((self.cells >= 0).all())
        return self.field is not None and not self.factors and alike

    def times(self, factor: Factor, place: np.ndarray, offset: np.ndarray) -> "_Live":
        """The term with one more factor, read at the node's own channels."""
        tables, numbers = list(self.tables), []
        for table in (place, offset):
            wide = np.broadcast_to(table, self.cells.shape)
            same = (n for n, known in enumerate(tables) if np.array_equal(known, wide))
            numbers.append(next(same, len(tables)))
            tables += [wide] if numbers[-1] == len(tables) else []
        return dataclasses.replace(
            self,
            tables=tuple(tables),
            factors=(*self.factors, factor),
            channels=(*self.channels, self.into),
            reads=(*self.reads, (numbers[0], numbers[1])),
        )

    def moved(self, taps: np.ndarray, weights: np.ndarray) -> "_Live":
        """Positions of the result see the old positions ``taps`` (offsets, positions): the family
        grows by the offsets.
        """
        index, new = taps.T, taps.shape[1]
        grown = np.where(index >= 0, weights.T, 0.0)[..., None] * self.weights[np.maximum(index, 0)]
        tables = tuple(look_up(table, index).reshape(new, -1) for table in self.tables)
        return dataclasses.replace(self, tables=tables, weights=grown.reshape(new, -1))

    def among(self, channels: np.ndarray) -> "_Live":
        """The term on some channels of the node alone."""
        kept = np.isin(self.into, channels)
        return dataclasses.replace(
            self,
            into=self.into[kept],
            groups=self.groups[kept],
            channels=tuple(channel[kept] for channel in self.channels),
        )

    def shown(self, part: Part) -> "_Live":
        """The term on the channels that a part of a rearrangement shows."""
        where = np.full(max(self.into.max(initial=-1), *part.channels) + 1, -1)
        where[self.into] = np.arange(len(self.into))
        index = where[list(part.channels)]
        kept = np.flatnonzero(index >= 0)
        pick = lambda old: old[index[kept]]  # noqa: E731
        into = np.array(part.into)[kept]
        return dataclasses.replace(
            self, into=into, groups=pick(self.groups), channels=tuple(map(pick, self.channels))
        )


def _fresh(field: int | None, cells: np.ndarray, groups: np.ndarray, weight: float = 1.0) -> _Live:
    weights = np.full((len(cells), 1), weight)
    return _Live(field, (cells[:, None],), weights, np.arange(len(groups)), groups)


@dataclass
class _Planner:
    graph: PathGraph
    divide: bool
    bias: bool
    value_input: str
    merged: bool
    steps: list[Collapse | Field] = field(default_factory=list)
    masks: dict[Mask, int] = field(default_factory=dict)
    collapses: dict[tuple[str, int], int] = field(default_factory=dict)
    terms: dict[str, list[_Live]] = field(default_factory=dict)

    @cached_property
    def sums(self) -> Sums:
        """Sums of fields."""
        return Sums(self.steps)

    @cached_property
    def readers(self) -> Counter[str]:
        """How often each node is read."""
        return Counter(name for node in self.graph.nodes for name in node.inputs)

    def run(self) -> Recursion:
        for node in self.graph.nodes:
            made = self.rule(node, [self.terms[name] for name in node.inputs])
            if self.readers[node.name] > 1:
                made = [dataclasses.replace(term, alone=False) for term in made]
            self.terms[node.name] = made
        self.finish(self.graph.output)
        return Recursion(tuple(self.steps), tuple(self.masks))

    def rule(self, node: PathNode, inputs: list[list[_Live]]) -> list[_Live]:
        """What each operator does to the terms (math.md, section 2)."""
        match node.operator:
            case Input(ones=ones) as start:
                if self.value_input == "ones" or (self.value_input == "auto" and ones):
                    return self.ones(node, start.starts(node.channels, node.positions))
                refuse_other_ones(node, self.graph.input_shape)
                return [self.constant(node).times(Factor("input", node.name), *self.here(node))]
            case Convolution() as layer:
                groups = np.arange(node.channels) * layer.groups // node.channels
                made = _fresh(self.parametric(node, layer), np.arange(node.positions), groups)
                return [dataclasses.replace(made, alone=True)]
            case BatchNorm():
                return self.shifted(node, inputs[0], 1.0) if self.bias else inputs[0]
            case Shift(factor=factor):
                return self.shifted(node, inputs[0], factor) if self.bias else inputs[0]
            case Scale(factor=factor):
                return [
                    dataclasses.replace(term, weights=term.weights * factor) for term in inputs[0]
                ]
            case Gate(gate=gate, slope=slope, levels=levels):
                passed = [
                    term.times(Factor("gate", gate, slope), *self.here(node)) for term in inputs[0]
                ]
                reached = [
                    self.constant(node, level).times(Factor("gate", name), *self.here(node))
                    for name, level in levels
                ]
                return passed + (reached if self.bias else [])
            case Add():
                return inputs[0] + inputs[1]
            case MaxPool(gate=gate):
                return [self.select(node, gate, term) for term in inputs[0]]
            case AveragePool() as pool:
                return [made for term in inputs[0] for made in self.average(node, pool, term)]
            case Rearrange(parts=parts):
                made = [
                    self.show(node, part, term) for part in parts for term in inputs[part.input]
                ]
                return [term for term in made if len(term.into)]
            case other:
                refuse_operator("step of the recursion", other)

    def here(self, node: PathNode) -> tuple[np.ndarray, np.ndarray]:
        """Place and offset of a factor that is read where the node is."""
        return np.arange(node.positions)[:, None], np.zeros((node.positions, 1), np.int64)

    def constant(self, node: PathNode, weight: float = 1.0) -> _Live:
        """Paths that start at a node: V = 1 everywhere."""
        return _fresh(
            None, np.zeros(node.positions, np.int64), np.zeros(node.channels, np.int64), weight
        )

    def shifted(self, node: PathNode, terms: list[_Live], weight: float) -> list[_Live]:
        """Paths that start at a node beside those that are there: the biases of fields that nothing
        else reads, where there are some; else terms, of the same channels as others, whose masks
        they will share.
        """
        left, begun = np.arange(node.channels), []
        times = Counter(term.field for term in terms)
        for term in sorted(terms, key=lambda term: not term.is_whole) if self.merged else ():
            whole = term.is_whole and times[term.field] == 1
            mixed = not whole and term.groups.any()
            if not term.is_plain or mixed or not np.isin(term.into, left).all():
                continue
            left = np.setdiff1d(left, term.into)
            if whole:
                self.begin_at(term, weight)
            else:
                begun.append(self.constant(node, weight).among(term.into))
        begun += [self.constant(node, weight).among(left)] if len(left) else []
        return [*terms, *begun]

    def begin_at(self, term: _Live, weight: float) -> None:
        """Let paths start at the field of a term."""
        read = self.steps[term.field or 0]
        assert isinstance(read, Field)  # as that of every term
        bias = read.bias + weight * weight
        self.steps[term.field or 0] = dataclasses.replace(read, bias=bias)

    def ones(self, node: PathNode, starts: np.ndarray) -> list[_Live]:
        """Paths that start at ones: a term for the channels that have them at the same positions."""
        everywhere = self.constant(node)
        patterns, number = np.unique(starts, axis=0, return_inverse=True)
        return [
            dataclasses.replace(
                everywhere,
                tables=(np.where(pattern, 0, OUTSIDE)[:, None],),
                into=np.flatnonzero(number.reshape(-1) == k),
                groups=everywhere.groups[number.reshape(-1) == k],
            )
            for k, pattern in enumerate(patterns)
            if pattern.any()
        ]

    def show(self, node: PathNode, part: Part, term: _Live) -> _Live:
        shown, taps = term.shown(part), part.places(node.positions)
        return shown if part.taps is None else shown.moved(taps, np.ones(taps.shape))

    def average(self, node: PathNode, pool: AveragePool, term: _Live) -> list[_Live]:
        """A mean, or fixed filters: a term for the channels of each filter."""
        taps = window_taps(self.graph, node)
        filters = pool.by_channel(self.graph.input_of(node).grid, node.channels)
        made = (term.among(channels).moved(taps, weights) for channels, weights in filters)
        return [one for one in made if len(one.into)]

    def select(self, node: PathNode, gate: str, term: _Live) -> _Live:
        """A max pool: the family grows by the window, each member masked by "this offset was
        chosen".
        """
        taps = window_taps(self.graph, node)
        moved = term.moved(taps, np.ones(taps.shape))
        offsets = np.repeat(np.arange(len(taps)), term.cells.shape[1])[None, :]
        return moved.times(Factor("selection", gate), self.here(node)[0], offsets)

    def parametric(self, node: PathNode, layer: Convolution) -> int:
        """The field of a layer. Paddings before it only say where its window looks, so the collapse
        is on the grid before them.
        """
        before, taps = self.graph.input_of(node), window_taps(self.graph, node)
        while (part := _only_moves_positions(self.graph, before)) is not None:
            taps = look_up(part.places(before.positions)[0], taps)
            before = self.graph[before.inputs[part.input]]
        key = (before.name, layer.groups)
        if key not in self.collapses:
            self.collapses[key] = self.collapse(before, layer.groups)
        factor = 1.0 / fan_in(self.graph, node) if self.divide else 1.0
        bias = factor if self.bias and layer.bias else 0.0
        self.steps.append(
            Field(
                node.name,
                self.collapses[key],
                taps,
                factor,
                bias,
                node.grid,
                node.positions,
                layer.groups,
            )
        )
        return len(self.steps) - 1

    def collapse(self, node: PathNode, groups: int) -> int:
        made = tuple(
            self.term(live, live.into * groups // node.channels) for live in self.terms[node.name]
        )
        made = self.sums.merged(node.name, made) if self.merged else made
        self.steps.append(Collapse(node.name, made, node.grid, node.positions, groups))
        return len(self.steps) - 1

    def term(self, live: _Live, groups: np.ndarray) -> Term:
        """Give the term's product of factors a mask, on its distinct positions only; ``groups``: of
        the collapse, for each channel.
        """
        order = np.lexsort((live.into, live.groups, groups))
        several = int(live.groups.max(initial=0)) + 1
        pairs, counts = np.unique(groups * several + live.groups, return_counts=True)
        blocks = np.stack([*np.divmod(pairs, several), np.arange(len(counts)), counts], 1)
        # nothing but padding in sight: no mask is needed
        if not live.factors or (live.cells < 0).all():
            return Term(
                live.field, live.cells, None, np.zeros_like(live.cells), live.weights, blocks
            )
        count, channels = len(live.factors), np.stack([channel[order] for channel in live.channels])
        if _adds_numbers(live):
            reads, weights, places = _summed(live)
            mask = Mask(
                live.factors,
                channels,
                reads[:count],
                reads[count:],
                tuple(counts.tolist()),
                weights,
            )
            once = (
                np.zeros(places.shape, np.int64),
                self.masks.setdefault(mask, len(self.masks)),
                places,
                np.ones(places.shape),
            )
            return Term(None, *once, blocks)
        outside = (live.cells < 0).reshape(-1)
        distinct, inverse = _distinct(live, ~outside)
        places = np.full(outside.shape, OUTSIDE)
        places[~outside] = inverse
        mask = Mask(
            live.factors, channels, distinct[:count], distinct[count:], tuple(counts.tolist())
        )
        number = self.masks.setdefault(mask, len(self.masks))
        return Term(
            live.field, live.cells, number, places.reshape(live.cells.shape), live.weights, blocks
        )

    def finish(self, node: PathNode) -> None:
        """The kernel: that of any output unit where they are alike, else the mean over all units."""
        terms = self.terms[node.name]
        if node.positions == 1 and all(
            not t.factors and len(t.into) == node.channels and not t.groups.any() for t in terms
        ):
            one = [dataclasses.replace(t, into=t.into[:1], groups=t.groups[:1]) for t in terms]
            self.steps.append(
                Collapse(node.name, tuple(self.term(t, t.into) for t in one), node.grid, 1)
            )
            return
        collapse = self.collapse(node, 1)
        units = node.channels * node.positions
        taps = np.arange(node.positions)[:, None]
        mean = ("mean over output units", collapse, taps, 1.0 / units, 0.0, (), 1)
        self.steps.append(Field(*mean, layer=False))
        last = _fresh(len(self.steps) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64))
        self.steps.append(Collapse("kernel", (self.term(last, last.into),), (), 1))


def _only_moves_positions(graph: PathGraph, node: PathNode) -> Part | None:
    """The one part of a rearrangement that leaves the channels as they are."""
    if not isinstance(node.operator, Rearrange) or len(node.operator.parts) != 1:
        return None
    (part,) = node.operator.parts
    channels = tuple(range(node.channels))
    shown = graph[node.inputs[part.input]]
    return (
        part if part.into == channels == part.channels and shown.channels == node.channels else None
    )


def _adds_numbers(live: _Live) -> bool:
    """Whether a pool before the first weight adds up numbers of one sample, of both signs maybe."""
    several = live.field is None and live.cells.shape[1] > 1
    signed = any(
        factor.kind == "input" or np.any(np.less(factor.slope, 0)) for factor in live.factors
    )
    return several and (signed or bool((live.weights < 0).any()))


def _summed(live: _Live) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the factors of a sum over the family are read, one row a factor, then their offsets;
    weights ``(sums, family)``; which of the distinct sums each position has, ``(positions, 1)``.
    """
    inside = live.cells >= 0
    reads = [np.where(inside, live.tables[number], 0) for number in live.numbers]
    sums = np.stack([*reads, np.where(inside, live.weights, 0.0)], 1)
    sums, number = np.unique(sums.reshape(len(sums), -1), axis=0, return_inverse=True)
    *reads, weights = sums.reshape(len(sums), len(reads) + 1, -1).swapaxes(0, 1)
    return np.stack(reads).reshape(len(reads), -1).astype(np.int64), weights, number.reshape(-1, 1)


def _distinct(live: _Live, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and offsets of the factors at the distinct positions among those inside, sorted, and
    the number of each one's position.
    """
    rows = {number: live.tables[number].reshape(-1)[inside] for number in live.numbers}
    found, inverse = np.unique(np.stack(list(rows.values())), axis=1, return_inverse=True)
    at = {number: row for row, number in enumerate(rows)}
    return found[[at[number] for number in live.numbers]], inverse.reshape(-1)
