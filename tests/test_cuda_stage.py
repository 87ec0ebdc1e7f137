"""Stages on the chip: which networks are chains of them, and their kernels on both emulators
against the definition.
"""

import functools

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher, fiber_kernel
from tiny_networks import NETWORKS, make, samples
from torch import nn

import npk
from npk.backends import layout
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import CudaBackend, stage_runner
from npk.backends.cuda.chain import as_chain
from npk.backends.cuda.launcher import find_launcher
from npk.backends.cuda.schedule import schedule
from npk.backends.cuda.stage_runner import StageRunner
from npk.backends.exponents import find_exponents
from npk.backends.reference import ReferenceBackend
from npk.recursion.planning import plan

# tiny networks have dead inputs
pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)
ENGINES = ["ptx", pytest.param("check", marks=needs_compiler)]


def convolutions(width=9, layers=2, kernel=3, padding="circular", stride=1, end="pool", channels=2):
    """Convolutions with a global pool, or flattened."""
    net = nn.Sequential()
    for layer in range(layers):
        step = stride if layer == 1 else 1
        net.append(
            nn.Conv2d(
                width if layer else channels, width, kernel, step, kernel // 2, padding_mode=padding
            )
        ).append(nn.ReLU())
    net.append(nn.AdaptiveAvgPool2d(1) if end != "flatten" else nn.Identity()).append(
        nn.Flatten()
    ).append(nn.LazyLinear(11))
    if end == "head":
        net.append(nn.ReLU()).append(nn.Linear(11, 2))
    return net.double()


@functools.cache
def recorded(shape, n=5, **options):
    """Gates of a few samples whose values are whole numbers."""
    torch.manual_seed(0)
    X, net = (
        np.random.default_rng(0).integers(-3, 4, (n, options.get("channels", 2), *shape)),
        convolutions(**options),
    )
    net(torch.as_tensor(X, dtype=torch.float64))
    return npk.record_gates(net.eval(), X.astype(float))


def made(
    table, launcher, rows=slice(None), cols=slice(None), scale="count", bias="ignore", **options
):
    """The runner, its tile, and what the exponents leave of it."""
    recursion = plan(table.graph, scale=scale, bias=bias)
    exponents, backend = (
        find_exponents(recursion, table),
        CudaBackend(recursion, table, "float32", launcher),
    )
    tile = backend.tile(
        backend.side(table.take(rows)), backend.side(table.take(cols)), exponents, **options
    )
    return backend.runner, tile, exponents


def assert_exact(table, launcher, rows=slice(None), cols=slice(1, None), bias="ignore"):
    """Whole numbers come out whole, equal to the definition's; beyond 2**24, or as means over an
    odd number of positions, rounded.
    """
    runner, tile, exponents = made(table, launcher, rows, cols, bias=bias)
    reference = ReferenceBackend(plan(table.graph, scale="count", bias=bias), table, "float64")
    expected = reference.tile(
        reference.side(table.take(rows)), reference.side(table.take(cols)), exponents
    )
    assert isinstance(runner, StageRunner)
    positions = table.graph.nodes[0].positions
    # before the mean
    largest = np.ldexp(np.abs(expected).max(initial=0), exponents[-1]) * positions**2
    small = positions & (positions - 1) == 0 and largest < 2**24
    np.testing.assert_allclose(
        tile, expected, rtol=0, atol=0 if small else 2e-7 * np.abs(expected).max()
    )
    return runner


KINDS = {
    "circular": {},
    "zeros": {"padding": "zeros"},
    "flattened": {"end": "flatten"},
    "strides, zeros": {"padding": "zeros", "stride": 2},
    "strides, circular": {"stride": 2, "end": "head"},
    "dense head": {"end": "head", "padding": "zeros"},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_come_out_whole(kind, engine):
    assert_exact(recorded((4, 8), **KINDS[kind]), EmulatedLauncher(engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_biases_come_out_whole(kind, engine):
    """Each is added to its field on the chip, that of the last layer by the last passage."""
    runner = assert_exact(recorded((4, 8), **KINDS[kind]), EmulatedLauncher(engine), bias="paths")
    assert [step.planned.biased for step in runner.steps] == [True] * len(runner.steps)
    assert runner.chain.added.factor == 1
    ignored, *_ = made(recorded((4, 8), **KINDS[kind]), EmulatedLauncher("fast"))
    assert not any(step.planned.biased for step in ignored.steps)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("width", [8, 31, 32, 33, 128, 130])
def test_any_number_of_channels(width, padding, engine):
    assert_exact(recorded((2, 4), n=3, width=width, padding=padding), EmulatedLauncher(engine))


GRIDS = {
    "a lane holds several positions": ((2, 16), {}),
    "an odd number of them": ((4, 28), {}),
    "lanes without any": ((2, 14), {}),
    "the last lane holds fewer": ((3, 13), {"padding": "zeros"}),
    "several warps": ((14, 12), {"padding": "zeros"}),
    "several warps around the edge": ((20, 8), {}),
    "a window of five": ((6, 9), {"kernel": 5, "padding": "zeros"}),
    "a window of five around the edge": ((8, 7), {"kernel": 5}),
    "smaller than its window": ((2, 2), {"padding": "zeros", "layers": 3}),
    "smaller than its window, in one direction": ((1, 6), {"padding": "zeros", "kernel": 5}),
    "one column": ((6, 1), {"padding": "zeros"}),
    "one row": ((1, 9), {"kernel": 3, "padding": "zeros"}),
    "a prime number of rows": ((7, 5), {"padding": "zeros"}),
}


@pytest.mark.parametrize("engine", ["ptx", pytest.param("check", marks=needs_compiler)])
@pytest.mark.parametrize("grid", GRIDS)
def test_any_grid(grid, engine):
    shape, options = GRIDS[grid]
    assert_exact(recorded(shape, n=2, **options), EmulatedLauncher(engine), slice(1), slice(1, 2))


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((32, 32), "zeros"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (((32, 32), "circular"), ((28, 28), "circular"))
        ),
    ],
)
def test_large_grids(shape, padding):
    """The largest field that a block has room for."""
    table = recorded(shape, n=2, padding=padding, layers=3)
    _, tile, exponents = made(
        table, EmulatedLauncher("fast"), slice(1), slice(1, 2), scale="fan_in"
    )
    cpu = CpuBackend(plan(table.graph, bias="ignore"), table, "float64")
    sides = [cpu.side(table.take(rows)) for rows in (slice(1), slice(1, 2))]
    diagonals = [np.diagonal(cpu.tile(side, side, exponents)) for side in sides]
    assert_kernels_equal(tile, cpu.tile(*sides, exponents), "float32", diagonals)


@needs_compiler
@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_threads_does_not_matter(kind, order):
    assert_exact(recorded((4, 8), **KINDS[kind]), EmulatedLauncher("check", order=order))


@pytest.mark.parametrize(("rows", "cols"), [(0, 3), (3, 0), (0, 0), (1, 1), (1, 4), (4, 3)])
def test_any_tile(rows, cols):
    assert_exact(recorded((4, 8)), EmulatedLauncher("ptx"), slice(rows), slice(cols))


@pytest.mark.parametrize("left", [-9, -2, 0, 1, 9])
@pytest.mark.parametrize("kind", ["circular", "strides, circular"])
def test_entries_left_of_the_diagonal_are_skipped(kind, left):
    table, launcher = recorded((4, 8), **KINDS[kind]), EmulatedLauncher("ptx")
    _, tile, _ = made(table, launcher, slice(4), slice(1, None), diagonal=left)
    _, whole, _ = made(table, launcher, slice(4), slice(1, None))
    row, col = np.indices(tile.shape)
    np.testing.assert_array_equal(tile, np.where(left + col >= row, whole, 0))


@pytest.mark.parametrize("kind", ["circular", "strides, circular"])
@pytest.mark.parametrize("work", [1, 600])
def test_pairs_come_in_chunks(kind, work, monkeypatch):
    monkeypatch.setattr(stage_runner, "WORK", work)
    runner = assert_exact(recorded((4, 8), **KINDS[kind]), EmulatedLauncher("ptx"))
    assert runner.pairs < 20
    assert runner.workspace >= runner.pairs * sum(step.bytes_a_pair for step in runner.steps)


@pytest.mark.parametrize("size", [1e-19, 1e15])
def test_biases_beside_inputs_of_another_size(size):
    """Each has the scale of its own layer, whatever that of the layer before."""
    X, net = np.random.default_rng(0).standard_normal((3, 2, 4, 4)), convolutions(layers=3)
    torch.manual_seed(0)
    net(torch.as_tensor(X))
    table = npk.record_gates(net.eval(), size * X)
    _, tile, exponents = made(table, EmulatedLauncher("ptx"), scale="fan_in", bias="paths")
    reference = ReferenceBackend(plan(table.graph, bias="paths"), table, "float64")
    side = reference.side(table)
    expected = reference.tile(side, side, exponents)
    assert_kernels_equal(tile, expected, "float32", (np.diagonal(expected), np.diagonal(expected)))


PLANES = [
    "conv circular, global pool",
    "conv zero padding, global pool",
    "conv stride 2, circular",
    "max pool",
    "adaptive pool",
    "batch norm of the input",
    "batch norm after the gate, zero padding",
]


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [name if name in PLANES else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
@pytest.mark.parametrize("bias", ["ignore", "paths"])
def test_tile_of_the_cpu(name, bias, monkeypatch):
    """Tiny networks with their few channels in bits, so that they are chains of stages wherever
    their layers allow it.
    """
    monkeypatch.setattr(layout, "_NARROW", 1)
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    table = npk.record_gates(net, samples(shape, 5, rng))
    recursion, cols = plan(table.graph, bias=bias), table.take(slice(2, None))
    exponents, device = (
        find_exponents(recursion, table),
        CudaBackend(recursion, table, "float32", EmulatedLauncher("fast")),
    )
    assert isinstance(device.runner, StageRunner) or name not in [*PLANES, "vgg16"]
    cpu = CpuBackend(recursion, table, "float32")
    diagonal = np.diagonal(cpu.tile(cpu.side(table), cpu.side(table), exponents))
    actual, expected = (
        backend.tile(backend.side(table), backend.side(cols), exponents)
        for backend in (device, cpu)
    )
    assert_kernels_equal(actual, expected, "float32", (diagonal, diagonal[2:]))


def chain_of(net, shape, **options):
    net = net.double()
    net(torch.zeros(1, *shape, dtype=torch.float64))
    table = npk.record_gates(net.eval(), np.random.default_rng(0).standard_normal((2, *shape)))
    recursion = plan(table.graph, **{"bias": "ignore", **options})
    return as_chain(recursion, [layout.is_kept_in_bits(mask, table) for mask in recursion.masks])


def test_stages_and_passages():
    chain = chain_of(convolutions(stride=2, layers=3, end="head"), (2, 8, 8))
    assert [
        (stage.shape, [row.window.numbers for row in schedule(stage).rows])
        for stage in chain.stages
    ] == [
        ((8, 8), [(3, -1, 3, -1)]),
        ((4, 4), [(1, 0, 1, 0), (3, -1, 3, -1)]),
        ((1, 1), [(1, 0, 1, 0)]),
    ]
    assert [stage.circular for stage in chain.stages[:2]] == [True, True]
    assert [passage.kind for passages in chain.passages for passage in passages] == [
        "paired",
        "sum",
        "sum",
    ]
    # half of the planes are never looked at
    assert chain.passages[0][0].differences((8, 8), (4, 4), np.arange(4)).tolist() == [0, 2, 4, 6]
    assert chain.mask == 0


def test_flattening_looks_at_one_plane():
    chain = chain_of(convolutions(end="flatten"), (2, 6, 5))
    assert [passage.kind for (passage,) in chain.passages] == ["paired"]
    assert chain.passages[0][0].differences((6, 5), (1, 1), np.arange(1)).tolist() == [0]


OTHERS = {
    "no gate at all": (
        lambda: nn.Sequential(nn.Conv2d(2, 9, 3), nn.Flatten(), nn.LazyLinear(2)),
        (2, 4, 4),
        {},
    ),
    "a constant between gates": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 9, 3),
            nn.ReLU(),
            nn.BatchNorm2d(9),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(2),
        ),
        (2, 4, 4),
        {"bias": "paths"},
    ),
    "few channels": (lambda: convolutions(width=5), (2, 4, 4), {}),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(16, 16, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
        ),
        (16, 4, 4),
        {},
    ),
    "three axes": (
        lambda: nn.Sequential(nn.Conv3d(1, 9, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)),
        (1, 3, 3, 3),
        {},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_no_chains(name):
    net, shape, options = OTHERS[name]
    assert chain_of(net(), shape, **options) is None


@pytest.mark.parametrize(
    ("capability", "dtype", "shape"),
    [
        (75, "float32", (4, 6)),
        (100, "float32", (4, 6)),
        (80, "float64", (4, 6)),
        (80, "float32", (53, 2)),
    ],
)
def test_devices_and_grids_that_have_no_stages(capability, dtype, shape):
    """The general kernel serves them."""
    table = recorded(shape, n=2, padding="zeros")
    assert not isinstance(
        CudaBackend(
            plan(table.graph, bias="ignore"), table, dtype, EmulatedLauncher("fast", capability)
        ).runner,
        StageRunner,
    )


@needs_compiler
@pytest.mark.parametrize("kind", ["circular", "zeros"])
def test_ways_to_memory(kind):
    """Lanes read and write the exchanged rows side by side, four cells each in one access: the
    emulator sees four, each of every fourth bank. Masks come in segments of 16 bytes, all of whose
    bytes are used.
    """
    table, launcher = (
        recorded((20, 8), n=2, width=128, **KINDS[kind]),
        EmulatedLauncher("check", profile=True),
    )
    spec = made(table, launcher, slice(1), slice(1, 2))[0].steps[0].made.spec
    counts = fiber_kernel(spec.source, spec.entry, spec.options).counts()
    shared = [count for count in counts if count["kind"] == "shared"]
    assert {count["write"] for count in shared} == {False, True}
    assert {count["taken"] / count["fewest"] for count in shared} <= {1, 4}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (32, 32), (28, 28)])
def test_device_gives_the_definition(kind, shape):
    launcher = find_launcher()
    if not 80 <= launcher.capability <= 90:
        pytest.skip("the device has no binary tensor cores")
    table = recorded(shape, n=4, width=130, **KINDS[kind])
    recursion = plan(table.graph, bias="ignore")
    _, tile, exponents = made(table, launcher, scale="fan_in")
    cpu = CpuBackend(recursion, table, "float64")
    expected = cpu.tile(cpu.side(table), cpu.side(table), exponents)
    assert_kernels_equal(tile, expected, "float32", (np.diagonal(expected), np.diagonal(expected)))
