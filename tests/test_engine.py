"""The parts of the CPU engine, each against what it stands for: runs of window sums, chains of
masks, tables, programs, tiles.
"""

import functools
import itertools

import numba
import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal, kernel_deviation
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cpu.dense import run_product
from npk.backends.cpu.runners import ProgramRunner
from npk.backends.cpu.sides import LaidSide, on_lines, side_by_side, zeros
from npk.backends.cpu.tile import compiling
from npk.backends.exponents import find_exponents
from npk.backends.layout import REAL, Layout, is_kept_in_bits
from npk.backends.program import outlines, program
from npk.backends.program.boxes import find_runs
from npk.backends.program.chains import Chains, Step
from npk.backends.program.compiler import compile_program
from npk.backends.program.cuts import TARGETS, Place
from npk.backends.program.program import (
    BOX,
    COLLAPSE,
    COLUMNS,
    COPIES,
    DRAIN,
    GATHER,
    LANES,
    ONCE,
    REDUCE,
    SWEEP,
    TERMS,
    Draft,
    Rows,
)
from npk.backends.program.runs import runs_of
from npk.backends.program.unit import Part, Terms, Unit
from npk.backends.reference import evaluate
from npk.progress import Silent
from npk.recursion.degrees import by_depth
from npk.recursion.masks import Factor, Mask, form_bits, form_real
from npk.recursion.planning import plan

HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 2))
N = 33  # two groups of lanes, four of rows, and one sample


def built(arch, kind, shape, **options):
    return npk.networks.build(arch, kind, input_shape=shape, classes=2, seed=1, **options), shape


def picture(*layers, shape=(2, 4, 4)):
    return nn.Sequential(*layers), shape


class Gates(nn.Module):
    """Paths start at ones, and pass the gates of the samples."""

    def forward(self, x):
        return torch.ones_like(x) * (x > 0)


NETWORKS = {
    "product": lambda: built("fc", "dnn", (3,), hidden=[40, 9]),
    "product, soft": lambda: built("fc", "dlgn", (3,), hidden=[40, 9]),
    "convolutions": lambda: picture(
        nn.Conv2d(2, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 9, 3, padding=1), nn.ReLU(), *HEAD
    ),
    "convolutions, soft": lambda: built("conv", "dgn", (1, 4, 4), channels=[9, 9], epsilon=0.1),
    "groups and pools": lambda: picture(
        nn.Conv2d(2, 18, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(18, 9, 1, groups=3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(9, 70),
        nn.ReLU(),
        nn.Linear(70, 2),
    ),
    "pool of gates": lambda: picture(
        Gates(),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.Conv2d(2, 9, 3, padding=1),
        nn.ReLU(),
        *HEAD,
    ),
    "stream": lambda: built("residual", "dnn", (3,), widths=[9] * 5, flavor="fc", block_layers=1),
    "gated stream": lambda: built(
        "residual", "dnn", (3,), widths=[40] * 6, flavor="fc", block_layers=1, skip="gated"
    ),
    "resnet": lambda: built("resnet110", "dnn", (1, 4, 4), blocks=5, width=9),
}


@functools.cache
def recorded(name):
    """Gate table of 33 samples, whole numbers each: exact in count scale."""
    torch.manual_seed(0)
    net, shape = NETWORKS[name]()
    samples = np.random.default_rng(0).integers(-3, 4, (N, *shape)).astype(np.float32)
    return npk.record_gates(net.eval(), samples)


def compiled(name):
    table = recorded(name)
    recursion = plan(table.graph, bias="ignore")
    return compile_program(recursion, [is_kept_in_bits(mask, table) for mask in recursion.masks])


def column(rows, names, name):
    return rows[:, names.index(name)]


class Engine:
    """A backend with the exponents of a table, scaled by ``scale``."""

    def __init__(self, name, dtype="float32", scale="fan_in"):
        self.table = recorded(name)
        self.recursion = plan(self.table.graph, scale=scale, bias="ignore")
        self.backend = CpuBackend(self.recursion, self.table, dtype)
        self.exponents = find_exponents(self.recursion, self.table)

    def tile(self, rows=slice(None), cols=slice(None), **options):
        rows, cols = (self.backend.side(self.table.take(part)) for part in (rows, cols))
        return self.backend.tile(rows, cols, self.exponents, **options)

    def reference(self, rows=slice(None), cols=slice(None)):
        return evaluate(
            self.recursion, self.table.take(rows), self.table.take(cols), self.exponents
        )


# --- windows that slide ---


def windows(shape, kernel, *, stride=1, wrap=False):
    """Cells that the windows of a grid cover, ``(outputs, k)``; -1 outside."""
    at = np.indices([-(-size // stride) for size in shape]).reshape(len(shape), -1, 1) * stride
    at = at + np.indices(kernel).reshape(len(kernel), 1, -1) - np.array(kernel)[:, None, None] // 2
    sides = np.array(shape)[:, None, None]
    inside = wrap | ((at >= 0) & (at < sides)).all(0)
    return np.where(inside, np.ravel_multi_index(tuple(at % sides), shape), -1)


def runs_of_one(pair):
    """Table and number of runs of one table; ``None`` where there are none."""
    table, bounds, runs = find_runs(pair, np.array([0, len(pair)]))
    assert bounds.tolist() == [0, len(table)]
    return (table, int(runs[0])) if runs[0] else None


def sums_by_runs(table, runs, height, values):
    """What the engine makes of a table of runs: columns once, three of them an output."""
    found, t = [], 0
    for _ in range(runs):
        outputs = int(table[t])
        entries = table[t + 1 : t + 1 + (outputs + 2) * height].reshape(outputs + 2, height)
        sums = np.where(entries >= 0, values[entries], 0).sum(1)
        found.append(sums[:-2] + sums[1:-1] + sums[2:])
        t += 1 + entries.size
    assert t == len(table)
    return np.concatenate(found)


SHARED = {
    "padded": windows((7, 8), (3, 3)),
    "circular": windows((6, 9), (3, 3), wrap=True),
    "high": windows((5, 8), (5, 3)),
    "three axes": windows((3, 4, 7), (3, 3, 3)),
}


@pytest.mark.parametrize("name", SHARED)
def test_runs_make_the_same_sums(name, rng):
    pair = SHARED[name]
    values = rng.integers(-99, 99, pair.max() + 1)
    table, runs = runs_of_one(pair)
    assert len(table) - runs < 0.8 * pair.size  # fewer loads
    np.testing.assert_array_equal(
        sums_by_runs(table, runs, pair.shape[1] // 3, values),
        np.where(pair >= 0, values[pair], 0).sum(1),
    )


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_any_table(seed):
    """Runs of random lengths, cells that are missing, columns that happen to be equal: whatever is
    found gives the sums.
    """
    rng, found = np.random.default_rng(seed), 0
    for _ in range(20):
        height = int(rng.integers(2, 5))
        parts = [
            rng.integers(-1, 3, (rng.integers(3, 12), height)) for _ in range(rng.integers(1, 5))
        ]
        pair = np.concatenate(
            [np.stack([part[x : x + 3].T for x in range(len(part) - 2)]) for part in parts]
        ).reshape(-1, 3 * height)
        values = rng.integers(-99, 99, 3)
        if (runs := runs_of_one(pair)) is not None:
            found += 1
            sums = sums_by_runs(*runs, height, values)
            np.testing.assert_array_equal(sums, np.where(pair >= 0, values[pair], 0).sum(1))
    assert found > 5


@pytest.mark.parametrize(
    "pair",
    [
        windows((50,), (3,)),  # a column of one cell: nothing to save
        windows((8, 8), (3, 3), stride=2),
        windows((8, 8), (3, 2)),
        windows((8, 8), (3, 5)),
        windows((8, 8), (3, 3))[::8],
        windows((8, 8), (3, 3)).T[::-1].T,  # backwards
        np.random.default_rng(0).integers(0, 50, (60, 9)),
    ],
)
def test_no_runs_where_they_do_not_pay(pair):
    assert runs_of_one(pair) is None


def test_runs_just_where_they_pay():
    """A run of L outputs loads L + 2 columns in the place of 3 L: four fifths are the limit."""
    pair = windows((1, 9), (3, 3))
    assert runs_of_one(pair[:1]) is None
    assert runs_of_one(pair[:2])[1] == 1
    assert runs_of_one(pair[[0, 1, 4]])[1] == 2  # 7 columns of 9
    assert runs_of_one(pair[[0, 1, 4, 8]]) is None  # 10 of 12


def test_runs_of_many_tables_are_those_of_each():
    """Tables that share, that do not pay, and whose first row would go on with the last before."""
    shared = SHARED["padded"]
    tables = [shared, shared[:20], shared[20:], windows((8, 8), (3, 3), stride=2), shared[::-1]]
    bounds = np.cumsum([0, *map(len, tables)])
    table, begins, runs = find_runs(np.concatenate(tables), bounds)
    assert runs.tolist() == [7, 3, 5, 0, 0]
    for n, pair in enumerate(tables):
        own = table[begins[n] : begins[n + 1]]
        alone = runs_of_one(pair) or (own[:0], 0)
        np.testing.assert_array_equal(own, alone[0])
        assert runs[n] == alone[1]


# --- tables of many units ---


def resolved(program):
    """Operations and terms with what their tables hold, wherever that lies."""
    found = []
    for row in program.operations.tolist():
        held = dict(zip(COLUMNS, row, strict=True))
        kind, cells, first, count = (held[name] for name in ("kind", "cells", "first", "count"))
        if kind == GATHER:
            held["first"] = cut(program.tables, first, cells * count)
        if kind == BOX:
            end = first
            for _ in range(cells):
                end += 1 + (int(program.tables[end]) + 2) * count
            held["first"] = cut(program.tables, first, end - first)
        if kind == REDUCE:
            held["out"] = cut(program.tables, held["out"], cells)
        found.append(held)
        owned = count if kind in (COLLAPSE, REDUCE) else 0
        for term in program.terms[first : first + owned].tolist():
            held = dict(zip(TERMS, term, strict=True))
            size = cells * held["k"]
            for name in ("pair", "u", "v"):
                held[name] = cut(program.tables, held[name], size)
            found.append(held | {"weight": cut(program.weights, held["weight"], size)})
    assert len(found) == len(program.operations) + len(program.terms)
    beside = program.steps, program.factors, program.term_steps, program.term_factors
    return found, [held.tolist() for held in beside], program.masks, program.cells, program.sums


def cut(values, begin, size):
    return values[begin : begin + size].tobytes() if begin >= 0 else b""


@pytest.mark.parametrize("name", NETWORKS)
def test_tables_of_many_units_are_those_of_each(name, monkeypatch):
    together = compiled(name)
    for few in (1, 300):
        monkeypatch.setattr("npk.backends.program.compiler._TOGETHER", few)
        apart = compiled(name)
        assert resolved(apart) == resolved(together)
        assert len(apart.tables) == len(together.tables)  # equal ones are still kept once


@pytest.mark.parametrize("name", NETWORKS)
def test_every_entry_of_the_tables_is_read(name):
    """Windows whose columns are shared are kept as these runs, and not cell by cell as well."""
    program = compiled(name)
    read = np.zeros(len(program.tables), bool)
    for row in program.operations.tolist():
        held = dict(zip(COLUMNS, row, strict=True))
        kind, cells, first, count = (held[key] for key in ("kind", "cells", "first", "count"))
        if kind == GATHER:
            read[first : first + cells * count] = True
        if kind == BOX:
            end = first
            for _ in range(cells):
                end += 1 + (int(program.tables[end]) + 2) * count
            read[first:end] = True
        if kind == REDUCE:
            read[held["out"] : held["out"] + cells] = True
        owned = count if kind in (COLLAPSE, REDUCE) else 0
        for values in program.terms[first : first + owned].tolist():
            term = dict(zip(TERMS, values, strict=True))
            for begin in (term[key] for key in ("pair", "u", "v") if term[key] >= 0):
                read[begin : begin + cells * term["k"]] = True
    assert read.all() or not program.operations.size


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_places_in_long_tables_are_kept_whole(kind):
    """Terms take 32 bits until tables are longer than that holds."""
    place = Place(pair=np.iinfo(np.int32).max - 1 + (kind == np.int64), u=3, v=4)
    part = Part(0, 0, 0, 1, None, np.array([[0.0, 0, 0, 1]]))
    terms = Terms()
    terms.add((1, 0, *place[:TARGETS], 0, 1, -1, 0, *ONCE, -1), part, 1.0)
    unit = Unit({0: 1}, {0: place}, {}, terms=terms)
    unit.add((COLLAPSE, 0, 1, 0, 1, 0, -1), (0, -1))
    one = unit.outline(0)
    places = np.array([place, place])[:, None]
    rows = outlines.rows_of([one, one], places, np.zeros((2, 1), int))
    assert rows.terms.dtype == one.pattern.terms.dtype == kind
    assert column(rows.terms, TERMS, "pair").tolist() == [place.pair] * 2
    assert column(rows.operations, COLUMNS, "first").tolist() == [0, 1]


@pytest.mark.slow
def test_terms_of_any_width_are_read_alike():
    """The engine compiled for terms of 64 bits."""
    engine = Engine("groups and pools")
    assert engine.backend.runner.terms.dtype == np.int32
    expected = engine.tile()
    engine.backend.runner.terms = engine.backend.runner.terms.astype(np.int64)
    np.testing.assert_array_equal(engine.tile(), expected)


def test_nothing_is_laid_out_to_compile(monkeypatch):
    """Masks of one sample of soft gates may take a hundred megabytes, sixteen side by side."""
    engine = Engine("convolutions, soft")
    monkeypatch.setattr(Layout, "side", None)
    engine.backend.compile(Silent())


# --- runs of groups ---


def each(runs):
    """Blocks of runs, one by one, sorted."""
    return sorted(run.part(copy, 1)[:4] for run in runs for copy in range(run.times))


@pytest.mark.parametrize(
    ("blocks", "runs"),
    [
        ([(0, 0, 0, 0.5), (1, 1, 0, 0.5), (2, 2, 0, 0.5)], 1),
        ([(0, 3, 2, 0.5), (2, 3, 2, 0.5), (4, 3, 2, 0.5)], 1),  # one source
        ([(0, 0, 0, 0.5), (0, 1, 0, 0.5), (0, 2, 0, 0.5)], 3),  # into one group
        ([(0, 2, 0, 0.5), (1, 1, 0, 0.5), (2, 0, 0, 0.5)], 3),  # backwards
        ([(0, 0, 0, 0.5), (1, 1, 1, 0.5), (2, 2, 2, 0.5)], 3),  # masks of their own
        ([(0, 0, 0, 0.5), (1, 1, 0, 0.25), (2, 2, 0, 0.5)], 2),  # another factor
        ([(0, 0, 0, 0.5), (1, 1, 0, 0.5), (3, 3, 0, 0.5)], 2),  # a longer step
        ([(1, 1, 0, 0.5)], 1),
        ([], 0),
    ],
)
def test_runs_are_groups_a_step_apart(blocks, runs):
    found = runs_of(np.array(blocks, float).reshape(-1, 4))
    assert len(found) == runs
    assert each(found) == sorted(blocks)
    assert all(isinstance(n, int) for run in found for n in (*run[:3], *run[4:]))


@pytest.mark.parametrize("bias", ["paths", "ignore"])
def test_terms_of_many_groups_are_written_as_those_of_few(bias, monkeypatch):
    """Groups of one channel and of several, and channels of a group that read two groups."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 1, groups=8),
        nn.ReLU(),
        nn.Conv2d(24, 24, 1, groups=12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 2),
    )
    graph = npk.trace(net.eval(), (2, 4, 4))
    recursion = plan(graph, bias=bias)
    hard = [all(factor.kind == "gate" for factor in mask.factors) for mask in recursion.masks]
    as_table = compile_program(recursion, hard)
    monkeypatch.setattr("npk.backends.program.outlines._MANY", 1 << 30)
    one_by_one = compile_program(recursion, hard)
    assert len(as_table.terms) > 3 * 24
    assert resolved(as_table) == resolved(one_by_one)


# --- chains of masks ---


@functools.cache
def layers_on_a_line():
    """Five hard layers of nine channels on four positions."""
    torch.manual_seed(0)
    convs = [
        layer for i in range(5) for layer in (nn.Conv1d(9 if i else 1, 9, 3, padding=1), nn.ReLU())
    ]
    net = nn.Sequential(*convs, nn.Flatten(), nn.Linear(36, 2))
    return npk.record_gates(
        net.eval(), np.random.default_rng(0).standard_normal((6, 1, 4)).astype(np.float32)
    )


def mask_of(*layers, at=(0, 1, 2, 3), channels=range(9), segments=(9,)):
    names = layers_on_a_line().names
    f = len(layers)
    factors = tuple(Factor("gate", names[layer]) for layer in layers)
    return Mask(
        factors,
        np.tile(list(channels), (f, 1)),
        np.tile(at, (f, 1)),
        np.zeros((f, len(at)), int),
        segments,
    )


def growing(count, owner=(0, 0), places=(0, 0)):
    """Steps whose masks are the last 1, 2, 3 ... layers."""
    return [Step(owner, mask_of(*range(4, 3 - k, -1)), places, True) for k in range(count)]


def test_products_along_a_chain_are_the_masks():
    """Two chains that take turns, one of a mask whose new factor comes first."""
    other = [Step((1, 0), mask_of(*range(3 - k, 4)), (0, 0), True) for k in range(4)]
    steps = [step for both in zip(growing(4), other, strict=True) for step in both]
    linked, product = Chains().link(steps), {}
    assert {chain for _, chain, _ in linked} == {0, 1}
    for step, (mask, chain, starts) in zip(steps, linked, strict=True):
        assert len(mask.factors) == 1
        bits = form_bits(mask, layers_on_a_line())
        product[chain] = bits if starts else product[chain] & bits
        np.testing.assert_array_equal(product[chain], form_bits(step.mask, layers_on_a_line()))
        assert len(set(step.mask.factors)) == len(step.mask.factors)
    assert [starts for _, _, starts in linked] == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("count", "links"), [(1, False), (2, False), (3, True), (4, True)])
def test_short_chains_stay_apart(count, links):
    steps = growing(count)
    linked = Chains().link(steps)
    assert [chain for _, chain, _ in linked] == [0 if links else -1] * count
    if not links:
        assert all(
            mask is step.mask and not starts
            for (mask, _, starts), step in zip(linked, steps, strict=True)
        )


@pytest.mark.parametrize(
    "third",
    [
        Step((0, 0), mask_of(4, 3, 2), (0, 7), True),  # read elsewhere
        Step((0, 0), mask_of(4, 3, 2), (0, 0), False),  # not of bits at one place a cell
        Step((0, 0), mask_of(4, 3, 2, segments=(4, 5)), (0, 0), True),
        Step((0, 0), mask_of(4, 3, 2, at=(0, 1, 2)), (0, 0), True),
        Step((0, 0), mask_of(4, 2, 1), (0, 0), True),  # without a factor of the mask before
        Step((0, 0), mask_of(4, 3), (0, 0), True),  # nothing new
        Step((0, 0), mask_of(4, 3, 2, at=(1, 0, 2, 3)), (0, 0), True),  # factors read elsewhere
        Step((0, 0), mask_of(4, 3, 2, channels=(1, 0, *range(2, 9))), (0, 0), True),
        Step((1, 0), mask_of(4, 3, 2), (0, 0), True),  # another step's
        Step((0, 1), mask_of(4, 3, 2), (0, 0), True),  # another group's
        Step((0, 0), None, (0, 0), False),
    ],
)
def test_masks_that_do_not_follow_start_anew(third):
    steps = [*growing(2), third]
    assert Chains().link(steps) == [(step.mask, -1, 0) for step in steps]


def test_several_factors_at_once_are_one_step():
    steps = [
        Step((0, 0), mask, (0, 0), True)
        for mask in (mask_of(4), mask_of(4, 3, 2), mask_of(4, 3, 2, 1))
    ]
    masks = [mask for mask, _, _ in Chains().link(steps)]
    assert [len(mask.factors) for mask in masks] == [1, 2, 1]


# --- programs ---


def rows_of(*operations):
    """Operations without terms."""
    made = np.zeros((len(operations), len(COLUMNS)), np.int64)
    for row, operation in zip(made, operations, strict=True):
        row[: len(operation)] = operation
    count = len(operations)
    steps, factors = np.zeros((count, 2), np.int64), np.ones((count, 2))
    terms, of_terms = np.zeros((0, len(TERMS)), np.int64), np.zeros((0, 2), np.int64)
    return Rows(made, steps, factors, terms, of_terms, np.ones(0), np.arange(count) == 0)


def at(place, values):
    """Where one array begins."""
    return int(place(values, np.array([0, values.size]))[0])


def test_equal_tables_weights_and_masks_are_kept_once():
    draft = Draft()
    draft.add(rows_of())
    first, second = np.arange(6).reshape(3, 2), np.arange(2, 6).reshape(2, 2)
    assert [
        at(draft.tables, first),
        at(draft.tables, first.astype(np.int32)),
        at(draft.tables, first[1:]),
        at(draft.tables, second),
    ] == [0, 0, 6, 6]
    assert at(draft.tables, first[:2]) == 10  # begins where the whole table does
    assert at(draft.weights, np.array([0.5])) == at(draft.weights, np.array([0.5])) == 0
    assert at(draft.weights, np.array([2.0, 0.5])) == 1
    parted = mask_of(1, segments=(4, 5))
    assert [
        draft.mask(mask)
        for mask in (parted, mask_of(0), mask_of(1, segments=(4, 5)), mask_of(0), mask_of(2))
    ] == [0, 2, 0, 2, 3]
    assert at(draft.tables, second.copy()) == 6
    made = draft.finished(1, 0, 0, 1)
    np.testing.assert_array_equal(made.tables, [*range(6), *range(2, 6), *range(4)])
    np.testing.assert_array_equal(made.weights, [0.5, 2, 0.5])
    assert [mask.factors for mask in made.masks] == [
        parted.factors,
        mask_of(0).factors,
        mask_of(2).factors,
    ]


def test_a_table_without_entries():
    draft = Draft()
    assert draft.tables(np.arange(3), np.array([0, 0, 2, 2, 3])).tolist() == [0, 0, 0, 2]
    draft = Draft()
    assert [
        at(draft.tables, np.zeros((0, 3))),
        at(draft.tables, np.arange(2)),
        at(draft.tables, np.arange(3)),
    ] == [0, 0, 2]


@pytest.mark.parametrize(
    ("cells", "itemsize", "rows"),
    [
        ([511], 4, 8),
        ([512], 4, 4),
        ([255], 8, 8),
        ([256], 8, 4),
        ([8, 600], 4, 4),
        ([8] * 600, 4, 8),
        ([], 4, 8),
    ],
)
def test_rows_while_planes_fit_the_cache(cells, itemsize, rows):
    draft = Draft()
    for count in cells:
        draft.add(rows_of((COLLAPSE, 0, count, 0, 0, 0, -1)))
    draft.add(rows_of((BOX, 0, 10**6, 0, 0, 0, -1)))
    assert draft.finished(1, 0, 0, 1).rows(itemsize) == rows


def test_streams_are_bands_with_chains():
    """What the networks of this file stand for."""
    made = compiled("resnet")
    collapses = made.operations[column(made.operations, COLUMNS, "kind") == COLLAPSE]
    terms = [
        slice(first, first + count)
        for first, count in collapses[:, [COLUMNS.index("first"), COLUMNS.index("count")]]
    ]
    assert max(len(set(made.term_steps[some, 0])) for some in terms) == 2
    assert max(some.stop - some.start for some in terms) > 2
    assert made.chains > 1
    assert (column(made.terms, TERMS, "fresh") == 0).any()
    assert compiled("gated stream").chains
    assert {BOX, REDUCE} <= set(compiled("convolutions").operations[:, 0].tolist())
    assert column(compiled("pool of gates").terms, TERMS, "k").max() > 1
    assert (column(compiled("pool of gates").terms, TERMS, "weight") >= 0).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_are_the_recursion(name, dtype):
    engine = Engine(name, dtype)
    expected = engine.reference(slice(0, 17))
    diagonal = np.diagonal(engine.reference())
    assert_kernels_equal(engine.tile(slice(0, 17)), expected, dtype, (diagonal[:17], diagonal))


@pytest.mark.parametrize(
    "name", ["product", "convolutions", "groups and pools", "stream", "gated stream"]
)
def test_counts_are_exact(name):
    """Whole numbers in, weights that are powers of two: no rounding anywhere."""
    engine = Engine(name, "float64", scale="count")
    actual, expected = (
        np.ldexp(values, int(engine.exponents[-1]))
        for values in (engine.tile(), engine.reference())
    )
    assert (expected * 2**8 == np.round(expected * 2**8)).all()
    assert np.abs(expected).max() < 2**45
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", ["convolutions", "groups and pools", "gated stream", "resnet"])
def test_four_rows_give_the_bits_of_eight(name, monkeypatch):
    eight = Engine(name)
    monkeypatch.setattr(program, "_PLANE", 0)
    four = Engine(name)
    assert (eight.backend.runner.rows, four.backend.runner.rows) == (8, 4)
    for n in (1, 3, 4, 5, 8, 9, N):
        np.testing.assert_array_equal(four.tile(slice(0, n)), eight.tile(slice(0, n)))


# --- sweeps ---


def chain(*between, channels=(9, 9, 9), padding_mode="zeros", bias=False):
    """Convolutions with a ReLU behind each, and what comes between the second and the third."""
    layers, before = [], 2
    for number, width in enumerate(channels):
        layers += [nn.Conv2d(before, width, 3, padding=1, padding_mode=padding_mode, bias=bias)]
        layers += [nn.ReLU(), *(between if number == 1 else ())]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 2))


SWEPT = {  # network, bias
    "circular": (lambda: chain(padding_mode="circular"), "ignore"),
    "padded": (chain, "ignore"),
    "two words, three": (lambda: chain(channels=(40, 70, 9, 9)), "ignore"),
    "biases": (lambda: chain(bias=True), "paths"),
}


def planned(make, bias, swept, sides=(4, 8)):
    """The program of a network, swept or not, with what runs it."""
    torch.manual_seed(0)
    samples = np.random.default_rng(0).standard_normal((19, 2, *sides)).astype(np.float32)
    table = npk.record_gates(make().eval(), samples)
    backend = CpuBackend(plan(table.graph, bias=bias), table, "float32")
    if not swept:
        hard = [is_kept_in_bits(mask, table) for mask in backend.recursion.masks]
        backend.runner = ProgramRunner(compile_program(backend.recursion, hard), backend.layout)
    return backend, table


def swept_and_not(name, sides):
    """Tile and diagonal without planes of window sums and with them, and the cells that it takes."""
    found = []
    for swept in (True, False):
        backend, table = planned(*SWEPT[name], swept, sides)
        kinds = column(backend.runner.program.operations, COLUMNS, "kind")
        assert (SWEEP in kinds) == (DRAIN in kinds) == swept
        assert (BOX in kinds) != swept
        side, exponents = backend.side(table), find_exponents(backend.recursion, table)
        found.append((backend.tile(side, side, exponents), backend.diagonal(side, exponents)))
        if swept:
            cells = backend.runner.program.cells
    return [*zip(*found, strict=True)], cells


@pytest.mark.parametrize("name", SWEPT)
def test_sweeps_and_drains_are_boxes_and_what_follows_to_the_bit(name):
    """Of a power of two of positions, whose mean rounds nothing."""
    found, cells = swept_and_not(name, (4, 8))
    for short, plain in found:
        np.testing.assert_array_equal(short, plain)
    assert cells == 1 + 2 * 32  # two planes, in turns


@pytest.mark.parametrize("sides", [(5, 7), (3, 3), (9, 13)])
@pytest.mark.parametrize("name", SWEPT)
def test_sweeps_and_drains_of_any_picture(name, sides):
    (tile, plain), (diagonal, plain_diagonal) = swept_and_not(name, sides)[0]
    assert kernel_deviation(tile, plain) < 1e-6
    np.testing.assert_allclose(diagonal, plain_diagonal, rtol=1e-6)
    np.testing.assert_array_equal(diagonal, np.diagonal(tile))


class Mirrored(nn.Module):
    """Columns from right to left."""

    def forward(self, x):
        return torch.flip(x, (3,))


def pooled(*size):
    """A pool, and a gate that keeps it apart from the next one."""
    return nn.Sequential(nn.AvgPool2d(size), nn.Conv2d(9, 9, 1), nn.ReLU())


@pytest.mark.parametrize("behind", [pooled(1, 8), pooled(2, 8), Mirrored()])
def test_window_sums_go_to_their_own_sum_with_their_own_overlaps(behind):
    """A pool over rows has its cells in order too, but several sums; a mirror image has one sum, and
    its cells in another order.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 9, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, behind, *HEAD).eval()
    samples = np.random.default_rng(0).standard_normal((5, 2, 4, 8)).astype(np.float32)
    table = npk.record_gates(net, samples)
    backend = CpuBackend(plan(table.graph, bias="ignore"), table, "float64")
    exponents = find_exponents(backend.recursion, table)
    side = backend.side(table)
    expected = evaluate(backend.recursion, table, table, exponents)
    np.testing.assert_allclose(backend.tile(side, side, exponents), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("layer", "swept"),
    [
        (nn.Conv2d(9, 9, 3, padding=1), True),
        (nn.Conv2d(9, 9, 5, padding=2), False),  # windows of another size
        (nn.Conv2d(9, 9, 3, padding=1, stride=2), False),  # few columns are shared
        (nn.Conv2d(9, 9, 3, padding=1, groups=3), False),  # groups of channels
        (nn.Conv2d(9, 3, 3, padding=1), False),  # too few gates for bits
    ],
)
def test_only_what_fits_is_swept(layer, swept):
    first, last = nn.Conv2d(2, 9, 5, padding=2), nn.Conv2d(layer.out_channels, 9, 5, padding=2)
    net = [first, nn.ReLU(), layer, nn.ReLU(), last, nn.ReLU()]
    table = npk.record_gates(
        nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 2)).eval(),
        np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype(np.float32),
    )
    program = CpuBackend(plan(table.graph, bias="ignore"), table, "float32").runner.program
    assert (SWEEP in column(program.operations, COLUMNS, "kind")) == swept


@pytest.mark.parametrize("name", ["resnet", "groups and pools", "pool of gates"])
def test_fields_of_several_readers_keep_their_planes(name):
    """Skips read a sum that the next window reads too; nothing else changes."""
    engine = Engine(name)
    expected = engine.tile()
    hard = [is_kept_in_bits(mask, engine.table) for mask in engine.recursion.masks]
    program = compile_program(engine.recursion, hard)
    engine.backend.layout = Layout(program.masks, engine.table, np.dtype("float32"))
    engine.backend.runner = ProgramRunner(program, engine.backend.layout)
    np.testing.assert_array_equal(engine.tile(), expected)


# --- copies ---

DEEP = ["groups and pools", "pool of gates", "stream", "gated stream", "resnet"]


@pytest.mark.parametrize("name", DEEP)
def test_copies_are_what_they_are_one_by_one(name):
    """Kernels of all depths, to the bit; with biases, so that groups begin at different depths."""
    table = recorded(name)
    recursion = by_depth(plan(table.graph, bias="paths", merged=False))
    backend, exponents = (CpuBackend(recursion, table, "float64"), find_exponents(recursion, table))
    made, once = backend.runner.program, backend.runner.program.one_by_one()
    side = backend.side(table.take(slice(0, 17)))
    tile, diagonal = backend.tile(side, side, exponents), backend.diagonal(side, exponents)
    backend.runner = ProgramRunner(once, backend.layout)
    np.testing.assert_array_equal(backend.tile(side, side, exponents), tile)
    np.testing.assert_array_equal(backend.diagonal(side, exponents), diagonal)
    for rows, names in ((once.operations, COLUMNS), (once.terms, TERMS)):
        assert (rows[:, [names.index(copies) for copies in COPIES]] == ONCE).all()
    if recursion.parts > 2:
        assert len(once.terms) > len(made.terms)
        assert len(once.operations) > len(made.operations)


def test_a_stream_takes_its_overlaps_once_for_all_depths():
    """As many rows of a program as those of the kernel, whatever the number of depths."""
    table = recorded("gated stream")
    of_kernel = plan(table.graph, bias="ignore")
    of_depths = by_depth(of_kernel)
    kernel, deep = (
        compile_program(recursion, [is_kept_in_bits(mask, table) for mask in recursion.masks])
        for recursion in (of_kernel, of_depths)
    )
    assert of_depths.parts == column(deep.terms, TERMS, "times").max() == 7
    assert len(deep.operations) == len(kernel.operations)
    assert len(deep.terms) == len(kernel.terms)
    assert deep.chains


# --- sides ---


def test_words_of_32_bits():
    """Segments of 1, 32, 33, 64 and 65 channels; each begins a word."""
    segments = (1, 32, 33, 64, 65)
    net = nn.Sequential(nn.Linear(3, 195), nn.ReLU(), nn.Linear(195, 2)).eval()
    table = npk.record_gates(
        net, np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    )
    mask = Mask(
        (Factor("gate", table.names[0]),),
        np.arange(195)[None],
        np.zeros((1, 1), int),
        np.zeros((1, 1), int),
        segments,
    )
    layout = Layout((mask,), table, np.dtype("float32"))
    np.testing.assert_array_equal(layout.rows[:-1, 1], [0, 1, 2, 4, 6])
    np.testing.assert_array_equal(layout.rows[:-1, 3], [1, 1, 2, 2, 3])
    assert layout.bytes_a_sample == 4 * 9
    bits = layout.side(table).bits
    unpacked = np.unpackbits(bits.astype("<u4").view(np.uint8), axis=1, bitorder="little").reshape(
        5, 9 * 32
    )
    ends = np.cumsum([0, *segments])
    for first, start, stop in zip(layout.rows[:-1, 1] * 32, ends[:-1], ends[1:], strict=True):
        np.testing.assert_array_equal(
            unpacked[:, first : first + stop - start], form_real(mask, table)[:, 0, start:stop]
        )
    assert unpacked.sum() == form_real(mask, table).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_arrays_begin_at_lines(dtype):
    for shape in itertools.product((1, 3, 8), (1, 5, 16)):
        made = zeros(shape, np.dtype(dtype))
        assert made.ctypes.data % 64 == 0
        assert made.shape == shape
        assert not made.any()
    memory = np.ones(100, dtype)
    for first in range(16):
        assert on_lines(memory[first:], (5, 10)).ctypes.data % 64 == 0


@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("name", ["convolutions", "convolutions, soft"])
def test_samples_side_by_side(name, n):
    engine, table = Engine(name), recorded(name).take(slice(0, n))
    side = engine.backend.layout.side(table)
    for count, values in itertools.product((4, 8, LANES), (side.bits, side.reals)):
        made = side_by_side(values, count)
        assert made.ctypes.data % 64 == 0 or not made.size
        groups = (
            made.reshape(-(-n // count), values.shape[1], count)
            .swapaxes(1, 2)
            .reshape(-(-n // count) * count, values.shape[1])
        )
        np.testing.assert_array_equal(groups[:n], values)
        assert not groups[n:].any()
    for high in (1, 2, 4, 8):
        laid = LaidSide(side, high)
        assert len(laid) == n
        for values, row, lanes in zip(
            (side.bits, side.reals), laid.rows, (laid.bits, laid.reals), strict=True
        ):
            np.testing.assert_array_equal(lanes, side_by_side(values, LANES))
            np.testing.assert_array_equal(row, side_by_side(values, high))
            assert row.ctypes.data % 64 == 0 or not row.size
        assert laid.rows is laid.rows


# --- tiles ---


@pytest.fixture(params=[1, 2])
def threads(request):
    before = numba.get_num_threads()
    numba.set_num_threads(min(request.param, numba.config.NUMBA_NUM_THREADS))
    yield
    numba.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name", ["product", "product, soft", "convolutions", "convolutions, soft", "gated stream"]
)
def test_an_entry_is_the_same_in_every_tile(name, dtype, threads, rng):
    engine = Engine(name, dtype)
    whole = engine.tile()
    for n in (1, 7, 8, 9, 15, 16, 17):
        for rows, cols in (
            (slice(0, n), slice(None)),
            (slice(None), slice(N - n, None)),
            (slice(N - n, None), slice(0, n)),
        ):
            np.testing.assert_array_equal(engine.tile(rows, cols), whole[rows, cols])
    p, q = rng.permutation(N), rng.permutation(N)
    np.testing.assert_array_equal(engine.tile(p, q), whole[p][:, q])


@pytest.mark.parametrize("name", ["product", "product, soft", "convolutions", "convolutions, soft"])
def test_an_entry_is_the_same_in_a_tile_of_many_tasks(name):
    """Rows come in groups of eight, taken in pairs where there are many; columns in blocks of
    sixteen.
    """
    engine, many = Engine(name), np.arange(200) % N
    np.testing.assert_array_equal(engine.tile(many, many[3:]), engine.tile()[many][:, many[3:]])


def test_four_rows_are_the_recursion(monkeypatch):
    monkeypatch.setattr(program, "_PLANE", 0)
    engine = Engine("convolutions, soft")
    diagonal = np.diagonal(engine.reference())
    assert_kernels_equal(engine.tile(), engine.reference(), "float32", (diagonal, diagonal))


# --- sums of numbers: channels some at a time, and the rest one by one ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", range(1, 21))
def test_sums_of_any_number_of_channels(channels, dtype):
    """Of whole numbers, so that no order rounds; what lies before them and behind is not theirs."""
    rng = np.random.default_rng(channels)
    left, right = (rng.integers(1, 9, (n, channels + 2)).astype(dtype) for n in (9, 17))
    rows, lanes = side_by_side(left, 8), side_by_side(right, LANES)
    no_bits = np.zeros((len(rows), 0), np.uint32), np.zeros((len(lanes), 0), np.uint32)
    out = np.empty((16, 32), dtype)
    factors = np.array([(REAL, 1, channels)])
    masks = *no_bits, rows, lanes
    run_product((0,) * 8, factors, (np.ones(1, dtype), None), masks, 16, out)
    expected = left[:, 1:-1] @ right[:, 1:-1].T
    np.testing.assert_array_equal(out[:9, :17], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [4, 7, 8, 15, 17])
def test_soft_channels_that_fill_no_turn(channels, dtype):
    """A tile is the recursion, and its diagonal that of the pairs (x, x) alone, to the bit."""
    net, shape = built("conv", "dlgn", (1, 3, 3), channels=[channels, channels + 1], gates="soft")
    X = np.random.default_rng(0).standard_normal((9, *shape)).astype(np.float32)
    table = npk.record_gates(net.eval(), X)
    recursion = plan(table.graph, bias="ignore")
    backend, exponents = CpuBackend(recursion, table, dtype), find_exponents(recursion, table)
    side, expected = backend.side(table), evaluate(recursion, table, table, exponents)
    made = backend.tile(side, side, exponents)
    assert_kernels_equal(made, expected, dtype, (np.diagonal(expected),) * 2)
    np.testing.assert_array_equal(backend.diagonal(side, exponents), np.diagonal(made))


@pytest.mark.parametrize("name", ["product, soft", "convolutions", "resnet"])
def test_threads_do_not_change_an_entry(name):
    engine, before, found = Engine(name), numba.get_num_threads(), []
    try:
        for count in range(1, numba.config.NUMBA_NUM_THREADS + 1)[:4]:
            numba.set_num_threads(count)
            found.append(engine.tile())
    finally:
        numba.set_num_threads(before)
    for values in found:
        np.testing.assert_array_equal(values, found[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["product", "convolutions", "resnet"])
def test_memory_that_was_used_before(name, dtype):
    engine = Engine(name, dtype)
    whole, memory = engine.tile(), engine.backend.memory_of(N)
    memory[:] = 7
    for n, m in ((N, N), (17, N), (1, 1), (N, 8), (9, 17), (N, N)):
        made = engine.tile(slice(0, n), slice(0, m), memory=memory)
        assert np.shares_memory(made, memory)
        np.testing.assert_array_equal(made, whole[:n, :m])
    assert memory.dtype == dtype


@pytest.mark.parametrize("name", ["product", "convolutions", "resnet"])
@pytest.mark.parametrize("first", [0, 5, 16, 32])
def test_a_triangle_in_memory_that_was_used_before(name, first):
    engine = Engine(name)
    whole, memory = engine.tile(), engine.backend.memory_of(N)
    memory[:] = 7
    made = engine.tile(cols=slice(first, None), diagonal=first, memory=memory)
    kept = np.arange(N)[:, None] <= np.arange(first, N)
    np.testing.assert_array_equal(made[kept], whole[:, first:][kept])


def test_what_lies_left_of_the_diagonal_is_not_computed():
    engine = Engine("convolutions")
    memory = engine.backend.memory_of(N)
    memory[:] = 7
    made = engine.tile(diagonal=0, memory=memory)
    assert (made[16:32, :16] == 7).all()
    assert not (made[:16, 16:] == 7).any()


class Heard(Silent):
    """Keeps the names of tasks."""

    def __init__(self):
        self.names = []

    def task(self, description, total):
        self.names.append(description)
        return super().task(description, total)


def test_compiling_is_said_once():
    """Functions that are compiled on the way to another are part of its time; what is compiled
    already says nothing.
    """
    inner = numba.njit(lambda x: x + 1)
    outer = numba.njit(lambda x: inner(x) * 2)
    heard = Heard()
    with compiling(heard):
        assert outer(1) == 4
    assert heard.names == ["compiling (once)"]
    with compiling(heard):
        assert outer(2) == 6
    assert heard.names == ["compiling (once)"]
