"""Gate tables: bits, recording, saving, and every way in which they can be wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError, StoreError
from npk.gates.recording import as_samples, record_gates, record_trace
from npk.gates.table import GateLayer, GateTable, pack, pack_on_device, unpack
from npk.graph.path_graph import PathGraph
from npk.progress import Silent
from npk.reading.tracing import trace_network
from npk.stores.manifests import open_store
from npk.tie import is_on


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 65, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(260, 7),
        nn.ReLU(),
        nn.Linear(7, 2),
    ).eval()


@pytest.fixture(scope="module")
def X():
    X = np.random.default_rng(0).standard_normal((6, 1, 4, 4)).astype(np.float32)
    X.flags.writeable = False
    return X


@pytest.fixture(scope="module")
def table(net, X):
    return record_gates(net, X)


@pytest.fixture(scope="module")
def soft_trace():
    return trace_network(
        npk.networks.build("fc", "dgn", input_shape=(4,), classes=2, hidden=[5, 3], seed=0), (4,)
    )


@pytest.mark.parametrize("channels", [1, 63, 64, 65, 130])
def test_pack_and_unpack(channels, rng):
    gates = rng.random((3, 5, channels)) > 0.5
    words = pack(gates)
    assert words.shape == (3, 5, -(-channels // 64))
    assert words.dtype == np.uint64
    assert np.bitwise_count(words).sum() == gates.sum()  # padding bits are 0
    for channel in (0, channels - 1):
        bit = words[..., channel // 64] >> np.uint64(channel % 64) & np.uint64(1)
        np.testing.assert_array_equal(bit, gates[..., channel])
    np.testing.assert_array_equal(unpack(words, channels), gates)
    np.testing.assert_array_equal(unpack(words[:, ::2], channels), gates[:, ::2])


@pytest.mark.parametrize("positions", [1, 2, 9])
@pytest.mark.parametrize("channels", [1, 7, 8, 63, 64, 65, 130])
def test_packing_on_the_device_gives_the_same_words(channels, positions, rng):
    gates = rng.random((3, channels, positions)) > 0.5
    for given in (
        torch.as_tensor(gates),
        torch.as_tensor(gates).transpose(1, 2).contiguous().transpose(1, 2),
    ):
        found = pack_on_device(given).contiguous().numpy().view("<u8")
        np.testing.assert_array_equal(found, pack(np.ascontiguousarray(gates.transpose(0, 2, 1))))


def test_a_tie_is_off():
    np.testing.assert_array_equal(
        is_on(np.array([-1.0, -0.0, 0.0, 1e-45, 1.0])), [False, False, False, True, True]
    )


def test_gates_are_signs_of_preactivations(net, X, table):
    assert table.names == ("1", "5")
    assert table.layers == 2
    assert len(table) == 6
    with torch.no_grad():
        first = net[0](torch.tensor(X))
        last = net[:5](torch.tensor(X))
    np.testing.assert_array_equal(table[0], first.numpy() > 0)
    np.testing.assert_array_equal(table["5"], last.numpy() > 0)
    assert [layer.shape for layer in table] == [(6, 65, 4, 4), (6, 7)]
    assert table[0].dtype == bool


def test_selections_are_the_first_maximum(net, X, table):
    (name,) = set(table.entries) - set(table.names)
    with torch.no_grad():
        values = net[:2](torch.tensor(X)).numpy()
    windows = values.reshape(6, 65, 2, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5).reshape(6, 4, 65, 4)
    np.testing.assert_array_equal(table.entries[name].data, windows.argmax(-1))


@pytest.mark.parametrize("rows", [slice(1, 4), np.array([5, 0, 0]), slice(0, 0)])
def test_take(table, rows):
    part = table.take(rows)
    np.testing.assert_array_equal(part.inputs, table.inputs[rows])
    for layer in range(2):
        np.testing.assert_array_equal(part[layer], table[layer][rows])
    assert part.nbytes < table.nbytes


def test_batches_do_not_matter(net, X, table, monkeypatch):
    monkeypatch.setattr("npk.gates.recording._RUN_BYTES", 1)  # one sample at a time
    assert record_gates(net, X).fingerprint() == table.fingerprint()


def renamed(graph):
    """The graph with another weight at its last layer: what a path meets is another."""
    *nodes, last = graph.nodes
    return PathGraph(
        (*nodes, replace(last, operator=replace(last.operator, weight="other"))), graph.input_shape
    )


def test_fingerprint_sees_gates_samples_and_graph(table):
    prints = {table.fingerprint(), table.take(slice(1, None)).fingerprint()}
    other = dict(table.entries)
    other["5"] = GateLayer("hard", other["5"].shape, other["5"].data ^ np.uint64(1))
    prints |= {
        GateTable(table.graph, table.inputs, other).fingerprint(),
        GateTable(table.graph, table.inputs + 1, table.entries).fingerprint(),
        GateTable(renamed(table.graph), table.inputs, table.entries).fingerprint(),
    }
    assert len(prints) == 5
    assert table.take(slice(None)).fingerprint() == table.fingerprint()


def test_progress_and_read_only_samples(net, X, table):
    steps = []

    class Count(Silent):
        def task(self, description, total):
            assert (description, total) == ("recording gates", 6)
            return super().task(description, total)

    assert not X.flags.writeable
    assert record_gates(net, X, progress=Count()).fingerprint() == table.fingerprint()
    assert steps == []


def test_tensors_and_integers_are_samples(net, X, table):
    assert record_gates(net, torch.tensor(X)).fingerprint() == table.fingerprint()
    whole = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    assert (
        record_gates(net, whole).fingerprint()
        == record_gates(net, whole.astype(np.float32) / 255).fingerprint()
    )
    assert record_gates(net, whole).inputs.dtype == np.float32
    assert record_gates(net, X.astype(np.float64)).inputs.dtype == np.float64


@pytest.mark.parametrize(
    ("X", "why"),
    [
        (np.zeros((0, 4)), r"X has shape \(0, 4\).*n at least 1"),
        (np.zeros(4), r"X has shape \(4,\). Give samples as"),
        (np.array([["a", "b"]]), "X has dtype <U1. Give an array of numbers"),
        (np.array([[1.0, np.nan, np.inf]]), "X has 2 values that are NaN or infinite"),
    ],
)
def test_bad_samples(X, why):
    with pytest.raises(DataError, match=why):
        as_samples(X)


def test_network_that_is_not_finite(X):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.constant_(net[1].weight, torch.nan)
    with pytest.raises(DataError, match="the network gives NaN or infinite values.*trained on.$"):
        record_gates(net, X)


def test_one_network_output_in_a_dictionary(X, table):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return {"score": self.head(x.flatten(1))}

    assert len(record_gates(Named(), X)) == 6


def record(trace, gates):
    return record_trace(
        trace,
        np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32),
        gates=gates,
        progress=Silent(),
    )


def test_soft_and_hard_gates(soft_trace):
    soft, hard, auto = (record(soft_trace, gates) for gates in ("soft", "hard", "auto"))
    for layer in range(2):
        np.testing.assert_array_equal(soft[layer], auto[layer])
        assert soft[layer].dtype == np.float32
        assert 0 < soft[layer].min() < soft[layer].max() < 1
        np.testing.assert_array_equal(hard[layer], soft[layer] > 0.5)
    with pytest.raises(OptionError, match="gates='hard', but the gate table has soft gates"):
        npk.kernel(soft, gates="hard")
    with pytest.raises(OptionError, match="gates='soft', but the gate table has hard gates"):
        npk.kernel(hard, gates="soft")


def test_options_of_recording(net, X):
    with pytest.raises(OptionError, match="gates='some' is not known"):
        record_gates(net, X, gates="some")
    with pytest.raises(OptionError, match="gates=\"soft\", but layer '1' has hard gates"):
        record_gates(net, X, gates="soft")


def test_table_that_does_not_fit_its_graph(table):
    entries = dict(table.entries)
    del entries["5"]
    with pytest.raises(ShapeError, match="GateTable has no layer '5'.*another checkpoint"):
        GateTable(table.graph, table.inputs, entries)
    narrow = GateLayer("hard", (6,), table.entries["5"].data)
    with pytest.raises(
        ShapeError,
        match=r"GateTable has shape \(6,\) at layer '5', the graph says "
        r"\(7,\)",
    ):
        GateTable(table.graph, table.inputs, {**table.entries, "5": narrow})
    with pytest.raises(ShapeError, match="at layer '1'"):
        GateTable(table.graph, table.inputs[:3], table.entries)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_save_and_load(kind, table, soft_trace, tmp_path):
    saved = table if kind == "hard" else record(soft_trace, "soft")
    saved.save(tmp_path / "gates")
    loaded = GateTable.load(tmp_path / "gates")
    assert loaded.graph == saved.graph
    assert loaded.fingerprint() == saved.fingerprint()
    assert loaded.names == saved.names
    for there, here in zip(loaded, saved, strict=True):
        np.testing.assert_array_equal(there, here)
    saved.take(slice(0, 2)).save(tmp_path / "gates")  # replaces
    assert len(GateTable.load(tmp_path / "gates")) == 2


def test_nowhere_to_save(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*Choose a folder"):
        table.save(tmp_path / "file" / "gates")


def chunks(folder):
    return sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and p.parent.name != "gates" and p.suffix != ".json"
    )


def test_damaged_tables(table, tmp_path):
    table.save(tmp_path / "gates")
    chunk = next(p for p in chunks(tmp_path / "gates") if "inputs" in p.parts)
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(StoreError, match="is damaged .*Record the gates again"):
        GateTable.load(tmp_path / "gates")
    table.save(tmp_path / "gates")
    next(p for p in chunks(tmp_path / "gates") if "inputs" in p.parts).unlink()  # reads as zeros
    with pytest.raises(StoreError, match="is damaged at samples 0 to 5 .their checksum differs"):
        GateTable.load(tmp_path / "gates")


def test_foreign_stores(table, tmp_path):
    import zarr

    with pytest.raises(
        StoreError,
        match="cannot read .*nothing as a gate table: there is nothing. "
        "Name a folder that npk wrote",
    ):
        GateTable.load(tmp_path / "nothing")
    zarr.open_group(tmp_path / "foreign", mode="w")
    with pytest.raises(StoreError, match="holds something that npk did not write"):
        GateTable.load(tmp_path / "foreign")
    npk.kernel(table, out=tmp_path / "gram", progress=False)
    with pytest.raises(StoreError, match="holds gram, not a gate table"):
        GateTable.load(tmp_path / "gram")


@pytest.mark.parametrize("number", [1, 2, 4, None])
def test_other_formats(number, table, tmp_path):
    import zarr

    table.save(tmp_path / "gates")
    group = zarr.open_group(tmp_path / "gates", mode="r+")
    group.attrs["npk"] = {**group.attrs["npk"], "format": number}
    with pytest.raises(
        StoreError, match=f"has format {number}, this npk reads format 3. Make it again"
    ):
        GateTable.load(tmp_path / "gates")


def test_places_that_are_no_store(table, tmp_path, monkeypatch):
    def refused(why):
        with pytest.raises(
            StoreError,
            match=f"cannot read .*gates as a gate table: {why}. Name a folder that npk wrote",
        ):
            open_store(tmp_path / "gates", "gate table")

    refused("there is nothing")
    with pytest.raises(StoreError, match="there is nothing"):
        open_store(tmp_path / "gates", "gate table", write=True)
    assert not (tmp_path / "gates").exists()
    (tmp_path / "gates").write_text("")
    refused("it is a file")
    (tmp_path / "gates").unlink()
    (tmp_path / "gates").mkdir()
    refused("it has no zarr.json")
    table.save(tmp_path / "gates")
    manifest = tmp_path / "gates" / "zarr.json"
    whole = manifest.read_text()
    manifest.write_text(whole[: len(whole) // 2])
    refused(r"its zarr.json is damaged \(JSONDecodeError\)")
    manifest.write_text(whole.replace('"piece": 1024', '"piece": 1023'))
    with pytest.raises(
        StoreError, match="is damaged: its manifest, zarr.json, does not match its checksum"
    ):
        open_store(tmp_path / "gates", "gate table")
    manifest.write_text(whole)
    open_store(tmp_path / "gates", "gate table")

    def unreadable(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zarr.open_group", unreadable)
    refused("Permission denied")
