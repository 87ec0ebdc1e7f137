"""Kernels on disk: resumed, grown, compared, locked, damaged; and the plan that is told before."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import KernelWarning, OptionError, StoreError
from npk.files import locked
from npk.gram.kernel import NeuralPathKernel
from npk.gram.sources import Recorded
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan, cuts
from npk.gram.work import Work
from npk.gram.writing import differences, plan_on_disk


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 65), nn.ReLU(), nn.Linear(65, 2)
    ).eval()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def table(net, X):
    return npk.record_gates(net, X)


@pytest.fixture(scope="module")
def K(table):
    return npk.kernel(table)


class Counting:
    """Progress that counts tiles, keeps notes, and may stop the run after some tiles."""

    def __init__(self, after=10**9):
        self.after, self.tiles, self.notes, self.tasks = after, 0, {}, []

    def task(self, description, total, done=0):
        self.tasks.append((description, total, done))
        self.counts = description == "kernel tiles"
        return self

    def note(self, name, text, /, **facts):
        self.notes[name] = (text, facts)

    def __enter__(self):
        return self.advance

    def __exit__(self, *error):
        return None

    def advance(self, steps):
        self.tiles += steps if self.counts else 0
        if self.counts and self.tiles >= self.after:
            raise KeyboardInterrupt


def budget(table, side):
    """Bytes that tiles of a side take, on disk."""
    engine = NeuralPathKernel(None).engine
    backend, _ = engine.prepare(table)
    return plan_on_disk(engine, backend, (Recorded(table),), table.nbytes // len(table))[1].bytes(
        side
    )


def stored(*samples, out, side=16, **options):
    """A store with tiles of a side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npk.gram.tiles._LARGEST", side)
        return npk.kernel(*samples, out=out, **{"progress": False, **options})


def chunks(path, name="tiles"):
    return sorted(p for p in (path / name).rglob("*") if p.is_file() and p.name != "zarr.json")


# plans


@pytest.mark.parametrize(
    ("n", "side", "ends"),
    [(10, 4, ()), (10, 4, (3,)), (10, 4, (4, 8)), (1, 4, ()), (9, 1, (2, 3)), (7, 16, (5,))],
)
def test_cuts_begin_anew_behind_each_part(n, side, ends):
    found = list(cuts(n, side, ends))
    assert [i for cut in found for i in range(cut.start, cut.stop)] == list(range(n))
    assert all(0 < cut.stop - cut.start <= side for cut in found)
    assert set(ends) <= {cut.start for cut in found}


def test_a_plan_that_grows_keeps_its_tiles():
    plan = TilePlan(10, 10, 4, True)
    grown = plan.grown(15, 15).grown(15, 15).grown(16, 16)
    assert grown.row_ends == grown.col_ends == (10, 15)
    assert set(map(str, plan)) <= set(map(str, grown))
    assert len(grown) == len(list(grown)) == 6 * 7 // 2
    wide = TilePlan(10, 6, 4, False).grown(12, 6)
    assert (wide.row_ends, wide.col_ends, wide.grid) == ((10,), (), (4, 2))


@pytest.mark.parametrize("side", [4, 16])
def test_the_plan_is_told_before_the_work(side, table, tmp_path):
    progress = Counting()
    gram = stored(table, out=tmp_path / "K", side=side, progress=progress)
    text, facts = progress.notes["plan"]
    assert facts["tiles"] == facts["todo"] == len(gram.store.plan)
    assert (facts["n"], facts["m"], facts["side"], facts["bytes"]) == (
        50,
        50,
        side,
        budget(table, side),
    )
    assert text.startswith(
        f"plan: 50 x 50, {facts['tiles']} tiles of at most {side} x {side}, at most "
    )


# results


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
@pytest.mark.parametrize("side", [4, 16, 32])
def test_results_do_not_depend_on_tiles(side, scale, table, tmp_path):
    gram = stored(table, out=tmp_path / "K", side=side, scale=scale)
    assert gram.store.plan.side == side
    np.testing.assert_array_equal(np.asarray(gram), npk.kernel(table, scale=scale))


def test_gates_are_in_the_store(net, X, table, tmp_path):
    npk.kernel(net, X, out=tmp_path / "K")
    store = GramStore.open(tmp_path / "K")
    assert store.rows.fingerprint() == table.fingerprint()
    assert store.cols is store.rows
    assert not store.rows.missing()


def test_rectangular_kernels(table, K, tmp_path):
    rows = table.take(slice(0, 37))
    gram = stored(rows, table, out=tmp_path / "K")
    assert gram.shape == (37, 50)
    assert len(gram.store.plan) == 12
    np.testing.assert_array_equal(np.asarray(gram), npk.kernel(rows, table))
    np.testing.assert_allclose(np.asarray(gram), K[:37], rtol=1e-6)


def test_gate_tables_on_disk_serve_too(table, K, tmp_path):
    from npk.gates.store import GateStore

    table.save(tmp_path / "gates")
    gates = GateStore.open(tmp_path / "gates")
    np.testing.assert_array_equal(npk.kernel(gates), K)
    stored_ = npk.kernel(gates, out=tmp_path / "K")
    np.testing.assert_array_equal(np.asarray(stored_), K)
    assert stored_.about["rows"] == table.fingerprint()


def test_dead_inputs_are_told(tmp_path):
    """The black sample has no active path; the store says so like the array."""
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1)).eval()
    X = np.array([[0, 0, 0], [1, 2, 3], [-1, -2, -3]], np.float32)
    with pytest.warns(KernelWarning, match=r"1 of 3 samples have no active path"):
        gram = npk.kernel(net, X, bias="ignore", out=tmp_path / "K", progress=False)
    assert np.asarray(gram)[0].max() == 0


def test_a_result_on_disk_does_not_count_against_the_memory(tmp_path, rng):
    """The array alone would break the promise; the store keeps only tiles in memory, and refuses to
    be read whole.
    """
    net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    X = rng.standard_normal((700, 3)).astype(np.float32)
    memory = 700 * 700 * 4  # the array itself
    with pytest.raises(OptionError, match="the smallest that works is"):
        npk.kernel(net, X, memory=memory, progress=False)
    gram = npk.kernel(net, X, memory=memory, out=tmp_path / "K", progress=False)
    with pytest.raises(OptionError, match="memory=1960000 is promised"):
        np.asarray(gram)
    np.testing.assert_array_equal(
        np.asarray(npk.Gram.load(tmp_path / "K")), npk.kernel(net, X, progress=False)
    )


# resumed


def test_an_interrupted_run_goes_on(table, K, tmp_path, monkeypatch):
    computed = []
    start = Work._start
    monkeypatch.setattr(
        Work,
        "_start",
        lambda self, tile, *rest: (computed.append((tile.row, tile.col)), start(self, tile, *rest))[
            1
        ],
    )
    with pytest.raises(KeyboardInterrupt):
        stored(table, out=tmp_path / "K", progress=Counting(after=3))
    half = npk.Gram.load(tmp_path / "K")
    first = len(half.store.plan) - len(half.store.missing())
    assert first == len(computed) == 3
    assert not half.complete
    with pytest.raises(StoreError, match=r"is not complete: tile \(\d, \d\) is missing"):
        np.asarray(half)
    before = {path: path.stat().st_mtime_ns for path in chunks(tmp_path / "K")}
    # another budget: the tiles stay
    gram = npk.kernel(table, out=tmp_path / "K", progress=(progress := Counting()))
    assert ("kernel tiles", 10, 3) in progress.tasks
    assert len(computed) == len(set(computed)) == len(gram.store.plan) == 10
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    np.testing.assert_array_equal(np.asarray(gram), K)
    npk.kernel(table, out=tmp_path / "K")
    assert len(computed) == 10


@pytest.mark.parametrize("fails", ["gates", "tiles", "flags"])
def test_a_run_killed_while_it_writes_goes_on(fails, net, X, K, tmp_path, monkeypatch):
    """The process ends between any two files; here an exception that nobody catches stands for the
    kill.
    """
    from npk.gates.store import GateStore

    class KilledError(BaseException):
        pass

    def killed(*_):
        raise KilledError

    where = {
        "gates": (GateStore, "write"),
        "tiles": (GramStore, "write"),
        "flags": ("npk.stores.blocks._checksum",),
    }[fails]
    with monkeypatch.context() as patch:
        patch.setattr(*where, killed)
        with pytest.raises(KilledError):
            npk.kernel(net, X, out=tmp_path / "K")
    (tmp_path / "K" / "tiles" / "0-0" / "c").mkdir(exist_ok=True)
    (tmp_path / "K" / "tiles" / "0-0" / "c" / "0.abc.partial").write_bytes(b"half")
    np.testing.assert_array_equal(np.asarray(npk.kernel(net, X, out=tmp_path / "K")), K)
    assert not list((tmp_path / "K").rglob("*.partial"))


@pytest.mark.parametrize("sizes", [(20, 50), (16, 17, 33, 50), (49, 50)])
def test_more_samples_later(sizes, net, X, K, tmp_path, monkeypatch):
    computed = []
    start = Work._start
    monkeypatch.setattr(
        Work,
        "_start",
        lambda self, tile, *rest: (computed.append(str(tile)), start(self, tile, *rest))[1],
    )
    for size in sizes:
        gram = stored(net, X[:size], out=tmp_path / "K")
        np.testing.assert_array_equal(np.asarray(gram), K[:size, :size])
    assert len(computed) == len(set(computed))
    assert GramStore.open(tmp_path / "K").plan.row_ends == sizes[:-1]


def test_more_rows_and_columns_later(net, X, tmp_path):
    for n, m in ((10, 20), (10, 33), (30, 33), (50, 40)):
        gram = npk.kernel(net, X[:n], X[:m], out=tmp_path / "K")
        np.testing.assert_array_equal(np.asarray(gram), npk.kernel(net, X[:n], X[:m]))


def test_a_store_whose_growth_was_killed_grows_again(net, X, K, tmp_path, monkeypatch):
    from npk.gates.store import GateStore

    npk.kernel(net, X[:20], out=tmp_path / "K")
    with monkeypatch.context() as patch:
        patch.setattr(GateStore, "extend", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            npk.kernel(net, X[:40], out=tmp_path / "K")
    with pytest.raises(StoreError, match="it has 40 rows, here are 30"):
        npk.kernel(net, X[:30], out=tmp_path / "K")
    np.testing.assert_array_equal(
        np.asarray(npk.kernel(net, X[:40], out=tmp_path / "K")), K[:40, :40]
    )


# refused


def test_stores_of_something_else(net, X, table, tmp_path):
    npk.kernel(net, X, out=tmp_path / "K")
    other = nn.Sequential(
        nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 65), nn.ReLU(), nn.Linear(65, 2)
    ).eval()
    changed = X.copy()
    changed[7, 3] += 1
    for call, why in (
        (
            lambda: npk.kernel(net, X, scale="cosine", out=tmp_path / "K"),
            "scale is 'fan_in' there and 'cosine' here",
        ),
        (lambda: npk.kernel(net, X[:49], out=tmp_path / "K"), "it has 50 rows, here are 49"),
        (
            lambda: npk.kernel(net, changed, out=tmp_path / "K"),
            r"other samples in the rows "
            r"\(\w{12} there, \w{12} here\)",
        ),
        (
            lambda: npk.kernel(other, X, out=tmp_path / "K"),
            r"another network or other weights "
            r"\(\w{12} there, \w{12} here\)",
        ),
        (
            lambda: npk.kernel(net, X, X, out=tmp_path / "K"),
            "the columns are the rows in one of them",
        ),
        (lambda: npk.kernel(table, out=tmp_path / "K"), "another network or other weights"),
    ):
        with pytest.raises(
            StoreError,
            match=f"holds another kernel: .*{why}.*Choose another name, "
            f"or the same network, data and options",
        ):
            call()
    with pytest.raises(StoreError, match="exists and resume=False"):
        npk.kernel(net, X, out=tmp_path / "K", resume=False)


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("scale", "count"),
        ("dtype", "float64"),
        ("gates", "hard"),
        ("value_input", "ones"),
        ("bias", "ignore"),
        ("backend", "reference"),
    ],
)
def test_a_store_of_other_options_is_not_gone_on_with(option, other, net, X, tmp_path):
    npk.kernel(net, X[:8], out=tmp_path / "K")
    with pytest.raises(
        StoreError, match=f"holds another kernel: {option} is '.*' there and '{other}' here"
    ):
        npk.kernel(net, X[:8], out=tmp_path / "K", **{option: other})


def test_what_is_not_a_store(table, tmp_path):
    table.save(tmp_path / "gates")
    with pytest.raises(StoreError, match="holds gate table, not a gram"):
        npk.kernel(table, out=tmp_path / "gates")
    with pytest.raises(StoreError, match="cannot read"):
        npk.Gram.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*file is a file"):
        npk.kernel(table, out=tmp_path / "file" / "K")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "gates"]


def test_a_folder_that_is_not_there_is_not_made(table, tmp_path):
    with pytest.raises(
        StoreError,
        match=r"cannot write .*K: there is no folder .*none. Make it, "
        r"or choose another one",
    ):
        npk.kernel(table, out=tmp_path / "none" / "K")
    assert not list(tmp_path.iterdir())


def test_a_store_is_read_and_written_from_another_folder(table, K, tmp_path, monkeypatch):
    """Its path may be relative to a folder that is no longer the current one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    gram = npk.kernel(table, out="K")
    with GramStore.writing("K") as store:
        os.chdir("elsewhere")
        np.testing.assert_array_equal(np.asarray(gram), K)
        assert len(store.rows) == 50
        store.forget(next(iter(store.plan)))
    assert not gram.complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["K", "elsewhere"]


def test_differences_in_words():
    assert differences({"a": 1, "network": "x" * 64}, {"a": 2, "network": "y" * 64, "b": None}) == [
        "a is 1 there and 2 here",
        f"another network or other weights ({'x' * 12} there, {'y' * 12} here)",
    ]
    assert differences({"network": "x" * 64}, {"network": "that of the gate table"}) == [
        f"another network or other weights ({'x' * 12} there, that of the gate table here)"
    ]


def test_a_budget_that_does_not_suit_the_tiles_that_are_there(table, tmp_path):
    stored(table, out=tmp_path / "K")
    least = budget(table, 16)
    npk.kernel(table, memory=least, out=tmp_path / "K")
    with pytest.raises(OptionError, match=f"the smallest that works is {least} bytes"):
        npk.kernel(table, memory=least - 1, out=tmp_path / "K")


def test_a_budget_is_refused_before_a_store_grows_or_records(net, X, tmp_path):
    from npk.gates.store import GateStore

    stored(net, X[:20], out=tmp_path / "K")
    manifest = (tmp_path / "K" / "zarr.json").read_bytes()
    for start, _ in (gates := GateStore.open(tmp_path / "K" / "rows", write=True)).pieces:
        gates.forget(start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            GateStore,
            "write",
            lambda *_: pytest.fail("recorded under a promise that cannot be kept"),
        )
        for samples in (X[:20], X):
            with pytest.raises(
                OptionError,
                match=f"for {len(samples)} x {len(samples)} samples: the smallest that works is",
            ):
                npk.kernel(net, samples, memory=1000, out=tmp_path / "K")
    assert (tmp_path / "K" / "zarr.json").read_bytes() == manifest
    np.testing.assert_array_equal(
        np.asarray(npk.kernel(net, X, out=tmp_path / "K")), npk.kernel(net, X)
    )


def test_a_second_writer_is_refused(table, tmp_path):
    npk.kernel(table, out=tmp_path / "K")
    with (
        locked(tmp_path / "K" / ".lock", of="it"),
        pytest.raises(
            StoreError,
            match=r"K is being written by process \d+ on host .* Wait for it "
            r"to end, or stop it",
        ),
    ):
        npk.kernel(table, out=tmp_path / "K")
    npk.kernel(table, out=tmp_path / "K")


def test_two_that_make_the_same_store(table, tmp_path, monkeypatch):
    """The second finds that the first was faster, and its own is thrown away."""
    npk.kernel(table, out=tmp_path / "K")
    monkeypatch.setattr(
        "npk.gram.writing.Path.exists", lambda self: self.name != "K" and self.is_file()
    )
    with pytest.raises(StoreError, match="cannot write .*K: "):
        npk.kernel(table, out=tmp_path / "K")
    assert [path.name for path in tmp_path.iterdir()] == ["K"]


# damaged


def test_a_byte_that_changes(table, tmp_path):
    gram = stored(table, out=tmp_path / "K")
    chunk = chunks(tmp_path / "K")[1]
    content = bytearray(chunk.read_bytes())
    content[10] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(
        StoreError,
        match=r"is damaged at tile \(0, 1\): its checksum differs. Drop "
        r"what is damaged with `npk verify-store",
    ):
        np.asarray(gram)
    with pytest.raises(StoreError, match=r"is damaged at tile \(0, 1\)"):
        npk.kernel(table, out=tmp_path / "K")
    chunk.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"is damaged at tile \(0, 1\): "):
        np.asarray(npk.Gram.load(tmp_path / "K"))
    chunk.unlink()
    with pytest.raises(StoreError, match=r"is damaged at tile \(0, 1\): its checksum differs"):
        np.asarray(npk.Gram.load(tmp_path / "K"))


def test_what_is_damaged_is_dropped_and_computed_again(table, K, tmp_path):
    stored(table, out=tmp_path / "K")
    chunks(tmp_path / "K")[1].write_bytes(b"nothing")
    with GramStore.writing(tmp_path / "K") as store:
        (tile,) = store.damaged(store.plan)
        assert (tile.row, tile.col) == (0, 1)
        store.forget(tile)
        assert [str(t) for t in store.missing()] == [str(tile)]
    np.testing.assert_array_equal(np.asarray(npk.kernel(table, out=tmp_path / "K")), K)


def test_damaged_checksums_and_manifests(table, tmp_path):
    gram = stored(table, out=tmp_path / "K")
    flag = chunks(tmp_path / "K", "checksums")[0]
    flag.write_bytes(b"abc")
    with pytest.raises(StoreError, match="is damaged at its checksums"):
        gram.store.missing()
    with pytest.raises(StoreError, match="is damaged at its checksums"):
        gram.store.is_done(next(iter(gram.store.plan)))
    manifest = tmp_path / "K" / "zarr.json"
    changed = json.loads(manifest.read_text())
    changed["attributes"]["npk"]["side"] = 15
    manifest.write_text(json.dumps(changed))
    with pytest.raises(StoreError, match="its manifest, zarr.json, does not match its checksum"):
        npk.Gram.load(tmp_path / "K")


def test_a_full_disk(table, tmp_path, monkeypatch):
    store = GramStore.create(tmp_path / "K", TilePlan(50, 50, 16, True), "float32", {})
    tile = next(iter(store.plan))
    monkeypatch.setattr(
        GramStore,
        "_open",
        lambda self, name, expected: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    for call in (lambda: store.write(tile, np.zeros((16, 16))), lambda: store.forget(tile)):
        with pytest.raises(
            StoreError,
            match=r"No space left on device. Finished tiles are kept: "
            r"mend the cause \(room, permissions\)",
        ):
            call()
    monkeypatch.setattr(
        "npk.stores.chunks._make_arrays",
        lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(StoreError, match="No space left on device. It is as it was"):
        store.grow(60, 60, {})
    with pytest.raises(StoreError, match="No space left on device. Choose a folder"):
        GramStore.create(tmp_path / "L", TilePlan(50, 50, 16, True), "float32", {})
    assert [path.name for path in tmp_path.iterdir()] == ["K"]


def test_a_folder_that_vanishes(table, tmp_path, monkeypatch):
    """It is not made again with a part of what it held."""
    import shutil

    write = GramStore.write
    monkeypatch.setattr(
        GramStore,
        "write",
        lambda self, tile, values: (shutil.rmtree(self.path), write(self, tile, values)),
    )
    with pytest.raises(
        StoreError, match="cannot write .*K: the folder is gone. Finished tiles are kept"
    ):
        npk.kernel(table, out=tmp_path / "K")
    assert not (tmp_path / "K" / "tiles").exists()


def test_tables_that_differ_in_kind_are_refused(table, tmp_path):
    soft = dataclasses.replace(table)
    with pytest.raises(OptionError, match="but the gate table has hard gates"):
        npk.kernel(soft, gates="soft", out=tmp_path / "K")
    assert not Path(tmp_path / "K").exists()
