"""What is written proves that it belongs to the store: tiles and gates of other stores, and of
other places, are refused or found.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import npk
from npk.errors import StoreError
from npk.files import locked
from npk.gates.store import GateStore
from npk.gram.kernel import NeuralPathKernel
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.gram.verification import examine
from npk.progress import Silent
from npk.studies.kernels import stored

SIDE, PIECE = 4, 8
ANOTHER = (
    "is not, or no longer, the store that was opened: it was removed or replaced meanwhile. "
    "Nothing is written to it"
)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def tables(X):
    """Of two networks of one architecture."""
    nets = (
        npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[20, 20], seed=seed)
        for seed in (1, 2)
    )
    return [npk.record_gates(net, X) for net in nets]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("npk.gram.tiles._LARGEST", SIDE)
    monkeypatch.setattr("npk.gates.pieces._PIECE_SAMPLES", PIECE)


@pytest.fixture
def stores(tables, tmp_path):
    """Kernels of both, symmetric, of 24 samples."""
    for name, table in zip("AB", tables, strict=True):
        npk.kernel(table.take(slice(24)), out=tmp_path / name, progress=False)
    return tmp_path / "A", tmp_path / "B"


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def found(store, what):
    """Reading and verification both tell."""
    with pytest.raises(StoreError, match="its checksum differs"):
        np.asarray(npk.Gram.load(store))
    with pytest.raises(StoreError, match=rf"is damaged: {what}\. All else is sound"):
        examine(store, Silent()).refuse_damage()


def test_a_tile_of_another_store_is_found(stores):
    """With its checksum, and the store was made of the same samples by a network of the same
    architecture.
    """
    A, B = stores
    for name in ("tiles/0-0/c/0/1", "checksums/0-0/c/0/1"):
        shutil.copy(A / name, B / name)
    found(B, r"tile \(0, 1\)")
    assert examine(B, Silent(), drop=True).damaged == ("tile (0, 1)",)


def test_a_tile_in_another_place_is_found(stores):
    A, _ = stores
    for name in ("tiles/0-0/c", "checksums/0-0/c"):
        shutil.copy(A / name / "0" / "1", A / name / "1" / "2")
    found(A, r"tile \(1, 2\)")


def test_a_tile_of_the_same_kernel_made_twice_is_found(tables, stores, tmp_path):
    """A checksum is of a store, not of what it holds."""
    npk.kernel(tables[0].take(slice(24)), out=tmp_path / "C", progress=False)
    assert (tmp_path / "C/tiles/0-0/c/0/1").read_bytes() == (
        stores[0] / "tiles/0-0/c/0/1"
    ).read_bytes()
    shutil.copy(stores[0] / "checksums/0-0/c/0/1", tmp_path / "C/checksums/0-0/c/0/1")
    found(tmp_path / "C", r"tile \(0, 1\)")


def test_a_tile_of_a_copy_that_grew_otherwise_is_found(tables, X, stores, tmp_path):
    A, _ = stores
    shutil.copytree(A, tmp_path / "copy")
    others = tables[0].take(np.r_[:24, 39:31:-1])
    npk.kernel(tables[0].take(slice(32)), out=A, progress=False)
    npk.kernel(others, out=tmp_path / "copy", progress=False)
    np.testing.assert_array_equal(
        np.asarray(npk.Gram.load(tmp_path / "copy")), npk.kernel(others, progress=False)
    )
    for name in ("tiles/0-1/c/1/0", "checksums/0-1/c/1/0"):
        shutil.copy(tmp_path / "copy" / name, A / name)
    found(A, r"tile \(1, 6\)")
    shutil.rmtree(A / "rows")
    shutil.copytree(tmp_path / "copy" / "rows", A / "rows")
    with pytest.raises(StoreError, match="A is damaged: its rows are the gates of another store"):
        examine(A, Silent()).refuse_damage()


def test_gates_of_another_store_or_place_are_found(tables, stores, tmp_path):
    A, B = stores
    for name in ("inputs/c/1/0", "gates/0/c/1/0/0", "gates/1/c/1/0/0", "checksums/c/1"):
        shutil.copy(A / "rows/0" / name, B / "rows/0" / name)
    with pytest.raises(StoreError, match=r"is damaged: gates of samples 8 to 15 of the rows"):
        examine(B, Silent()).refuse_damage()
    for name in ("inputs/c/{}/0", "gates/0/c/{}/0/0", "gates/1/c/{}/0/0", "checksums/c/{}"):
        shutil.copy(A / "rows/0" / name.format(0), A / "rows/0" / name.format(2))
    with pytest.raises(StoreError, match=r"is damaged: gates of samples 16 to 23 of the rows"):
        examine(A, Silent()).refuse_damage()


@pytest.mark.parametrize("what", ["rows", "zarr.json"])
def test_gates_or_manifest_of_another_store_are_found(stores, what):
    A, B = stores
    shutil.rmtree(B / what) if what == "rows" else (B / what).unlink()
    (shutil.copytree if what == "rows" else shutil.copy)(A / what, B / what)
    for way in (lambda: examine(B, Silent()).refuse_damage(), lambda: GramStore.open(B).rows):
        with pytest.raises(StoreError, match="is damaged: its rows are the gates of another store"):
            way()


def replaced(path, tables):
    """Remove a store, and make it again of another network, while somebody has it open."""
    shutil.rmtree(path)
    npk.kernel(tables[1].take(slice(24)), out=path, progress=False)
    return files(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda store, tile, table: store.write(tile, np.zeros(tile.shape, np.float32)),
        lambda store, tile, table: store.forget(tile),
        lambda store, tile, table: store.grow(30, 30, {}),
        lambda store, tile, table: store.rows.write(0, table.take(slice(PIECE))),
        lambda store, tile, table: store.rows.forget(0),
        lambda store, tile, table: store.rows.extend(3),
    ],
    ids=[
        "a tile",
        "a tile that is dropped",
        "growth",
        "gates",
        "gates that are dropped",
        "room for gates",
    ],
)
def test_nothing_is_written_to_a_store_that_was_made_again(write, tables, stores):
    store = GramStore.open(stores[0], write=True)
    assert len(store.rows) == 24
    there = replaced(stores[0], tables)
    with pytest.raises(StoreError, match=ANOTHER):
        write(store, next(iter(store.plan)), tables[0])
    assert files(stores[0]) == there


def test_a_checksum_is_not_written_either_where_the_store_was_made_again_under_the_tile(
    tables, stores, monkeypatch
):
    """What the tile overwrote is found: the checksum that is there is of another tile."""
    from npk.stores import blocks as module

    store, tile, checksum = (
        GramStore.open(stores[0], write=True),
        next(iter(GramStore.open(stores[0]).plan)),
        module._checksum,
    )
    values = store.read(tile)
    monkeypatch.setattr(
        module,
        "_checksum",
        lambda *of: (monkeypatch.undo(), replaced(stores[0], tables), checksum(*of))[-1],
    )
    with pytest.raises(StoreError, match=ANOTHER):
        store.write(tile, values)
    np.testing.assert_array_equal(
        np.asarray(npk.Gram.load(stores[0])), npk.kernel(tables[1].take(slice(24)), progress=False)
    )


def test_a_writer_may_go_on_in_a_store_that_grew(tables, stores):
    store = GramStore.open(stores[0], write=True)
    npk.kernel(tables[0].take(slice(32)), out=stores[0], progress=False)
    tile = next(iter(store.plan))
    store.write(tile, store.read(tile))
    assert npk.Gram.load(stores[0]).complete


def test_a_store_that_is_made_again_before_it_is_locked_is_refused(tables, stores, monkeypatch):
    from npk.gram import store as module

    lock = module.locked
    monkeypatch.setattr(
        module,
        "locked",
        lambda *of, **more: (monkeypatch.undo(), replaced(stores[0], tables), lock(*of, **more))[
            -1
        ],
    )
    with pytest.raises(StoreError, match=ANOTHER), GramStore.writing(stores[0]):
        pass


def test_stores_have_names_of_their_own_and_keep_them(tables, stores, tmp_path):
    A, B = (GramStore.open(path) for path in stores)
    assert A.identities[0] == A.identities[1] == A.rows.identities[0]
    assert A.identities[0][0] != B.identities[0][0]
    npk.kernel(tables[0].take(slice(30)), out=stores[0], progress=False)
    npk.kernel(tables[0].take(slice(32)), out=stores[0], progress=False)
    grown = GramStore.open(stores[0])
    assert grown.identities[0][:1] == A.identities[0]
    assert len(set(grown.identities[0])) == 3
    assert grown.rows.identities[0] == grown.identities[0]
    wide = GramStore.create(tmp_path / "wide", TilePlan(9, 7, 4, False), "float32", {})
    assert wide.identities[0] != wide.identities[1]


def test_growth_cut_short_between_manifest_and_gates_names_them_alike(tables, stores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GateStore, "extend", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            npk.kernel(tables[0].take(slice(30)), out=stores[0], progress=False)
    gram = npk.kernel(tables[0].take(slice(36)), out=stores[0], progress=False)
    np.testing.assert_array_equal(
        np.asarray(gram), npk.kernel(tables[0].take(slice(36)), progress=False)
    )
    assert gram.store.rows.identities[0] == gram.store.identities[0]
    assert Path(stores[0] / "rows" / "2").is_dir()


def test_a_study_replaces_its_own_stores_but_none_that_another_process_writes(tables, stores):
    there = files(stores[0])
    kernel, other = NeuralPathKernel(None, progress=False), tables[1].take(slice(24))
    with (
        locked(stores[0] / ".lock", of="it"),
        pytest.raises(StoreError, match="is being written by process"),
    ):
        stored(kernel, other, None, stores[0])
    assert files(stores[0]) == there
    np.testing.assert_array_equal(
        np.asarray(stored(kernel, other, None, stores[0])), npk.kernel(other, progress=False)
    )
