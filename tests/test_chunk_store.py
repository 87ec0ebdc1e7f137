"""The promises of a store: ChunkStore and those that keep something in one, gates and kernels."""

import errno
import json
import shutil
import threading

import numpy as np
import pytest
import zarr

import npk
from npk.errors import StoreError
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.stores import blocks as blocks_module
from npk.stores.blocks import Axis, Blocks, Form
from npk.stores.chunks import ChunkStore, make_store
from npk.stores.manifests import FORMAT, open_store
from npk.stores.plain import PlainStore

SIDE, BEFORE, AFTER = 4, 10, 15  # samples of a chunk, and of a store before and after it grows
ANOTHER = "is not, or no longer, the store that was opened"


@pytest.fixture(scope="module")
def table():
    net = npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[20, 20], seed=1)
    X = np.random.default_rng(0).standard_normal((AFTER, 6)).astype(np.float32)
    return npk.record_gates(net, X)


class Clearing(ChunkStore):
    clears = True


class Plain:
    """A ChunkStore as it is: two arrays that are cut along one axis, or one cut along two."""

    def __init__(self, axes):
        self.axes = axes

    def blocks(self, manifest):
        sizes, names = tuple(manifest["sizes"]), manifest["identities"]
        axes = tuple(Axis(SIDE, sizes, tuple(each)) for each in names)
        if self.axes == 2:
            return Blocks(axes, {"values/{}-{}": Form((), "float64")}, "checksums/{}-{}")
        arrays = {"{}/x": Form((3,), "float32"), "{}/y": Form((), "int64")}
        return Blocks(axes, arrays, "{}/checksums")

    def make(self, path, name="one"):
        manifest = {"format": FORMAT, "content": "test", "sizes": [BEFORE], "about": {}}
        manifest["identities"] = [[f"{name} {axis}"] for axis in range(self.axes)]
        make_store(path, manifest, self.blocks(manifest))
        return self.open(path)

    def open(self, path):
        group, manifest = open_store(path, "test", write=True)
        return Clearing(path, group, manifest, self.blocks(manifest))

    def chunks(self, store):
        return [tuple(map(int, chunk)) for chunk in np.argwhere(np.ones_like(store.written()))]

    def values(self, store, chunk):
        run, rng = store.blocks.run(chunk), np.random.default_rng(chunk)
        sizes = [axis.sizes[part] for axis, part in zip(store.blocks.axes, run.block, strict=True)]
        shape = [len(range(*cut.indices(n))) for cut, n in zip(run.inside, sizes, strict=True)]
        forms = store.blocks.arrays.values()
        return [rng.integers(9, size=(*shape, *form.width)).astype(form.dtype) for form in forms]

    def write(self, store, chunk):
        with store.kept("All else is kept"):
            store.write_chunks(chunk, self.values(store, chunk))

    def forget(self, store, chunk):
        with store.kept("All else is kept"):
            store.forget_chunk(chunk)

    def is_right(self, store, chunk):
        read = store.read_chunks(chunk)
        return all(map(np.array_equal, read, self.values(store, chunk)))

    def missing(self, store):
        written = store.written()
        return [chunk for chunk in self.chunks(store) if not written[chunk]]

    def damaged(self, store):
        there = set(self.chunks(store)) - set(self.missing(store))
        return sorted(chunk for chunk in there if not store.is_sound(chunk))

    def grow(self, store):
        more = {"sizes": [BEFORE, AFTER - BEFORE]}
        each = enumerate(store.identities)
        more["identities"] = [[*names, f"more {axis}"] for axis, names in each]
        manifest = {**store.manifest, **more}
        if len(store.manifest["sizes"]) == 1:
            store.grow_to(manifest, self.blocks(manifest))


class Gates:
    def __init__(self, table):
        self.table = table

    def make(self, path, name="one"):
        return GateStore.create(path, self.table.form, BEFORE, piece=SIDE)

    def open(self, path):
        return GateStore.open(path, write=True)

    def chunks(self, store):
        return list(store.pieces)

    def values(self, store, chunk):
        return self.table.take(slice(*chunk))

    def write(self, store, chunk):
        store.write(chunk[0], self.values(store, chunk))

    def forget(self, store, chunk):
        store.forget(chunk[0])

    def is_right(self, store, chunk):
        read, values = store.take(slice(*chunk)), self.values(store, chunk)
        return all(map(np.array_equal, read.arrays, values.arrays))

    def missing(self, store):
        return store.missing()

    def damaged(self, store):
        return list(store.verify())

    def grow(self, store):
        if len(store) == BEFORE:
            store.extend(AFTER - BEFORE)


class Tiles:
    def __init__(self, table, symmetric):
        self.table, self.symmetric = table, symmetric

    def make(self, path, name="one"):
        few = (self.table.take(slice(2)),) * (1 if self.symmetric else 2)
        plan = TilePlan(BEFORE, BEFORE, SIDE, self.symmetric)
        return GramStore.create(path, plan, "float32", {}, few=few)

    def open(self, path):
        return GramStore.open(path, write=True)

    def chunks(self, store):
        return list(store.plan)

    def values(self, store, tile):
        rng = np.random.default_rng((tile.row, tile.col))
        return rng.standard_normal(tile.shape).astype(np.float32)

    def write(self, store, tile):
        store.write(tile, self.values(store, tile))

    def forget(self, store, tile):
        store.forget(tile)

    def is_right(self, store, tile):
        return np.array_equal(store.read(tile), self.values(store, tile))

    def missing(self, store):
        return store.missing()

    def damaged(self, store):
        missing = store.missing()
        assert missing == [tile for tile in store.plan if not store.is_done(tile)]
        return list(store.damaged(tile for tile in store.plan if tile not in missing))

    def grow(self, store):
        store.grow(AFTER, AFTER, {})


KINDS = ("chunks of one axis", "chunks of two axes", "gates", "symmetric kernel", "kernel")


@pytest.fixture(params=KINDS)
def kind(request, table):
    makers = (Plain(1), Plain(2), Gates(table), Tiles(table, True), Tiles(table, False))
    return makers[KINDS.index(request.param)]


@pytest.fixture
def store(kind, tmp_path):
    """Empty."""
    return kind.make(tmp_path / "s")


@pytest.fixture
def full(kind, store):
    """With all its chunks."""
    for chunk in kind.chunks(store):
        kind.write(store, chunk)
    return store


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def files_of(monkeypatch, call):
    """The files that a call writes, in order."""
    seen, put = [], zarr.storage.LocalStore.set

    async def spied(self, key, value):
        await put(self, key, value)
        seen.append(self.root / key)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", spied)
        call()
    return seen


class Killed(BaseException):
    """As abrupt as a signal: no `except Exception` holds it up."""


def failing(patch, after, error):
    """Let so many files be written, then fail for good."""
    put, left, turn = zarr.storage._local._put, iter(range(after)), threading.Lock()

    def limited(*args, **kwargs):
        with turn:
            if next(left, None) is None:
                raise error
            return put(*args, **kwargs)

    patch.setattr(zarr.storage._local, "_put", limited)


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_what_is_written_is_read(kind, store, tmp_path):
    chunks = kind.chunks(store)
    assert len(chunks) >= 3
    for i, chunk in enumerate(reversed(chunks)):
        assert kind.missing(store) == chunks[: len(chunks) - i]
        with pytest.raises(StoreError, match=r"s is not complete: .* (is|are) missing\. Run "):
            kind.is_right(store, chunk)
        kind.write(store, chunk)
    for found in (store, kind.open(tmp_path / "s")):
        assert kind.missing(found) == kind.damaged(found) == []
        assert all(kind.is_right(found, chunk) for chunk in chunks)


def test_what_is_forgotten_is_missing(kind, full, tmp_path):
    first, second, *others = kind.chunks(full)
    kind.forget(full, second)
    for found in (full, kind.open(tmp_path / "s")):
        assert (kind.missing(found), kind.damaged(found)) == ([second], [])
        assert all(kind.is_right(found, chunk) for chunk in (first, *others))
    kind.write(full, second)
    assert kind.missing(full) == []
    assert kind.is_right(full, second)


def test_checksums_are_written_last(kind, store, monkeypatch):
    *values, flag = files_of(monkeypatch, lambda: kind.write(store, kind.chunks(store)[1]))
    assert values
    assert ["checksums" in path.parts for path in (*values, flag)] == [False] * len(values) + [True]


def found_damaged(kind, path, chunk):
    """One chunk is, and no other."""
    found = kind.open(path)
    with pytest.raises(StoreError, match=r"s is damaged at .*(checksum differs|Error: )"):
        kind.is_right(found, chunk)
    assert (kind.damaged(found), kind.missing(found)) == ([chunk], [])
    assert all(kind.is_right(found, other) for other in kind.chunks(found) if other != chunk)


@pytest.mark.parametrize("how", ["a byte", "cut short", "lost"])
def test_damage_is_found(how, kind, full, tmp_path, monkeypatch):
    chunk = kind.chunks(full)[1]
    *values, flag = files_of(monkeypatch, lambda: kind.write(full, chunk))
    for file in (*values, *([flag] if how == "a byte" else [])):
        whole = file.read_bytes()
        if how == "lost":
            file.unlink()
        else:
            flipped = bytes([whole[0] ^ 1]) + whole[1:]
            file.write_bytes(whole[:-1] if how == "cut short" else flipped)
        found_damaged(kind, tmp_path / "s", chunk)
        file.write_bytes(whole)
    assert kind.damaged(kind.open(tmp_path / "s")) == []


def test_a_chunk_of_another_place_or_store_is_found(kind, full, tmp_path, monkeypatch):
    """With its checksum."""
    first, second, *_ = kind.chunks(full)
    files = files_of(monkeypatch, lambda: kind.write(full, second))
    others = files_of(monkeypatch, lambda: kind.write(full, first))
    whole = [file.read_bytes() for file in files]
    for file, other in zip(files, others, strict=True):
        shutil.copy(other, file)
    found_damaged(kind, tmp_path / "s", second)
    other = kind.make(tmp_path / "t", "two")
    for chunk in kind.chunks(other):
        kind.write(other, chunk)
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content)
        shutil.copy(tmp_path / "t" / file.relative_to(tmp_path / "s"), file)
    found_damaged(kind, tmp_path / "s", second)


def test_checksums_that_cannot_be_read_are_told(kind, full, monkeypatch):
    chunk = kind.chunks(full)[1]
    flag = files_of(monkeypatch, lambda: kind.write(full, chunk))[-1]
    flag.write_bytes(b"short")
    for use in (kind.missing, kind.damaged, lambda store: kind.is_right(store, chunk)):
        with pytest.raises(StoreError, match=r"s (is|has) damaged .*: .* has 5 bytes, not 8"):
            use(full)
    kind.forget(full, chunk)
    assert kind.missing(full) == [chunk]


def test_a_kill_leaves_chunks_whole_or_missing(kind, full, tmp_path, monkeypatch):
    chunk, after = kind.chunks(full)[1], 0
    kind.forget(full, chunk)
    while True:
        with monkeypatch.context() as patch:
            failing(patch, after, Killed())
            try:
                kind.write(full, chunk)
                break
            except Killed:
                after += 1
        found = kind.open(tmp_path / "s")
        assert (kind.missing(found), kind.damaged(found)) == ([chunk], [])
    assert after >= 2
    assert kind.missing(kind.open(tmp_path / "s")) == []


def replaced(kind, path):
    """Another store where one was."""
    shutil.rmtree(path)
    return kind.make(path, "two")


@pytest.mark.parametrize("way", ["write", "forget", "grow"])
def test_nothing_is_written_to_another_store_in_its_place(way, kind, full, tmp_path):
    replaced(kind, tmp_path / "s")
    there = contents(tmp_path / "s")
    with pytest.raises(StoreError, match=ANOTHER):
        getattr(kind, way)(full, *([kind.chunks(full)[0]] if way != "grow" else []))
    assert contents(tmp_path / "s") == there


def test_a_store_that_is_replaced_under_a_chunk_gets_no_checksum(kind, full, tmp_path, monkeypatch):
    """What was written for the old store lies in the new one, and counts as missing."""
    checksum = blocks_module._checksum

    def late(*of):
        monkeypatch.undo()
        replaced(kind, tmp_path / "s")
        return checksum(*of)

    monkeypatch.setattr(blocks_module, "_checksum", late)
    with pytest.raises(StoreError, match=ANOTHER):
        kind.write(full, kind.chunks(full)[0])
    found = kind.open(tmp_path / "s")
    assert kind.missing(found) == kind.chunks(found)


def test_growth_leaves_what_was_there_alone(kind, full, tmp_path):
    before, chunks = contents(tmp_path / "s"), kind.chunks(full)
    kind.grow(full)
    after = contents(tmp_path / "s")
    changed = [name for name in before if before[name] != after[name]]
    assert [name for name in changed if not name.endswith("zarr.json")] == []
    for found in (full, kind.open(tmp_path / "s")):
        more = kind.missing(found)
        assert len(kind.chunks(found)) == len(chunks) + len(more) > len(chunks)
        assert all(kind.is_right(found, chunk) for chunk in kind.chunks(found) if chunk not in more)
    for chunk in more:
        kind.write(found, chunk)
    assert kind.missing(kind.open(tmp_path / "s")) == kind.damaged(found) == []


@pytest.mark.parametrize("error", [Killed(), FULL], ids=["killed", "full disk"])
def test_growth_cut_short(error, kind, full, tmp_path, monkeypatch):
    chunks, after, said = len(kind.chunks(full)), 0, []
    while True:
        found = kind.open(tmp_path / "s")
        with monkeypatch.context() as patch:
            failing(patch, after, error)
            try:
                kind.grow(found)
                break
            except (Killed, StoreError) as stopped:
                said.append(str(stopped))
        after += 1
        found = kind.open(tmp_path / "s")
        assert len(kind.chunks(found)) - len(kind.missing(found)) == chunks
        assert kind.damaged(found) == []
    full_disk = ": No space left on device. It is as it was: "
    assert all(full_disk in text if error is FULL else not text for text in said)
    found = kind.open(tmp_path / "s")
    assert after > 1
    assert len(kind.chunks(found)) > chunks == len(kind.chunks(found)) - len(kind.missing(found))


def test_a_full_disk(kind, full, tmp_path, monkeypatch):
    chunk = kind.chunks(full)[1]
    kind.forget(full, chunk)
    with monkeypatch.context() as patch:
        failing(patch, 0, FULL)
        said = r"^cannot write .*s: No space left on device\. .* kept: .* and run again\.$"
        with pytest.raises(StoreError, match=said):
            kind.write(full, chunk)
    found = kind.open(tmp_path / "s")
    assert (kind.missing(found), kind.damaged(found)) == ([chunk], [])
    kind.write(found, chunk)
    assert kind.is_right(found, chunk)


def test_a_folder_that_is_gone_is_not_made_again(kind, full, tmp_path):
    chunk = kind.chunks(full)[0]
    shutil.rmtree(tmp_path / "s")
    said = r"cannot write .*s: the folder is gone\. {}: .* and run again\.$"
    for use in (kind.write, kind.forget):
        with pytest.raises(StoreError, match=said.format(".* kept")):
            use(full, chunk)
    with pytest.raises(StoreError, match=said.format("It is as it was")):
        kind.grow(full)
    assert not (tmp_path / "s").exists()


def test_a_store_of_an_old_format_is_refused_in_one_line(kind, full, tmp_path):
    file = tmp_path / "s" / "zarr.json"
    said = json.loads(file.read_text())
    said["attributes"]["npk"] = {**said["attributes"]["npk"], "format": 2}
    file.write_text(json.dumps(said))
    ways = [kind.open, *[GateTable.load] * isinstance(kind, Gates)]
    ways += [npk.Gram.load] * isinstance(kind, Tiles)
    for way in ways:
        said = r"^.*s has format 2, this npk reads format 3\. Make it again\.$"
        with pytest.raises(StoreError, match=said):
            way(tmp_path / "s")


def test_a_description_that_says_something_else_is_refused(kind, full, tmp_path):
    arrays = [path.parent.relative_to(tmp_path / "s") for path in (tmp_path / "s").rglob("c")]
    own = sorted(path for path in arrays if path.parts[0] not in ("rows", "cols"))
    file = tmp_path / "s" / own[0] / "zarr.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "shape": [n + 1 for n in said["shape"]]}))
    with pytest.raises(StoreError, match=r"s is damaged.* the manifest says"):
        kind.damaged(kind.open(tmp_path / "s"))


def test_stores_say_what_they_are_in_a_line_and_read_nothing_for_it(table, tmp_path, monkeypatch):
    stores = [Gates(table).make(tmp_path / "g"), Tiles(table, True).make(tmp_path / "k")]
    stores += [npk.Gram.load(tmp_path / "k"), table]
    opened, content = [], PlainStore._content

    def counted(self, key):
        opened.append(key)
        return content(self, key)

    monkeypatch.setattr(PlainStore, "_content", counted)
    assert [repr(store) for store in stores] == [
        f"<GateStore: 10 samples, 2 gate layers, in {tmp_path / 'g'}>",
        f"<GramStore: 10 x 10 float32, 6 tiles, in {tmp_path / 'k'}>",
        f"<npk.Gram 10 x 10 float32 in {tmp_path / 'k'}: 6 tiles>",
        f"<npk.GateTable: 15 samples, 2 gate layers, {table.nbytes} bytes>",
    ]
    assert opened == []
    assert not stores[2].complete
    assert len(opened) > 0  # so a file that is opened would have been counted
