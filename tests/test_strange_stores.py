"""Stores from strangers: what is not exactly as npk writes it is refused in a sentence, before any
of it is decoded, run or followed.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import npk
from npk import cli
from npk.errors import StoreError
from npk.gates.pieces import GatePieces
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.stores import files as store_files
from npk.stores.manifests import sealed

SIDE, PIECE = 4, 8


@pytest.fixture(scope="module")
def net():
    return npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[20, 20], seed=1)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def origin(net, X, tmp_path_factory):
    """``K.zarr``, a kernel of 12 samples that grew by 4, and ``X.gates``, a table of 16."""
    found = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npk.gram.tiles._LARGEST", SIDE)
        patch.setattr("npk.gates.pieces._PIECE_SAMPLES", PIECE)
        for n in (12, 16):
            npk.kernel(net, X[:n], out=found / "K.zarr", progress=False)
        npk.record_gates(net, X[:16]).save(found / "X.gates")
    npk.save(net, found / "net.safetensors")
    np.save(found / "X.npy", X)
    return found


@pytest.fixture
def folder(origin, tmp_path, monkeypatch):
    """A copy of its own for a test, and the current folder."""
    shutil.copytree(origin, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("npk.gram.tiles._LARGEST", SIDE)
    return tmp_path / "work"


@pytest.fixture(scope="module")
def made(net):
    return NeuralPathKernel(net, progress=False)


@pytest.fixture
def refused_everywhere(made, X, capsys):
    """All that reads a store, goes on with it or makes it grow refuses it in a sentence."""

    def call(store, *texts):
        kernel = Path(store).name == "K.zarr"
        ways = [
            lambda: [
                np.asarray(npk.Gram.load(store)),
                len(GramStore.open(store).rows.take(slice(None))),
            ]
        ]
        ways = ways if kernel else [lambda: GateTable.load(store)]
        ways += [lambda n=n: made.to_store(X[:n], None, store) for n in (16, 20)] if kernel else []
        for way in ways:
            with pytest.raises(StoreError) as caught:
                way()
            assert all(text in str(caught.value) for text in (str(store), *texts)), str(
                caught.value
            )
            assert len(str(caught.value)) < 500
        capsys.readouterr()
        assert cli.run(["verify-store", str(store)]) == cli.REFUSED
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "unexpected" not in err

    return call


def change(file, **values):
    file = Path(file)
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, **values}))


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
SHARDS = {
    "chunk_shape": [1, 1],
    "codecs": [LITTLE],
    "index_codecs": [LITTLE],
    "index_location": "end",
}
CHANGES = {
    "format 2": {"zarr_format": 2},
    "compressed": {
        "codecs": [LITTLE, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}]
    },
    "a codec of its own": {"codecs": [LITTLE, {"name": "pickle"}]},
    "a codec before": {
        "codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}}, LITTLE]
    },
    "a codec of numcodecs": {
        "codecs": [LITTLE, {"name": "numcodecs.zlib", "configuration": {"level": 1}}]
    },
    "shards": {"codecs": [{"name": "sharding_indexed", "configuration": SHARDS}]},
    "no codec": {"codecs": []},
    "another order of bytes": {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
    "texts": {"data_type": "string"},
    "raw bytes": {"data_type": "r64"},
    "a type by a dictionary": {
        "data_type": {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}}
    },
    "huge chunks": {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 40, 1 << 40]}}
    },
    "another grid": {
        "chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shapes": [[8], [8]]}}
    },
    "another encoding of keys": {
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}
    },
    "another filling": {"fill_value": "NaN"},
    "transformers": {"storage_transformers": [{"name": "indexed"}]},
    "attributes": {"attributes": {"a": 1}},
    "another key": {"must_understand_this": True},
    "names of axes": {"dimension_names": ["a", "b"]},
    "a group": {"node_type": "group"},
    "neither": {"node_type": "table"},
    "endless shape": {"shape": [1 << 60, 1 << 60]},
    "half a sample": {"shape": [2.5, 8]},
    "less than nothing": {"shape": [-1, 8]},
}
ARRAYS = [
    ("K.zarr", "tiles/0-0"),
    ("K.zarr", "checksums/0-1"),
    ("K.zarr", "rows/0/inputs"),
    ("X.gates", "0/gates/1"),
]


@pytest.mark.parametrize("values", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("store", "array"), ARRAYS)
def test_arrays_are_as_npk_writes_them_or_refused(folder, refused_everywhere, store, array, values):
    change(folder / store / array / "zarr.json", **values)
    refused_everywhere(folder / store)


@pytest.mark.parametrize("store", ["K.zarr", "X.gates"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"zarr_format": 2}, "zarr format"),
        ({"consolidated_metadata": {"metadata": {}}}, "consolidated_metadata"),
        ({"attributes": []}, "npk did not write"),  # no table of npk's: somebody else's group
        ({"more": 1}, "more"),
    ],
)
def test_groups_are_as_npk_writes_them_or_refused(folder, refused_everywhere, store, values, said):
    change(folder / store / "zarr.json", **values)
    refused_everywhere(folder / store, said)


class Canary:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def second_format(where, canary, dtype):
    """An array of zarr format 2 that numcodecs would unpickle."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    filters = [{"id": "vlen-utf8"}, {"id": "pickle"}]
    about = {
        "zarr_format": 2,
        "shape": [1, 1],
        "chunks": [1, 1],
        "dtype": dtype,
        "order": "C",
        "fill_value": None,
        "compressor": None,
    }
    (where / ".zarray").write_text(
        json.dumps({**about, "filters": filters, "dimension_separator": "."})
    )
    (where / "0.0").write_bytes(pickle.dumps(Canary(canary)))


@pytest.mark.parametrize("dtype", ["|O", "<f4", "<i8"])
@pytest.mark.parametrize("all_of_it", [True, False], ids=["all of it", "one array"])
def test_no_code_of_a_store_in_format_2_runs(folder, refused_everywhere, all_of_it, dtype):
    canary, store = folder / "mine", folder / "K.zarr"
    if all_of_it:
        manifest = json.loads((store / "zarr.json").read_text())["attributes"]
        for group in (store, store / "tiles", store / "checksums"):
            (group / "zarr.json").unlink()
            (group / ".zgroup").write_text('{"zarr_format": 2}')
        (store / ".zattrs").write_text(json.dumps(manifest))
    for name in ("tiles/0-0", "checksums/0-0"):
        second_format(store / name, canary, dtype)
    refused_everywhere(store, *["zarr format 2"] * all_of_it)
    assert not canary.exists()


# declared sizes

KERNEL_LIES = {
    "endless": {"shape": [1 << 60, 1 << 60]},
    "as many tiles as entries": {
        "shape": [1 << 30, 1 << 30],
        "side": 1,
        "ends": [[], []],
        "identities": [["a"], ["a"]],
    },
    "a huge tile": {"side": 1 << 20},
    "no tile": {"side": 0},
    "a side that is no number": {"side": True},
    "ends that go back": {"ends": [[12, 3], [12, 3]], "identities": [["a", "b", "c"]] * 2},
    "ends behind the end": {"ends": [[99], [99]]},
    "parts without names": {"identities": [[], []]},
    "names that are none": {"identities": [[1, 2], [1, 2]]},
    "text for a shape": {"shape": "ab"},
    "texts": {"dtype": "object"},
    "columns that are others": {"shape": [16, 17]},
    "exponents without end": {"exponents": [1 << 62]},
    "exponents in words": {"exponents": ["one"]},
    "about nothing": {"about": None},
}
GATES_LIES = {
    "endless": {"parts": [1 << 60]},
    "too many pieces": {"parts": [1 << 40], "piece": 1},
    "huge samples": {"inputs": {"width": [1 << 30, 4], "dtype": "float32"}},
    "pieces of nothing": {"piece": 0},
    "texts": {"inputs": {"width": [6], "dtype": "object"}},
    "parts without names": {"identities": [[]]},
    "no parts": {"parts": [], "identities": [[]]},
}


@pytest.mark.parametrize(
    ("store", "lies"),
    [
        *(("K.zarr", lies) for lies in KERNEL_LIES.values()),
        *(("X.gates", lies) for lies in GATES_LIES.values()),
    ],
    ids=[*KERNEL_LIES, *GATES_LIES],
)
def test_what_a_manifest_declares_is_looked_at_before_it_is_used(
    folder, refused_everywhere, store, lies
):
    file = folder / store / "zarr.json"
    manifest = json.loads(file.read_text())["attributes"]["npk"]
    change(file, attributes={"npk": sealed({**manifest, **lies})})
    refused_everywhere(folder / store)


@pytest.mark.parametrize(
    ("node", "values"),
    [
        (0, {"shape": [1 << 40]}),
        (2, {"shape": ["a"]}),
        (1, {"shape": [20, 1 << 20, 1 << 20]}),
        (1, {"shape": []}),
    ],
)
def test_a_graph_of_any_size_is_refused_before_it_is_planned(
    folder, refused_everywhere, node, values
):
    file = folder / "X.gates" / "zarr.json"
    manifest = json.loads(file.read_text())["attributes"]["npk"]
    manifest["graph"]["nodes"][node].update(values)
    change(file, attributes={"npk": sealed(manifest)})
    refused_everywhere(folder / "X.gates")


def test_a_window_of_any_size_is_refused_before_it_is_planned(folder, refused_everywhere):
    file = folder / "X.gates" / "zarr.json"
    manifest = json.loads(file.read_text())["attributes"]["npk"]
    one = 1 << 29
    window = {
        "kernel": [one],
        "stride": [1],
        "padding": [[one, one]],
        "dilation": [1],
        "transposed": False,
        "extra": [],
    }
    manifest["graph"]["nodes"][1]["operator"]["window"] = window
    change(file, attributes={"npk": sealed(manifest)})
    refused_everywhere(folder / "X.gates", "more than npk reads")


def test_a_manifest_without_its_seal_is_refused(folder, refused_everywhere):
    file = folder / "K.zarr" / "zarr.json"
    manifest = json.loads(file.read_text())["attributes"]["npk"]
    del manifest["seal"]
    change(file, attributes={"npk": manifest})
    refused_everywhere(folder / "K.zarr", "does not match its checksum")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "3", "null", '"text"', "", "\udcff"])
def test_descriptions_that_are_none(folder, refused_everywhere, text):
    for name in ("zarr.json", "tiles/0-0/zarr.json"):
        whole = (folder / "K.zarr" / name).read_bytes()
        (folder / "K.zarr" / name).write_bytes(text.encode(errors="surrogateescape"))
        refused_everywhere(folder / "K.zarr")
        (folder / "K.zarr" / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "most"),
    [("zarr.json", store_files._MANIFEST), ("tiles/0-0/zarr.json", store_files._DESCRIPTION)],
)
def test_a_description_that_is_too_long_is_not_read(folder, refused_everywhere, name, most):
    os.truncate(folder / "K.zarr" / name, most + 1)
    refused_everywhere(folder / "K.zarr")


@pytest.mark.parametrize("size", [0, 3, 4 * 4 * 4 - 1, 4 * 4 * 4 + 1, 1 << 40])
def test_a_chunk_of_another_size_than_declared_is_not_read(folder, refused_everywhere, size):
    os.truncate(folder / "K.zarr" / "tiles/0-0/c/0/0", size)
    refused_everywhere(folder / "K.zarr", f"tiles/0-0/c/0/0 has {size} bytes, not 64")


def test_finished_tiles_and_pieces_have_files_even_where_all_is_zero(folder, refused_everywhere):
    """Else a few bytes could declare a table of any size."""
    store = GramStore.create(folder / "zeros", TilePlan(5, 5, 4, True), "float32", {})
    for tile in store.plan:
        store.write(tile, np.zeros(tile.shape, np.float32))
        np.testing.assert_array_equal(store.read(tile), 0)
    assert len([p for p in (folder / "zeros" / "tiles").rglob("c/*/*") if p.is_file()]) == 3
    table = GateTable.load(folder / "X.gates")
    nothing = GateTable(table.graph, 0 * table.inputs, table.entries)
    shutil.rmtree(folder / "X.gates")
    nothing.save(folder / "X.gates")
    chunks = [p for p in (folder / "X.gates" / "0" / "inputs" / "c").rglob("*") if p.is_file()]
    chunks[0].unlink()
    refused_everywhere(folder / "X.gates", "their checksum differs: 0/inputs/c/0/0 is missing")


def test_too_many_tiles_are_refused_before_a_store_is_made(folder):
    with pytest.raises(
        StoreError,
        match=r"a kernel of 9000 x 9000 has about 40513501 tiles of 1 x 1, and a store "
        r"takes 1048576. Give more memory=",
    ):
        GramStore.create(folder / "many", TilePlan(9000, 9000, 1, True), "float32", {})
    store = GramStore.create(folder / "few", TilePlan(9, 9, 1, True), "float32", {})
    with pytest.raises(StoreError, match="Give more memory="):
        store.grow(9000, 9000, {})
    assert len(GramStore.open(folder / "few").plan) == 45


def test_types_that_a_store_does_not_hold_are_refused_when_written(folder):
    table = GateTable.load(folder / "X.gates")
    strange = GateTable(table.graph, table.inputs.astype(np.complex64), table.entries)
    with pytest.raises(
        StoreError, match="values of type complex64 cannot be saved. Take one of bool, int8"
    ):
        strange.save(folder / "strange")
    assert not (folder / "strange").exists()


def test_a_table_larger_than_memory_is_one_sentence(folder, monkeypatch):
    def full(self, rows):
        raise MemoryError

    monkeypatch.setattr(GatePieces, "arrays", full)
    with pytest.raises(
        StoreError,
        match=r"X.gates takes \d+ bytes, more than there is memory. "
        r"Read parts of it",
    ):
        GateTable.load(folder / "X.gates")


# links, and what is no file


@pytest.mark.parametrize(
    "name",
    [
        "tiles/0-0/c/0/0",
        "tiles/0-0/zarr.json",
        "tiles/0-0",
        "tiles",
        "rows",
        "rows/0/inputs/c",
        "zarr.json",
    ],
)
def test_no_link_is_followed_out_of_a_store(folder, refused_everywhere, name):
    """Not even to what the store itself would hold."""
    place, away = folder / "K.zarr" / name, folder / "away"
    os.rename(place, away)
    os.symlink(away, place)
    before = {path: path.read_bytes() for path in [away, *away.rglob("*")] if path.is_file()}
    refused_everywhere(folder / "K.zarr", "has a link")  # the folder's own name has the word
    assert {
        path: path.read_bytes() for path in [away, *away.rglob("*")] if path.is_file()
    } == before


def test_a_link_beside_the_files_of_a_store_is_refused_where_it_is_written(folder, X, net):
    (folder / "away").mkdir()
    os.symlink(folder / "away", folder / "K.zarr" / "other")
    assert npk.Gram.load(folder / "K.zarr").shape == (16, 16)
    with pytest.raises(StoreError, match="has a link, other, and npk neither writes nor follows"):
        npk.kernel(net, X, out=folder / "K.zarr", progress=False)


def test_a_link_to_a_store_is_the_users_own(folder, X, net):
    os.symlink(folder / "K.zarr", folder / "link.zarr")
    assert npk.kernel(net, X, out=folder / "link.zarr", progress=False).shape == (20, 20)


@pytest.mark.parametrize("name", [".lock", ".lock.json", ".lock.json.tmp"])
def test_no_lock_is_written_through_a_link(folder, X, net, name):
    (folder / "mine").write_text("mine")
    lock = folder / "K.zarr" / name
    lock.unlink(missing_ok=True)
    os.symlink(folder / "mine", lock)
    if name == ".lock":
        with pytest.raises(
            StoreError,
            match=r"cannot lock .*: .*\.lock is a link, and npk follows "
            r"none there",
        ):
            npk.kernel(net, X, out=folder / "K.zarr", progress=False)
    else:
        npk.kernel(net, X, out=folder / "K.zarr", progress=False)
    assert (folder / "mine").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["tiles/0-0/c/0/0", "tiles/0-0/zarr.json", "zarr.json"])
def test_a_pipe_is_not_waited_for(folder, refused_everywhere, name):
    (folder / "K.zarr" / name).unlink()
    os.mkfifo(folder / "K.zarr" / name)
    refused_everywhere(folder / "K.zarr", "no plain file")


def test_whatever_the_user_has_set_in_zarr(folder, X, net):
    """Its default format, and what it leaves out, do not reach the stores of npk."""
    import zarr

    with zarr.config.set(
        {"default_zarr_format": 2, "array.write_empty_chunks": False, "array.order": "F"}
    ):
        gram = npk.kernel(net, X, out=folder / "new.zarr", progress=False)
        np.testing.assert_array_equal(np.asarray(gram), npk.kernel(net, X, progress=False))
        GateTable.load(folder / "X.gates").save(folder / "Y.gates")
    assert not list(folder.glob("*/.zgroup"))
    assert (
        GateTable.load(folder / "Y.gates").fingerprint()
        == GateTable.load(folder / "X.gates").fingerprint()
    )
