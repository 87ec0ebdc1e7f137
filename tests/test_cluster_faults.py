"""Clusters that lose their workers or their client: progress or an error in a stated time, and no
tile where it does not belong.
"""

import contextlib
import functools
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

import npk
from npk.errors import BackendError, OptionError, StoreError
from npk.gram import cluster as cluster_module
from npk.gram import crew as crew_module
from npk.gram.cluster import compute_tiles
from npk.gram.crew import Crew, patience
from npk.gram.kernel import NeuralPathKernel
from npk.gram.sources import Recorded
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.gram.verification import examine
from npk.gram.writing import _about
from npk.progress import Silent

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture(scope="module")
def tables():
    """Of two networks of one architecture, on the same samples."""
    X = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    nets = (
        npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[20, 20], seed=seed)
        for seed in (1, 2)
    )
    return [npk.record_gates(net, X) for net in nets]


def empty_store(path, table, side=16):
    """A store whose gates are there and whose tiles are not."""
    engine, source, n = NeuralPathKernel(None, progress=False).engine, Recorded(table), len(table)
    _, exponents = engine.prepare(table)
    store = GramStore.create(
        path,
        TilePlan(n, n, side, True),
        "float32",
        _about(engine, (source,), (n, n)),
        exponents,
        (source.few(),),
    )
    source.fill(store.rows, Silent())
    return store


class Notes(Silent):
    def __init__(self):
        self.said, self.tiles = [], 0

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        def advance(steps):
            self.tiles += steps if description == "kernel tiles" else 0

        yield advance

    def note(self, name, text, /, **facts):
        self.said.append((name, text))


@contextlib.contextmanager
def workers_of_their_own(number):
    """Processes of one thread each that nobody starts again once they are killed; their numbers,
    and a client.
    """
    options = {
        "n_workers": number,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": ":0",
    }
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        for nanny in cluster.workers.values():
            nanny.close_gracefully()  # once its worker is dead, instead of starting another
        yield list(client.run(os.getpid).values()), client


def wait_for(happened, seconds=300):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


# a late tile


def prepared(monkeypatch, path, table):
    """What a worker is given, in this process."""
    store = empty_store(path, table)
    monkeypatch.setattr(cluster_module, "_allowed", lambda: (1, None))
    monkeypatch.setattr(cluster_module, "_tell", lambda store, tile: None)
    flag = path.parent.name  # another one in each test: a worker keeps the work of its last run
    (path / flag).touch()
    return store, flag


def meanwhile(monkeypatch, happen):
    """Something happens once a tile is computed, before it is written."""
    compute = cluster_module.Work.compute
    monkeypatch.setattr(
        cluster_module.Work, "compute", lambda self, tile: (compute(self, tile), happen())[0]
    )


@pytest.mark.parametrize("with_flag", [False, True], ids=["another run", "a flag of the same name"])
def test_a_tile_of_a_store_that_is_gone_is_not_written_to_its_successor(
    with_flag, tables, tmp_path, monkeypatch
):
    store, flag = prepared(monkeypatch, tmp_path / "K", tables[0])

    def started_afresh():
        shutil.rmtree(tmp_path / "K")
        empty_store(tmp_path / "K", tables[1])
        if with_flag:
            (tmp_path / "K" / flag).touch()

    meanwhile(monkeypatch, started_afresh)
    with pytest.raises(
        StoreError,
        match="is not, or no longer, the (folder that the client writes|store that was opened)",
    ):
        compute_tiles(str(tmp_path / "K"), flag, npk.__version__, list(store.plan)[:1])
    monkeypatch.undo()
    assert len(GramStore.open(tmp_path / "K").missing()) == len(store.plan)
    np.testing.assert_array_equal(
        np.asarray(npk.kernel(tables[1], out=tmp_path / "K", progress=False)), npk.kernel(tables[1])
    )


def test_a_tile_that_nobody_waits_for_is_not_written(tables, tmp_path, monkeypatch):
    """Its client was killed, and the next run has begun."""
    store, flag = prepared(monkeypatch, tmp_path / "K", tables[0])

    def next_run():
        with GramStore.writing(tmp_path / "K"):
            (tmp_path / "K" / flag).unlink()

    meanwhile(monkeypatch, next_run)
    with pytest.raises(StoreError, match="is not, or no longer, the folder that the client writes"):
        compute_tiles(str(tmp_path / "K"), flag, npk.__version__, list(store.plan)[:1])
    assert len(store.missing()) == len(store.plan)


def slow_tiles(place):
    """In a worker: as long as a file is there, a computed tile is held back."""
    compute = cluster_module.Work.compute

    def computing(self, tile):
        values = compute(self, tile)
        if os.path.exists(f"{place}/slow"):
            open(f"{place}/held", "w").close()
            while os.path.exists(f"{place}/slow"):
                time.sleep(0.05)
        return values

    cluster_module.Work.compute = computing


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_interrupted_and_begun_afresh_with_another_network(tables, tmp_path, request):
    """The worker comes back with a tile of the first network when the store is the second's."""
    (tmp_path / "slow").touch()
    out = tmp_path / "K"
    request.addfinalizer(
        functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it

    class Interrupted(Silent):
        def note(self, name, text, /, **facts):
            threading.Thread(target=held, daemon=True).start()

    def held():
        import _thread

        wait_for((tmp_path / "held").exists)
        _thread.interrupt_main()

    with workers_of_their_own(1) as (_, client):
        client.run(slow_tiles, str(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            npk.kernel(tables[0], out=out, client=client, progress=Interrupted())
        shutil.rmtree(out)
        empty_store(out, tables[1], side=60)
        (tmp_path / "slow").unlink()
        started = time.monotonic()
        K = np.asarray(npk.kernel(tables[1], out=out, client=client, progress=False))
    print(
        f"the second run ended {time.monotonic() - started:.1f} s after the first one's tile "
        f"came back"
    )
    np.testing.assert_array_equal(K, npk.kernel(tables[1], progress=False))
    assert examine(out, Silent()).damaged == ()


# no workers


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_that_are_killed_until_none_is_left(tmp_path, rng):
    """One every two seconds: tiles are finished as long as there is one, and then the run ends in
    the time that is set.
    """
    net = npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[20, 20])
    table = npk.record_gates(net, rng.standard_normal((110, 6)).astype(np.float32))
    store, wait = empty_store(tmp_path / "K", table, side=1), 5  # tiles for more than six seconds
    with (
        dask.config.set({"npk.no-workers-timeout": f"{wait}s"}),
        workers_of_their_own(3) as (processes, client),
    ):
        dead, notes = [], Notes()

        def kill():
            wait_for(lambda: notes.tiles)
            for process in processes:
                time.sleep(2)
                os.kill(process, signal.SIGKILL)
                dead.append(time.monotonic())

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(
            BackendError,
            match=rf"no workers for {wait} seconds\. Finished tiles are kept: run "
            rf"again|died with the same tiles",
        ):
            npk.kernel(table, out=store.path, client=client, progress=notes)
        ended = time.monotonic()
        killer.join()
    left = len(GramStore.open(store.path).missing())
    print(
        f"{len(store.plan) - left} of {len(store.plan)} tiles by workers killed every 2 s; error "
        f"{ended - dead[-1]:.1f} s after the last"
    )
    assert left < len(store.plan)
    assert ended - dead[-1] < wait + 60  # the machine may be busy
    assert ("waiting", "there are no workers: waiting for some to join") in notes.said
    np.testing.assert_array_equal(
        np.asarray(npk.kernel(table, out=store.path, progress=False)),
        npk.kernel(table, progress=False),
    )


def test_a_run_without_workers_ends_in_the_time_that_is_set(tables, tmp_path):
    options = {"n_workers": 0, "processes": False, "dashboard_address": ":0"}
    store, notes = empty_store(tmp_path / "K", tables[0]), Notes()
    with (
        dask.config.set({"npk.no-workers-timeout": "0.2s"}),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(
            BackendError,
            match=r"no workers for 0.2 seconds\. Finished tiles are "
            r"kept: run again to go on\. Start workers",
        ):
            npk.kernel(tables[0], out=store.path, client=client, progress=notes)
    assert ("patience", "the run ends after 0.2 seconds without one") in notes.said


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: now[0])
    return now


def test_the_time_without_workers_begins_anew_when_one_joins(clock):
    crew = Crew(notes := Notes())
    for clock[0], workers in ((0, set()), (59, set()), (59.5, {"a"}), (100, set()), (159, set())):
        crew.is_now(workers)
    clock[0] = 160
    with pytest.raises(
        BackendError, match="no workers for 60 seconds.*DASK_NPK__NO_WORKERS_TIMEOUT=12h"
    ):
        crew.is_now(set())
    assert [name for name, _ in notes.said] == ["waiting", "patience"] * 2


def test_crews_that_are_lost_one_after_another(clock):
    """Workers that die before they have done anything, and others take their place: else the run
    would wait for ever.
    """
    crew = Crew(Silent())
    for turn in range(5):
        crew.is_now({f"{turn}"})
        crew.is_now(set())
    crew.did_something()
    crew.is_now({"4", "5"})  # one of them is known
    for turn in range(6, 10):
        crew.is_now({f"{turn}"})
    with pytest.raises(
        BackendError,
        match="all workers were lost 5 times, one crew after another, "
        "and none of them finished a task",
    ):
        crew.is_now({"10"})


@pytest.mark.parametrize(("value", "seconds"), [("12h", 43200), ("500ms", 0.5), (7, 7), ("0s", 0)])
def test_the_time_without_workers_is_set_as_dask_sets_times(value, seconds):
    with dask.config.set({"npk.no-workers-timeout": value}):
        assert patience() == seconds
    assert patience() == 60
    assert dask.config.collect_env({"DASK_NPK__NO_WORKERS_TIMEOUT": "12h"}) == {
        "npk": {"no_workers_timeout": "12h"}
    }
    with dask.config.set({"npk.no_workers_timeout": value}):  # as the environment spells it
        assert patience() == seconds


@pytest.mark.parametrize("value", ["soon", None, "-3s", [], "nan"])
def test_a_time_that_is_none(value):
    with (
        dask.config.set({"npk.no-workers-timeout": value}),
        pytest.raises(OptionError, match="is .* in Dask's configuration, and no time"),
    ):
        patience()
