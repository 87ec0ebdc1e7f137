"""What a kernel is said to take: measured, and added up."""

import time

import numpy as np
import pytest

import npk
from npk.gram.kernel import NeuralPathKernel
from npk.gram.pace import Cost, measure


@pytest.fixture
def table(rng):
    net = npk.networks.build("fc", input_shape=(5,), classes=3, hidden=[7], seed=0)
    return npk.record_gates(net.eval(), rng.normal(size=(6, 5)).astype(np.float32))


def test_seconds_are_those_before_the_first_tile_of_samples_and_of_pairs(table):
    cost = Cost(NeuralPathKernel(None), None, table, 8.0, 0.5, 0.25)
    assert cost.seconds(4) == 8 + 4 * 0.5 + 10 * 0.25
    assert cost.seconds(2, 3) == 8 + 5 * 0.5 + 6 * 0.25


def test_what_came_before_counts(table, monkeypatch):
    monkeypatch.setattr("npk.gram.pace._LONG_ENOUGH", 0.0)
    kernel = NeuralPathKernel(None, progress=False)
    began = time.perf_counter() - 1000
    cost = measure(kernel, table, began=began, recorded=100.0)
    assert 1000 <= cost.before <= time.perf_counter() - began
    assert 100 < cost.seconds_a_sample < 101
    assert 0 < cost.seconds_a_pair < 1
    assert measure(kernel, table).before < 900
