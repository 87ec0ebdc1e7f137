"""Paths from biases cost next to nothing: constants become biases of the fields that they stand
beside, and never change a number.
"""

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.reference import ReferenceBackend
from npk.definition.paths import path_kernel
from npk.recursion.planning import plan
from npk.recursion.steps import Collapse, Field

pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")


class Of(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, run, *layers):
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, x):
        return self.run(x, *self.layers)


def norm():
    """A batch norm whose numbers are none of those that it begins with."""
    made = nn.BatchNorm2d(2)
    made.running_mean.copy_(torch.tensor([0.25, -0.5]))
    made.bias.data.copy_(torch.tensor([0.5, 1.0]))
    return made


def conv(**options):
    return nn.Conv2d(2, 2, 2, **options)


def behind(*layers):
    """Layers behind which a gate and a convolution follow."""
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(2, 1, 2))


SHAPE = (2, 3, 3)
# network, how many constants stay terms of their own, largest bias of a field on the scale "count"
CASES = {
    "batch norm": (lambda: behind(conv(bias=False), norm()), 0, 1),
    "batch norm and a bias": (lambda: behind(conv(), norm()), 0, 2),
    "several": (lambda: behind(conv(), norm(), Of(lambda x: x - 0.5)), 0, 2.25),
    "depthwise": (lambda: behind(conv(groups=2), norm()), 0, 2),
    "a sum of two layers": (
        lambda: behind(Of(lambda x, a, b: a(x) + b(x), conv(), conv(bias=False)), norm()), 0, 2
    ),
    "positions moved": (lambda: behind(conv(), Of(lambda x: x.flip(2)), norm()), 0, 2),
    "channels moved": (lambda: behind(conv(), Of(lambda x: x.flip(1)), norm()), 0, 2),
    "read twice": (
        lambda: behind(Of(lambda x, a, b: (q := a(x)) + torch.relu(b(q)), conv(), norm())), 0, 1
    ),
    "two norms of one layer": (
        lambda: behind(
            Of(lambda x, a, b, c: b(q := a(x)) + torch.relu(c(q)), conv(), norm(), norm())
        ), 0, 1
    ),
    "behind a gate": (lambda: behind(conv(), nn.ReLU(), norm()), 1, 1),
    "padded": (lambda: behind(conv(), nn.ZeroPad2d(1), norm()), 1, 1),
    "padded in circles": (lambda: behind(conv(), nn.CircularPad2d(1), norm()), 0, 2),
    "pooled": (lambda: behind(nn.Conv2d(2, 2, 1), nn.AvgPool2d(2, 1), norm()), 1, 1),
    "scaled": (lambda: behind(conv(), Of(lambda x: 2 * x + 1)), 0, 1),
    "joined": (
        lambda: behind(
            Of(lambda x, a, b: torch.cat([a(x), b(x)], 1), nn.Conv2d(2, 1, 2), nn.Conv2d(2, 1, 2)),
            norm(),
        ), 0, 2
    ),
    "before the first layer": (lambda: behind(norm(), conv()), 1, 1),
    "at the end": (lambda: nn.Sequential(conv(), nn.Flatten(), nn.Linear(8, 2), nn.BatchNorm1d(2)), 0, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_constants_are_biases_where_nothing_else_reads_the_field(name, rng):
    make, terms, bias = CASES[name]
    net = make().double().eval()
    table = npk.record_gates(net, rng.standard_normal((4, *SHAPE)))
    recursion = plan(table.graph, bias="paths", scale="count")
    collapses = [step for step in recursion.steps if isinstance(step, Collapse)]
    constants = [t for s in collapses for t in s.terms if t.field is None]
    assert len(constants) == 1 + terms
    assert max(s.bias for s in recursion.steps if isinstance(s, Field)) == bias
    for scale in ("count", "fan_in"):
        expected = np.array(path_kernel(table, table, scale=scale, bias="paths"))
        sizes = np.diagonal(expected)
        for backend in ("reference", "cpu"):
            actual = npk.kernel(
                table, scale=scale, bias="paths", backend=backend, dtype="float64", progress=False
            )
            assert_kernels_equal(actual, expected, "float64", (sizes, sizes))


def test_the_plan_shows_its_biases():
    recursion = plan(npk.trace(behind(conv(), norm()).eval(), SHAPE), bias="paths", scale="count")
    assert "4 offsets on 2x2 from 0, factor 1, bias 2\n" in str(recursion)
    ignored = plan(npk.trace(behind(conv(), norm()).eval(), SHAPE), bias="ignore")
    assert "bias" not in str(ignored)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sample_that_only_its_biases_reach_beside_a_large_one(dtype, rng):
    """On the scale of the large one the constants are below what the numbers hold."""
    net = nn.Sequential(nn.Linear(3, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 2)).eval()
    X = np.concatenate([1e60 * rng.standard_normal((3, 3)), np.zeros((1, 3))])
    table = npk.record_gates(net.double(), X)
    expected = np.array(path_kernel(table, table, scale="fan_in", bias="paths"))
    actual = npk.kernel(
        table, bias="paths", scale="cosine", dtype=dtype, backend="cpu", progress=False
    )
    sizes = np.sqrt(np.diagonal(expected))
    assert_kernels_equal(actual, expected / np.outer(sizes, sizes), dtype)


def before(**options):
    """Two blocks with gates before layers, and a gate before the last one."""

    def run(x, stem, *layers):
        x = stem(x)
        for norm, layer in zip(layers[::2], layers[1::2], strict=True):
            x = x + layer(torch.relu(norm(x)))
        return x

    same = {"padding": 1, "bias": False, **options}
    layers = [layer for _ in range(3) for layer in (norm(), nn.Conv2d(2, 2, 3, **same))]
    return Of(run, conv(), *layers)


def dense():
    """Two layers, each of all channels so far behind a batch norm of its own, and a third norm."""

    def run(x, stem, *layers):
        x = stem(x)
        for norm, layer in zip(layers[::2], layers[1::2], strict=False):
            x = torch.cat([x, layer(torch.relu(norm(x)))], 1)
        return layers[-1](x)

    norms = [nn.BatchNorm2d(channels) for channels in (2, 3, 5)]
    layers = [nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)]
    return Of(run, conv(), norms[0], layers[0], norms[1], layers[1], norms[2])


def twice(x, layer, norm):
    """A sum with what a batch norm makes of it."""
    x = layer(x)
    return x + norm(x)


def shortcuts(x, a, b, c, d):
    """A block whose shortcut has parameters, and one that has none."""
    x = torch.relu(a(x) + b(x))
    return x + d(torch.relu(c(x)))


# network; steps of the plan without paths from biases, and with them
EQUAL = {
    "gates before": (lambda: nn.Sequential(before(), norm()), 14, 15),
    "the same in groups": (lambda: nn.Sequential(before(groups=2), norm()), 13, 14),
    "pooled": (lambda: nn.Sequential(before(), nn.ReLU(), nn.ReflectionPad2d(1), nn.AvgPool2d(2)), 14, 15),
    "a number is added": (lambda: nn.Sequential(before(), Of(lambda x: 0.5 * x - 2)), 14, 16),
    "joined": (dense, 9, 11),
    "the same field twice": (lambda: Of(twice, conv(), norm()), 6, 7),
    "shortcuts": (
        lambda: Of(shortcuts, conv(), conv(), *(nn.Conv2d(2, 2, 3, padding=1) for _ in "cd")), 11, 11
    ),
}  # fmt: skip


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", EQUAL)
def test_fields_that_meet_one_mask_are_added_before_the_overlap(name, bias, rng):
    make, *steps = EQUAL[name]
    net = nn.Sequential(make(), nn.ReLU(), nn.LazyConv2d(1, 2)).double().eval()
    net(torch.zeros(1, *SHAPE, dtype=torch.float64))
    table = npk.record_gates(net, rng.integers(-3, 4, (5, *SHAPE)).astype(float))
    apart, merged = (
        plan(table.graph, bias=bias, scale="count", merged=merged) for merged in (False, True)
    )
    assert len(merged.steps) == steps[bias == "paths"]
    for step in merged.steps:
        terms = [t for t in getattr(step, "terms", ()) if t.mask is not None]
        assert len(terms) == len({(t.mask, t.blocks.tobytes()) for t in terms})
    expected = tile(ReferenceBackend, apart, table)
    np.testing.assert_array_equal(tile(ReferenceBackend, merged, table), expected)
    np.testing.assert_array_equal(tile(CpuBackend, merged, table), expected)


def tile(backend, recursion, table):
    """All pairs, without any scale: the numbers are whole, or have a few bits behind the point."""
    made = backend(recursion, table, "float64")
    side = made.side(table)
    return made.tile(side, side, np.zeros(len(recursion.steps), np.int64))
