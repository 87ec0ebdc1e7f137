"""Kernels on a Dask cluster: the same bits as without one, whatever happens to its workers."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import (
    BackendError,
    KernelWarning,
    MissingPackageError,
    OptionError,
    ScaleError,
    StoreError,
)
from npk.gram import cluster as cluster_module
from npk.gram.cluster import compute_on, compute_tiles, connect
from npk.gram.kernel import NeuralPathKernel
from npk.gram.sources import Recorded
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.gram.writing import _about
from npk.progress import Silent

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")


class Watch:
    """A progress object that calls a function at each step of the tiles, and keeps what it was
    told.
    """

    def __init__(self, do=lambda done: None):
        self.do, self.done, self.total, self.before, self.notes = do, 0, 0, 0, []

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        counts = description == "kernel tiles"
        if counts:
            self.total, self.before = total, done

        def advance(steps):
            if counts:
                self.done += steps
                self.do(self.done)

        yield advance

    def note(self, name, text, /, **facts):
        self.notes.append((name, text))


@contextlib.contextmanager
def local_cluster(workers):
    """Processes of one thread each, and a client."""
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


@pytest.fixture(scope="module")
def client():
    with local_cluster(2) as (_, client):
        yield client


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 65), nn.ReLU(), nn.Linear(65, 2)
    ).eval()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def table(net, X):
    return npk.record_gates(net, X)


def empty_store(path, *tables, side=16, **options):
    """A store whose gates are there and whose tiles are not, small ones."""
    engine = NeuralPathKernel(None, progress=False, **options).engine
    sources = tuple(map(Recorded, tables))
    sizes = len(tables[0]), len(tables[-1])
    _, exponents = engine.prepare(tables[-1])
    few = tuple(source.few() for source in sources)
    GramStore.create(
        path,
        TilePlan(*sizes, side, len(tables) == 1),
        engine.options.dtype,
        _about(engine, sources, sizes),
        exponents,
        few,
    )
    store = GramStore.open(path, write=True)
    for source, gates in zip(sources, (store.rows, store.cols), strict=False):
        source.fill(gates, Silent())
    return store


def without_a_worker(monkeypatch):
    """What a worker does is done in this process."""
    monkeypatch.setattr(cluster_module, "_allowed", lambda: (1, None))
    monkeypatch.setattr(cluster_module, "_tell", lambda store, tile: None)


def whole(path):
    return np.asarray(npk.Gram.load(path))


# the same bits


@pytest.mark.parametrize(
    "options", [{}, {"scale": "cosine", "dtype": "float64"}, {"backend": "reference"}], ids=str
)
def test_symmetric_is_the_same_to_the_bit(client, table, tmp_path, options):
    store = empty_store(tmp_path / "K.zarr", table, **options)
    progress = Watch()
    gram = npk.kernel(table, out=store.path, client=client, progress=progress, **options)
    assert gram.complete
    assert len(store.plan) == 91
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False, **options))
    assert (progress.done, progress.total, progress.before) == (91, 91, 0)
    assert {
        entry.name for entry in store.path.iterdir() if entry.name.endswith(".partial")
    } == set()


def test_rectangular_is_the_same_to_the_bit(client, table, tmp_path):
    tables = table, table.take(slice(30, 101))
    store = empty_store(tmp_path / "K.zarr", *tables)
    gram = npk.kernel(*tables, out=store.path, client=client, progress=False)
    np.testing.assert_array_equal(whole(store.path), npk.kernel(*tables, progress=False))
    assert gram.shape == (200, 71)


def test_grown_store_is_the_same_to_the_bit(client, net, X, tmp_path):
    out = tmp_path / "K.zarr"
    npk.kernel(net, X[:90], out=out, client=client, progress=False)
    progress = Watch()
    npk.kernel(net, X, out=out, client=client, progress=progress)
    assert progress.before == 1
    np.testing.assert_array_equal(whole(out), npk.kernel(net, X, progress=False))


def test_interrupted_locally_and_finished_on_the_cluster(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    with pytest.raises(KeyboardInterrupt):
        npk.kernel(
            table, out=store.path, progress=Watch(lambda done: interrupt() if done == 40 else None)
        )
    progress = Watch()
    npk.kernel(table, out=store.path, client=client, progress=progress)
    assert (progress.before, progress.done) == (39 + 1, 51) or (progress.before, progress.done) == (
        39,
        52,
    )
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_dead_inputs_are_counted_as_without_a_cluster(client, tmp_path):
    layers = nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False)
    net = nn.Sequential(*layers).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0]] * 4))
    X = np.stack([np.linspace(-1, 1, 40), np.ones(40)], 1).astype(np.float32)
    store = empty_store(tmp_path / "K.zarr", npk.record_gates(net, X), side=8)
    with pytest.warns(KernelWarning, match="20 of 40 samples have no active path") as told:
        npk.kernel(npk.record_gates(net, X), out=store.path, client=client, progress=False)
    assert told[0].filename == __file__


def test_who_wrote_which_tile_is_told(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    npk.kernel(table, out=store.path, client=client, progress=False)
    told = [event for _, event in client.get_events("npk-tiles")]
    ours = [event for event in told if event["store"] == str(store.path)]
    tiles = sorted((tile.row, tile.col) for tile in store.plan)
    assert sorted((event["row"], event["col"]) for event in ours) == tiles
    assert {event["worker"] for event in ours} <= set(client.nthreads())


# workers that come and go


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table, side=8)
    victim = KillOne(client)
    npk.kernel(table, out=store.path, client=client, progress=Watch(victim))
    assert victim.killed
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_tiles_of_a_lost_worker_are_not_computed_again(table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    without_a_worker(monkeypatch)
    flag = raise_flag(store)
    tiles = list(store.plan)[:5]
    found, done = compute_tiles(str(store.path), flag, npk.__version__, tiles)
    monkeypatch.setattr(
        "npk.gram.work.Work._start", lambda self, tile, *rest: pytest.fail("computed again")
    )
    assert (found, done) == compute_tiles(str(store.path), flag, npk.__version__, tiles)
    assert (found.entries, done) == (16 * 16 + 4 * 2 * 16 * 16, 5)


def test_a_damaged_tile_of_a_lost_worker_is_computed_again(table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    without_a_worker(monkeypatch)
    flag = raise_flag(store)
    tile = next(iter(store.plan))
    compute_tiles(str(store.path), flag, npk.__version__, [tile])
    right = store.read(tile)
    store._values((0, 0))[0][0, 0] = 7
    compute_tiles(str(store.path), flag, npk.__version__, [tile])
    np.testing.assert_array_equal(store.read(tile), right)


def test_a_task_ends_after_a_while_and_what_it_left_is_handed_out(table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    without_a_worker(monkeypatch)
    monkeypatch.setattr(cluster_module, "_SECONDS", 0.0)
    flag = raise_flag(store)
    assert compute_tiles(str(store.path), flag, npk.__version__, list(store.plan)[:5])[1] == 1


@pytest.mark.slow
def test_what_a_task_left_is_handed_out_again(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    progress = Watch()
    client.run(set_seconds, 0.0)
    try:
        npk.kernel(table, out=store.path, client=client, progress=progress)
    finally:
        client.run(set_seconds, cluster_module._SECONDS)
    assert progress.done == 91
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_a_task_ends_when_its_tiles_are_no_longer_wanted(table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    without_a_worker(monkeypatch)
    flag, count = raise_flag(store), GramStore.write
    monkeypatch.setattr(
        GramStore, "write", lambda self, *of: (count(self, *of), (store.path / flag).unlink())
    )
    assert compute_tiles(str(store.path), flag, npk.__version__, list(store.plan)[:5])[1] == 1


def test_few_tasks_are_handed_out_at_a_time(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table, side=8)
    seen = []
    npk.kernel(
        table,
        out=store.path,
        client=client,
        progress=Watch(lambda done: seen.append(len(client.futures))),
    )
    assert max(seen) <= 2 * 2
    assert len(seen) >= 325 / 16


def test_threads_of_one_worker_take_turns(table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    with distributed.Client(
        processes=False,
        n_workers=1,
        threads_per_worker=4,
        dashboard_address=":0",
        set_as_default=False,
    ) as client:
        npk.kernel(table, out=store.path, client=client, progress=False)
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_workers_may_come_late(table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(n_workers=0, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):

        class Calling(Watch):
            def note(self, name, text, /, **facts):
                super().note(name, text)
                if name == "waiting":
                    cluster.scale(1)

        progress = Calling()
        npk.kernel(table, out=store.path, client=client, progress=progress)
    assert ("waiting", "there are no workers: waiting for some to join") in progress.notes
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_control_c_keeps_finished_tiles_and_calls_the_others_back(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table, side=16)
    with pytest.raises(KeyboardInterrupt):
        npk.kernel(table, out=store.path, client=client, progress=Watch(lambda done: interrupt()))
    wait_until(lambda: not any(client.processing().values()))
    left = len(store.missing())
    assert 0 < left < len(store.plan)
    npk.kernel(table, out=store.path, client=client, progress=False)
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


@pytest.mark.slow
def test_three_workers_one_killed_and_one_added_with_flat_memory(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
    ).eval()
    table = npk.record_gates(
        net, np.random.default_rng(0).standard_normal((6000, 8)).astype(np.float32)
    )
    store = empty_store(tmp_path / "K.zarr", table, side=128)
    memory = []
    with local_cluster(3) as (cluster, client):
        victim = KillOne(client, after=200)

        def watch(done):
            victim(done)
            if victim.killed and len(cluster.worker_spec) == 3:
                cluster.scale(4)
            memory.append(client.run_on_scheduler(resident))

        npk.kernel(table, out=store.path, client=client, progress=Watch(watch))
        assert victim.killed
        # one begins anew, one is added: on a busy machine after the kernel is done
        client.wait_for_workers(4, timeout=300)
    written = sum(8 * 128 * 64 for _ in store.plan)
    growth = max(memory) - memory[len(memory) // 10]
    print(
        f"{len(store.plan)} tiles, {written / 1e6:.0f} MB; scheduler and client "
        f"{growth / 1e6:.2f} MB more at the peak"
    )
    assert written > 70e6
    assert growth < 10e6, (
        f"{growth / 1e6:.1f} MB more at the scheduler and the client, "
        f"{written / 1e6:.0f} MB of tiles"
    )
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


# errors


def test_a_worker_without_the_store_is_named(client, table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(type(store.path), "absolute", lambda self: tmp_path / "elsewhere")
    with pytest.raises(
        StoreError,
        match=r"elsewhere on host .* is not, or no longer, the folder that the client writes. "
        r"Workers need it under the same path",
    ):
        compute_on(client, store, store.missing(), Silent())


def test_a_store_that_cannot_be_written_ends_the_run(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)

    def vanish(done):
        if not (tmp_path / "gone").exists():
            os.rename(store.path, tmp_path / "gone")

    with pytest.raises(StoreError, match="is not, or no longer, the folder that the client writes"):
        npk.kernel(table, out=store.path, client=client, progress=Watch(vanish))
    wait_until(lambda: not any(client.run(busy).values()))
    # a tile that was being written may have made some of its folders again
    shutil.rmtree(store.path, ignore_errors=True)
    os.rename(tmp_path / "gone", store.path)
    npk.kernel(table, out=store.path, client=client, progress=False)
    np.testing.assert_array_equal(whole(store.path), npk.kernel(table, progress=False))


def test_a_store_without_room_for_the_flag_says_so(client, table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    monkeypatch.setattr("pathlib.Path.touch", no_room)
    with pytest.raises(StoreError, match="cannot write .*No space left"):
        compute_on(client, store, store.missing(), Silent())


def test_values_outside_the_range_end_the_run(client, tmp_path):
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)).eval()
    table = npk.record_gates(net, (np.ones((40, 3)) * 3e19).astype(np.float32))
    store = empty_store(tmp_path / "K.zarr", table, scale="count")
    with pytest.raises(ScaleError, match="outside the range of float32|leave the range of float32"):
        npk.kernel(table, out=store.path, scale="count", client=client, progress=False)


def test_workers_with_another_npk_are_refused(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    client.run(set_version, "0.0.0")
    try:
        with pytest.raises(
            BackendError,
            match=rf"has npk 0.0.0, the client {npk.__version__}. "
            rf"Install the same on both",
        ):
            npk.kernel(table, out=store.path, client=client, progress=False)
    finally:
        client.run(set_version, npk.__version__)


def test_a_worker_with_too_little_memory_is_told_before(table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    options = {
        "processes": False,
        "n_workers": 1,
        "threads_per_worker": 1,
        "dashboard_address": ":0",
        "memory_limit": 1000,
    }
    calm = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}
    with (
        dask.config.set(calm),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(
            BackendError,
            match="may take 1000 bytes, and a tile takes .* Give the workers more memory",
        ):
            npk.kernel(table, out=store.path, client=client, progress=False)


def test_tiles_that_kill_every_worker_end_the_run(client, table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    submit_instead(monkeypatch, client, os._exit, 1)
    with pytest.raises(
        BackendError,
        match="1 workers died with the same tiles, the last one at tcp://.* give them more",
    ):
        compute_on(client, store, store.missing(), Silent())
    client.wait_for_workers(2)


def test_other_failures_of_a_worker_are_told(client, table, tmp_path, monkeypatch):
    store = empty_store(tmp_path / "K.zarr", table)
    submit_instead(monkeypatch, client, __import__, "npkk")
    with pytest.raises(
        BackendError,
        match="a worker failed with ModuleNotFoundError: No module named 'npkk'. .* "
        "environment of the client",
    ):
        compute_on(client, store, store.missing(), Silent())


def test_tasks_that_somebody_cancels_end_the_run(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    with pytest.raises(
        BackendError,
        match="the cluster dropped the tiles that were handed out.* run again to go on",
    ):
        npk.kernel(
            table,
            out=store.path,
            client=client,
            progress=Watch(
                lambda done: client.cancel(
                    [distributed.Future(key, client) for key in client.futures]
                )
            ),
        )


def test_a_scheduler_that_is_gone_ends_the_run(client, table, tmp_path):
    store = empty_store(tmp_path / "K.zarr", table)
    with connect(client.scheduler.address) as other:
        pass
    with pytest.raises(BackendError, match="the cluster's scheduler is gone.* run again to go on"):
        npk.kernel(table, out=store.path, client=other, progress=False)
    with (
        connect(client.scheduler.address) as other,
        pytest.raises(BackendError, match="the cluster dropped|scheduler is gone"),
    ):
        npk.kernel(table, out=store.path, client=other, progress=Watch(lambda done: other.close()))


def test_a_client_that_is_none_is_refused(table, tmp_path):
    with pytest.raises(OptionError, match="client is of type str. Give a dask.distributed.Client"):
        npk.kernel(table, out=tmp_path / "K.zarr", client="tcp://127.0.0.1:8786", progress=False)


def test_a_client_needs_a_store(table):
    with pytest.raises(OptionError, match="client= needs out="):
        npk.kernel(table, client="any")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(
            MissingPackageError,
            match=r"needs the package distributed.* pip install "
            r"'\.\[dask\]'",
        ),
        connect("tcp://127.0.0.1:1"),
    ):
        pass


# addresses


def test_connect_by_address_and_by_scheduler_file(client, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"type": "Scheduler", "address": client.scheduler.address}))
    for where in (client.scheduler.address, str(file)):
        with connect(where) as other:
            assert other.nthreads() == client.nthreads()
        assert other.status == "closed"
    assert client.nthreads()


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:1",
        "nonsense",
        "there/is/no/file.json",
        "ftp://127.0.0.1:1",
        "empty.json",
        "list.json",
    ],
)
def test_no_scheduler_is_one_line(address, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_module, "_PATIENCE", 1)
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(
        BackendError,
        match=f"there is no Dask scheduler at {address} .*such as tcp://host:8786, or the path",
    ):
        with connect(address):
            pass
    assert capfd.readouterr() == ("", "")


# what the tests need


def raise_flag(store):
    # another one in each test: a worker keeps the work of its last run
    flag = store.path.parent.name
    (store.path / flag).touch()
    return flag


def interrupt():
    raise KeyboardInterrupt


def no_room(path):
    raise OSError(28, "No space left on device")


def resident(dask_scheduler=None):
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy():
    return cluster_module._one_at_a_time.locked()


def set_seconds(seconds):
    cluster_module._SECONDS = seconds


def set_version(version):
    npk.__version__ = version


def submit_instead(monkeypatch, client, function, *arguments):
    submit = client.submit
    monkeypatch.setattr(
        client, "submit", lambda *others, **options: submit(function, *arguments, pure=False)
    )


def wait_until(happened):
    while not happened():
        time.sleep(0.05)


class KillOne:
    """Kills a worker process without warning, once some tiles are done."""

    def __init__(self, client, after=1):
        self.pid, self.after, self.killed = next(iter(client.run(os.getpid).values())), after, False

    def __call__(self, done):
        if done >= self.after and not self.killed:
            os.kill(self.pid, signal.SIGKILL)
            self.killed = True
