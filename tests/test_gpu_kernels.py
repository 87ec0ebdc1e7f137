"""The CUDA backend on a GPU against the CPU backend: every network, the general kernel on all of
them, edges, many tiles.
"""

import itertools

import numpy as np
import pytest
from conftest import TOLERANCE, assert_kernels_equal, kernel_deviation
from test_cuda_program import assert_as_on_cpu, ragged_tile, recorded, recorded_chains
from tiny_networks import NETWORKS, make, samples

import npk
from npk.backends import cuda
from npk.backends.cuda import launcher as devices
from npk.backends.cuda.program_runner import ProgramRunner

pytestmark = [
    pytest.mark.gpu,
    # tiny networks have dead inputs
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
FEW = [
    "fully connected",
    "conv circular, global pool",
    "conv zero padding, global pool",
    "conv, flatten",
    "max pool",
    "resnet110",
    "conv dgn",
]


@pytest.fixture(scope="module")
def launcher():
    return devices.find_launcher()


class Oldest:
    """The launcher, which says that its device is of the oldest kind: no kernel is taken that newer
    ones alone have.
    """

    capability = devices.OLDEST

    def __init__(self, launcher):
        self.launcher = launcher

    def __getattr__(self, name):
        return getattr(self.launcher, name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_tile_of_the_cpu(name, dtype, launcher):
    assert_as_on_cpu(recorded(name), dtype, launcher, bias="paths")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_general_kernel(name, dtype, launcher, monkeypatch):
    monkeypatch.setattr(cuda, "as_product", lambda recursion: None)
    assert isinstance(
        assert_as_on_cpu(recorded(name), dtype, Oldest(launcher), bias="paths"), ProgramRunner
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chains(dtype, launcher):
    assert assert_as_on_cpu(recorded_chains(), dtype, Oldest(launcher)).program.chains > 0


@pytest.mark.parametrize(("n", "m"), [*itertools.product((1, 3, 4, 5, 33), (1, 31, 32, 33))])
def test_edges(n, m, launcher):
    made, expected = ragged_tile(Oldest(launcher), slice(0, n), slice(0, m))
    assert made.shape == (n, m)
    assert kernel_deviation(made, expected) < TOLERANCE["float64"]


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_blocks_take_several_groups(blocks, launcher):
    made, expected = ragged_tile(Oldest(launcher), slice(0, 9), blocks=blocks)
    assert kernel_deviation(made, expected) < TOLERANCE["float64"]


def test_triangle(launcher):
    made, expected = ragged_tile(Oldest(launcher), slice(None), slice(0, 32), diagonal=0)
    above = np.triu(np.ones(made.shape, bool))
    assert kernel_deviation(made[above], expected[above]) < TOLERANCE["float64"]


def test_the_same_bits_again(launcher):
    first, second = (ragged_tile(launcher)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FEW)
def test_kernel(name, dtype, scale, rng):
    net, shape = make(name, rng)
    X, Y = samples(shape, 70, rng), samples(shape, 33, rng)
    diagonals = [npk.NeuralPathKernel(net, dtype="float64").diagonal(some) for some in (X, Y)]
    for other, diagonal in ((None, diagonals[0]), (Y, diagonals[1])):
        ours, hosts = (
            npk.kernel(net, X, other, scale=scale, dtype=dtype, backend=backend, progress=False)
            for backend in ("cuda", "cpu")
        )
        assert_kernels_equal(
            ours, hosts, dtype, (diagonals[0], diagonal) if scale == "fan_in" else None
        )


@pytest.mark.parametrize("name", FEW)
def test_many_tiles_in_memory_and_on_disk(name, rng, tmp_path):
    table = recorded(name, 33)
    whole = npk.kernel(table, backend="cuda", progress=False)
    stored = npk.kernel(table, backend="cuda", out=tmp_path / "K.zarr", progress=False)
    np.testing.assert_array_equal(stored[:], whole)
