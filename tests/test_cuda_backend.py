"""The CUDA backend on emulated devices against the CPU backend, and what is said where there is no
device.
"""

import contextlib
import functools
import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher, ptx_kernel, written
from test_backends import BackendContract, dense_table, stream_table  # noqa: F401 (a fixture)
from tiny_networks import NETWORKS, make, samples
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import CudaBackend
from npk.backends.cuda import launcher as launchers
from npk.backends.cuda.registry import KERNELS, dense_kernel
from npk.backends.exponents import find_exponents
from npk.backends.product import as_product
from npk.errors import BackendError, DeviceMemoryError
from npk.recursion.planning import plan

# tiny networks have dead inputs
pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
ENGINES = [
    "ptx",
    pytest.param(
        "check", marks=pytest.mark.skipif(compiler_is_missing(), reason="there is no g++")
    ),
]
CHAINS = [
    "one linear layer",
    "fully connected",
    "leaky",
    "batch norm",
    "comparison and sigmoid",
    "dropout",
    "fc dgn, soft",
    "fc dgn, hard",
    "fc dlgn, ones",
    "fc dlgn-sf",
    "constants added",
    "a learned constant added",
    "prelu",
    "relu6",
    "hardtanh",
    "clamp",
    "abs",
    "gated linear units",
    "silu",
    "hardswish",
    "mish",
    "relu6 under a sigmoid gate",
    "relu6, halved",
    "second of two heads",
    "gated output",
]


@pytest.fixture(params=ENGINES)
def device(request, monkeypatch):
    """An emulated device in the place of CuPy's."""
    launcher = EmulatedLauncher(request.param)
    monkeypatch.setattr(launchers, "find_launcher", lambda: launcher)
    monkeypatch.setattr(launchers, "find_launchers", lambda: [launcher])
    return launcher


def chain(*widths):
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 2))


@pytest.fixture(scope="module")
def image_table():
    """What the contract calls so: here images that a chain of dense layers takes."""
    torch.manual_seed(0)
    return npk.record_gates(
        chain(48, 40, 70).double().eval(), np.random.default_rng(0).standard_normal((17, 2, 4, 6))
    )


# --- results ---


@pytest.mark.parametrize(
    ("capability", "words", "way"),
    [
        (70, 4, "popc"),
        (75, 4, "popc"),
        (80, 1, "bmma"),
        (90, 4, "bmma"),
        (100, 4, "popc"),
        (80, 0, "popc"),
    ],
)
def test_kernel_of_a_device(capability, words, way):
    spec = dense_kernel(capability, words, "float32", False)
    assert spec is KERNELS["dense", way, "float32"]
    assert spec.serves(capability)


@pytest.mark.parametrize("capability", [75, 80])
class TestCuda(BackendContract):
    """Both ways to count ones."""

    few = 3

    @pytest.fixture(autouse=True)
    def _device(self, capability):
        self.launcher = EmulatedLauncher("ptx", capability)

    def make(self, recursion, table, dtype):
        return CudaBackend(recursion, table, dtype, self.launcher)


@functools.cache
def recorded(name):
    """Gates of 8 samples."""
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    return npk.record_gates(net, samples(shape, 8, rng))


@pytest.mark.slow
def test_list_of_chains_is_complete():
    flat = [name for name, (_, shape) in NETWORKS.items() if len(shape) == 1]
    assert [
        name for name in flat if as_product(plan(recorded(name).graph, bias="ignore"))
    ] == CHAINS


@pytest.mark.parametrize("name", CHAINS)
def test_kernel_of_the_cpu(name, device):
    # both emulators run both arithmetics in test_cuda_dense
    dtype = {"ptx": "float32", "check": "float64"}[device.engine]
    rows, cols = recorded(name).take(slice(0, 5)), recorded(name).take(slice(3, 8))
    diagonals = [
        npk.NeuralPathKernel(None, dtype="float64", backend="reference", bias="ignore").diagonal(
            some
        )
        for some in (rows, cols)
    ]
    for other, diagonal in ((None, diagonals[0]), (cols, diagonals[1])):
        expected = npk.kernel(rows, other, dtype=dtype, backend="cpu", bias="ignore")
        assert_kernels_equal(
            npk.kernel(rows, other, dtype=dtype, backend="cuda", bias="ignore"),
            expected,
            dtype,
            [diagonals[0], diagonal],
        )
    assert len(device.launched) == 2


def test_overlaps_are_those_of_the_cpu_to_the_bit(device, rng):
    table = dense_table(130, 70, rng)
    table = npk.GateTable(table.graph, np.ones((70, 3)), table.entries)
    recursion = plan(table.graph, bias="ignore")
    exponents = find_exponents(recursion, table)
    tiles = [made.tile(made.side(table), made.side(table), exponents) for made in (
        CpuBackend(recursion, table, "float32"), CudaBackend(recursion, table, "float32"))]  # fmt: skip
    np.testing.assert_array_equal(*tiles)


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_many_tiles(scale, device, rng, tmp_path):
    table = dense_table(40, 90, rng)
    whole = npk.kernel(table, scale=scale, backend="cpu", bias="ignore")
    budget = npk.kernel(table, scale=scale, backend="cuda", memory="80kB", bias="ignore")
    assert len(device.launched) > 4
    np.testing.assert_allclose(budget, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())
    stored = npk.kernel(table, scale=scale, backend="cuda", out=tmp_path / "K.zarr", bias="ignore")
    np.testing.assert_allclose(stored[:], whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_blocks_left_of_the_diagonal_are_skipped(rng):
    table, launcher = dense_table(40, 200, rng), EmulatedLauncher("ptx")
    backend = CudaBackend(plan(table.graph, bias="ignore"), table, "float32", launcher)
    side = backend.side(table)
    made = backend.tile(side, side, find_exponents(backend.recursion, table), 0)
    assert not made[64:, :64].any()
    assert not made[128:, 64:128].any()
    assert made[:64].any(0).all()
    few = backend.side(table.take(slice(0, 3)))
    exponents = find_exponents(backend.recursion, table)
    # none without a diagonal
    np.testing.assert_array_equal(
        backend.tile(side, few, exponents), backend.tile(few, side, exponents).T
    )


# --- what is missing ---


class RuntimeFailure(RuntimeError):
    """CuPy's CUDARuntimeError."""


class OutOfMemory(MemoryError):
    """CuPy's OutOfMemoryError."""


class DeviceArray(np.ndarray):
    """An array that has to be fetched."""

    def get(self, stream=None, out=None, blocking=True):
        assert stream.non_blocking
        assert not blocking
        if out is None:
            return np.array(self)
        out[:] = self
        return out


class FakeStream:
    def __init__(self, non_blocking):
        self.non_blocking = non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def wait_event(self, event):
        assert event.recorded is not None


class FakeEvent:
    def __init__(self, disable_timing):
        self.recorded, self.disable_timing, self.done = None, disable_timing, False

    def record(self, stream):
        self.recorded = stream

    def synchronize(self):
        assert self.recorded is not None
        self.done = True


class FakeDevice(contextlib.nullcontext):
    def __init__(self, number, capability):
        super().__init__()
        self.id, self.compute_capability = number or 0, capability


class FakeModule:
    """RawModule on an emulator."""

    def __init__(self, code, options):
        self.code, self.options = code, options

    def get_function(self, entry):
        kernel = ptx_kernel(self.code, entry, self.options[1:], 90)
        plain = functools.partial(
            map, lambda arg: arg.view(np.ndarray) if isinstance(arg, DeviceArray) else arg
        )
        return lambda grid, block, args: kernel(
            grid[0], block[0], tuple(plain(args)), written(self.code, entry)
        )


def fake_cupy(driver=12090, built=12090, devices=1, capability="90", **parts):
    """The parts of CuPy that npk uses, on NumPy."""

    def count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    runtime = SimpleNamespace(
        driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built, getDeviceCount=count, CUDARuntimeError=RuntimeFailure,
        memGetInfo=lambda: (1_000_000_000, 8_000_000_000),
    )  # fmt: skip
    cuda = SimpleNamespace(
        runtime=runtime, memory=SimpleNamespace(OutOfMemoryError=OutOfMemory), alloc_pinned_memory=bytearray,
        Stream=FakeStream, Event=FakeEvent,
        Device=lambda number=None: FakeDevice(number, capability),
    )  # fmt: skip
    made = {
        "asarray": lambda a: np.array(a).view(DeviceArray),
        "empty": lambda shape, dtype: np.full(
            shape, np.nan if np.dtype(dtype).kind == "f" else 0xBAD, dtype
        ).view(DeviceArray),
        "zeros": lambda shape, dtype: np.zeros(shape, dtype).view(DeviceArray),
        "RawModule": FakeModule,
        "get_default_memory_pool": lambda: SimpleNamespace(free_all_blocks=lambda: None),
    }
    return SimpleNamespace(cuda=cuda, **{**made, **parts})


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"driver": 0}, "there is no NVIDIA driver on this machine. Install one"),
        (
            {"driver": 11040},
            r"the NVIDIA driver knows CUDA 11.4, this CuPy is made for CUDA 12.9. "
            r"Update the driver, or use",
        ),
        (
            {"driver": 12080, "built": 13000},
            r"made for CUDA 13.0. Update the driver, exchange CuPy "
            r"for .*'\.\[cuda12\]'",
        ),
        (
            {"devices": 0},
            "there is an NVIDIA driver, but no device can be seen. .* CUDA_VISIBLE_DEVICES",
        ),
        (
            {"devices": RuntimeFailure("cudaErrorNoDevice: no CUDA-capable device is detected")},
            "no device can be seen",
        ),
        (
            {"devices": RuntimeFailure("cudaErrorUnknown: who knows")},
            "the CUDA driver does not work: cudaErrorUnknown: who knows. Look at",
        ),
        (
            {"capability": "61"},
            "the CUDA device has compute capability 6.1, npk's kernels need 7.0 "
            "or newer. Choose another device",
        ),
    ],
)
def test_what_is_missing_is_said(options, why, monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**options))
    with pytest.raises(BackendError, match=why) as caught:
        npk.kernel(dense_table(5, 4, rng), backend="cuda", bias="ignore")
    assert 'or use backend="cpu"' in str(caught.value)


def test_cupy_that_is_missing(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        BackendError,
        match=r"needs CuPy, which is not installed. Install it with "
        r"pip install '\.\[cuda12\]'",
    ):
        npk.kernel(dense_table(5, 4, rng), backend="cuda", bias="ignore")


def test_cupy_that_is_broken(monkeypatch, rng, tmp_path):
    (tmp_path / "cupy.py").write_text(
        "raise ImportError('libfoo.so: cannot open shared object file\\nand more')"
    )
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        BackendError,
        match=r"cannot be imported: libfoo.so: cannot open shared "
        r"object file. Reinstall it",
    ):
        npk.kernel(dense_table(5, 4, rng), backend="cuda", bias="ignore")


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (
            {"empty": raising(OutOfMemory("no"))},
            "the GPU cannot take 0.00 GB: 1.00 of 8.00 GB are free. Free memory",
        ),
        ({"asarray": raising(OutOfMemory("no"))}, "the GPU cannot take"),
        (
            {"asarray": raising(RuntimeFailure("cudaErrorECC: ecc\nmore"))},
            "the GPU failed to take: cudaErrorECC: ecc. Look at nvidia-smi",
        ),
        (
            {"RawModule": raising(RuntimeError("libnvrtc.so.12 not found"))},
            "CuPy cannot compile npk's kernel npk_dense_bmma .*libnvrtc",
        ),
    ],
)
def test_device_that_fails(parts, why, monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**parts))
    table = dense_table(5, 4, rng)
    table = dense_table(40, 4, rng) if "RawModule" in parts else table
    with pytest.raises(BackendError, match=why):
        npk.kernel(table, table, backend="cuda", bias="ignore")


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("launch a kernel", "RawModule"),
        ("give", "Event"),
        ("use memory of the host", "alloc_pinned_memory"),
    ],
)
def test_device_that_fails_later(what, name, monkeypatch, rng):
    """In the middle of a kernel, of the copy to the host, or for want of page-locked memory there."""
    cupy, fails = fake_cupy(), raising(RuntimeFailure("cudaErrorIllegalAddress: bad\nmore"))
    if name == "RawModule":
        cupy.RawModule = lambda code, options: SimpleNamespace(get_function=lambda entry: fails)
    elif name == "Event":
        monkeypatch.setattr(FakeEvent, "synchronize", fails)
    else:
        cupy.cuda.alloc_pinned_memory = fails
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(
        BackendError,
        match=f"the GPU failed to {what}: cudaErrorIllegalAddress: bad. Look at nvidia-smi, or use",
    ):
        npk.kernel(dense_table(5, 4, rng), backend="cuda", bias="ignore")


def test_launcher_for_cupy(monkeypatch, rng):
    """Every line that production runs, on a CuPy whose device is an emulator."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    table = dense_table(70, 20, rng)
    np.testing.assert_allclose(
        npk.kernel(table, backend="cuda", bias="ignore"),
        npk.kernel(table, backend="cpu", bias="ignore"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_devices_that_take_turns_are_alike(monkeypatch):
    """One of another compute capability may have other kernels, and an entry must not depend on
    whose turn it was.
    """
    cupy, capabilities = fake_cupy(devices=4), ["80", "90", "90", "100"]
    current = 1
    cupy.cuda.Device = lambda number=None: FakeDevice(
        current if number is None else number, capabilities[current if number is None else number]
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert [launcher.device.id for launcher in launchers.find_launchers()] == [1, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CHAINS)
def test_kernel_of_the_cpu_on_a_device(name, dtype, rng):
    net, shape = make(name, rng)
    X = samples(shape, 70, rng)
    diagonal = npk.NeuralPathKernel(net, dtype="float64", bias="ignore").diagonal(X)
    assert_kernels_equal(
        npk.kernel(net, X, dtype=dtype, backend="cuda", bias="ignore"),
        npk.kernel(net, X, dtype=dtype, bias="ignore"),
        dtype,
        [diagonal, diagonal],
    )


def test_torch_beside_the_kernels(monkeypatch):
    """torch works in the stream of the kernels, on the same device, and its lack of memory is the
    device's.
    """
    seen = []
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda pointer, device: (pointer, device))
    monkeypatch.setattr(
        torch.cuda, "stream", lambda stream: seen.append(stream) or contextlib.nullcontext()
    )
    launcher = launchers.CupyLauncher(fake_cupy(devices=2, from_dlpack=np.from_dlpack), 1)
    launcher.stream.ptr = 1234
    with launcher.beside_torch() as device:
        assert device == torch.device("cuda", 1)
    assert seen == [(1234, 1)]
    tensor = torch.arange(6)
    assert np.shares_memory(launcher.from_torch(tensor), tensor.numpy())
    empty = launcher.from_torch(torch.empty((3, 0), dtype=torch.int32))
    assert (empty.shape, empty.dtype) == ((3, 0), np.int32)
    with (
        pytest.raises(DeviceMemoryError, match="the GPU cannot take the masks: CUDA out of memory"),
        launcher.beside_torch(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
