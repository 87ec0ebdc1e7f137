"""Chains of dense layers run as one product of overlaps, biases added on the way; everything else
as a program.
"""

import itertools

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.exponents import find_exponents
from npk.backends.product import as_product
from npk.backends.reference import evaluate
from npk.recursion.planning import plan


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.h = nn.Linear(5, 70), nn.Linear(70, 70), nn.Linear(70, 2)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.h(torch.relu(self.b(h) + h))


class Shift(nn.Module):
    def forward(self, x):
        return x - 0.75


def chain(*widths, gate=nn.ReLU):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), gate())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def gated(value_input):
    return npk.networks.build(
        "fc", "dlgn", input_shape=(5,), classes=3, hidden=[70, 70], value_input=value_input, seed=0
    )


PRODUCTS = {
    "hard": lambda: (chain(5, 70, 64, 3), (5,)),
    "deep": lambda: (chain(5, *[130] * 20), (5,)),
    "leaky": lambda: (chain(5, 70, 70, gate=nn.LeakyReLU), (5,)),
    "soft": lambda: (gated("x"), (5,)),
    "soft, ones": lambda: (gated("ones"), (5,)),
    "flattened pictures": lambda: (nn.Sequential(nn.Flatten(), chain(12, 70, 33)), (2, 2, 3)),
    "channels last": lambda: (
        nn.Sequential(nn.Unflatten(1, (2, 6)), nn.Flatten(), chain(12, 70)),
        (12,),
    ),
    "scaled": lambda: (nn.Sequential(chain(5, 70), nn.BatchNorm1d(3), nn.Linear(3, 2)), (5,)),
    "normed": lambda: (
        nn.Sequential(
            nn.Linear(5, 70), nn.BatchNorm1d(70), nn.ReLU(), nn.BatchNorm1d(70), chain(70, 40)
        ),
        (5,),
    ),
    "shifted input": lambda: (nn.Sequential(Shift(), nn.Flatten(), chain(12, 70)), (2, 2, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_the_recursion(name, bias, dtype, rng):
    net, shape = PRODUCTS[name]()
    table = npk.record_gates(net.eval(), rng.standard_normal((29, *shape)).astype(np.float32))
    rows, cols = table.take(slice(0, 11)), table.take(slice(11, None))
    recursion = plan(table.graph, bias=bias)
    product = as_product(recursion)
    assert product
    assert product.is_biased == (bias == "paths")
    backend, exponents = CpuBackend(recursion, table, dtype), find_exponents(recursion, table)
    expected = evaluate(recursion, rows, cols, exponents)
    assert_kernels_equal(
        backend.tile(backend.side(rows), backend.side(cols), exponents), expected, dtype
    )


def test_biases_are_on_the_scale_of_their_steps():
    """Powers of two are taken out exactly: a product with them is the product without, divided."""
    recursion = plan(npk.trace(chain(5, 70, 70).eval(), (5,)), bias="paths", scale="count")
    product = as_product(recursion)
    assert product.biases == (1.0, 1.0, 1.0)
    exponents = np.array([4, 5, 9, 9, 14, 15, 16])
    found, plain = 1.0, 1.0
    scales, constants = product.scales(exponents), product.constants(exponents)
    for overlap, scale, constant in zip((3.0, 50.0, 11.0), scales, constants, strict=True):
        found, plain = found * overlap * scale + constant, plain * overlap + 1
    assert found * 2.0**16 == plain


def test_triangle_of_a_product(rng):
    table = npk.record_gates(
        chain(5, 70, 70).eval(), rng.standard_normal((83, 5)).astype(np.float32)
    )
    recursion = plan(table.graph, bias="ignore")
    backend, exponents = CpuBackend(recursion, table, "float32"), find_exponents(recursion, table)
    side = backend.side(table)
    half, whole = (
        backend.tile(side, side, exponents, diagonal=0),
        backend.tile(side, side, exponents),
    )
    # to the bit: what is computed does not depend on what is not
    np.testing.assert_array_equal(np.triu(half), np.triu(whole))


@pytest.mark.parametrize(
    ("net", "shape", "options"),
    [
        (Skip(), (5,), {}),
        (nn.Sequential(chain(5, 8), nn.ReLU6(), nn.Linear(3, 2)), (5,), {"bias": "paths"}),
        (
            nn.Sequential(Shift(), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
            (1, 4, 4),
            {"bias": "paths"},
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
            (1, 4, 4),
            {},
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False)), (4, 1), {"value_input": "ones"}),
    ],
)
def test_other_networks_are_no_products(net, shape, options):
    assert as_product(plan(npk.trace(net.eval(), shape), **{"bias": "ignore", **options})) is None
