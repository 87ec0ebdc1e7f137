"""The kernel averaged over a group, against the mean written out."""

import numpy as np
import pytest
from test_invariance import ZEROS, Copies, draw, made, network, plain
from torch import nn

import npk
from npk.errors import DataError, OptionError

X, Y = draw(3, 1, 4, 4), draw(5, 1, 4, 4)[3:]
ALL = [(i, j) for i in range(4) for j in range(4)]
PLAIN = {"dtype": "float64", "progress": False}
NETWORKS = {
    "circular": plain,
    "stride": lambda: plain(second={"stride": 2}),
    "zero padding": lambda: plain(first=ZEROS),
    "flatten": lambda: network(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
}


def shifted(A, by):
    return np.roll(A, by, (2, 3))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cols", [None, Y])
def test_one_side_is_the_mean_of_the_formula(name, cols):
    net = NETWORKS[name]()
    other = X if cols is None else cols
    kernel = npk.NeuralPathKernel(net, **PLAIN)
    expected = np.mean([kernel(shifted(X, by), other) for by in ALL], 0)
    found = npk.orbit_average(net, X, cols, **PLAIN)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["stride", "zero padding"])
def test_both_sides_are_an_inner_product(name):
    net = NETWORKS[name]()
    kernel = npk.NeuralPathKernel(net, **PLAIN)
    copies = np.concatenate([shifted(X, by) for by in ALL])
    expected = kernel(copies, copies).reshape(16, 3, 16, 3).mean((0, 2))
    found = npk.orbit_average(net, X, sides="both", **PLAIN)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.trace(found)
    cosine = npk.orbit_average(net, X, sides="both", scale="cosine", **PLAIN)
    root = np.sqrt(np.diag(found))
    np.testing.assert_allclose(cosine, found / np.outer(root, root), rtol=1e-10)


def test_the_average_does_not_see_where_things_are():
    net = NETWORKS["zero padding"]()
    K = npk.orbit_average(net, X, Y, **PLAIN)
    np.testing.assert_allclose(
        npk.orbit_average(net, shifted(X, (1, 3)), Y, **PLAIN), K, rtol=1e-11
    )
    plainly = npk.kernel(net, shifted(X, (1, 3)), Y, **PLAIN)
    assert abs(plainly - npk.kernel(net, X, Y, **PLAIN)).max() > 1e-3 * abs(plainly).max()


def test_one_element_of_each_coset_is_enough(monkeypatch):
    calls = []
    kernel = npk.NeuralPathKernel.__call__
    monkeypatch.setattr(
        npk.NeuralPathKernel, "__call__", lambda self, *a: calls.append(a) or kernel(self, *a)
    )
    for name, count in (("circular", 1), ("stride", 4), ("zero padding", 16)):
        calls.clear()
        npk.orbit_average(NETWORKS[name](), X, **PLAIN)
        assert len(calls) == count


def test_other_groups_and_some_shifts():
    net = made(Copies())
    np.testing.assert_allclose(
        npk.orbit_average(net, X, group="turns", **PLAIN), npk.kernel(net, X, **PLAIN), rtol=1e-11
    )
    some = [(0, 0), (1, 2)]
    net = NETWORKS["stride"]()
    expected = np.mean([npk.kernel(net, shifted(X, by), X, **PLAIN) for by in some], 0)
    found = npk.orbit_average(net, X, shifts=some, **PLAIN)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert npk.orbit_average(net, X, shifts=some).dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "options", "error", "why"),
    [
        ((3, 5), {}, DataError, "has no positions to move"),
        ((3, 1, 4, 4), {"sides": "three"}, OptionError, "sides='three' is not known"),
        ((3, 1, 4, 4), {"scale": "cosine"}, OptionError, "scale='cosine' divides by lengths"),
        ((3, 1, 4, 4), {"bias": "some"}, OptionError, "bias='some' is not known"),
    ],
)
def test_what_is_refused(shape, options, error, why):
    with pytest.raises(error, match=why):
        npk.orbit_average(plain(), draw(*shape), **options)
