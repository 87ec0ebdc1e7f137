"""The small steps that numbers and stores stand on, each beside what it must give."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import npk
from npk.errors import StoreError
from npk.files import locked
from npk.gates.pieces import GatePieces
from npk.gates.store import GateStore
from npk.gates.table import GateTable, pack, unpack
from npk.gram.matrix import put
from npk.gram.products import OutOfRange, positions
from npk.gram.tiles import Demand, cuts
from npk.graph.positions import AdaptiveWindow, Window
from npk.recursion.balance import _divided, _powers
from npk.stores.blocks import Axis, Blocks, Form


def taken(taps, x):
    """The inputs under each offset of each window, 0 outside."""
    flat = np.append(x.reshape(-1), 0)
    return flat[taps]


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_lie_where_torch_has_them(rng, stride):
    x, w = rng.standard_normal((5, 6)), rng.standard_normal((3, 2))
    image, kernel = torch.from_numpy(x)[None, None], torch.from_numpy(w)[None, None]
    ones = (1, 1)
    window = Window((3, 2), (stride,) * 2, ((1, 1), (1, 1)), ones)
    found = np.tensordot(w.reshape(-1), taken(window.taps((5, 6)), x), 1)
    wanted = F.conv2d(image, kernel, stride=stride, padding=1)
    np.testing.assert_allclose(found, wanted.reshape(-1), atol=1e-12)
    back = Window((3, 2), (stride,) * 2, ((1, 1), (1, 1)), ones, transposed=True, extra=(0, 0))
    found = np.tensordot(w.reshape(-1), taken(back.taps((5, 6)), x), 1)
    wanted = F.conv_transpose2d(image, kernel, stride=stride, padding=1)
    np.testing.assert_allclose(found, wanted.reshape(-1), atol=1e-12)


def test_adaptive_windows_lie_where_torch_has_them(rng):
    x = rng.standard_normal((7, 5))
    taps = AdaptiveWindow.between((7, 5), (3, 2)).taps((7, 5))
    found = taken(taps, x).sum(0) / (taps >= 0).sum(0)
    wanted = F.adaptive_avg_pool2d(torch.from_numpy(x)[None], (3, 2))
    np.testing.assert_allclose(found, wanted.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("channels", [1, 7, 64, 70])
def test_bits_come_back_and_the_rest_is_zero(rng, channels):
    gates = rng.random((3, 2, channels)) < 0.5
    words = pack(gates)
    assert words.shape == (3, 2, {1: 1, 7: 1, 64: 1, 70: 2}[channels])
    np.testing.assert_array_equal(unpack(words, channels), gates)
    on = sum((words >> np.uint64(i)) & np.uint64(1) for i in range(64)).sum(-1)
    np.testing.assert_array_equal(on, gates.sum(-1))
    assert pack(np.array([[True, False]])).tolist() == [[1]]  # the first channel is the lowest bit


# sizes of samples


def test_powers_of_two_of_samples():
    values = np.array([[3.0, -1e-40], [0, -1e30], [0, 0], [1e-30, 0]])
    powers = _powers(values)
    assert powers[0] == powers[2] == 0
    divided = np.abs(_divided(values, powers)[[1, 3]]).max(1)
    assert ((divided >= 0.5) & (divided < 1)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 3, 4096])
@pytest.mark.parametrize("alike", [False, True])
def test_samples_of_comfortable_size_have_no_power(dtype, width, alike):
    """Whatever the sums of squares say: each sample alone, and beside one that is large."""
    for power in range(-12, 13):
        values = np.full((1, width), 0.75 * 2.0**power if alike else 0, dtype)
        values[0, 0] = -0.75 * 2.0**power
        expected = power if abs(power) > 8 else 0
        assert _powers(values).tolist() == [expected]
        beside = np.concatenate([values, np.full((1, width), 2.0**20, dtype)])
        assert _powers(beside).tolist() == [expected, 21]


# tiles


def test_cuts_cover_all_and_begin_anew():
    assert [(c.start, c.stop) for c in cuts(10, 4, (5,))] == [(0, 4), (4, 5), (5, 9), (9, 10)]


def test_memory_of_a_call():
    demand = Demand(fixed=10, sample=3, pair=2, least=50)
    assert [demand.bytes(side) for side in (1, 10)] == [50, 10 + 30 + 200]


def test_tiles_are_mirrored(rng):
    whole, values = np.zeros((5, 5), np.float32), rng.random((2, 3), np.float32)
    put(whole, slice(0, 2), slice(2, 5), values, symmetric=True)
    np.testing.assert_array_equal(whole[:2, 2:], values)
    np.testing.assert_array_equal(whole[2:, :2], values.T)
    assert not whole[:2, :2].any()
    assert not whole[2:, 2:].any()


# stores


AXIS = Axis(4, (5, 3), ("a", "b"))


def test_chunks_of_an_axis():
    assert AXIS.spans == [(0, 4), (4, 5), (5, 8)]
    assert [AXIS.place(chunk) for chunk in range(3)] == [(0, 0), (0, 1), (1, 0)]


def test_checksums_are_bound_to_store_place_and_values():
    data = np.arange(8, dtype=np.int32).reshape(4, 2)
    arrays = {"{}/x": Form((2,), "int32")}

    def checksum(axis=AXIS, chunk=(0,), values=data):
        blocks = Blocks((axis,), arrays, "{}/checksums")
        return int(blocks.sums(blocks.run(chunk), [values])[0])

    assert checksum() == checksum(values=data.astype(">i4"))
    assert checksum() != checksum(values=data + 1)
    assert checksum() != checksum(chunk=(1,))
    assert checksum() != checksum(axis=Axis(4, (5, 3), ("c", "b")))


def test_blocks_of_a_symmetric_matrix():
    blocks = Blocks((AXIS, AXIS), {}, "{}-{}", symmetric=True)
    assert blocks.all() == [(0, 0), (0, 1), (1, 1)]


@pytest.fixture
def store(tmp_path):
    """A store of gates in two parts, and the table that is in it."""
    net = npk.networks.build("fc", input_shape=(4,), classes=2, hidden=[5], seed=0)
    X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    table = npk.record_gates(net, X, progress=False)
    made = GateStore.create(tmp_path / "X.gates", table.form, 5, piece=2)
    made.extend(4)
    for start, stop in made.pieces:
        made.write(start, table.take(slice(start, stop)))
    return made, table


def test_samples_are_read_from_the_pieces_they_are_in(store):
    made, table = store
    for rows in ([8, 0, 3, 4, 5, 2], [1], list(range(9))):
        numbers = np.array(rows)
        np.testing.assert_array_equal(made.take(numbers).inputs, table.inputs[numbers])
    assert [made.pieces[i] for i, _ in made.runs(range(5))] == [(0, 2), (5, 7)]


def test_a_value_that_was_changed_is_noticed(store):
    made, _ = store
    chunk = made.path / "0" / "inputs" / "c" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="samples 2 to 3 .their checksum differs"):
        GateTable.load(made.path)


def test_a_checksum_is_written_last(store, monkeypatch):
    """And the one that was there goes first: a run that is cut short leaves nothing that counts."""
    made, table = store

    def full(self, block):
        raise OSError("the disk is full")

    monkeypatch.setattr(GatePieces, "_values", full)
    with pytest.raises(StoreError, match="the disk is full"):
        made.write(2, table.take(slice(2, 4)))
    assert made.missing() == [(2, 4)]


def test_one_lock_a_file(tmp_path):
    with locked(tmp_path / "lock"):
        with (
            pytest.raises(StoreError, match="is being written by process"),
            locked(tmp_path / "lock"),
        ):
            pass
    with locked(tmp_path / "lock"):
        pass


def test_rows_outside_of_a_matrix():
    assert positions([-1, 0], 3, "row").tolist() == [2, 0]
    for outside in (3, -4):
        with pytest.raises(OutOfRange, match=f"there is no row {outside}"):
            positions([outside], 3, "row")
