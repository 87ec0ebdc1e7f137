"""What one run asks once: trace, plan, digests of the samples, and each piece of gates that are on
disk.
"""

from collections import Counter

import numpy as np
import pytest
from torch import nn

import npk
from npk.gates.store import GateStore
from npk.gram import engine, sources
from npk.reading import tracing

X = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


@pytest.fixture
def calls(monkeypatch):
    """How often each of the dear functions was called; pieces of gate stores by their folder."""
    counted = Counter()

    def counting(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, **k: (counted.update([name]), real(*a, **k))[1]
        )

    for module, name in ((tracing, "trace_network"), (engine, "plan"), (sources, "samples_digest")):
        counting(module, name)
    take = GateStore.take
    monkeypatch.setattr(
        GateStore,
        "take",
        lambda store, rows: (counted.update([store.path.name]), take(store, rows))[1],
    )
    return counted


def test_a_kernel_in_memory(net, calls):
    npk.kernel(net, X, progress=False)
    assert (calls["trace_network"], calls["plan"]) == (1, 1)


def test_a_kernel_on_disk(net, calls, tmp_path):
    npk.kernel(net, X, out=tmp_path / "K", progress=False)
    assert (calls["trace_network"], calls["plan"], calls["samples_digest"]) == (1, 1, 1)
    calls.clear()
    npk.kernel(net, X, out=tmp_path / "K", progress=False)  # it is finished
    assert (calls["trace_network"], calls["samples_digest"], calls["plan"], calls["rows"]) == (
        1,
        1,
        0,
        0,
    )
