"""Recording gates: what the traced program must survive."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import record_gates
from npk.errors import DataError, OptionError
from npk.gates.entries import _pooled, _searched
from npk.gates.recording import as_samples, batch_size, record_trace
from npk.gates.table import unpack
from npk.graph.positions import Window
from npk.progress import Silent
from npk.reading.tracing import trace_network
from npk.recursion.masks import Factor, Mask, form_bits, form_real, form_support
from npk.tie import is_on


def test_channels_last_activations_are_flattened(rng):
    """Batches of one channel have ambiguous strides, so torch may put channels last; the traced
    view must not fail.
    """
    net = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 64, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    ).eval()
    net = net.to(memory_format=torch.channels_last)
    X = rng.random((70, 1, 8, 8)).astype(np.float32)
    table = record_gates(net, X)
    expected = net[:3](torch.as_tensor(X)).detach().numpy().reshape(70, 64, 8, 8) > 0
    np.testing.assert_array_equal(table[0], expected)


def test_gates_do_not_depend_on_strides_that_mean_nothing(rng):
    """Strides of an axis of length 1 are arbitrary; convolutions must not round by them."""
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Sigmoid()).eval()
    gated = nn.Conv2d(1, 64, 1)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gating, self.value, self.head = net, gated, nn.Linear(64, 1)

        def forward(self, x):
            return self.head((self.value(x) * self.gating(x)).mean((2, 3)))

    plain = rng.random((70, 1, 8, 8)).astype(np.float32)
    odd = np.lib.stride_tricks.as_strided(plain, plain.shape, (256, 4, 32, 4))
    model = Gated().eval()
    np.testing.assert_array_equal(record_gates(model, odd)[0], record_gates(model, plain)[0])


WINDOWS = {
    "halves": Window((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "overlapping, padded": Window((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "uneven, dilated": Window((2, 3), (1, 2), ((0, 1), (2, 0)), (2, 1)),
    "line": Window((3,), (2,), ((1, 2),), (1,)),
    "volume": Window((2, 1, 3), (2, 1, 1), ((0, 0), (0, 0), (1, 1)), (1, 1, 1)),
    # more offsets than a byte tells apart
    "whole image": Window((17, 18), (17, 18), ((0, 0), (0, 0)), (1, 1)),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_first_maximum_of_windows_with_ties(window, rng):
    sides = (17, 18, 5)[: len(window.kernel)] if len(window.kernel) > 1 else (9,)
    value = torch.as_tensor(rng.integers(-2, 3, (3, 5, *sides)).astype(np.float32))
    torch.testing.assert_close(
        _pooled(window, value).long(), _searched(window, value), rtol=0, atol=0
    )


@pytest.fixture(scope="module")
def trace():
    net = npk.networks.build(
        "conv",
        input_shape=(1, 6, 5),
        classes=2,
        channels=[70, 3],
        pool="max",
        pool_after=[1],
        seed=0,
    )
    return trace_network(net, (1, 6, 5))


def record(trace, X, memory=None):
    return record_trace(trace, X, gates="auto", progress=Silent(), memory=memory)


def test_batches_are_the_same_whatever_the_memory(trace, rng):
    X = rng.standard_normal((50, 1, 6, 5)).astype(np.float32)
    table = record(trace, X)
    with pytest.raises(
        OptionError,
        match=r"memory=1 bytes is too little to record the gates of 50 samples: the "
        r"smallest that works",
    ) as caught:
        batch_size(trace, X, 1)
    least = int(str(caught.value).split("works is ")[1].split()[0])
    assert least > table.nbytes  # samples, gates, and one batch
    assert {batch_size(trace, X, memory) for memory in (None, least, 2 * least)} == {50}
    assert record(trace, X, least).fingerprint() == table.fingerprint()
    with pytest.raises(OptionError, match="too little to record"):
        record(trace, X, least - 1)


def test_a_value_is_read_once_and_not_kept(trace, rng, monkeypatch):
    shapes = []
    monkeypatch.setattr(
        "npk.gates.entries.is_on", lambda q: shapes.append(tuple(q.shape)) or is_on(q)
    )
    monkeypatch.setattr("npk.gates.recording._LARGEST", 4)
    record(trace, rng.standard_normal((6, 1, 6, 5)).astype(np.float32))
    assert shapes == [(4, 70, 6, 5), (4, 3, 3, 2), (2, 70, 6, 5), (2, 3, 3, 2)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_found(bad):
    X = np.zeros((3, 4), np.float32)
    X[1, 2] = bad
    with pytest.raises(DataError, match="X has 1 values that are NaN or infinite"):
        as_samples(X)


def mask_of(name, channels, positions, factors=1, segments=None):
    channels, positions = np.array(channels), np.array(positions)
    read = (
        np.tile(channels, (factors, 1)),
        np.tile(positions, (factors, 1)),
        np.zeros((factors, len(positions)), int),
    )
    return Mask((Factor("gate", name),) * factors, *read, segments or (len(channels),))


@pytest.mark.parametrize("factors", [1, 3])
@pytest.mark.parametrize(
    "places", [range(30), range(1, 30, 4), range(29, -1, -1)], ids=["all", "some", "reversed"]
)
@pytest.mark.parametrize(
    "units", [range(70), range(0, 70, 3), range(69, -1, -1)], ids=["all", "some", "reversed"]
)
def test_masks_read_what_they_say(trace, rng, factors, places, units):
    table = record(trace, rng.standard_normal((4, 1, 6, 5)).astype(np.float32))
    before = table.fingerprint()
    expected = table[0].reshape(4, 70, 30)[:, list(units)][:, :, list(places)].swapaxes(1, 2)
    mask = mask_of(table.names[0], units, places, factors)
    np.testing.assert_array_equal(form_real(mask, table), expected)
    assert form_real(mask, table).dtype == np.float64
    assert form_real(mask, table, "float32").dtype == np.float32
    np.testing.assert_array_equal(unpack(form_bits(mask, table), len(units)), expected)
    assert table.fingerprint() == before


def test_a_mask_adds_up_products(trace, rng):
    table = record(trace, rng.standard_normal((4, 1, 6, 5)).astype(np.float32))
    mask = mask_of(table.names[0], range(0, 70, 3), range(12), factors=2)
    weights = rng.integers(-3, 4, size=(4, 3)).astype(float)
    family = form_real(mask, table).reshape(4, 4, 3, -1)
    summed = replace(mask, weights=weights)
    expected = np.einsum("npfc,pf->npc", family, weights)
    np.testing.assert_array_equal(form_real(summed, table), expected)
    np.testing.assert_array_equal(form_support(summed, table), expected != 0)
    assert not summed.is_hard(table)
    assert summed.size == 4
    assert summed != mask


def test_a_whole_layer_is_no_copy(trace, rng):
    table = record(trace, rng.standard_normal((4, 1, 6, 5)).astype(np.float32))
    name = table.names[0]
    assert np.shares_memory(
        form_bits(mask_of(name, range(70), range(30)), table), table.entries[name].data
    )
