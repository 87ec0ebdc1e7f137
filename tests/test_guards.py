"""Guards one at a time, each with what it alone must refuse, by its own words: where several stand
one behind another, no other one can take its place.
"""

import copy
import io
import json
import pickle
import struct
import zipfile
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from zarr.storage import LocalStore

import npk
from npk.checkpoint import archives
from npk.checkpoint.archives import Archive
from npk.checkpoint.described import check_described
from npk.checkpoint.files import check_file
from npk.checkpoint.program import batches
from npk.cli.reading import check_folder, check_page, check_place
from npk.data import limits
from npk.errors import (
    BackendError,
    CheckpointError,
    DataError,
    OptionError,
    ScaleError,
    ShapeError,
    StoreError,
    UnsupportedGraphError,
)
from npk.gates.form import TableForm, form_of
from npk.gates.pieces import GatePieces
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram import cluster
from npk.gram.kernel import NeuralPathKernel
from npk.gram.store import GramStore
from npk.gram.store_layout import plan_of
from npk.graph.operators import operator_from
from npk.machines.problem import checked_labels, mean_diagonal
from npk.networks.training import train
from npk.results import Accuracy, CheckResult, EnsembleDetails, KernelSummary, Shares
from npk.samples import as_array, as_samples
from npk.stores import files as store_files
from npk.stores.blocks import Form
from npk.stores.plain import PlainStore, open_array, open_group
from npk.typed import Typed, parse_object

HUGE = 1 << 40
NET = npk.networks.build("fc", input_shape=(4,), classes=2, hidden=[5, 5], seed=0)


def refused(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


@pytest.fixture(scope="module")
def table():
    return npk.record_gates(NET, np.eye(4, dtype=np.float32), progress=False)


# gates: what a table and the manifest of one are


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t[:1], "GateTable has no layer"),
        (lambda t: (replace(t[0], shape=(6,)), *t[1:]), "the graph says"),
        (lambda t: (replace(t[0], data=Form((2, 1), "uint64")), *t[1:]), "the graph says"),
    ],
)
def test_forms_of_tables(table, change, text):
    form = table.form
    refused(lambda: TableForm(form.graph, form.inputs, change(form.entries)), ShapeError, text)


def test_an_entry_of_fewer_samples(table):
    name, entry = next(iter(table.entries.items()))
    fewer = {**table.entries, name: replace(entry, data=entry.data[:-1])}
    refused(lambda: GateTable(table.graph, table.inputs, fewer), ShapeError, "the graph says")


GATES_LIES = {
    "a graph of any size": (
        lambda m: m["graph"]["nodes"][1].update(shape=[20, 1 << 20, 1 << 20]),
        "more than npk reads",
    ),
    "a piece of nothing": (lambda m: m.update(piece=0), "pieces of no samples"),
    "no parts": (lambda m: m.update(parts=[], identities=[[]]), "has no parts"),
    "a part without a name": (lambda m: m.update(identities=[[]]), "does not name its parts"),
    "names of two axes": (lambda m: m.update(identities=[["a"], ["b"]]), "does not name its parts"),
    "many pieces": (lambda m: m.update(parts=[HUGE], piece=1), "pieces"),
    "objects": (lambda m: m["inputs"].update(dtype="object"), "arrays that npk does not write"),
    "a width below nothing": (
        lambda m: m["layers"][0].update(width=[-1]),
        "arrays that npk does not write",
    ),
    "a huge piece": (
        lambda m: m.update(parts=[1 << 31], piece=1 << 30) or m["inputs"].update(width=[1 << 20]),
        "bytes, and",
    ),
}


@pytest.mark.parametrize(("lie", "text"), GATES_LIES.values(), ids=GATES_LIES)
def test_manifests_of_gates(table, lie, text):
    manifest = {**table.form.manifest(), "piece": 4, "parts": [4], "identities": [["a"]]}
    assert form_of(manifest) == table.form
    lie(manifest := copy.deepcopy(manifest))
    refused(lambda: form_of(manifest), ValueError, text)


def test_gates_are_made_where_nothing_is(table, tmp_path):
    refused(lambda: GatePieces.create(tmp_path, table.form, 4), StoreError, "exists already")
    form = replace(table.form, inputs=Form((4,), "complex64"))
    where = tmp_path / "X.gates"
    refused(lambda: GatePieces.create(where, form, 4), StoreError, "type complex64")
    assert not where.exists()


def test_gates_of_a_store_are_whole_pieces_of_one_form(table, tmp_path):
    store = GateStore.create(tmp_path / "X.gates", table.form, 4, piece=2)
    refused(lambda: store.write(0, table.take(slice(3))), ShapeError, "no whole pieces")
    other = {name: replace(entry, kind="saturation") for name, entry in table.entries.items()}
    of_another_kind = GateTable(table.graph, table.inputs, other)
    refused(lambda: store.write(0, of_another_kind), ShapeError, "other gates")
    assert store.missing() == [(0, 2), (2, 4)]


# gram: what the manifest of a kernel is


KERNEL_LIES = {
    "no shape": ({"shape": [0, 8]}, "has no shape"),
    "three sides": ({"shape": [8, 8, 8]}, "has no shape"),
    "a huge tile": ({"side": 1 << 20}, "no side of tiles"),
    "ends that go back": ({"ends": [[5, 3], [5, 3]]}, "where its parts end"),
    "ends behind the end": ({"ends": [[8], [8]]}, "where its parts end"),
    "one axis": ({"ends": [[5]]}, "where its parts end"),
    "a part without a name": ({"identities": [["a"], ["a"]]}, "does not name its parts"),
    "columns that are others": ({"shape": [8, 9]}, "other columns than rows"),
    "other parts": ({"ends": [[5], [4]]}, "other columns than rows"),
    "parts of other names": ({"identities": [["a", "b"], ["a", "c"]]}, "other columns than rows"),
    "no word of symmetry": ({"symmetric": 1}, "other columns than rows"),
    "objects": ({"dtype": "object"}, "what its entries are"),
    "about nothing": ({"about": None}, "what its entries are"),
    "exponents without end": ({"exponents": [1 << 62]}, "no exponents"),
    "many tiles": (
        {"shape": [1 << 30] * 2, "side": 1, "ends": [[], []], "identities": [["a"], ["a"]]},
        "more tiles than a store takes",
    ),
}


@pytest.mark.parametrize(("lies", "text"), KERNEL_LIES.values(), ids=KERNEL_LIES)
def test_manifests_of_kernels(lies, text):
    manifest = {
        "shape": [8, 8],
        "side": 4,
        "ends": [[5], [5]],
        "identities": [["a", "b"], ["a", "b"]],
        "symmetric": True,
        "dtype": "float32",
        "about": {},
        "exponents": [0, 3],
    }
    assert len(plan_of(manifest)) == 6
    refused(lambda: plan_of({**manifest, **lies}), ValueError, text)


def test_gates_of_another_store_are_not_those_of_a_kernel(table, tmp_path):
    npk.kernel(gates := table, out=tmp_path / "K.zarr", progress=False)
    npk.kernel(gates, out=tmp_path / "other.zarr", progress=False)
    (tmp_path / "K.zarr" / "rows").rename(tmp_path / "away")
    (tmp_path / "other.zarr" / "rows").rename(tmp_path / "K.zarr" / "rows")
    store = GramStore.open(tmp_path / "K.zarr")
    refused(lambda: store.rows, StoreError, "its rows are the gates of another store")


def test_both_sides_of_a_kernel_are_of_one_network(table, tmp_path):
    kernel = NeuralPathKernel(NET, progress=False)
    wide = npk.networks.build("fc", input_shape=(4,), classes=2, hidden=[6, 6], seed=0)
    other = npk.record_gates(wide, np.eye(4, dtype=np.float32), progress=False)
    refused(lambda: kernel.sources(table, other), ShapeError, "different path graphs")
    refused(
        lambda: kernel.sources(table.take(slice(0)), None), DataError, "0 samples has no kernel"
    )


def test_values_between_layers_that_are_not_finite(monkeypatch):
    """Whatever a backend gives."""

    monkeypatch.setattr("npk.gram.work.passes.settle", lambda *more, **options: np.inf)
    X = np.eye(4, dtype=np.float32)
    refused(
        lambda: npk.kernel(NET, X, progress=False), ScaleError, "leave the range of float32 between"
    )


def test_samples_without_a_network(table):
    kernel = NeuralPathKernel(None, progress=False)
    X = np.eye(4, dtype=np.float32)
    refused(lambda: kernel(X), DataError, "X is a ndarray, but there is no network to record its")
    refused(lambda: npk.kernel(table, X, progress=False), DataError, "but there is no network")


def test_operators_that_are_none():
    refused(lambda: operator_from({"type": "No"}), UnsupportedGraphError, "the operator No")


# the cluster: what comes back from it


def test_clients_of_a_cluster():
    client = SimpleNamespace(submit=None, status="closed", nthreads=dict)
    nothing: list = []
    refused(
        lambda: cluster.compute_on(client, None, nothing, None), OptionError, "is a SimpleNamespace"
    )
    refused(
        lambda: cluster._Dealer(client, ("", ""), nothing, None),
        BackendError,
        "the client is closed",
    )


def test_results_of_a_cluster():
    def fails():
        raise ValueError("x")

    future = SimpleNamespace(result=fails, status="error")
    refused(lambda: cluster._result(future), BackendError, "a worker failed with ValueError: x")
    future.status = "lost"
    refused(lambda: cluster._result(future), BackendError, "the cluster's scheduler is gone")


def test_workers_of_another_version():
    refused(
        lambda: cluster.compute_tiles("none", "flag", "0.0.0", []),
        BackendError,
        f"has npk {npk.__version__}, the client 0.0.0",
    )


# stores: files of which nothing is believed


def test_a_file_of_another_size(tmp_path):
    (tmp_path / "a").write_bytes(b"four")
    read = store_files.read_plain
    assert read(tmp_path, "a", 4, 4) == b"four"
    refused(lambda: read(tmp_path, "a", 3), ValueError, "a has 4 bytes, not at most 3")
    refused(lambda: read(tmp_path, "a", 9, 5), ValueError, "a has 4 bytes, not 5")


def test_a_description_that_is_no_object(tmp_path):
    (tmp_path / "zarr.json").write_text("[]")
    describe = store_files.read_description
    refused(lambda: describe(tmp_path, "zarr.json"), ValueError, "holds no JSON object")


def test_a_folder_without_a_description(tmp_path):
    refused(lambda: store_files.read_manifest(tmp_path), FileNotFoundError, str(tmp_path))


@pytest.fixture
def group(tmp_path):
    made = zarr.open_group(tmp_path / "group", mode="w-", zarr_format=3)
    for name, filling in (("values", 0), ("flags", -1)):
        made.create_array(
            name,
            shape=(2,),
            chunks=(2,),
            dtype="int64",
            fill_value=filling,
            compressors=None,
            filters=None,
        )
    made.create_group("inner")
    return tmp_path / "group"


def test_zarr_reads_whole_chunks_of_arrays(group):
    store = PlainStore(LocalStore(group, read_only=True))

    def read(key, part=None):
        import asyncio

        return asyncio.run(store.get(key, None, part))

    assert read("flags/c/0") is None  # a checksum that is not written
    refused(lambda: read("values/c/0"), store_files.LostFile, "values/c/0 is missing")
    refused(lambda: read("values/c/0", slice(0, 1)), ValueError, "chunks are read whole")
    refused(lambda: read("inner/c/0"), ValueError, "describes no array")
    refused(lambda: read("none/c/0"), ValueError, "describes no array")
    refused(lambda: open_array(open_group(group), "inner"), ValueError, "inner is a group")


def test_arrays_are_as_their_manifest_says(table, tmp_path):
    where = tmp_path / "X.gates"
    table.save(where)
    file = where / "0" / "inputs" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "data_type": "int32"}))
    refused(lambda: GateTable.load(where), StoreError, "int32")


# results, and values that check their types


@dataclass(frozen=True)
class Point(Typed):
    x: int
    names: tuple[str, ...] = ()


def test_typed_values_from_json():
    refused(lambda: Point.from_values([1]), DataError, "a Point is [1]")
    refused(lambda: Point.from_values({"x": 1, "names": [], "y": 2}), DataError, "no field y")
    refused(lambda: Point.from_values({"names": []}), DataError, "lacks x")
    refused(lambda: Point("1"), DataError, "and must be")
    refused(lambda: Point(1, ["a"]), DataError, "must be a tuple")
    refused(lambda: parse_object("[1]"), ValueError, "it holds no object")


SHARES = Shares((1, 2), (0.5, 0.5), (1.0,))
KERNEL = KernelSummary(
    "a net", "trained", "cosine", 2, [[1.0, 0.5], [0.5, 1.0]], [0, 1], [], [1.0], [], 0
)


def accuracy(share, parameters):
    return Accuracy("n", "m", 1, share, None, (share,), 1.0, parameters, "")


RESULTS = {
    "a depth without a share": (lambda: replace(SHARES, depth=(1,)), "1 depths and 2 shares"),
    "details of another check": (
        lambda: CheckResult("duality", "n", "s", True, 0.0, 1.0, EnsembleDetails((), SHARES)),
        "details of duality are EnsembleDetails",
    ),
    "more than all": (lambda: accuracy(1.5, {}), "a share from 0 to 1"),
    "heat that is not square": (lambda: replace(KERNEL, heat=[[1.0, 0.5]]), "it must be square"),
    "heat without labels": (lambda: replace(KERNEL, heat_labels=[0]), "a label a row"),
    "a heat map with one picture": (lambda: replace(KERNEL, heat_pictures=[0]), "a label a row"),
    "an eigenvalue without an error": (
        lambda: replace(KERNEL, spectrum=[0.5, 0.5], spectrum_error=[0.1]),
        "2 values and 1 errors",
    ),
    "names that are numbers": (lambda: accuracy(1.0, {1: 2}), "with names"),
    "parameters in a list": (lambda: accuracy(1.0, []), "with names"),
}


@pytest.mark.parametrize(("make", "text"), RESULTS.values(), ids=RESULTS)
def test_results_fit_together(make, text):
    refused(make, DataError, text)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ({"result": "Accuracy"}, "it has no format number"),
        ({"format": 999, "result": "Accuracy"}, "this file has format 999"),
        ({"format": npk.results.FORMAT, "result": "Shares"}, "this is a 'Shares'"),
    ],
)
def test_heads_of_results(head, text):
    values = json.loads(accuracy(1.0, {}).to_json())
    values = {key: value for key, value in values.items() if key not in ("format", "result")}
    refused(lambda: Accuracy.from_json(json.dumps({**head, **values})), StoreError, text)


# samples, labels, data files


def test_samples_that_are_objects():
    class Strange:
        def __array__(self, dtype=None, copy=None):
            return np.array([[object()]])

    class Single:
        def __array__(self, dtype=None, copy=None):
            return np.array(object())

    refused(lambda: as_samples(Strange()), DataError, "X has dtype object (Python objects")
    refused(lambda: as_samples(Single()), DataError, "X is of type Single, not samples")
    refused(lambda: as_array(Strange(), "y"), DataError, "y has dtype object (Python objects")


def test_batches_that_do_not_fit_each_other():
    class Growing(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return np.ones(i + 1, np.float32)

    loader = torch.utils.data.DataLoader(Growing(), batch_size=1)
    refused(lambda: as_samples(loader), DataError, "batches do not fit each other")


def test_labels_that_are_not_finite():
    refused(lambda: checked_labels(np.array([0.0, np.nan]), 2), DataError, "1 labels are NaN")


def test_labels_that_are_objects():
    """Those that have an order among them too."""
    numbers = np.array([0, 1], dtype=object)
    refused(lambda: checked_labels(numbers, 2), DataError, "Unknown label type: objects")
    names = np.array(["a", "b"], dtype=object)
    assert checked_labels(names, 2) is names


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diagonal_that_is_not_finite(value):
    diagonal = np.array([1.0, value])
    refused(lambda: mean_diagonal(diagonal), DataError, "K holds values that are not finite")


@pytest.mark.parametrize("seed", [True, 1.5, -1, 1 << 32])
def test_seeds_of_a_split(seed):
    data = npk.data.load("digits[:100]")
    refused(lambda: npk.data.split(data, seed=seed), OptionError, "is no seed")


def test_networks_that_cannot_be_trained():
    X, y = np.ones((2, 4), np.float32), np.array([0, 1])
    refused(lambda: train(nn.Flatten(), X, y, progress=False), OptionError, "without parameters")
    flat = nn.Sequential(nn.Linear(4, 2), nn.Flatten(0))
    refused(lambda: train(flat, X, y, progress=False), DataError, "gives logits (n, classes)")


def npz(path, header, content):
    """A file with one array X, whose header and content are given."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("X.npy", member.getvalue() + content)
    return np.load(path)


def test_arrays_are_as_large_as_they_say(tmp_path):
    path = tmp_path / "data.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (2, 2)}
    read = limits.checked_member
    for content in (bytes(12), bytes(20)):
        with npz(path, header, content) as file:
            refused(lambda: read(file, path, "X"), ValueError, "its header tells another size")
    with npz(path, {**header, "descr": "|O"}, bytes(20)) as file:
        refused(lambda: read(file, path, "X"), ValueError, "Object arrays")


def test_pictures_that_are_no_files(tmp_path):
    refused(lambda: limits.check_pictures([tmp_path]), DataError, "is no plain file")


def test_large_pictures(tmp_path):
    from PIL import Image

    side = 1 + int(limits.LARGEST_PICTURE**0.5)
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    refused(lambda: limits.check_pictures([tmp_path / "large.png"]), DataError, "Make it smaller")


def test_pickles_that_count_wrongly():
    content = pickle.dumps([1], protocol=0).replace(b"p0\n", b"p900\n")
    refused(lambda: limits.arrays_only(content), ValueError, "it counts wrongly")


def test_pickles_of_numbers_in_another_order():
    content = pickle.dumps({"x": np.arange(3, dtype=">i4")}, protocol=4)
    refused(lambda: limits.arrays_only(content), ValueError, "another order of bytes")
    plain = pickle.dumps({"x": np.arange(3, dtype="<i4")}, protocol=4)
    np.testing.assert_array_equal(limits.arrays_only(plain)["x"], np.arange(3))


# the command line: places that cannot be written


def test_places_of_the_command_line(tmp_path):
    refused(lambda: check_place(None, tmp_path), StoreError, "it is a folder. Name the file")
    (tmp_path / "a").touch()
    refused(lambda: check_folder(tmp_path / "a"), StoreError, "it is a file. Name a folder")
    check_folder(tmp_path)
    refused(lambda: check_folder(tmp_path, "gram"), StoreError, "something else in it")
    refused(lambda: check_page(tmp_path / "page.txt"), OptionError, "is no .html file")


# checkpoints: archives, and what a file says of itself


def archive(*members, tail=b""):
    """A zip archive, and a function that opens it as npk does; it may be changed before."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return bytearray(held.getvalue() + tail)


def opened(content):
    return Archive(io.BytesIO(bytes(content)))


def cut(content, words):
    """Without the last of these words."""
    place = content.rindex(words)
    content[place : place + len(words)] = bytes(len(words))
    return content


def both(content, local, central, form, value):
    """Put a number into the header of the only member and into the table of contents."""
    table = bytes(content).index(b"PK\1\2")
    for place in (local, table + central):
        struct.pack_into(form, content, place, value)
    return content


ONE = ("a/data.pkl", b"x" * 40)
ARCHIVES = {
    "no member first": (lambda: b"#!/b" + archive(ONE), "does not begin with a member"),
    "words behind": (lambda: archive(ONE, tail=b"more"), "its table of contents is missing"),
    "encrypted": (lambda: both(archive(ONE), 6, 8, "<H", 1), "is encrypted"),
    "packed otherwise": (lambda: both(archive(ONE), 8, 10, "<H", 12), "packed in a way"),
    "a bomb": (lambda: both(archive(ONE), 22, 24, "<I", 1 << 31), "unpacked it would have"),
    "more than the file": (lambda: both(archive(ONE), 18, 20, "<I", 999), "unpacked it would have"),
    "another name before": (
        lambda: archive(ONE).replace(b"a/data.pkl", b"a/datA.pkl", 1),
        "called otherwise in its own header",
    ),
    "another header": (lambda: cut(archive(ONE, ("b", b"")), b"PK\3\4"), "b is missing"),
    "a colon": (lambda: archive(("c:data", b"")), "is no name of a member"),
    "a backslash": (lambda: archive(("a\\data", b"")), "is no name of a member"),
    "a line": (lambda: archive(("a\ndata", b"")), "is no name of a member"),
    "letters": (lambda: archive(("é", b"")), "is no name of a member"),
    "upwards": (lambda: archive(("a/../b", b"")), "leads out of the archive"),
    "from the root": (lambda: archive(("/b", b"")), "leads out of the archive"),
    "case alone": (lambda: archive(("a/b", b""), ("a/B", b"")), "it has two members"),
}


@pytest.mark.parametrize(("make", "text"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives(make, text):
    with opened(archive(ONE)) as good:
        assert good.read(ONE[0]) == ONE[1]
    refused(lambda: opened(make()), CheckpointError, text)


def test_members_that_share_bytes():
    content = archive(("a", b"1234"), ("b", b"1234"))
    second = bytes(content).rindex(b"PK\1\2")
    struct.pack_into("<I", content, second + 42, 0)  # where the header of the second one is
    refused(lambda: opened(content), CheckpointError, "b is not where it should be")


def test_more_members_than_are_read(monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 1)
    content = archive(("a", b""), ("b", b""))
    refused(lambda: opened(content), CheckpointError, "that torch writes: it has 2 members")


def test_a_member_behind_the_end():
    content = archive(ONE)
    struct.pack_into("<H", content, 28, 60_000)  # extra bytes between header and content
    refused(lambda: opened(content), CheckpointError, "its last member is cut")


def test_a_member_that_is_shorter_than_it_says(monkeypatch):
    with opened(archive(ONE)) as held:
        monkeypatch.setattr(held._zip, "read", lambda name: b"")
        refused(lambda: held.read(ONE[0]), CheckpointError, "is shorter than it says")


def test_files_that_are_folders(tmp_path):
    refused(lambda: check_file(tmp_path), CheckpointError, "is a folder. Name the checkpoint")
    (tmp_path / "empty.pt").touch()
    refused(lambda: check_file(tmp_path / "empty.pt"), CheckpointError, "is empty")


def test_folders_without_weights(tmp_path):
    refused(lambda: npk.load(tmp_path), CheckpointError, "is a folder without weights")


def test_an_architecture_that_is_none(tmp_path):
    npk.save(NET, path := tmp_path / "net.safetensors")
    refused(lambda: check_described(path, ["fc"]), CheckpointError, "describes its architecture as")
    other = {"arch": "fc", "input_shape": [4], "classes": 2, "hidden": [6, 6]}
    refused(lambda: check_described(path, other), CheckpointError, "of another shape")
    image = {"arch": "residual", "input_shape": [1, 4, 4], "classes": 2, "widths": [2]}
    deep = {**image, "block_layers": 9}
    refused(lambda: check_described(path, deep), CheckpointError, "it repeats parts 9 times, and")


@pytest.mark.parametrize(("most", "text"), [(4, "samples of it"), (30, "values for 3 samples")])
def test_programs_without_end(monkeypatch, most, text):
    monkeypatch.setattr(batches, "MOST_CELLS", most)
    net = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 9), nn.Linear(9, 9)))
    size = torch.Size((3, 2))
    refused(lambda: batches._check_size(net, size, torch.float32), ValueError, text)


# npk itself


def test_a_name_that_npk_does_not_have():
    refused(lambda: npk.no_such_name, AttributeError, "Public names are: Depth, GateTable")
