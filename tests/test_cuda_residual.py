"""Residual streams on the chip: what waits in memory meanwhile, and their kernels on both emulators
against the definition.
"""

import functools
import sys

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from emu.launcher import EmulatedLauncher
from test_cuda_backend import fake_cupy
from test_cuda_stage import ENGINES, assert_exact, chain_of, made, needs_compiler
from torch import nn
from torch.nn import functional as F

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import stage_runner
from npk.backends.cuda.launcher import find_launcher
from npk.backends.cuda.schedule import MULTIPLIED, UNMASKED, schedule
from npk.recursion.planning import plan

# tiny networks have dead inputs
pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")


class Net(nn.Module):
    """A residual network: ``forward`` is a function of its operators and the input."""

    def __init__(self, function, last, **operators):
        super().__init__()
        self.function, self.last = function, nn.LazyLinear(2)
        self.ends = last
        for name, operator in operators.items():
            setattr(self, name, operator)

    def forward(self, x):
        return self.last(self.ends(self.function(self, x)).flatten(1))


def conv(i, o, kernel=3, stride=1, padding="zeros"):
    return nn.Conv2d(i, o, kernel, stride, kernel // 2, padding_mode=padding, bias=False)


def pool(x):
    return x.mean((2, 3))


def gated(s, x):
    """Blocks of He et al.: a gate after each sum."""
    x = F.relu(s.stem(x))
    x = F.relu(x + s.b(F.relu(s.a(x))))
    return F.relu(x + s.d(F.relu(s.c(x))))


def strided(s, x):
    """The same, and one that leads to a smaller grid with two shortcuts of its own."""
    x = gated(s, x)
    x = F.relu(s.short(x) + s.long(x) + s.f(F.relu(s.e(x))))
    return F.relu(x + s.h(F.relu(s.g(x))))


def shortened(s, x):
    """Blocks that lead to smaller grids, twice, with shortcuts that leave positions out and add
    channels of zeros.
    """
    x = gated(s, x)
    for first, second in ((s.e, s.f), (s.i, s.j), (s.g, s.h)):
        y = second(F.relu(first(x)))
        added = y.shape[1] - x.shape[1]
        x = F.relu(y + (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, added - 1)) if added else x))
    return x


def ungated(s, x):
    x = F.relu(s.stem(x))
    x = x + F.relu(s.a(x))
    x = x + F.relu(s.b(x))
    return F.relu(s.c(x))


def before(s, x):
    """Gates before the layers of a block, none on the stream."""
    x = s.stem(x)
    x = x + s.b(F.relu(s.a(F.relu(x))))
    return F.relu(x + s.d(F.relu(s.c(F.relu(x)))))


def normed(s, x):
    """The same with batch norms before these gates: constants that the stream does not keep."""
    x = s.stem(x)
    x = x + s.b(F.relu(s.a(F.relu(s.n(x)))))
    return F.relu(s.m(x + s.d(F.relu(s.c(F.relu(s.o(x)))))))


def forked(s, x):
    """Two branches from the input, and two from a field, one of them a shortcut with parameters."""
    h = F.relu(s.stem(x) + s.other(x))
    return F.relu(s.a(h) + s.c(F.relu(s.b(h))))


def linear(s, x):
    """A shortcut without a gate, a convolution without one, and a bottleneck."""
    h = s.stem(x)
    g = s.c(s.narrow(F.relu(h)))
    return h + s.a(F.relu(s.wide(F.relu(g))))


def operators(padding, *names, width=9, channels=2):
    return {
        name: conv(channels if name in ("stem", "other") else width, width, padding=padding)
        for name in names
    }


def stream(kind="gated", padding="zeros", end=pool, width=9):
    make = functools.partial(operators, padding, width=width)
    if kind == "strided":
        more = {
            "e": conv(width, 2 * width, 3, 2, padding),
            "short": conv(width, 2 * width, 1, 2),
            "long": conv(width, 2 * width, 3, 2, padding),
        }
        more |= {name: conv(2 * width, 2 * width, padding=padding) for name in "fgh"}
        return Net(strided, end, **make("stem", *"abcd"), **more)
    if kind == "shortened":
        more = {
            "e": conv(width, width + 3, 3, 2, padding),
            "f": conv(width + 3, width + 3, 3, 1, padding),
        }
        more |= {name: conv(width + 3, width + 3, padding=padding) for name in "ij"}
        more |= {
            "g": conv(width + 3, width + 5, 3, 2, padding),
            "h": conv(width + 5, width + 5, 3, 1, padding),
        }
        return Net(shortened, end, **make("stem", *"abcd"), **more)
    if kind == "normed":
        norms = {name: nn.BatchNorm2d(width) for name in "nom"}
        return Net(normed, end, **make("stem", *"abcd"), **norms)
    if kind == "linear":
        return Net(
            linear,
            end,
            **make("stem", *"ac"),
            narrow=conv(width, width, 1),
            wide=conv(width, width, 1),
        )
    function, names = {
        "gated": (gated, "abcd"),
        "ungated": (ungated, "abc"),
        "before": (before, "abcd"),
        "forked": (forked, "abc"),
    }[kind]
    return Net(function, end, **make("stem", *names), **(make("other") if kind == "forked" else {}))


@functools.cache
def recorded(shape=(4, 4), n=3, biased=False, **options):
    """Gates of a few samples whose values are whole numbers; ``biased``: of convolutions with
    biases.
    """
    torch.manual_seed(0)
    X, net = np.random.default_rng(0).integers(-2, 3, (n, 2, *shape)), stream(**options).double()
    net(torch.as_tensor(X, dtype=torch.float64))
    if biased:
        for layer in (layer for layer in net.modules() if isinstance(layer, nn.Conv2d)):
            layer.bias = nn.Parameter(torch.randn(layer.out_channels, dtype=torch.float64))
    return npk.record_gates(net.eval(), X.astype(float))


def pooled(x):
    return F.avg_pool2d(x, 2)


STREAMS = {
    "gated": {},
    "gated, circular": {"padding": "circular"},
    "strided": {"kind": "strided"},
    "strided, circular": {"kind": "strided", "padding": "circular", "shape": (6, 5)},
    "shortened": {"kind": "shortened", "shape": (8, 4)},
    "ungated": {"kind": "ungated"},
    "gates before": {"kind": "before"},
    "norms before": {"kind": "normed"},
    "forked": {"kind": "forked", "padding": "circular"},
    "linear": {"kind": "linear"},
    "many channels": {"width": 130},
    "flattened": {"kind": "strided", "end": lambda x: x},
    "pools": {"end": pooled},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if i % 2 else n for i, n in enumerate(STREAMS)]
)
def test_whole_numbers_come_out_whole(name, engine):
    runner = assert_exact(recorded(**STREAMS[name]), EmulatedLauncher(engine))
    assert any(step.planned.slots for step in runner.steps)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name", [n if i % 2 else pytest.param(n, marks=pytest.mark.slow) for i, n in enumerate(STREAMS)]
)
def test_biases_come_out_whole(name, engine):
    table = recorded(**STREAMS[name], biased=True)
    runner = assert_exact(table, EmulatedLauncher(engine), bias="paths")
    assert runner.steps[0].planned.biased


@pytest.mark.parametrize("engine", ["ptx", pytest.param("check", marks=needs_compiler)])
@pytest.mark.parametrize("shape", [(2, 20), (7, 5), (14, 12), (20, 8)])
def test_any_grid(shape, engine):
    assert_exact(recorded(shape=shape, n=2), EmulatedLauncher(engine), slice(1), slice(1, 2))


@needs_compiler
@pytest.mark.parametrize("order", ["reverse", "random"])
def test_order_of_threads_does_not_matter(order):
    assert_exact(recorded(**STREAMS["strided"]), EmulatedLauncher("check", order=order))


@pytest.mark.parametrize("work", [1, 40000])
def test_pairs_come_in_chunks(work, monkeypatch):
    """What waits counts, too."""
    monkeypatch.setattr(stage_runner, "WORK", work)
    runner = assert_exact(recorded(**STREAMS["strided"]), EmulatedLauncher("ptx"))
    assert runner.pairs == max(1, work // sum(step.bytes_a_pair for step in runner.steps))
    assert [step.waiting for step in runner.steps] == [
        len(step.differences) * step.planned.slots * step.made.slot for step in runner.steps
    ]


@pytest.mark.parametrize("left", [-9, -1, 0, 9])
def test_entries_left_of_the_diagonal_are_skipped(left):
    table, launcher = recorded(**STREAMS["strided"]), EmulatedLauncher("ptx")
    _, tile, _ = made(table, launcher, diagonal=left)
    _, whole, _ = made(table, launcher)
    row, col = np.indices(tile.shape)
    np.testing.assert_array_equal(tile, np.where(left + col >= row, whole, 0))


def rows_of(name, number=0):
    """Of each row: the slot that is read, rows of the window, the slot that is written, and the
    mask.
    """
    stage = chain_of(stream(**STREAMS[name]), (2, 8, 8)).stages[number]
    planned = schedule(stage)
    return planned.slots, [(row.load, row.window.rows, row.keep, row.mask) for row in planned.rows]


def test_branches_of_a_gated_stream_wait_and_are_added_to_every_sum():
    inner = (-1, 3, -1, MULTIPLIED)
    slots, rows = rows_of("gated")
    assert slots == 2
    assert rows == [
        # the stem waits; the first branch waits; + stem
        *[(-1, 3, 0, MULTIPLIED), inner, (-1, 3, 1, MULTIPLIED), (-1, 1, -1, 0)],
        *[inner, inner, (-1, 1, -1, 0), (-1, 1, -1, 1)],  # the second branch is not taken again
    ]


def test_sums_of_an_ungated_stream_are_added_as_they_are():
    """One slot, however many blocks there are."""
    slots, rows = rows_of("ungated")
    assert slots == 1
    assert [row[3] for row in rows] == [
        MULTIPLIED,
        UNMASKED,
        MULTIPLIED,
        0,
        UNMASKED,
        MULTIPLIED,
        0,
        MULTIPLIED,
    ]


def test_a_stage_begins_with_several_fields():
    chain = chain_of(stream("strided"), (2, 8, 8))
    assert [[passage.kind for passage in passages] for passages in chain.passages] == [
        ["paired"] * 3,
        ["sum"],
    ]
    assert chain.stages[1].begins[0] == chain.stages[1].steps[0].roots[0]
    assert rows_of("strided", 1)[1][0] == (-1, 1, -1, MULTIPLIED)


def test_fields_of_earlier_grids_are_fetched_stage_by_stage():
    """All branches so far go on, with a part of their positions; a fourth of those of the first
    grid's reach the third.
    """
    chain = chain_of(stream("shortened"), (2, 8, 8))
    assert [len(stage.begins) for stage in chain.stages] == [1, 1 + 3, 1 + 5]
    assert [len(stage.outputs) for stage in chain.stages] == [4, 6, 1]
    assert chain.passages[0][1].table[:, 0].tolist() == [
        8 * y + x for y in range(0, 8, 2) for x in range(0, 8, 2)
    ]
    assert {tuple(passage.table[:, 0]) for passage in chain.passages[1][1:]} == {(0, 2, 8, 10)}
    assert schedule(chain.stages[0]).outputs == (0, 1, 2)


def skipping(s, x):
    """A shortcut around a whole grid."""
    x = F.relu(s.stem(x))
    y = F.relu(s.b(F.relu(s.a(x))))
    return F.relu(s.c(y) + x[:, :, ::4, ::4])


def crossing(s, x):
    """Two ways to the next grid, from different fields."""
    h = F.relu(s.stem(x))
    return F.relu(s.a(h) + s.b(F.relu(s.c(h))))


def crossing_back(s, x):
    """The same, in the other order."""
    h = F.relu(s.stem(x))
    g = F.relu(s.c(h))
    return F.relu(s.b(g) + s.a(h))


@pytest.mark.parametrize(
    ("function", "strides"), [(skipping, "ab"), (crossing, "ab"), (crossing_back, "ab")]
)
def test_streams_that_are_no_chains(function, strides):
    """The general kernel takes them."""
    operators = {name: conv(9, 9, stride=1 + (name in strides)) for name in "abc"}
    assert chain_of(Net(function, pool, stem=conv(2, 9), **operators), (2, 8, 8)) is None


def test_a_field_that_is_taken_again_is_read_back():
    slots, rows = rows_of("forked")
    assert slots == 2
    # the input, and the field in front of the fork
    assert [row[0] for row in rows if row[0] >= 0] == [0, 1]


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet110", {"blocks": 2, "width": 8}),
        ("residual", {"widths": (8, 8, 16), "strides": (1, 2, 1)}),
    ],
)
def test_tile_of_the_cpu(arch, options):
    net = npk.networks.build(arch, input_shape=(3, 16, 16), classes=2, seed=0, **options)
    table = npk.record_gates(net, np.random.default_rng(0).standard_normal((3, 3, 16, 16)))
    runner, tile, exponents = made(table, EmulatedLauncher("fast"), scale="fan_in")
    cpu = CpuBackend(plan(table.graph, bias="ignore"), table, "float64")
    side = cpu.side(table)
    expected = cpu.tile(side, side, exponents)
    assert isinstance(runner, stage_runner.StageRunner)
    assert_kernels_equal(tile, expected, "float32", (np.diagonal(expected), np.diagonal(expected)))


def test_stages_by_cupy(monkeypatch):
    """Every line that production runs, on a CuPy whose device is an emulator."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    table = recorded(**STREAMS["strided"])
    expected = npk.kernel(table, dtype="float64", bias="ignore")
    np.testing.assert_allclose(
        npk.kernel(table, backend="cuda", bias="ignore"),
        expected,
        rtol=0,
        atol=1e-6 * np.abs(expected).max(),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (28, 28)])
def test_device_gives_the_definition(name, shape):
    launcher = find_launcher()
    if not 80 <= launcher.capability <= 90:
        pytest.skip("the device has no binary tensor cores")
    table = recorded(**(STREAMS[name] | {"shape": shape, "n": 4}))
    _, tile, exponents = made(table, launcher, scale="fan_in")
    cpu = CpuBackend(plan(table.graph, bias="ignore"), table, "float64")
    side = cpu.side(table)
    expected = cpu.tile(side, side, exponents)
    assert_kernels_equal(tile, expected, "float32", (np.diagonal(expected), np.diagonal(expected)))
