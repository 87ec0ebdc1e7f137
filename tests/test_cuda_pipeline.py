"""How tiles go through devices: the next one under way, several devices in turns, pieces where
memory is short.
"""

import contextlib
import functools

import numpy as np
import pytest
import torch
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from torch import nn

import npk
from npk.backends.cuda import launcher as launchers
from npk.backends.cuda.several import SeveralDevices, on_devices
from npk.errors import BackendError, DeviceMemoryError
from npk.gram.kernel import NeuralPathKernel
from npk.gram.work import Work
from npk.recursion.planning import plan

pytestmark = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)


class Notes:
    """A progress object that keeps what it is told."""

    def __init__(self, stop_after=None):
        self.notes, self.stop_after, self.done = [], stop_after, 0

    def note(self, name, text, /, **facts):
        self.notes.append((name, text, facts))

    def task(self, description, total, done=0):
        return self if description == "kernel tiles" else contextlib.nullcontext(lambda steps: None)

    def __enter__(self):
        return self._advance

    def __exit__(self, *_):
        return None

    def _advance(self, steps):
        self.done += steps
        if self.done == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 33), nn.ReLU(), nn.Linear(33, 2)
    ).eval()
    return npk.record_gates(
        net, np.random.default_rng(0).standard_normal((90, 5)).astype(np.float32)
    )


@pytest.fixture
def devices(monkeypatch):
    """Puts emulated devices in the place of CUDA's."""

    def put(*made):
        monkeypatch.setattr(launchers, "find_launcher", lambda: made[0])
        monkeypatch.setattr(launchers, "find_launchers", lambda: list(made))
        return made

    return put


emulated = functools.partial(EmulatedLauncher, "fast", 80)


def works(table, progress=None, **options):
    """The work on the kernel of all samples, in tiles of 16."""
    engine = NeuralPathKernel(
        None, backend="cuda", progress=progress or Notes(), **options, bias="ignore"
    ).engine
    backend, exponents = engine.prepare(table)
    return Work(
        engine,
        table,
        None,
        npk.gram.tiles.TilePlan(len(table), len(table), 16, True),
        backend,
        exponents,
    )


def test_the_next_tile_is_under_way_before_one_is_read(table, devices):
    (device,) = devices(emulated())
    work = works(table)
    device.events.clear()
    tiles = [(tile, values.copy()) for tile, values in work.tiles()]
    order = [event.split()[0] for event in device.events]
    assert order == ["begun", *["begun", "read"] * (len(tiles) - 1), "read"]
    whole = npk.kernel(table, backend="cuda", bias="ignore")
    for tile, values in tiles:
        np.testing.assert_array_equal(values, whole[tile.rows, tile.cols])


def test_tiles_take_turns_on_the_devices(table, devices, tmp_path):
    made = devices(emulated(), emulated(), emulated())
    assert isinstance(
        on_devices(plan(table.graph, bias="ignore"), table, "float32"), SeveralDevices
    )
    gram = npk.kernel(table, backend="cuda", out=tmp_path / "K", memory="70kB", bias="ignore")
    counts = [len(device.launched) for device in made]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 2
    devices(emulated())
    np.testing.assert_array_equal(
        np.asarray(gram), npk.kernel(table, backend="cuda", bias="ignore")
    )


def test_one_device_where_others_have_processes(table, devices):
    devices(emulated(), emulated())
    assert not isinstance(
        on_devices(plan(table.graph, bias="ignore"), table, "float32", one=True), SeveralDevices
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_short_memory_is_told_and_changes_no_bit(table, devices, scale, count):
    devices(emulated())
    whole = npk.kernel(table, backend="cuda", scale=scale, bias="ignore")
    devices(*(emulated(room=3000) for _ in range(count)))
    progress = Notes()
    np.testing.assert_array_equal(
        npk.kernel(table, backend="cuda", scale=scale, progress=progress, bias="ignore"), whole
    )
    told = [(text, facts) for name, text, facts in progress.notes if name == "pieces"]
    assert told[0] == (
        "the device has no room for a tile of 90 x 90: in pieces of 45 from now on",
        {"side": 45},
    )
    assert told[-1][1] == {"side": 23}
    assert len(told) == 2


def test_masks_without_room_come_in_pieces_too(table, devices):
    devices(emulated())
    whole = npk.kernel(table, table.take(slice(0, 7)), backend="cuda", bias="ignore")
    devices(emulated(room=600))
    np.testing.assert_array_equal(
        npk.kernel(table, table.take(slice(0, 7)), backend="cuda", progress=Notes(), bias="ignore"),
        whole,
    )


def test_a_device_without_room_for_one_pair(table, devices):
    devices(emulated(room=11))
    with pytest.raises(DeviceMemoryError, match=r"the GPU cannot take \d+ bytes: 11 are free"):
        npk.kernel(table, backend="cuda", progress=Notes(), bias="ignore")


def test_an_interrupted_run_goes_on(table, devices, tmp_path):
    """The tile that was under way is not in the store, and nothing half-written is."""
    devices(emulated())
    whole = npk.kernel(table, backend="cuda", bias="ignore")
    with pytest.raises(KeyboardInterrupt):
        npk.kernel(
            table,
            backend="cuda",
            out=tmp_path / "K",
            memory="70kB",
            progress=Notes(stop_after=2),
            bias="ignore",
        )
    store = npk.Gram.load(tmp_path / "K").store
    assert len(store.plan) - len(store.missing()) in (2, 3)
    np.testing.assert_array_equal(
        np.asarray(
            npk.kernel(table, backend="cuda", out=tmp_path / "K", memory="70kB", bias="ignore")
        ),
        whole,
    )


def test_a_device_that_fails_later_ends_the_run(table, devices):
    (device,) = devices(emulated())
    copy, count = device.copy, iter(range(100))

    def failing(array, out=None):
        def wait():
            raise BackendError("the GPU failed to give: cudaErrorLaunchFailure.")

        return wait if next(count) == 5 else copy(array, out)

    work = works(table)
    device.copy = failing
    with pytest.raises(BackendError, match="cudaErrorLaunchFailure"):
        list(work.tiles())


def test_nothing_of_the_device_is_charged_to_the_host(table, devices):
    devices(emulated())
    backend = works(table).backend
    assert backend.bytes_a_thread == 0
    assert backend.bytes_a_pair == (3 + 1) * 4


@pytest.mark.gpu
def test_many_tiles_on_devices(table, tmp_path):
    gram = npk.kernel(table, backend="cuda", out=tmp_path / "K", memory="70kB", bias="ignore")
    np.testing.assert_allclose(
        np.asarray(gram),
        npk.kernel(table, bias="ignore"),
        rtol=1e-5,
        atol=1e-5 * float(npk.kernel(table, bias="ignore").max()),
    )
