"""The cost model: the work of a plan counted exactly, speeds fitted, kept in a file and read again.
No test looks at a clock.
"""

import json

import numba
import numpy as np
import pytest
from conftest import assert_kernels_equal
from torch import nn

import npk
from npk.backends.cpu import CpuBackend, costs, probes, speeds
from npk.backends.cpu.costs import PRODUCT, PROGRAM, Work, counts_of, product_counts
from npk.backends.cpu.dense import run_product
from npk.backends.cpu.speeds import Speeds, cache_folder, describe_machine, fit, predict, speeds_of
from npk.backends.cpu.tile import run_tile
from npk.backends.exponents import find_exponents
from npk.backends.layout import BITS, ONES, REAL
from npk.backends.program.program import BOX, CLEAR, COLLAPSE, GATHER, LOAD, ONCE, REDUCE
from npk.backends.reference import ReferenceBackend
from npk.recursion.planning import plan
from npk.structure.effort import effort

FLOAT = np.dtype("float32")
SMALL = (
    nn.Conv2d(1, 3, 2),
    nn.ReLU(),
    nn.Conv2d(3, 40, 2, stride=2),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(40, 2),
)
DENSE = (nn.Linear(3, 33), nn.ReLU(), nn.Linear(33, 70), nn.ReLU(), nn.Linear(70, 2))


def backend_of(layers, shape, dtype="float32", kind=CpuBackend, **options):
    net = nn.Sequential(*layers).eval()
    table = npk.record_gates(
        net, np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32)
    )
    return kind(plan(table.graph, **{"bias": "ignore", **options}), table, dtype), table


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "npk"


@pytest.fixture
def measured(monkeypatch, cache):
    """Speeds that are made up in the place of measured ones; the list holds what was asked for."""
    asked = []

    def measure(rows, dtype):
        asked.append((rows, dtype.name))
        kinds = len(PRODUCT if rows is None else PROGRAM)
        return Speeds(np.arange(1.0, kinds + 1), numba.config.NUMBA_NUM_THREADS, 1.0)

    monkeypatch.setattr(speeds, "measure", measure)
    return asked


def drawn():
    """One operation of each kind, and terms of four forms; its tables one after the other."""
    gathered, box, pair = [0, 1, -1, 1, 2, 0], [2, 0, 1, -1, 2], [0, 1, 2]
    tables = np.array([*gathered, *box, *pair, *[0] * 17, 1, *range(18)], np.int32)
    operations = [
        (LOAD, 1, 3, 0, 0, 0, 0),
        (CLEAR, 1, 2, 0, 0, 0, -1),
        (GATHER, 1, 2, 0, 3, 4, -1),
        (BOX, 1, 1, 6, 1, 4, -1),
        (COLLAPSE, 0, 3, 0, 3, 0, -1),
        (REDUCE, 14, 18, 3, 1, 0, 0),
    ]
    terms = [
        (1, 4, 11, 11, 11, -1, 1, 1, -1, 0, BITS, 0, 1, 1),
        (1, 4, 11, 11, 11, -1, 1, 0, -1, 0, REAL, 0, 5, 5),
        # of V = 1, whose only cell stays where it is
        (1, 0, 11, 11, 11, -1, 1, 0, 0, 1, BITS, 0, 3, 3),
        (1, 4, 32, -1, -1, -1, 0, 1, -1, 0, ONES, 0, 0, 0),
    ]
    made = [
        np.insert(np.array(rows), [at] * 3, ONCE, 1) for rows, at in ((operations, 7), (terms, 10))
    ]
    return Work(8, 4, *made, tables, np.array([9, 2, 1, 0]))


def test_work_of_a_program_is_counted_exactly():
    found = {name: n for name, n in zip(PROGRAM, drawn().counts(), strict=True) if n}
    moved = sum(found.pop(name) for name in list(found) if name.startswith("moved"))
    assert found == {
        "group": 1, "sums": 2, "operations": 6, "loaded": 3, "cleared": 2, "gathered "
                                                                           "cells": 2, "gathered": 5,
        "runs": 1, "outputs": 2, "columns": 4, "column entries": 3, "calls": 3, "cells": 9, "kept cells": 6,
        "ones": 18, "bits 1": 3, "chained "
                                 "more": 3, "chained words": 9, "numbers": 3, "channels": 15,
        "flushes": 3,  # 17 contributions to one sum are flushed twice
    }  # fmt: skip
    planes, masks, sums = (5 + 2) + (3 + 2) + 2 * 3 + 3 + 18, 3 * 1 + 3 * 5 + 3 * 3, 3 + 2 * 3
    assert moved == pytest.approx(8 * planes + masks + 16 * sums)


def test_what_is_moved_is_told_by_the_size_of_the_operation():
    found = costs._at_sizes(np.array([5.0, 7.0, 2.0]), 2.0 ** np.array([3, 18, 40]))
    assert found == pytest.approx(
        {name: n for name, n in zip(costs._MOVED, (5, 3.5, 3.5, 0, 0, 0, 2), strict=True)}
    )


def test_contributions_are_those_of_the_plan():
    """Windows of 2 x 2 share no columns, so the program reads exactly what the recursion says."""
    backend, _ = backend_of(SMALL, (1, 6, 7))
    found = dict(zip(PROGRAM, counts_of(backend.runner), strict=True))
    counts = effort(backend.recursion, backend.hard)
    forms = (
        "ones",
        "chained 1",
        "chained 2",
        "chained more",
        "bits 1",
        "bits 2",
        "bits more",
        "numbers",
    )
    assert found["column entries"] == 0
    assert found["gathered"] + sum(found[name] for name in forms) == counts.reads
    assert found["bits 2"] > 0  # 40 channels
    # inputs of one channel, and 3 gates, too few for bits
    assert (found["numbers"], found["channels"]) == (253 + 144, 253 + 3 * 144)
    assert found["operations"] == len(backend.runner.program.operations)


def test_a_box_of_a_real_plan_has_the_columns_of_its_runs():
    """On a torus of 4 x 4 with windows of 3 x 3, runs of 4 outputs read 6 columns of 3 cells."""
    conv = {"padding": 1, "padding_mode": "circular"}
    layers = (
        nn.Conv2d(1, 9, 3, **conv),
        nn.ReLU(),
        nn.Conv2d(9, 9, 3, **conv),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    found = dict(
        zip(
            PROGRAM,
            counts_of(backend_of((*layers, nn.Linear(9, 2)), (1, 4, 4))[0].runner),
            strict=True,
        )
    )
    assert found["outputs"] == 2 * 16 * 16
    assert found["column entries"] == 3 * found["columns"]
    assert found["columns"] == found["outputs"] + 2 * found["runs"]


def test_work_of_a_product_is_counted_exactly():
    found = dict(zip(PRODUCT, counts_of(backend_of(DENSE, (3,))[0].runner), strict=True))
    assert found["moved, 2^15 bytes"] == 3 + 2 + 3
    assert {name: n for name, n in found.items() if n and "moved" not in name} == {
        "group": 1, "bits": 2, "words": 2 + 3, "numbers": 1, "channels": 3
    }  # fmt: skip
    biased = dict(
        zip(PRODUCT, counts_of(backend_of(DENSE, (3,), bias="paths")[0].runner), strict=True)
    )
    assert biased == {**found, "biases": 3}
    # numbers of 8 bytes
    assert product_counts(np.array([[REAL, 0, 3]]), 8)[PRODUCT.index("moved, 2^15 bytes")] == 6


@pytest.mark.parametrize("rows", [4, 8])
def test_probes_have_every_kind_of_work(rows):
    counts = np.array([sketch.work(rows, 4, 1).counts() for sketch in probes._sketches()])
    assert [name for name, n in zip(PROGRAM, counts.sum(0), strict=True) if n == 0] == []


def test_fit_finds_the_speeds_that_times_were_made_of(rng):
    expected = np.where(rng.random(12) < 0.3, 0, 10 ** rng.uniform(-10, -7, 12))
    counts = (
        rng.integers(0, 1000, (60, 12))
        * (rng.random((60, 12)) < 0.4)
        * 10 ** rng.uniform(0, 4, (60, 1))
    )
    counts = counts[(counts @ expected) > 0]
    np.testing.assert_allclose(fit(counts, counts @ expected), expected, rtol=1e-6, atol=1e-14)


def test_fit_lies_as_far_above_as_below():
    """Of 1 s and 4 s for the same work it says 2 s: twice too long, twice too short."""
    np.testing.assert_allclose(fit(np.ones((2, 1)), np.array([1.0, 4.0])), [2.0], rtol=1e-2)


def test_measure_times_probes_and_puts_the_threads_back(monkeypatch):
    monkeypatch.setattr(probes, "_LONG", 0.0)
    few = tuple(probes._sketches())[:2]
    monkeypatch.setattr(probes, "_sketches", lambda: iter(few))
    numba.set_num_threads(1)
    for rows, kinds in ((8, PROGRAM), (None, PRODUCT)):
        found = speeds.measure(rows, FLOAT)
        assert found.seconds.shape == (len(kinds),)
        assert found.seconds.max() > 0
        assert 1 <= found.speedup <= found.threads
    left = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert left == 1


def test_probes_run_what_kernels_run():
    """Arrays of other kinds would be compiled for anew, and could be faster or slower."""
    for layers, shape, bias, made, compiled in (
        (SMALL, (1, 6, 7), "ignore", probes.of_program(8, FLOAT), run_tile),
        (DENSE, (3,), "ignore", probes.of_product(FLOAT), run_product),
        (DENSE, (3,), "paths", reversed([*probes.of_product(FLOAT)]), run_product),
    ):
        backend, table = backend_of(layers, shape, bias=bias)
        side = backend.side(table)
        backend.tile(side, side, find_exponents(backend.recursion, table))
        before = list(compiled.signatures)
        next(iter(made)).run()
        assert compiled.signatures == before


def test_a_probe_computes_what_its_operations_say():
    """Window sums of planes of ones, so that the work that is timed is work that is done."""
    sketch = probes._Sketch(6)
    sketch.collapse(1, 1, ONES, 0)
    sketch.terms[0] = (1, 0, *sketch.terms[0][2:])
    sketch.tables[0][:] = 0  # V = 1 in every cell
    work, run = probes._sketched(sketch, 8, FLOAT, 2)
    run()
    out = next(
        cell.cell_contents
        for cell in run.__closure__
        if getattr(cell.cell_contents, "shape", None) == (16, 32)
    )
    assert work.counts()[PROGRAM.index("ones")] == 6 * len(work.operations)
    assert_kernels_equal(out, np.full((16, 32), 0.5), "float32")


def test_a_pair_takes_its_share_of_a_group(measured):
    runner = backend_of(DENSE, (3,))[0].runner
    seconds = np.arange(1.0, len(PRODUCT) + 1)
    alone = counts_of(runner) @ seconds / (8 * 16)
    found = Speeds(seconds, 5, 3.0)
    assert [found.of_pair(runner, n) for n in (1, 3, 5, 9, None)] == pytest.approx(
        [alone, alone / 2, *[alone / 3] * 3]
    )
    assert predict(runner) == pytest.approx(alone)
    assert measured == [(None, "float32")]


def test_speeds_are_measured_once_for_each_kind_of_runner(measured, cache):
    runners = [backend_of(SMALL, (1, 6, 7), dtype)[0].runner for dtype in ("float32", "float64")]
    runners.append(backend_of(DENSE, (3,))[0].runner)
    first = [speeds_of(runner) for runner in runners]
    again = [speeds_of(runner) for runner in runners]
    assert measured == [(8, "float32"), (8, "float64"), (None, "float32")]
    assert len(list(cache.iterdir())) == 3
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.seconds, other.seconds)
        assert (one.threads, one.speedup) == (other.threads, other.speedup)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: "{",
        lambda content: "[]",
        lambda content: json.dumps({**content, "seconds": content["seconds"][:-1]}),
        lambda content: json.dumps({**content, "seconds": [-1.0, *content["seconds"][1:]]}),
        lambda content: json.dumps({**content, "seconds": [float("nan"), *content["seconds"][1:]]}),
        lambda content: json.dumps({**content, "seconds": "fast"}),
        lambda content: json.dumps({**content, "speedup": 0.0}),
        lambda content: json.dumps({**content, "speedup": None}),
        lambda content: json.dumps({**content, "about": {}}),
        lambda content: json.dumps(
            {name: value for name, value in content.items() if name != "about"}
        ),
    ],
)
def test_a_spoilt_file_is_measured_anew(measured, cache, spoil):
    runner = backend_of(DENSE, (3,))[0].runner
    speeds_of(runner)
    (path,) = cache.iterdir()
    whole = path.read_text()
    path.write_text(spoil(json.loads(whole)))
    speeds_of(runner)
    assert len(measured) == 2
    assert path.read_text() == whole


def test_a_folder_that_cannot_be_written_to_is_no_error(measured, cache):
    cache.write_text("a file where the folder should be")
    runner = backend_of(DENSE, (3,))[0].runner
    assert predict(runner) == predict(runner) > 0
    assert len(measured) == 2


@pytest.mark.parametrize("name", ["_model", "_engine"])
def test_another_processor_or_engine_is_measured_anew(measured, monkeypatch, name):
    runner = backend_of(DENSE, (3,))[0].runner
    speeds_of(runner)
    monkeypatch.setattr(speeds, name, lambda: "another")
    speeds_of(runner)
    assert len(measured) == 2


def test_a_machine_is_described_by_what_speeds_depend_on():
    found = describe_machine(8, "float64")
    assert found["threads"] == numba.config.NUMBA_NUM_THREADS
    assert found["work"] == "program float64, 8 rows"
    assert describe_machine(None, "float32")["work"] == "product float32"
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("system", "place"),
    [("linux", ".cache/npk"), ("darwin", "Library/Caches/npk"), ("win32", "AppData/Local/npk")],
)
def test_the_cache_lies_where_the_system_has_caches(monkeypatch, tmp_path, system, place):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(speeds.sys, "platform", system)
    assert cache_folder() == tmp_path / place
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "npk"


def test_only_the_cpu_backend_has_a_cost_model(measured):
    backend, _ = backend_of(SMALL, (1, 6, 7))
    assert backend.predict() == predict(backend.runner)
    assert backend_of(SMALL, (1, 6, 7), kind=ReferenceBackend)[0].predict() is None
