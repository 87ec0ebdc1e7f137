"""The door for samples: each form that people have them in gives its values, or a refusal that
names it.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch import nn
from torch.utils import data

import npk
from npk.errors import DataError, ShapeError
from npk.networks import train
from npk.samples import as_samples

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
TENSOR = torch.tensor(X)


class Pairs(data.Dataset):
    """Samples and labels."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return TENSOR[i], i


class Named(Pairs):
    def __getitem__(self, i):
        return {"image": TENSOR[i], "label": i}


class Broken(Pairs):
    def __getitem__(self, i):
        raise KeyError("no such file")


class Stream(data.IterableDataset):
    def __iter__(self):
        return iter(TENSOR)


def loader(**options):
    return data.DataLoader(Pairs(), **{"batch_size": 2, **options})


def picture(mode="RGB"):
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).convert(mode)


def quietly(make):
    """What torch calls a prototype."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


GIVEN = {
    "half": (TENSOR.half(), TENSOR.half().float()),
    "bfloat16": (TENSOR.bfloat16(), TENSOR.bfloat16().float()),
    "whole numbers": ((TENSOR * 9).int(), (TENSOR * 9).int().float()),
    "bytes": (
        torch.arange(20, dtype=torch.uint8).reshape(5, 4),
        np.arange(20, dtype=np.float32).reshape(5, 4) / np.float32(255),
    ),
    "truth values": (TENSOR > 0, X > 0),
    "with a gradient": (TENSOR.clone().requires_grad_(), X),
    "negative by a bit": (torch.complex(TENSOR, -TENSOR).conj().imag, X),
    "transposed": (TENSOR.T.contiguous().T, X),
    "backwards": (X[::-1, ::-1], X[::-1, ::-1].copy()),
    "big-endian": (X.astype(">f4"), X),
    "masked without a mask": (np.ma.array(X), X),
    "matrix": (np.asmatrix(X), X),
    "table": (pd.DataFrame(X), X),
    "table with types of its own": (
        pd.DataFrame({"a": pd.array([1, 2], dtype="Int64"), "b": [0.5, 1.5]}),
        [[1, 0.5], [2, 1.5]],
    ),
    "list of tensors": (list(TENSOR.clone().requires_grad_()), X),
    "list of arrays": (list(X), X),
    "tuple of both": ((TENSOR[0], X[1]), X[:2]),
    "lists of numbers": (X.tolist(), X),
    "pictures": ([picture(), picture()], np.stack([np.asarray(picture())] * 2) / np.float32(255)),
    "TensorDataset": (data.TensorDataset(TENSOR, TENSOR[:, 0]), X),
    "data set of pairs": (Pairs(), X),
    "Subset": (data.Subset(Pairs(), [3, 1]), X[[3, 1]]),
    "loader": (loader(), X),
    "loader without batches": (loader(batch_size=None), X),
    "loader that drops nothing": (loader(batch_size=5, drop_last=True), X),
    "npk's Dataset": (npk.data.Dataset(X, None, (), "five"), X),
}

REFUSED = {
    "complex": (TENSOR.to(torch.complex64), "Complex data not supported"),
    "sparse tensor": (TENSOR.to_sparse(), r"X is sparse \(torch.sparse_coo\). Give X.to_dense"),
    "compressed tensor": (quietly(TENSOR.to_sparse_csr), "X is sparse"),
    "sparse matrix": (scipy.sparse.csr_matrix(X), r"X is sparse \(csr_matrix\). Give X.toarray"),
    "sparse array": (scipy.sparse.coo_array(X), "X is sparse"),
    "no values": (TENSOR.to("meta"), "on the meta device"),
    "nested": (quietly(lambda: torch.nested.as_nested_tensor([TENSOR, TENSOR[:3]])), "nested"),
    "masked": (np.ma.array(X, mask=np.eye(5, 4) > 0), "masked array with 4 values masked"),
    "masked inside a list": ([X[0], np.ma.array(X[1], mask=True)], r"X\[1\] is a masked array"),
    "objects": (X.astype(object), "Python objects"),
    "fields": (np.zeros(3, [("a", "f4"), ("b", "f4")]), "X has the fields a, b"),
    "times": (np.zeros((2, 2), "M8[s]"), "Give an array of numbers"),
    "table of text": (
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        "columns that hold no numbers: b",
    ),
    "table with gaps": (
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, 1.5]}),
        "1 values that are NaN",
    ),
    "ragged lists": ([[1, 2, 3, 4], [1, 2, 3]], "X is ragged"),
    "ragged tensors": (
        [TENSOR[0], TENSOR[1, :3]],
        r"X is ragged: sample 0 has shape \(4,\), "
        r"sample 1 has \(3,\)",
    ),
    "pairs": ([(TENSOR[0], 1), (TENSOR[1], 0)], "list of pairs"),
    "a gap": ([TENSOR[0], None], r"X\[1\] is None"),
    "generator": ((x for x in X), "generator without a length"),
    "stream": (Stream(), "Stream without a length"),
    "loader of a stream": (data.DataLoader(Stream()), "without a length"),
    "loader that shuffles": (loader(shuffle=True), "in the order of its RandomSampler"),
    "batches that shuffle": (
        data.DataLoader(Pairs(), batch_sampler=data.BatchSampler(data.RandomSampler(X), 2, False)),
        "in the order of its RandomSampler",
    ),
    "loader that drops": (loader(drop_last=True), "leaves out the last 1 samples"),
    "items with names": (Named(), "items have the entries image, label"),
    "items that fail": (Broken(), "failed with KeyError: 'no such file'"),
    "dictionary": ({"X": X}, "X is a dict with the entries X"),
    "notation": ("digits", r"npk.data.load\('digits'\).X"),
    "nothing": (None, "X is None"),
    "a number": (3, "X is of type int"),
    "a class": (np.ndarray, "X is the class ndarray"),
    "a network": (nn.Linear(4, 2), "X is of type Linear"),
    "numbers of colours": (picture("P"), r"Give picture.convert\('RGB'\)"),
    "one sample": (X[0], r"Is it one sample\? Give X\[None\]"),
    "no sample": (X[:0], "n at least 1"),
    "too large": (np.full((2, 2), 10, np.longdouble) ** 400, "NaN or infinite"),
}


@pytest.mark.parametrize(("given", "expected"), GIVEN.values(), ids=GIVEN)
def test_values_come_through_as_they_are(given, expected):
    actual = as_samples(given)
    np.testing.assert_array_equal(actual, np.asarray(expected))
    assert actual.dtype in (np.float32, np.float64)


@pytest.mark.parametrize(("given", "why"), REFUSED.values(), ids=REFUSED)
def test_what_would_have_to_be_guessed_is_refused_by_name(given, why):
    with pytest.raises(DataError, match=why):
        as_samples(given)


def test_eight_bytes_stay_eight_bytes():
    wide = X.astype(np.float64) + 1e-12
    np.testing.assert_array_equal(as_samples(wide.astype(">f8")), wide)
    assert as_samples(wide) is wide


def test_reading_a_loader_draws_no_random_numbers():
    own = torch.Generator().manual_seed(1)
    before = torch.get_rng_state(), own.get_state()
    as_samples(loader(generator=own))
    as_samples(loader())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(own.get_state(), before[1])


def test_one_door_for_all_who_take_samples():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    K = npk.kernel(net, X, progress=False)
    np.testing.assert_array_equal(npk.kernel(net, loader(), progress=False), K)
    np.testing.assert_array_equal(npk.record_gates(net, Pairs()).inputs, X)
    with pytest.raises(DataError, match="X is sparse"):
        npk.check_ensemble(net, TENSOR.to_sparse())
    with pytest.raises(DataError, match="X is sparse"):
        npk.check_invariance(net, TENSOR.to_sparse())
    with pytest.raises(DataError, match="X is sparse"):
        train(net, TENSOR.to_sparse(), np.arange(5) % 2, epochs=1, progress=False)
    train(net, Pairs(), torch.arange(5) % 2, epochs=1, validation=0, progress=False)


CONV = nn.Sequential(
    nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
).eval()
SERIES = nn.Sequential(nn.Conv1d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
GREY = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
FLAT = nn.Sequential(nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
OWN = npk.networks.build("fc", input_shape=(3, 8, 8), classes=2, hidden=[4])
LAYOUTS = {
    "channels last": (
        CONV,
        (5, 32, 32, 3),
        "X is (n, 32, 32, 3); the network wants (3, 32, 32): channels stand last, give "
        "X.transpose(0, 3, 1, 2)",
    ),
    "channels last, taken by a dense network": (
        OWN,
        (5, 8, 8, 3),
        "the network wants (3, 8, 8): channels stand last, give X.transpose(0, 3, 1, 2)",
    ),
    "channels last in a series": (
        SERIES,
        (5, 8, 3),
        "the network wants (3, 8): channels stand last, give X.transpose(0, 2, 1)",
    ),
    "one picture": (CONV, (3, 8, 9), "it is one sample, give X[None]"),
    "one picture, channels last": (
        CONV,
        (8, 9, 3),
        "it is one sample whose channels stand last, give X.transpose(2, 0, 1)[None]",
    ),
    "no axis of channels": (
        GREY,
        (5, 8, 8),
        "the axis of the channels is missing, give X[:, None]",
    ),
    "pictures for vectors": (
        FLAT,
        (5, 1, 8, 8),
        "samples should be vectors, give X.reshape(len(X), -1)",
    ),
    "neither": (FLAT, (5, 63), "does not accept samples of shape (63,)"),
}


@pytest.mark.parametrize(("net", "shape", "why"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_wrong_layout_is_named(net, shape, why):
    with pytest.raises(ShapeError) as refusal:
        npk.kernel(net, np.ones(shape, np.float32), progress=False)
    assert why in str(refusal.value)
