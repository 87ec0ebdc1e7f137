"""Gates on disk: what comes back is what was written, and whatever happens to a file or a run is
seen.
"""

import contextlib
import errno
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
import zarr
from torch import nn

import npk
from npk.errors import OptionError, ShapeError, StoreError
from npk.gates import pieces as gate_pieces
from npk.gates.recording import example_table, record_into, record_trace, weights_digest
from npk.gates.store import GateStore
from npk.gates.table import GateTable, samples_digest
from npk.progress import Silent
from npk.reading.tracing import trace_network

PIECE = 4


def saturating():
    return nn.Sequential(
        nn.Conv2d(2, 65, 3),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(260, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    ).eval()


def soft():
    return npk.networks.build(
        "conv", "dgn", input_shape=(2, 6, 6), classes=2, channels=[3, 4], seed=0
    )


@pytest.fixture(
    scope="module", params=[saturating, soft], ids=["hard, saturation, selection", "soft"]
)
def trace(request):
    torch.manual_seed(0)
    return trace_network(request.param(), (2, 6, 6))


@pytest.fixture(scope="module")
def X():
    X = 3 * np.random.default_rng(0).standard_normal((11, 2, 6, 6)).astype(np.float32)
    X.flags.writeable = False
    return X


@pytest.fixture(scope="module")
def table(trace, X):
    return record_trace(trace, X, gates="auto", progress=Silent())


def filled(where, table, piece=PIECE):
    store = GateStore.create(where, table.form, len(table), piece=piece)
    for start, stop in store.missing():
        store.write(start, table.take(slice(start, stop)))
    return store


def same(there, here):
    assert there.graph == here.graph
    assert [(n, e.kind, e.shape) for n, e in there.entries.items()] == [
        (n, e.kind, e.shape) for n, e in here.entries.items()
    ]
    for a, b in zip(there.arrays, here.arrays, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return True


class Stopped(BaseException):
    """As abrupt as a signal: no `except Exception` holds it up."""


def stop_writing(monkeypatch, after, error):
    """Let so many files be written, then fail for good; one at a time, so that those that may are
    there when it fails.
    """
    put, left, turn = zarr.storage._local._put, iter(range(after)), threading.Lock()

    def limited(*args, **kwargs):
        with turn:
            if next(left, None) is None:
                raise error
            return put(*args, **kwargs)

    monkeypatch.setattr(zarr.storage._local, "_put", limited)


def test_the_tables_have_every_kind(trace, table):
    kinds = {entry.kind for entry in table.entries.values()}
    assert kinds in ({"hard", "saturation", "selection"}, {"soft"})
    assert all(0 < entry.data.astype(float).std() for entry in table.entries.values())


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 9])
def test_round_trips_around_the_borders_of_pieces(n, table, tmp_path):
    part = table.take(slice(0, n))
    store = GateStore.create(tmp_path / "s", table.form, n, piece=PIECE, about={"data": "some"})
    assert store.missing() == store.pieces == [(i, min(n, i + PIECE)) for i in range(0, n, PIECE)]
    for start, stop in reversed(store.pieces):
        store.write(start, part.take(slice(start, stop)))
    store = GateStore.open(tmp_path / "s")
    assert store.missing() == list(store.verify()) == []
    assert (len(store), store.names, store.layers, store.graph) == (
        n,
        table.names,
        table.layers,
        table.graph,
    )
    assert {name: e.kind for name, e in store.entries.items()} == {
        name: e.kind for name, e in table.entries.items()
    }
    assert (store.nbytes, store.bytes_a_sample * n, store.about) == (
        part.nbytes,
        part.nbytes,
        {"data": "some"},
    )
    assert same(store.take(slice(None)), part)
    assert same(GateTable.load(tmp_path / "s"), part)
    assert store.fingerprint() == part.fingerprint()


@pytest.mark.parametrize("at_once", [1, 32 << 20])
@pytest.mark.parametrize(
    "rows",
    [
        *(slice(3, 9), slice(4, 8), slice(-2, None), slice(0, 0), slice(None, None, -2)),
        *(np.array([9, 0, 9, 4, -1]), np.arange(5, 8), np.array([], int), np.arange(11) % 3 == 0),
    ],
    ids=str,
)
def test_take(rows, at_once, table, tmp_path, monkeypatch):
    monkeypatch.setattr(gate_pieces, "_READ_BYTES", at_once)
    store = filled(tmp_path / "s", table.take(slice(0, 6)))
    store.extend(5)
    for start in (6, 10):
        store.write(start, table.take(slice(start, start + 4)))
    assert same(store.take(rows), table.take(rows))


def test_take_reads_only_the_pieces_it_needs(table, tmp_path):
    store = filled(tmp_path / "s", table)
    store.forget(4)
    assert same(store.take(np.array([8, 3, 0])), table.take(np.array([8, 3, 0])))
    assert same(store.take(slice(8, 11)), table.take(slice(8, 11)))
    with pytest.raises(
        StoreError,
        match=r"s is not complete: the gates of samples 4 to 7 are "
        r"missing. Run the same command again",
    ):
        store.take(slice(3, 5))
    with pytest.raises(IndexError):
        store.take(np.array([11]))


def test_take_needs_no_more_memory_than_it_says(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(gate_pieces, "_READ_BYTES", 1 << 18)
    X = rng.standard_normal((2000, 512)).astype(np.float32)
    table = npk.record_gates(nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1)), X)
    store = filled(tmp_path / "s", table, piece=50)
    rows = np.concatenate([np.arange(0, 2000, 40), np.arange(300, 200, -1)])
    store.take(rows)  # what zarr keeps
    tracemalloc.start()
    part = store.take(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < part.nbytes + store.bytes_to_take + (1 << 18)
    assert peak < store.nbytes / 3
    assert same(part, table.take(rows))


def test_a_piece_has_about_4_megabytes(table, tmp_path, monkeypatch):
    assert GateStore.create(tmp_path / "many", table.form, 5000).piece == 1024
    monkeypatch.setattr(gate_pieces, "_PIECE_BYTES", 3 * table.nbytes // len(table))
    assert GateStore.create(tmp_path / "some", table.form, 5000).piece == 3
    monkeypatch.setattr(gate_pieces, "_PIECE_BYTES", 1)
    assert GateStore.create(tmp_path / "one", table.form, 5000).piece == 1


def test_a_table_without_samples(table, tmp_path):
    none = table.take(slice(0, 0))
    none.save(tmp_path / "s")
    assert same(GateTable.load(tmp_path / "s"), none)
    assert GateStore.open(tmp_path / "s").fingerprint() == none.fingerprint()


def test_the_fingerprint_does_not_depend_on_the_cut(table, tmp_path):
    found = {filled(tmp_path / str(piece), table, piece).fingerprint() for piece in (1, 4, 64)}
    assert found == {table.fingerprint()}
    assert table.take(slice(1, None)).fingerprint() not in found


def test_more_samples_leave_the_old_files_alone(table, tmp_path):
    store = filled(tmp_path / "s", table.take(slice(0, 6)))
    before = {p: p.read_bytes() for p in (tmp_path / "s" / "0").rglob("*") if p.is_file()}
    store.extend(5, about={"data": "more"})
    for found in (store, GateStore.open(tmp_path / "s")):
        assert (len(found), found.missing(), found.about) == (
            11,
            [(6, 10), (10, 11)],
            {"data": "more"},
        )
        assert same(found.take(slice(0, 6)), table.take(slice(0, 6)))
    for start, stop in store.missing():
        store.write(start, table.take(slice(start, stop)))
    assert GateStore.open(tmp_path / "s").fingerprint() == table.fingerprint()
    assert before == {p: p.read_bytes() for p in before}
    store.extend(1)
    assert (GateStore.open(tmp_path / "s").missing(), store.about) == ([(11, 12)], {"data": "more"})


@pytest.mark.parametrize(
    "error",
    [Stopped(), OSError(errno.ENOSPC, "No space left on device")],
    ids=["killed", "full disk"],
)
def test_extension_cut_short(error, table, tmp_path, monkeypatch):
    store = filled(tmp_path / "s", table.take(slice(0, 6)))
    said = set()
    for after in range(3 * len(table.arrays) + 9):
        with monkeypatch.context() as patch:
            stop_writing(patch, after, error)
            try:
                store.extend(5)
                break
            except (Stopped, StoreError) as stopped:
                said.add(str(stopped))
        store = GateStore.open(tmp_path / "s", write=True)
        assert same(store.take(slice(None)), table.take(slice(0, 6)))
    assert after > len(table.arrays)
    full = (
        f"cannot write {tmp_path / 's'}: No space left on device. It is as it was: make room "
        f"and run again."
    )
    assert said == ({full} if isinstance(error, OSError) else {""})
    assert GateStore.open(tmp_path / "s").missing() == [(6, 10), (10, 11)]


@pytest.mark.parametrize("again", [False, True], ids=["first time", "written again"])
def test_killed_at_each_write(again, table, tmp_path, monkeypatch):
    store = filled(tmp_path / "s", table)
    if not again:
        store.forget(4)
    after, other = 0, GateTable(table.graph, table.inputs + again, table.entries)
    while True:
        with monkeypatch.context() as patch:
            stop_writing(patch, after, Stopped())
            try:
                store.write(4, other.take(slice(4, 8)))
                break
            except Stopped:
                after += 1
        store = GateStore.open(tmp_path / "s", write=True)
        assert store.missing() == [(4, 8)]
        assert list(store.verify()) == []
        if again:
            store.write(4, table.take(slice(4, 8)))
    assert after == len(table.arrays) + 1
    assert GateStore.open(tmp_path / "s").missing() == []
    assert same(store.take(slice(4, 8)), other.take(slice(4, 8)))


KILLED = """
import os, signal, sys
from pathlib import Path
from npk.gates.store import GateStore

source, store = GateStore.open(sys.argv[1]), GateStore.open(sys.argv[2], write=True)
replace, left = Path.replace, iter(range(int(sys.argv[3])))

def killed(path, target):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = killed
for start, stop in store.missing():
    store.write(start, source.take(slice(start, stop)))
"""


@pytest.mark.parametrize("after", [0, 5])
def test_killed_by_a_signal(after, table, tmp_path):
    filled(tmp_path / "source", table)
    GateStore.create(tmp_path / "s", table.form, len(table), piece=PIECE)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "source", tmp_path / "s", str(after)], check=False
    )
    assert killed.returncode == -9
    store = GateStore.open(tmp_path / "s", write=True)
    assert list((tmp_path / "s").rglob("*.partial"))
    assert list(store.verify()) == []
    assert len(store.missing()) == 3 - after // (len(table.arrays) + 1)
    for start, stop in store.missing():
        store.write(start, table.take(slice(start, stop)))
    assert store.fingerprint() == table.fingerprint()


def test_full_disk(table, tmp_path, monkeypatch):
    store = filled(tmp_path / "s", table)
    store.forget(8)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        stop_writing(patch, 1, full)
        with pytest.raises(
            StoreError,
            match="cannot write .*s: No space left on device. Pieces "
            "written so far are kept: make room",
        ):
            store.write(8, table.take(slice(8, 11)))
        assert store.missing() == [(8, 11)]
        with pytest.raises(OSError, match="No space left") as caught:
            store.put(8, table.take(slice(8, 11)))
        assert caught.value is full
        with pytest.raises(
            StoreError,
            match=r"cannot write .*/new: No space left on device. "
            r"Choose a folder that exists, is writable",
        ):
            table.save(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    store.write(8, table.take(slice(8, 11)))
    assert store.fingerprint() == table.fingerprint()


def test_every_file_of_a_store_that_is_damaged_or_lost_is_seen(table, tmp_path):
    store = filled(tmp_path / "s", table)
    files = sorted(p for p in (tmp_path / "s").rglob("*") if p.is_file())
    assert {
        p.relative_to(tmp_path / "s").parts[1]
        for p in files
        if len(p.relative_to(tmp_path / "s").parts) > 1
    } >= {"inputs", "gates", "checksums"}
    for file in files:
        whole = file.read_bytes()
        # the last chunk of an array is padded
        used = len(whole) // 2 if "c" in file.parts else len(whole)
        for damaged in (
            None,
            whole[:-1],
            *(_flipped(whole, at) for at in range(0, used, max(1, used // 5))),
        ):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            assert is_seen(tmp_path / "s", table), (file, damaged)
            file.write_bytes(whole)
    assert store.fingerprint() == table.fingerprint()


def is_seen(where, table):
    """Whether a store is refused, or gives the table but for pieces that it says are missing."""
    try:
        found = GateStore.open(where)
        missing = found.missing()
        rows = np.array(
            [i for i in range(len(table)) if not any(start <= i < stop for start, stop in missing)],
            dtype=int,
        )
        there = found.take(rows)
    except StoreError as error:
        return str(where) in str(error)
    return same(there, table.take(rows))


def _flipped(whole, at):
    return whole[:at] + bytes([whole[at] ^ 1 << at % 7]) + whole[at + 1 :]


def test_damage_is_named_and_mended(table, tmp_path):
    store = filled(tmp_path / "s", table)
    chunk = next(p for p in sorted((tmp_path / "s/0/gates/0/c/1").rglob("*")) if p.is_file())
    chunk.write_bytes(_flipped(chunk.read_bytes(), 3))
    with pytest.raises(
        StoreError,
        match=r"s is damaged at samples 4 to 7 \(their checksum "
        r"differs\). Record the gates again",
    ):
        store.take(slice(None))
    chunk.write_bytes(b"short")
    with pytest.raises(StoreError, match="s is damaged at samples 4 to 7 .*Error: "):
        store.take(slice(None))
    assert same(store.take(slice(8, 11)), table.take(slice(8, 11)))
    assert list(store.verify()) == [(4, 8)]
    store.forget(4)
    assert (list(store.verify()), store.missing()) == ([], [(4, 8)])
    store.write(4, table.take(slice(4, 8)))
    assert same(store.take(slice(None)), table)


def test_damaged_checksums_and_arrays(table, tmp_path):
    store = filled(tmp_path / "s", table)
    (tmp_path / "s/0/checksums/c/1").write_bytes(b"short")
    with pytest.raises(StoreError, match="s has damaged checksums .*Record the gates again"):
        store.missing()
    with pytest.raises(StoreError, match="s has damaged checksums"):
        list(store.verify())
    file = tmp_path / "s/0/checksums/zarr.json"
    whole = file.read_text()
    file.write_text(whole.replace("3", "2", 1))
    with pytest.raises(
        StoreError,
        match=r"s is damaged \(ValueError: 0/checksums is int64 \(2,\), "
        r"the manifest says int64 \(3,\)",
    ):
        GateStore.open(tmp_path / "s")
    file.write_text(whole)
    file = tmp_path / "s/0/inputs/zarr.json"
    whole = file.read_text()
    file.write_text(whole.replace("float32", "int32"))
    with pytest.raises(
        StoreError,
        match=r"s is damaged \(ValueError: 0/inputs is int32 .*, the "
        r"manifest says float32",
    ):
        GateStore.open(tmp_path / "s")
    file.unlink()
    with pytest.raises(StoreError, match=r"s is damaged \(KeyError: '0/inputs'"):
        GateStore.open(tmp_path / "s")


def test_memory_that_runs_out_is_no_damage(table, tmp_path, monkeypatch):
    store = filled(tmp_path / "s", table)

    def full(self, key):
        raise MemoryError

    monkeypatch.setattr(zarr.Array, "__getitem__", full)
    with pytest.raises(MemoryError):
        store.take(slice(0, 1))


def test_what_a_piece_must_be(table, tmp_path):
    store = filled(tmp_path / "s", table)
    for start in (-4, 3, 11):
        with pytest.raises(
            ShapeError, match=f"no piece of .*s starts at sample {start}. Take the first number"
        ):
            store.write(start, table.take(slice(0, 4)))
    name, entry = next(iter(table.entries.items()))
    other = GateTable(
        table.graph,
        table.inputs,
        {**table.entries, name: type(entry)("other", entry.shape, entry.data)},
    )
    wide = GateTable(table.graph, table.inputs.astype(np.float64), table.entries)
    for wrong in (table.take(slice(0, 3)), other.take(slice(0, 4)), wide.take(slice(0, 4))):
        with pytest.raises(
            ShapeError,
            match=f"the table of {len(wrong)} samples is not that of samples 0 to "
            f"{len(wrong) - 1} of .*s: other",
        ):
            store.write(0, wrong)
    assert store.fingerprint() == table.fingerprint()


def test_several_pieces_written_together(table, tmp_path, monkeypatch):
    store = GateStore.create(tmp_path / "s", table.form, 9, piece=PIECE)
    store.extend(2)
    with pytest.raises(ShapeError, match="no whole pieces"):
        store.write(4, table.take(slice(4, 11)))  # two parts
    with monkeypatch.context() as patch:
        stop_writing(patch, 2 * len(table.arrays) + 1, Stopped())
        with pytest.raises(Stopped):
            store.write(0, table.take(slice(0, 8)))
    assert len(store.missing()) == 3
    assert list(store.verify()) == []
    store.write(0, table.take(slice(0, 9)))
    store.write(9, table.take(slice(9, 11)))
    assert same(GateStore.open(tmp_path / "s").take(slice(None)), table)


def test_a_place_that_is_taken(table, tmp_path):
    (tmp_path / "s").mkdir()
    with pytest.raises(StoreError, match="s exists already. Choose another name or remove it"):
        GateStore.create(tmp_path / "s", table.form, 3)


class Count:
    """Progress that remembers."""

    def __init__(self):
        self.tasks, self.steps = [], []

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        self.tasks.append((description, total, done))
        yield self.steps.append


def test_recorded_batches_do_not_depend_on_what_is_missing(trace, X, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "npk.gates.recording.record_trace",
        lambda *args, **kwargs: seen.append(len(args[1])) or record_trace(*args, **kwargs),
    )
    monkeypatch.setattr(
        gate_pieces, "_READ_BYTES", 2 * PIECE * example_table(trace, X, "auto").nbytes // 2
    )
    store = GateStore.create(
        tmp_path / "s", example_table(trace, X, "auto").form, len(X), piece=PIECE
    )
    assert store.groups() == [[(0, 4), (4, 8)], [(8, 11)]]
    seen.clear()
    record_into(store, trace, X, "auto", Silent())
    store.forget(4)
    record_into(store, trace, X, "auto", Silent())
    assert seen == [8, 3, 8]
    assert same(store.take(slice(None)), record_trace(trace, X, gates="auto", progress=Silent()))


def test_recording_goes_on_at_the_first_missing_piece(trace, table, X, tmp_path, monkeypatch):
    monkeypatch.setattr(gate_pieces, "_READ_BYTES", 1)  # pieces one by one
    store = GateStore.create(
        tmp_path / "s", example_table(trace, X, "auto").form, len(X), piece=PIECE
    )
    with monkeypatch.context() as patch:
        stop_writing(patch, len(table.arrays) + 2, Stopped())
        with pytest.raises(Stopped):
            record_into(store, trace, X, "auto", Silent())
    undisturbed = GateStore.create(tmp_path / "other", table.form, len(X), piece=PIECE)
    record_into(undisturbed, trace, X, "auto", Silent())
    store, progress = GateStore.open(tmp_path / "s", write=True), Count()
    assert store.missing() == [(4, 8), (8, 11)]
    record_into(store, trace, X, "auto", progress)
    assert (progress.tasks, progress.steps) == ([("recording gates", 11, 4)], [4, 3])
    assert store.fingerprint() == undisturbed.fingerprint()
    again = Count()
    record_into(store, trace, X, "auto", again)
    assert (again.tasks, again.steps) == ([("recording gates", 11, 11)], [])


def test_what_record_into_refuses(trace, X, tmp_path, monkeypatch):
    store = GateStore.create(
        tmp_path / "s", example_table(trace, X, "auto").form, len(X), piece=PIECE
    )
    with pytest.raises(ShapeError, match=r"X has 10 samples, .*s is made for 11. Give the samples"):
        record_into(store, trace, X[:10], "auto", Silent())
    with pytest.raises(OptionError, match="memory=1 bytes is too little"):
        record_into(store, trace, X, "auto", Silent(), 1)
    stop_writing(monkeypatch, 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StoreError, match="Pieces written so far are kept"):
        record_into(store, trace, X, "auto", Silent())
    with pytest.raises(OSError, match="No space left on device") as caught:
        record_into(store, trace, X, "auto", Silent(), keep=False)
    assert not isinstance(caught.value, StoreError)


def test_the_digest_of_the_first_samples_is_theirs(X):
    assert samples_digest(X, 5) == samples_digest(X[:5].copy())
    assert samples_digest(X) == samples_digest(np.asfortranarray(X)) == samples_digest(X, 11)
    others = [
        X[:5],
        X + 1,
        X.astype(np.float64),
        X.reshape(11, 72),
        X.reshape(22, 2, 6, 3),
        X[::-1],
    ]
    assert len({samples_digest(x) for x in (X, *others)}) == 7


def test_the_digest_of_weights_sees_weights_and_operators():
    def digest(change=lambda net: net, dtype=torch.float32, **options):
        net = npk.networks.build(
            "fc", "dgn", input_shape=(4,), classes=2, **{"hidden": [5, 5], "seed": 0, **options}
        )
        return weights_digest(trace_network(change(net.to(dtype)), (4,)))

    def nudged(net):
        with torch.no_grad():
            list(net.parameters())[2][0] += 1e-6
        return net

    first = digest()
    assert first == digest() == digest(nn.Sequential)
    others = [
        {"change": nudged},
        {"seed": 1},
        {"beta": 5.0},
        {"gates": "hard"},
        {"hidden": [5, 5, 5]},
        {"dtype": torch.float64},
    ]
    assert len({first, *(digest(**other) for other in others)}) == 7
