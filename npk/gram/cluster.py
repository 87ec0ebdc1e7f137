"""Tiles computed by the workers of a Dask cluster, which read gates from the store and write their
tiles into it themselves.

The client holds the store's lock and says who computes which tiles; neither gates nor tiles pass
through it or the scheduler.
"""

import contextlib
import json
import os
import platform
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from npk.errors import BackendError, MissingPackageError, NpkError, OptionError, StoreError
from npk.gram.crew import AGAIN, Crew
from npk.gram.engine import Engine
from npk.gram.options import KernelOptions, Promise
from npk.gram.store import GramStore
from npk.gram.tiles import Tile, cuts
from npk.gram.work import Findings, Work, memory_demand
from npk.progress import Progress, Silent

if TYPE_CHECKING:
    import distributed

_TOGETHER = 16  # tiles of a row in a task, at most: they share one side
_SECONDS = 5.0  # after which a task ends, and what it left is handed out again
_AHEAD = 2  # tasks a worker: one runs, one waits
# seconds between looks for finished tasks, and for workers that joined or left
_GLANCE, _LOOK = 0.02, 1.0
_PATIENCE = 10  # seconds for a scheduler to answer
_TOPIC = "npk-tiles"  # of the events that say who wrote which tile

# threads of a worker: Numba's may crash when two of them start parallel code
_one_at_a_time = threading.Lock()
_kept: dict[str, tuple[GramStore, Work]] = {}  # of the last run that this process worked for


@contextlib.contextmanager
def connect(address: str) -> Iterator["distributed.Client"]:
    """Connect to a running cluster.

    Args:
        address: such as ``tcp://host:8786``, or the path of the scheduler's file.

    Yields:
        The client, closed afterwards; the cluster goes on.

    Raises:
        MissingPackageError: ``distributed`` is not installed.
        BackendError: there is no scheduler.
    """
    distributed = _distributed()
    try:
        where = (
            json.loads(Path(address).read_text())["address"] if Path(address).is_file() else address
        )
        _knock(where)
        client = distributed.Client(where, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackendError(
            f"there is no Dask scheduler at {address} ({type(error).__name__}). "
            "Give the address that it prints when it starts, such as tcp://host:8786, or the path "
            "of its scheduler file."
        ) from error
    with client:
        yield client


def _knock(where: str) -> None:
    """Whether anything listens there. A client that finds nobody leaves its event loop behind, in
    which later ones may be caught.
    """
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    scheme, place = parse_address(where)
    get_backend(scheme)  # ValueError: there is no such way to talk
    if scheme in ("tcp", "tls"):
        socket.create_connection(parse_host_port(place, 8786), timeout=_PATIENCE).close()


class OnCluster:
    """The workers of a Dask cluster.

    Args:
        client: of the cluster; its workers see the store under the same path.

    Raises:
        OptionError: no client of ``dask.distributed``.
    """

    def __init__(self, client: "distributed.Client") -> None:
        if not (callable(getattr(client, "submit", None)) and hasattr(client, "scheduler_info")):
            raise OptionError(
                f"client is of type {type(client).__name__}. Give a "
                f"dask.distributed.Client(address)."
            )
        self.client = client

    def compute(self, work: Work, store: GramStore, todo: Sequence[Tile]) -> None:
        """Have tiles computed by the workers; the errors are those of :func:`compute_on`."""
        compute_on(self.client, store, todo, work.progress).report(store.plan.n, work.options.dtype)


def compute_on(
    client: "distributed.Client", store: GramStore, todo: Sequence[Tile], progress: Progress
) -> Findings:
    """Have tiles of a store computed by the workers of a cluster.

    Args:
        client: of the cluster; its workers see the store under the same path.
        store: opened by :meth:`GramStore.writing`, its gates complete.
        todo: the tiles of its plan that are wanted, in its order.
        progress: told of tiles.

    Returns:
        What has to be said of the entries.

    Raises:
        MissingPackageError: ``distributed`` is not installed.
        OptionError: the client is none.
        StoreError: a worker cannot read or write the store.
        ScaleError: values outside the range of the dtype.
        BackendError: the workers do not fit this process, died over and over, have been none for
            too long, or the scheduler is gone.
    """
    if not isinstance(client, _distributed().Client) or client.asynchronous:
        raise OptionError(
            f"client= is a {type(client).__name__}. Give a dask.distributed.Client "
            f"that is not asynchronous."
        )
    found = Findings()
    with (
        _flag(store) as flag,
        progress.task("kernel tiles", len(store.plan), len(store.plan) - len(todo)) as advance,
    ):
        dealer = _Dealer(client, (str(store.path.absolute()), flag), todo, progress)
        try:
            while dealer.goes_on():
                for findings, done in dealer.results():
                    found += findings
                    advance(done)
        finally:
            dealer.cancel()
    return found


class _Dealer:
    """Hands out tiles, a few tasks a worker at a time.

    Args:
        client: of the cluster.
        where: path of the store, and the flag of this run.
        todo: tiles.
        progress: told when there is nobody to work.
    """

    def __init__(
        self,
        client: "distributed.Client",
        where: tuple[str, str],
        todo: Sequence[Tile],
        progress: Progress,
    ) -> None:
        self.client, self.where, self.progress = client, where, progress
        self.running: dict[Any, list[Tile]] = {}  # by future
        self.looked, self.workers, self.crew = -_LOOK, 0, Crew(progress)
        self._look()
        self.waiting = deque(_tasks(todo, self.workers))

    def goes_on(self) -> bool:
        """Hand out what there is room for; whether anything is left to wait for."""
        self._look()
        while self.waiting and len(self.running) < _AHEAD * max(1, self.workers):
            tiles = self.waiting.popleft()
            with _scheduler_there():
                self.running[
                    self.client.submit(compute_tiles, *self.where, _version(), tiles, pure=False)
                ] = tiles
        return bool(self.running)

    def results(self) -> Iterator[tuple[Findings, int]]:
        """What tasks have to say that are finished, and how many tiles they did."""
        # what is lost runs again
        ready = [future for future in self.running if future.status not in ("pending", "lost")]
        if not ready:
            time.sleep(_GLANCE)
        for future in ready:
            findings, done = _result(future)
            if left := self.running.pop(future)[done:]:
                self.waiting.appendleft(left)
            self.crew.did_something()
            yield findings, done

    def cancel(self) -> None:
        """Call back what is handed out. Running tasks see that the flag is gone, and end soon."""
        with contextlib.suppress(Exception):  # the scheduler is gone: nothing is left to call back
            self.client.cancel(list(self.running))

    def _look(self) -> None:
        if time.monotonic() - self.looked < _LOOK:
            return
        with _scheduler_there():
            if self.client.status == "closed":
                raise ConnectionError("the client is closed")
            threads: Any = self.client.nthreads()  # by worker
        self.crew.is_now(set(threads))
        self.looked, self.workers = time.monotonic(), len(threads)


def _tasks(todo: Sequence[Tile], workers: int) -> Iterator[list[Tile]]:
    """Tiles of one row each, fewer where all workers would not end together."""
    size = max(1, min(_TOGETHER, len(todo) // (4 * max(1, workers))))
    for _, row in groupby(todo, lambda tile: tile.row):
        tiles = list(row)
        yield from (tiles[some] for some in cuts(len(tiles), size))


def _result(future: Any) -> tuple[Findings, int]:
    """That of a finished task, or its error as one of npk's own."""
    from distributed import KilledWorker

    try:
        return future.result()
    except NpkError:
        raise
    except KilledWorker as error:
        raise BackendError(
            f"{error.allowed_failures + 1} workers died with the same tiles, the last one at "
            f"{error.last_worker.address}. "
            f"Their logs say why; often it is memory: give them more, or fewer to a host. {AGAIN}"
        ) from error
    except CancelledError as error:
        raise BackendError(
            f"the cluster dropped the tiles that were handed out: its scheduler has stopped or "
            f"begun anew. {AGAIN}"
        ) from error
    except Exception as error:
        if future.status != "error":
            raise _gone(error) from error
        raise BackendError(
            f"a worker failed with {type(error).__name__}: {error}. Workers need the Python "
            f"environment of the client. {AGAIN}"
        ) from error


def _gone(error: Exception) -> BackendError:
    return BackendError(
        f"the cluster's scheduler is gone ({type(error).__name__}: {error}). {AGAIN}"
    )


@contextlib.contextmanager
def _scheduler_there() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _gone(error) from error


@contextlib.contextmanager
def _flag(store: GramStore) -> Iterator[str]:
    """A file in the store while the client waits: this is the store, and its tiles are wanted."""
    name = f".{uuid.uuid4().hex}.partial"  # swept up by the next run if this one is killed
    try:
        (store.path / name).touch()
    except OSError as error:
        raise StoreError(
            f"cannot write {store.path}: {error.strerror or error}. Mend the cause (room, "
            f"permissions) and run again."
        ) from error
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):  # the folder is gone, and the error under way says so
            (store.path / name).unlink()


def compute_tiles(path: str, flag: str, version: str, tiles: list[Tile]) -> tuple[Findings, int]:
    """What a worker does: compute tiles and write each into the store, for a few seconds.

    Args:
        path: of the store.
        flag: name of a file in it that is there while the tiles are wanted.
        version: of the client's npk.
        tiles: of the store's plan; what is done already is not computed again.

    Returns:
        Findings, and how many of the tiles are done now; at least one.

    Raises:
        BackendError: another npk than the client's, or too little memory.
        StoreError: the store cannot be read or written here.
        ScaleError: values outside the range of the dtype.
    """
    if version != _version():
        raise BackendError(
            f"the worker on host {platform.node()} has npk {_version()}, the client "
            f"{version}. Install the same on both."
        )
    _see(path, flag)
    try:
        with _one_at_a_time, _as_many_threads_as_allowed():
            return _compute(*(_kept.get(flag) or _open(path, flag)), flag, tiles)
    except StoreError:
        _see(path, flag)  # where the whole folder is gone, that is what has to be said
        raise


def _see(path: str, flag: str) -> None:
    if not (Path(path) / flag).exists():
        raise StoreError(
            f"{path} on host {platform.node()} is not, or no longer, the folder that the client "
            f"writes. Workers need it under the same path: choose one on a file system that all of "
            f"them share."
        )


def _compute(store: GramStore, work: Work, flag: str, tiles: list[Tile]) -> tuple[Findings, int]:
    work.found, done, begin = Findings(), 0, time.monotonic()
    for tile in tiles:
        if done and (time.monotonic() - begin > _SECONDS or not (store.path / flag).exists()):
            break
        if not _count_done(work, store, tile):
            values = work.compute(tile)
            # a tile that is late, of a client that is gone, may be of nobody's use
            _see(str(store.path), flag)
            store.write(tile, values)
            _tell(store, tile)
        done += 1
    return work.found, done


def _tell(store: GramStore, tile: Tile) -> None:
    """Say on Dask's log of events that this worker wrote a tile; the scheduler keeps the last ones."""
    from distributed import get_worker

    worker: Any = get_worker()
    where = {"store": str(store.path), "row": tile.row, "col": tile.col}
    worker.log_event(_TOPIC, {**where, "worker": worker.address})


def _count_done(work: Work, store: GramStore, tile: Tile) -> bool:
    """Whether a tile is done: by a lost worker; what has to be said of it is found again."""
    if not store.is_done(tile):
        return False
    try:
        work.found += work.findings(tile, store.read(tile))
    except StoreError:  # it arrives here in parts, or is damaged: computing it again mends both
        return False
    return True


def _open(path: str, flag: str) -> tuple[GramStore, Work]:
    """The work on a store from what is in it alone: no network, and no torch."""
    _kept.clear()  # first: two would take twice the memory
    store = GramStore.open(path, write=True)
    options = KernelOptions(
        **{field.name: store.about[field.name] for field in fields(KernelOptions)}
    )
    work = Work.of(Engine(options, Promise(), Silent()), store, one_device=True)
    demand = memory_demand(work.backend, work.engine, 0, gates=store.rows.bytes_a_sample).bytes(
        store.plan.largest
    )
    threads, limit = _allowed()
    needed = demand - max(0, (os.cpu_count() or 1) - threads) * work.backend.bytes_a_thread
    if limit is not None and needed > limit:
        raise BackendError(
            f"a worker on host {platform.node()} may take {limit} bytes, and a tile takes "
            f"{needed}. Give the workers more memory (--memory-limit), or begin a store with a "
            f"smaller memory= for the kernel."
        )
    _kept[flag] = store, work
    return store, work


def _allowed() -> tuple[int, int | None]:
    """Threads and bytes that this worker may take."""
    from distributed import get_worker

    worker: Any = get_worker()
    return worker.state.nthreads, worker.memory_manager.memory_limit


@contextlib.contextmanager
def _as_many_threads_as_allowed() -> Iterator[None]:
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(before, _allowed()[0]))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _version() -> str:
    from npk import __version__

    return __version__


def _distributed() -> ModuleType:
    try:
        import distributed
    except ImportError as error:
        raise MissingPackageError(
            "a cluster needs the package distributed, which is not installed. Run: pip install "
            "'.[dask]'"
        ) from error
    return distributed
