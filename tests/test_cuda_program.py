"""The general kernel of the CUDA backend on emulated devices against the CPU backend, and that each
of its bounds is needed.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
from conftest import TOLERANCE, assert_kernels_equal, kernel_deviation
from emu import Violation
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher, fiber_kernel
from emu.nvrtc import compilers, resources
from test_backends import BackendContract, image_table, stream_table  # noqa: F401 (fixtures)
from test_cuda_mutants import BARRIER, BOUND, parts, uncovered
from tiny_networks import NETWORKS, make, samples

import npk
from npk.backends import cuda, layout
from npk.backends.cpu import CpuBackend
from npk.backends.cpu.runners import ProgramRunner as HostRunner
from npk.backends.cuda import CudaBackend, program_runner
from npk.backends.cuda import launcher as devices
from npk.backends.cuda.program_runner import ProgramRunner
from npk.backends.cuda.registry import KERNELS
from npk.backends.cuda.runners import DenseRunner
from npk.backends.exponents import find_exponents
from npk.backends.product import as_product
from npk.backends.program.program import CLEAR, COLUMNS
from npk.recursion.instruments import Depths
from npk.recursion.planning import plan

pytestmark = [
    # tiny networks have dead inputs
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)
ENGINES = ["ptx", pytest.param("check", marks=needs_compiler)]


@functools.cache
def recorded(name, n=6):
    """Gates of a few samples."""
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    return npk.record_gates(net, samples(shape, n, rng))


@functools.cache
def recorded_chains(n=5):
    """Gates of a residual network whose stream meets enough gates for masks that follow each other."""
    net = npk.networks.build(
        "resnet110", "dnn", input_shape=(1, 4, 4), classes=2, seed=1, blocks=4, width=8
    )
    return npk.record_gates(
        net.double().eval(), np.random.default_rng(0).standard_normal((n, 1, 4, 4))
    )


def assert_as_on_cpu(table, dtype, launcher, **options):
    """The tile of all rows and of the later columns, and one on the diagonal, against those of the
    CPU backend.
    """
    recursion = plan(table.graph, **{"bias": "ignore", **options})
    exponents, later = find_exponents(recursion, table), table.take(slice(2, None))
    cpu, device = (
        CpuBackend(recursion, table, dtype),
        CudaBackend(recursion, table, dtype, launcher),
    )
    expected = cpu.tile(cpu.side(table), cpu.side(table), exponents)
    diagonal, side = np.diagonal(expected), device.side(table)
    assert_kernels_equal(
        device.tile(side, device.side(later), exponents),
        expected[:, 2:],
        dtype,
        (diagonal, diagonal[2:]),
    )
    # what is left of the diagonal is whatever was cheapest
    square = np.triu(device.tile(side, side, exponents, 0))
    assert_kernels_equal(square, np.triu(expected), dtype, (diagonal, diagonal))
    return device.runner


LARGE = ("vgg16", "resnet110", "residual, no gate after the sum", "conv dlgn-sf", "conv dgn")
# bias, dtype, all hard masks in bits
CHOSEN = [("paths", "float64", False), ("ignore", "float32", False), ("ignore", "float32", True)]
OTHERS = [("paths", "float32", False), ("ignore", "float64", False), ("paths", "float64", True)]


@needs_compiler
@pytest.mark.parametrize(
    "kinds", [CHOSEN, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["chosen", "others"]
)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NETWORKS]
)
def test_every_tiny_network(name, kinds):
    """With and without biases on the paths, in both arithmetics; with the masks as they are kept,
    and all hard ones in bits.
    """
    for bias, dtype, bits in kinds:
        with pytest.MonkeyPatch.context() as patch:
            if bits:
                patch.setattr(layout, "_NARROW", 0)
            runner = assert_as_on_cpu(
                recorded(name), dtype, EmulatedLauncher("fast", devices.OLDEST), bias=bias
            )
        assert isinstance(
            runner,
            DenseRunner if as_product(plan(recorded(name).graph, bias=bias)) else ProgramRunner,
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["residual, gate after the sum", "conv stride 2, circular"])
def test_tile_of_the_cpu_under_every_check(name, dtype, engine):
    assert_as_on_cpu(recorded(name), dtype, EmulatedLauncher(engine), bias="paths")


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chains(dtype):
    runner = assert_as_on_cpu(recorded_chains(), dtype, EmulatedLauncher("check"))
    assert runner.program.chains > 0


def assert_cleared(launcher):
    """No network that is known leaves cells to nothing but zeros: here the result of one is put out
    at the end.
    """
    recursion, table, exponents, _ = ragged()
    backend = CudaBackend(recursion, table, "float32", launcher)
    program = backend.runner.program
    last = np.zeros((1, len(COLUMNS)), np.int64)
    last[0, :3] = CLEAR, program.result, 1
    last[0, COLUMNS.index("times")] = 1
    names = ("steps", "factors", "begins")
    changed = {"operations": last, **{name: getattr(program, name)[-1:] for name in names}}
    longer = replace(
        program,
        **{name: np.concatenate([getattr(program, name), rows]) for name, rows in changed.items()},
    )
    backend.runner = ProgramRunner(longer, backend.layout, backend.launcher)
    side = backend.side(table.take(slice(0, 2)))
    assert not backend.tile(side, side, exponents).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_cells_are_cleared(engine):
    assert_cleared(EmulatedLauncher(engine))


@needs_compiler
class TestProgram(BackendContract):
    """Dense layers too as a program."""

    few = 3

    @pytest.fixture(autouse=True)
    def _no_products(self, monkeypatch):
        monkeypatch.setattr(cuda, "as_product", lambda recursion: None)

    def make(self, recursion, table, dtype):
        return CudaBackend(recursion, table, dtype, EmulatedLauncher("fast"))


@functools.cache
def ragged():
    """33 rows and columns: one more than the lanes of a block, and than its rows; padding, so that
    tables have gaps.
    """
    table = recorded("conv stride 2, circular", 33)
    recursion = plan(table.graph, bias="paths")
    exponents, backend = find_exponents(recursion, table), CpuBackend(recursion, table, "float64")
    return (
        recursion,
        table,
        exponents,
        backend.tile(backend.side(table), backend.side(table), exponents),
    )


def ragged_tile(
    launcher, rows=slice(None), cols=slice(None), diagonal=None, blocks=program_runner.BLOCKS
):
    recursion, table, exponents, expected = ragged()
    backend = CudaBackend(recursion, table, "float64", launcher)
    backend.runner.blocks = blocks
    made = backend.tile(
        backend.side(table.take(rows)), backend.side(table.take(cols)), exponents, diagonal
    )
    return made, expected[rows, cols]


@needs_compiler
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 31), (4, 32), (5, 33), (33, 3)])
def test_edges(n, m):
    made, expected = ragged_tile(EmulatedLauncher("check"), slice(0, n), slice(0, m))
    assert kernel_deviation(made, expected) < TOLERANCE["float64"]


@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_take_several_groups(engine):
    launcher = EmulatedLauncher(engine)
    made, expected = ragged_tile(launcher, slice(0, 9), blocks=2)
    assert launcher.launched[-1][1] == 2
    assert kernel_deviation(made, expected) < TOLERANCE["float64"]


def assert_triangle(launcher):
    made, expected = ragged_tile(launcher, slice(None), slice(0, 32), diagonal=0)
    above = np.triu(np.ones(made.shape, bool))
    assert kernel_deviation(made[above], expected[above]) < TOLERANCE["float64"]
    assert not np.allclose(made[32], expected[32])  # nobody wrote it


@pytest.mark.parametrize("engine", ENGINES)
def test_triangle(engine):
    assert_triangle(EmulatedLauncher(engine))


def assert_all(launcher):
    made, expected = ragged_tile(launcher, slice(0, 5))
    assert kernel_deviation(made, expected) < TOLERANCE["float64"]


def assert_chains(launcher):
    assert_as_on_cpu(recorded_chains(), "float64", launcher)


def assert_padded(launcher):
    assert_as_on_cpu(recorded("conv zero padding, global pool"), "float64", launcher)


def assert_gaps(launcher):
    """Where there is nothing to add the weight is 0 too: here it is 1, so that what is added is
    seen.
    """
    table = recorded("pixel shuffle at the end")
    recursion = plan(table.graph, bias="paths")
    cpu, device = (
        CpuBackend(recursion, table, "float64"),
        CudaBackend(recursion, table, "float64", launcher),
    )
    program = replace(cpu.runner.program, weights=np.ones_like(cpu.runner.program.weights))
    cpu.runner, device.runner = (
        HostRunner(program, cpu.layout),
        ProgramRunner(program, device.layout, launcher),
    )
    tiles = [
        made.tile(made.side(table), made.side(table), find_exponents(recursion, table))
        for made in (cpu, device)
    ]
    assert kernel_deviation(*reversed(tiles)) < TOLERANCE["float64"]


def assert_pooled(launcher):
    assert_as_on_cpu(recorded("average pool, then gate"), "float64", launcher)


def assert_bits(launcher):
    """Masks so narrow are kept as numbers otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_NARROW", 0)
        assert_as_on_cpu(recorded("conv stride 2, circular"), "float64", launcher, bias="paths")


CELLS, CELL = "for (npk_int c = 0; c < op.cells", "pair.slots[(op.out + c) * THREADS] ="


def assert_several(launcher):
    """The kernels of all depths, which one pass of a program gives."""
    table = recorded("residual, gate after the sum")
    recursion = Depths().applied(table.graph, plan(table.graph, bias="ignore"))
    exponents, cols = find_exponents(recursion, table), table.take(slice(2, None))
    tiles = []
    for backend in (
        CpuBackend(recursion, table, "float64"),
        CudaBackend(recursion, table, "float64", launcher),
    ):
        tiles.append(backend.tile(backend.side(table), backend.side(cols), exponents))
    assert tiles[0].shape == (3, len(table), len(cols))
    np.testing.assert_allclose(tiles[1], tiles[0], rtol=1e-11, atol=0)


def assert_any_plane(launcher):
    """One cell too many is seen where another plane that is still read lies right behind."""
    for check in (assert_chains, assert_padded, assert_several):
        check(launcher)


MUTANTS = {
    "kernels": ("part < parts", "part < parts - 1", assert_several),
    "place of a kernel": ("part * n + row", "part * m + row", assert_several),
    "slot of a kernel": ("(result + part)", "(result)", assert_several),
    "rows": ("row >= n || ", "", assert_all),
    "columns": (" || col >= m", "", assert_all),
    "left of the diagonal, too few": (
        "if (left + col0 + LANES <= row0) continue;",
        "",
        assert_triangle,
    ),
    "left of the diagonal, too many": (
        "left + col0 + LANES <= row0",
        "left + col0 + LANES <= row0 + ROWS",
        assert_triangle,
    ),
    "groups": ("task < groups * across", "task < groups * across - 1", assert_all),
    "no entry of a contribution": (
        "t.tables[term.pair + j];",
        "max(0, t.tables[term.pair + j]);",
        assert_gaps,
    ),
    "no entry of a column": ("if (entry >= 0) total +=", "total +=", assert_padded),
    "cells of a collapse": ("c < end; ++c", "c <= end; ++c", assert_any_plane),
    "contributions of a sum": ("while (j < op.cells && ", "while (", assert_pooled),
    "target of a sum": (" && t.tables[op.out + j] == target", "", assert_pooled),
    "start of a chain": ("if (!term.start) common &=", "common &=", assert_chains),
    "words of a chain": ("w < term.width; ++w) {", "w <= term.width; ++w) {", assert_chains),
    "masks of chains": (
        "term.chain < 0 ? npk_overlap",
        "term.chain < 1 ? npk_overlap",
        assert_chains,
    ),
    "entries of chains": (
        "    if (entry < 0) return total;\n    const",
        "    if (entry <= 0) return total;\n    const",
        assert_chains,
    ),
    "words of a mask": ("w < term.width; ++w) sum", "w <= term.width; ++w) sum", assert_bits),
    "numbers in turns": ("c + TURNS <= term.width", "c <= term.width", assert_all),
    "numbers behind the turns": (
        "for (; c < term.width; ++c)",
        "for (; c <= term.width; ++c)",
        assert_all,
    ),
    "first entry": (
        "if (entry < 0 && term.chain < 0)",
        "if (entry <= 0 && term.chain < 0)",
        assert_all,
    ),
    "masks of ones": ("term.form <= NUMBERS", "term.form < NUMBERS", assert_all),
    "weights": ("term.weight < 0 ? scale", "term.weight >= 0 ? scale", assert_pooled),
    "entries of a column": (
        "for (int j = 0; j < k; ++j) {",
        "for (int j = 0; j < k - 1; ++j) {",
        assert_padded,
    ),
    "runs": ("run < op.cells", "run < op.cells - 1", assert_padded),
    "cells of a run": ("x < outputs", "x < outputs - 1", assert_padded),
    "cells beyond a collapse": (
        "begin + TOGETHER < op.cells ? begin + TOGETHER : op.cells",
        "begin + TOGETHER",
        assert_all,
    ),
    "last cells of a collapse": (
        "begin < op.cells; begin +=",
        "begin + TOGETHER <= op.cells; begin +=",
        assert_all,
    ),
    "terms": ("i < op.first + op.count", "i < op.first + op.count - 1", assert_all),
    "contributions of a cell": ("j < (c + 1) * term.k", "j <= (c + 1) * term.k", assert_all),
    "last contributions of a sum": (
        "begin < op.cells;) {",
        "begin + FLUSH < op.cells;) {",
        assert_all,
    ),
    "sums that begin with nothing": ("s < sums", "s < sums - 1", assert_all),
    "operations": ("o < operations", "o < operations - 1", assert_all),
    "sums that are loaded": (
        f"{CELLS}; ++c)\n{' ' * 16}{CELL} (NPK",
        f"{CELLS} - 1; ++c)\n{' ' * 16}{CELL} (NPK",
        assert_all,
    ),
    "cells that are cleared": (
        f"{CELLS}; ++c) {CELL} 0",
        f"{CELLS} - 1; ++c) {CELL} 0",
        assert_cleared,
    ),
    "cells that are gathered": (
        f"{CELLS}; ++c)\n{' ' * 16}{CELL} bias",
        f"{CELLS} - 1; ++c)\n{' ' * 16}{CELL} bias",
        assert_all,
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_gaps(engine):
    assert_gaps(EmulatedLauncher(engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if i % 8 else n for i, n in enumerate(MUTANTS)]
)
def test_mutants_are_caught(name, engine):
    old, new, check = MUTANTS[name]
    assert KERNELS["program", "general", "float64"].source.count(old) == 1
    with pytest.raises((Violation, AssertionError)):
        check(EmulatedLauncher(engine, edit=lambda source: source.replace(old, new)))


def test_every_barrier_and_bound_has_a_mutant():
    """So many there are, and no barrier; one more needs its mutant."""
    source, texts = (
        KERNELS["program", "general", "float64"].source,
        [text for text, *_ in MUTANTS.values()],
    )
    assert parts(source, BARRIER) == []
    assert uncovered(source, BOUND, texts) == []
    assert len(parts(source, BOUND)) == 29


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ways_to_memory(dtype):
    """A warp reads and writes neighbors: no more sectors than the bytes need."""
    table, launcher = (
        recorded("conv stride 2, circular", 33).take(slice(0, 32)),
        EmulatedLauncher("check", profile=True),
    )
    runner = assert_as_on_cpu(table, dtype, launcher, bias="paths")
    counts = fiber_kernel(runner.spec.source, runner.spec.entry, runner.spec.options).counts()
    assert {(count["kind"], count["write"]) for count in counts} == {
        ("global", False),
        ("global", True),
    }
    assert [count for count in counts if count["taken"] > count["fewest"]] == []


def test_workspace_is_bounded_and_no_matter_of_the_host(monkeypatch):
    recursion, table, *_ = ragged()
    backend = CudaBackend(recursion, table, "float32", EmulatedLauncher("fast"))
    runner = backend.runner
    assert runner.workspace == runner.blocks * runner.bytes_a_block
    assert runner.workspace > backend.bytes_a_thread == 0
    for workspace, blocks in (
        (1, 1),
        (3 * runner.bytes_a_block, 3),
        (1 << 60, program_runner.BLOCKS),
    ):
        monkeypatch.setattr(program_runner, "WORKSPACE", workspace)
        assert (
            CudaBackend(recursion, table, "float32", EmulatedLauncher("fast")).runner.blocks
            == blocks
        )


@needs_compiler
@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_many_tiles(scale, monkeypatch, tmp_path):
    launcher = EmulatedLauncher("fast")
    monkeypatch.setattr(cuda.devices, "find_launcher", lambda: launcher)
    monkeypatch.setattr(cuda.devices, "find_launchers", lambda: [launcher])
    table = recorded("conv stride 2, circular", 33)
    expected = npk.kernel(table, scale=scale, backend="cpu", bias="ignore")
    np.testing.assert_allclose(
        npk.kernel(table, scale=scale, backend="cuda", bias="ignore"),
        expected,
        rtol=1e-5,
        atol=1e-5 * np.abs(expected).max(),
    )
    stored = npk.kernel(table, scale=scale, backend="cuda", out=tmp_path / "K.zarr", bias="ignore")
    np.testing.assert_allclose(stored[:], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


PLACES = [
    (12, 70),
    (12, 75),
    (12, 80),
    (12, 90),
    (12, 100),
    (13, 80),
    (13, 90),
    (13, 100),
    (13, 120),
]


@pytest.mark.parametrize(("major", "arch"), PLACES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keeps_its_budget(dtype, major, arch):
    spec = KERNELS["program", "general", dtype]
    _, log = compilers()[major].cubin(spec.source, arch, spec.options)
    found = resources(log)[spec.entry]
    assert found["registers"] <= spec.registers
    assert found["spills"] <= spec.spills
    assert found["stack"] == 0
    assert found["shared"] <= spec.shared
    assert not [line for line in log.splitlines() if "warning" in line and "deprecated" not in line]
