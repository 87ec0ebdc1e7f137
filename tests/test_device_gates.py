"""Gates that stay where the network is: masks formed by torch are those of NumPy to the bit, on CPU
tensors; and kernels made of them.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from test_cuda_pipeline import Notes
from tiny_networks import NETWORKS, make, samples
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import CudaBackend
from npk.backends.cuda import launcher as launchers
from npk.backends.cuda.device_masks import DeviceMasks
from npk.backends.cuda.several import SeveralDevices
from npk.backends.layout import Layout
from npk.errors import DataError, ShapeError
from npk.gates import device_recording
from npk.gates.device_recording import device_bytes, free_on_device, record_on_device
from npk.gates.recording import record_trace
from npk.graph.operators import Input
from npk.progress import Silent
from npk.reading.tracing import trace_network
from npk.recursion.masks import Factor, Mask
from npk.recursion.planning import plan

pytestmark = [
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
FAST = ["leaky", "max pool", "conv dgn", "grouped", "relu6, halved"]
HERE = torch.device("cpu")


@functools.cache
def traced(name, n=5):
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    return trace_network(net, shape), samples(shape, n, rng)


def arguments(gates="auto"):
    return {"gates": gates, "progress": Silent()}


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_masks_are_those_of_the_host(name):
    trace, X = traced(name)
    table, gates = record_trace(trace, X, **arguments()), record_on_device(trace, X, **arguments())
    assert gates.host().fingerprint() == table.fingerprint()
    assert gates.take(slice(1, 3)).host().fingerprint() == table.take(slice(1, 3)).fingerprint()
    for dtype in ("float32", "float64"):
        layout = Layout(plan(table.graph, bias="paths").masks, table, np.dtype(dtype))
        masks, numbers = DeviceMasks(layout, gates, HERE), np.array([4, 0, 3])
        for some in (slice(None), slice(1, 4), numbers):
            expected = layout.side(table.take(some))
            bits, reals = masks.side(gates.take(some).to(HERE))
            np.testing.assert_array_equal(bits.numpy().view(np.uint32), expected.bits)
            np.testing.assert_array_equal(reals.numpy(), expected.reals)
            assert reals.numpy().dtype == dtype


class Mixed(nn.Module):
    """Entries of every kind: gates with a slope, selections, soft gates."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(2, 9, 3, padding=1),
            nn.Conv2d(9, 3, 1),
            nn.Linear(3, 2),
        )

    def forward(self, x):
        found = self.second(
            nn.functional.max_pool2d(nn.functional.leaky_relu(self.first(x), 0.2), 2)
        )
        return self.head((found * torch.sigmoid(found)).mean((2, 3)))


def drawn(factors, sizes, rng, segments=(9, 11)):
    """A mask that reads at random, of factors whose entries have so many channels and positions."""
    channels, positions = (
        np.stack([rng.integers(size[axis], size=long) for size in sizes])
        for axis, long in ((0, 20), (1, 5))
    )
    return Mask(factors, channels, positions, rng.integers(4, size=positions.shape), segments)


def test_every_way_to_read(rng):
    """Masks that no network has: each kind of factor alone, whole and in parts, products of all of
    them, and of none.
    """
    trace, X = (
        trace_network(Mixed().eval(), (2, 4, 4)),
        rng.standard_normal((4, 2, 4, 4)).astype(np.float32),
    )
    table, there = record_trace(trace, X, **arguments()), record_on_device(trace, X, **arguments())
    first, *others = table.graph.nodes
    # one shows a zero
    node = replace(first, operator=Input(units=tuple(rng.permutation(np.arange(-1, 31)).tolist())))
    table, there = (
        replace(gates, graph=replace(gates.graph, nodes=(node, *others)))
        for gates in (table, there)
    )
    names = {entry.kind: name for name, entry in table.entries.items()}
    slopes = [Factor("gate", names["hard"], slope) for slope in (0.0, 0.3, tuple(np.arange(9) / 7))]
    factors = [
        Factor("input", node.name),
        *slopes,
        Factor("selection", names["selection"]),
        Factor("gate", names["soft"]),
    ]
    sizes = [(node.channels, node.positions)]
    sizes += [
        (entry.channels, entry.data.shape[1])
        for entry in (table.entries[factor.name] for factor in factors[1:])
    ]
    alone = [((factor,), [size]) for factor, size in zip(factors, sizes, strict=True)]
    masks = [drawn(*one, rng) for one in alone] + [drawn(*one, rng, (20,)) for one in alone]
    for factor, [(channels, positions)] in alone:
        whole = (
            np.arange(channels)[None],
            np.arange(positions)[None],
            np.full((1, positions), 2),
            (channels,),
        )
        masks.append(Mask(factor, *whole))
        masks.append(
            Mask(
                factor,
                whole[0],
                rng.integers(positions, size=(1, 5)),
                np.full((1, 5), 1),
                (channels,),
            )
        )
    masks += [
        drawn(tuple(factors), sizes, rng),
        drawn((factors[1], factors[4]), [sizes[1], sizes[4]], rng),
    ]
    masks.append(Mask((), *(np.zeros((0, size), int) for size in (3, 5, 5)), (3,)))
    products = drawn(tuple(factors), sizes, rng)
    masks += [replace(mask, weights=rng.standard_normal((1, 5))) for mask in (products, masks[0])]
    for dtype in (np.float32, np.float64):
        layout = Layout(tuple(masks), table, np.dtype(dtype))
        assert layout.words
        expected, (bits, reals) = layout.side(table), DeviceMasks(layout, there, HERE).side(there)
        np.testing.assert_array_equal(bits.numpy().view(np.uint32), expected.bits)
        np.testing.assert_array_equal(reals.numpy(), expected.reals)


class Split(nn.Module):
    """Half of the channels pass by, and all are stacked in another order."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(1, 40, 3, padding=1),
            nn.Conv2d(20, 50, 3),
            nn.Linear(70, 2),
        )

    def forward(self, x):
        kept, taken = torch.relu(self.first(x)).chunk(2, 1)
        return self.head(
            torch.cat([torch.relu(self.second(taken)), kept[:, :, 1:-1, 1:-1].flip(1)], 1).mean(
                (2, 3)
            )
        )


def image_net(*layers, **options):
    return nn.Sequential(
        nn.Conv2d(1, 36, 3, **options),
        nn.ReLU(),
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(70, 2),
    )


WIDER = {
    "max pool, circular": lambda: image_net(
        nn.MaxPool2d(2), nn.Conv2d(36, 70, 3), nn.ReLU(), padding=1, padding_mode="circular"
    ),
    "groups": lambda: image_net(
        nn.Conv2d(36, 70, 3, groups=2), nn.ReLU(), nn.Conv2d(70, 70, 1, groups=2), nn.ReLU()
    ),
    "halves": Split,
    "residual": lambda: npk.networks.build(
        "resnet110", "dnn", input_shape=(1, 6, 6), classes=2, seed=1, blocks=3, width=40
    ),
}


@pytest.mark.parametrize("name", WIDER)
def test_masks_in_bits_are_those_of_the_host(name, rng):
    trace, X = (
        trace_network(WIDER[name]().eval(), (1, 6, 6)),
        rng.standard_normal((5, 1, 6, 6)).astype(np.float32),
    )
    table, gates = record_trace(trace, X, **arguments()), record_on_device(trace, X, **arguments())
    recursion = plan(table.graph, bias="ignore")
    for layout in (
        CpuBackend(recursion, table, "float32").layout,
        Layout(recursion.masks, table, np.dtype("float32")),
    ):
        assert layout.words
        expected, (bits, reals) = layout.side(table), DeviceMasks(layout, gates, HERE).side(gates)
        assert expected.bits.any()
        np.testing.assert_array_equal(bits.numpy().view(np.uint32), expected.bits)
        np.testing.assert_array_equal(reals.numpy(), expected.reals)


def test_the_tiny_networks_have_gates_of_every_kind():
    assert {
        e.kind for name in FAST for e in record_trace(*traced(name), **arguments()).entries.values()
    } >= {"hard", "soft", "selection"}


@pytest.mark.parametrize("gates", ["hard", "soft"])
def test_gates_as_asked_for(gates):
    trace, X = traced("conv dgn")
    assert (
        record_on_device(trace, X, **arguments(gates)).host().fingerprint()
        == record_trace(trace, X, **arguments(gates)).fingerprint()
    )


def test_a_network_on_no_gpu():
    trace, X = traced("fully connected")
    assert free_on_device(trace) is None
    gates = record_on_device(trace, X, **arguments())
    assert device_bytes(trace, X) == X.nbytes + sum(
        entry.data.nbytes for entry in gates.entries.values()
    )
    assert gates.nbytes == X.nbytes


def test_what_the_layers_took_goes_back(monkeypatch):
    done, (trace, X) = [], traced("fully connected")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("given back"))
    np.testing.assert_array_equal(record_on_device(trace, X, **arguments()).inputs.numpy(), X)
    assert done


def test_what_torch_keeps_counts_as_free(monkeypatch):
    done = []
    monkeypatch.setattr(
        device_recording, "place_of", lambda trace: (torch.device("cuda", 1), torch.float32)
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("given back"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: done.append(device) or (7, 9))
    assert free_on_device(None) == 7
    assert done == ["given back", torch.device("cuda", 1)]


class Adopting(EmulatedLauncher):
    """Counts what goes to the device, and what is there already."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.adopted, self.uploaded = 0, 0

    def from_torch(self, tensor):
        self.adopted += 1
        assert tensor.device == HERE
        return super().from_torch(tensor)

    def to_device(self, array):
        self.uploaded = max(self.uploaded, array.nbytes)
        return super().to_device(array)


@pytest.fixture
def launcher(monkeypatch):
    """An emulated device on which the network is, too."""
    made = Adopting("fast")
    monkeypatch.setattr(launchers, "find_launcher", lambda: made)
    monkeypatch.setattr(launchers, "find_launchers", lambda: [made])
    monkeypatch.setattr(device_recording, "free_on_device", lambda trace: 10**9)
    return made


needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)
torch.manual_seed(0)
WIDE = nn.Sequential(
    nn.Flatten(), nn.Linear(60, 500), nn.ReLU(), nn.Linear(500, 70), nn.ReLU(), nn.Linear(70, 2)
).eval()
TABLE = npk.record_gates(WIDE, np.ones((1, 60), np.float32))


@needs_compiler
@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_no_gate_goes_through_the_host(scale, launcher, rng):
    X, kernel = (
        rng.standard_normal((40, 60)).astype(np.float32),
        npk.NeuralPathKernel(WIDE, scale=scale, backend="cuda", bias="ignore"),
    )
    pairs = (X, None), (X[:30], X[20:])
    made = [kernel(*pair) for pair in pairs]
    assert launcher.adopted >= 6  # bits and numbers of each side
    assert launcher.uploaded < 100  # what the kernel is told, and no masks
    tables = [[None if some is None else kernel.record(some) for some in pair] for pair in pairs]
    launcher.adopted = 0
    through = [kernel(*pair) for pair in tables]
    assert (launcher.adopted, launcher.uploaded > 1000) == (0, True)
    for direct, other in zip(made, through, strict=True):
        np.testing.assert_array_equal(direct, other)


def stage_net():
    return nn.Sequential(
        nn.Conv2d(2, 9, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(9, 9, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


@needs_compiler
@pytest.mark.parametrize("name", ["max pool", "conv dgn", "stages", "stages, ones"])
def test_images(name, launcher, rng):
    """By the general kernel and by stages, with soft gates, and with ones at the input."""
    net, shape = (stage_net(), (2, 4, 4)) if name.startswith("stages") else make(name, rng)
    X = samples(shape, 5, rng)
    if name.startswith("stages"):
        net(torch.as_tensor(X, dtype=torch.float32))
    kernel = npk.NeuralPathKernel(
        net.eval(),
        backend="cuda",
        value_input="ones" if name.endswith("ones") else "auto",
        bias="ignore",
    )
    table = kernel.record(X)
    np.testing.assert_array_equal(
        kernel(X),
        npk.kernel(table, backend="cuda", value_input=kernel.options.value_input, bias="ignore"),
    )
    assert launcher.adopted
    np.testing.assert_allclose(
        kernel.diagonal(X),
        npk.NeuralPathKernel(
            None, backend="cpu", value_input=kernel.options.value_input, bias="ignore"
        ).diagonal(table),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("X", "why"),
    [
        (np.zeros((0, 60)), "n at least 1"),
        (np.full((2, 60), np.nan), "NaN"),
        (np.zeros((2, 3)), "shape"),
    ],
)
def test_samples_that_are_none(X, why, launcher):
    with pytest.raises((DataError, ShapeError), match=why):
        npk.kernel(WIDE, X.astype(np.float32), backend="cuda", bias="ignore")


@needs_compiler
def test_gates_that_take_too_much(launcher, monkeypatch, rng):
    X, told = rng.standard_normal((20, 60)).astype(np.float32), Notes()
    kernel = npk.NeuralPathKernel(WIDE, backend="cuda", progress=told, bias="ignore")
    needed, whole = device_bytes(kernel.trace((60,)), X), kernel(X)
    for free, notes in ((2 * needed - 1, 1), (2 * needed, 0)):
        launcher.adopted, told.notes = 0, []
        monkeypatch.setattr(device_recording, "free_on_device", lambda trace, free=free: free)
        np.testing.assert_array_equal(kernel(X), whole)
        said = [text.split(": ")[1] for name, text, _ in told.notes if name == "gates"]
        assert said == ["they go through the host's memory"] * notes
        assert (launcher.adopted == 0) == bool(notes)


@needs_compiler
def test_several_devices_take_gates_of_one(launcher, monkeypatch, rng):
    """Each forms masks of its own, once for all tiles of a band."""
    others = [Adopting("fast"), launcher]
    X = rng.standard_normal((70, 60)).astype(np.float32)
    whole = npk.kernel(WIDE, X, backend="cuda", bias="ignore")
    monkeypatch.setattr(launchers, "find_launchers", lambda: others)
    monkeypatch.setattr("npk.gram.tiles._LARGEST", 32)
    np.testing.assert_array_equal(npk.kernel(WIDE, X, backend="cuda", bias="ignore"), whole)
    assert all(other.adopted and other.uploaded < 100 for other in others)
    backends = SeveralDevices(
        [CudaBackend(plan(TABLE.graph, bias="ignore"), TABLE, "float32", other) for other in others]
    )
    side = backends.side(record_on_device(trace_network(WIDE, (60,)), X, **arguments()))
    assert len(side) == 70
    assert side.on(1) is side.on(1) is not side.on(0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAST)
def test_gates_stay_on_the_gpu(name):
    """The network, its gates and their masks on the device; the same numbers as by way of the host,
    and no copy of a gate to it.
    """
    rng = np.random.default_rng(0)
    net, shape = make(name, rng)
    X = samples(shape, 70, rng)
    net = net.cuda()
    table, gates = (
        npk.record_gates(net, X),
        record_on_device(trace_network(net, shape), X, **arguments()),
    )
    assert all(entry.data.is_cuda for entry in gates.entries.values())
    assert gates.host().fingerprint() == table.fingerprint()
    direct = npk.kernel(net, X, backend="cuda", bias="ignore")
    np.testing.assert_array_equal(direct, npk.kernel(table, backend="cuda", bias="ignore"))


@pytest.mark.gpu
def test_streams_are_in_order():
    """Masks are formed in the stream of the kernels, whatever torch does in its own meanwhile."""
    net = (
        nn.Sequential(nn.Flatten(), nn.Linear(60, 4000), nn.ReLU(), nn.Linear(4000, 2))
        .eval()
        .cuda()
    )
    X = np.random.default_rng(0).standard_normal((3000, 60)).astype(np.float32)
    busy = torch.randn(4000, 4000, device="cuda")
    expected = npk.kernel(npk.record_gates(net, X), backend="cuda", bias="ignore")
    for _ in range(5):
        for _ in range(20):
            busy = torch.tanh(busy @ busy)
        np.testing.assert_array_equal(npk.kernel(net, X, backend="cuda", bias="ignore"), expected)
