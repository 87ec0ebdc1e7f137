"""The order in which the CPU engine runs a program: units as soon as what they wait for is
added up.
"""

import numpy as np
import pytest
import torch
from test_engine import compiled
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cpu.sums import arrange
from npk.backends.program.program import COLUMNS, DRAIN, LOAD, REDUCE
from npk.recursion.planning import plan


def pools(side=8, *behind):
    """Three pools, so that units of three levels wait for each other."""
    torch.manual_seed(0)
    layers = []
    for before, width in ((1, 9), (9, 9), (9, 9)):
        conv = nn.Conv2d(before, width, 3, padding=1)
        layers += [conv, nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, *behind, nn.Flatten(), nn.LazyLinear(2)).eval()
    net(torch.zeros(1, 1, side, side))  # now it knows how wide it is
    samples = np.random.default_rng(0).standard_normal((5, 1, side, side)).astype(np.float32)
    return npk.record_gates(net, samples)


def program_of(table):
    return CpuBackend(plan(table.graph, bias="ignore"), table, "float32").runner.program


def loaded(operations, tables, count, order):
    """What each load finds: number of the reduction and of its contribution, in a set."""
    at = {name: COLUMNS.index(name) for name in COLUMNS}
    sums = [[] for _ in range(count)]
    found = {}
    for number, row in zip(order, operations, strict=True):
        first, cells = row[at["sums"]], row[at["cells"]]
        if row[at["kind"]] in (REDUCE, DRAIN):
            targets = tables[row[at["out"]] :][: 1 if row[at["kind"]] == DRAIN else cells]
            for i, target in enumerate(targets):
                sums[first + target].append((number, i))
        elif row[at["kind"]] == LOAD:
            found[number] = [set(some) for some in sums[first : first + cells]]
            for some in sums[first : first + cells]:
                some.clear()
    return found, any(sums)


def drained():
    """A convolution behind the pools, whose window sums a global pool adds up."""
    return nn.Conv2d(9, 9, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)


@pytest.mark.parametrize(
    ("side", "behind", "drains"), [(8, (), True), (16, (), False), (32, drained(), True)]
)
def test_sums_are_loaded_whole(side, behind, drains):
    program = program_of(pools(side, *behind))
    assert (DRAIN in program.operations[:, COLUMNS.index("kind")]) == drains
    arranged = arrange(program)
    expected, left = loaded(
        program.operations, program.tables, program.sums, range(len(program.operations))
    )
    found, left_now = loaded(arranged.operations, arranged.targets, arranged.sums, arranged.order)
    assert found == expected
    assert not left
    assert not left_now


def test_sums_that_were_read_are_used_again():
    program = program_of(pools(32))
    assert arrange(program).sums < program.sums / 3


@pytest.mark.parametrize("name", ["resnet", "gated stream", "product"])
def test_units_of_one_level_keep_their_order(name):
    program = compiled(name)
    assert arrange(program).order.tolist() == list(range(len(program.operations)))


def test_sums_begin_at_zero_in_each_group_of_samples():
    """Tiles of one group after the other have what each has alone."""
    table = pools()
    table = table.take(np.arange(40) % 5)
    kernel = npk.kernel(table, bias="ignore", progress=False)
    np.testing.assert_array_equal(np.asarray(kernel)[5:10, 5:10], np.asarray(kernel)[:5, :5])
    np.testing.assert_array_equal(np.asarray(kernel)[35:, :5], np.asarray(kernel)[:5, :5])
