"""A kernel object gives the kernel of the network as it is at each call; options are refused when
they are given.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import NeuralPathKernel
from npk.errors import OptionError, ShapeError, UnsupportedGraphError
from npk.gram.options import KernelOptions
from npk.reading.state import state_of

X = np.random.default_rng(0).standard_normal((6, 5)).astype("f")


def made(net):
    return NeuralPathKernel(net, dtype="float64", progress=False)


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(5, 8),
        nn.PReLU(init=0.25),
        nn.Linear(8, 6),
        nn.LeakyReLU(0.1),
        nn.Dropout(0.5),
        nn.Linear(6, 3),
    ).eval()


def fill(net):
    with torch.no_grad():
        net[1].weight.fill_(0.9)


def fill_behind_torch(net):
    net[1].weight.data.fill_(0.9)


def fill_by_numpy(net):
    net[1].weight.detach().numpy()[:] = 0.9


def replace_a_parameter(net):
    net[0].weight = nn.Parameter(torch.randn(8, 5))


def replace_a_module(net):
    net[3] = nn.ReLU()


def change_an_attribute(net):
    net[3].negative_slope = 0.4


def load_other_values(net):
    net.load_state_dict({name: value + 0.5 for name, value in net.state_dict().items()})


def change_the_forward(net):
    net[3].forward = lambda x: nn.functional.leaky_relu(x, 0.7)


def train_a_step(net):
    with torch.no_grad():
        net[0].weight -= 0.3


CHANGES = [
    fill,
    fill_behind_torch,
    fill_by_numpy,
    replace_a_parameter,
    replace_a_module,
    change_an_attribute,
    load_other_values,
]
CHANGES += [change_the_forward, train_a_step]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_kernel_is_that_of_the_network_as_it_is_now(net, change):
    kernel = made(net)
    before = kernel(X)
    change(net)
    expected = made(net)(X)
    assert not np.array_equal(before, expected)
    np.testing.assert_array_equal(kernel(X), expected)


class Computed(nn.Module):
    """A weight and a slope that are computed from tensors of the network."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(5, 8))
        self.last, self.slope = nn.Linear(8, 3), nn.Parameter(torch.tensor(0.25))
        self.register_buffer("bound", torch.tensor(0.0))

    def forward(self, x):
        q = self.first(x)
        return self.last(torch.where(q > self.bound, q, self.slope * q))


def change_what_a_weight_is_computed_from(net):
    with torch.no_grad():
        net.first.parametrizations.weight.original1[:, :2] *= -3


def change_a_slope(net):
    with torch.no_grad():
        net.slope.fill_(0.9)


@pytest.mark.parametrize(
    "change",
    [change_what_a_weight_is_computed_from, change_a_slope],
    ids=lambda change: change.__name__,
)
def test_what_was_computed_once_is_computed_anew(change):
    net = Computed().eval()
    kernel = made(net)
    before = kernel(X)
    change(net)
    expected = made(net)(X)
    assert not np.array_equal(before, expected)
    np.testing.assert_array_equal(kernel(X), expected)


def test_a_network_that_went_into_train_mode_is_refused(net):
    kernel = made(net)
    kernel(X)
    net.train()
    with pytest.raises(UnsupportedGraphError, match="dropout in train mode"):
        kernel(X)


@pytest.mark.parametrize("name", ["net", "options", "bias", "scale", "memory", "engine"])
def test_a_kernel_object_does_not_change(net, name):
    kernel = made(net)
    before = kernel(X)
    with pytest.raises(OptionError, match=f"{name} was assigned. Make another one"):
        setattr(
            kernel,
            name,
            nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
            if name == "net"
            else "count",
        )
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernel.options.scale = "count"
    np.testing.assert_array_equal(kernel(X), before)


def test_a_network_that_did_not_change_is_traced_once(net, monkeypatch):
    from npk.reading import tracing

    kernel, calls = made(net), []
    kernel(X)
    monkeypatch.setattr(tracing, "trace_network", lambda *_: calls.append(1))
    kernel(X)
    train_a_step(net)  # the traced program reads the same memory
    kernel(X)
    assert not calls


def test_a_gate_table_of_another_state_does_not_go_with_the_network(net):
    table = npk.record_gates(net, X)
    kernel = made(net)
    before = kernel(table)
    fill(net)
    with pytest.raises(ShapeError, match="different path graphs"):
        kernel(table, X)
    np.testing.assert_array_equal(kernel(table), before)  # a table is a state of its own


def test_what_a_state_looks_at():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.numbers, self.table, self.array = [1, (2, 3)], {"a": 1.0}, np.zeros(3)
            self.tensor, self.nothing = torch.zeros(2), None
            self.numbers.append(self.numbers)  # a list in itself

    net = Odd()
    state = state_of(net)
    assert state == state_of(net)
    assert state != state_of(Odd())
    for change in (
        lambda: net.numbers.insert(0, 5),
        lambda: net.table.update(a=True),
        lambda: net.array.fill(1),
        lambda: setattr(net, "tensor", torch.zeros(2)),
        lambda: net.register_forward_hook(lambda *_: None),
        lambda: setattr(net, "nothing", 0),
    ):
        change()
        assert state != state_of(net)
        state = state_of(net)


@pytest.mark.parametrize("option", ["scale", "dtype", "gates", "value_input", "bias", "backend"])
@pytest.mark.parametrize("value", ["bogus", None, ["x"], 3])
def test_options_are_refused_when_they_are_given(option, value):
    with pytest.raises(OptionError, match=rf"{option}=.* is not known. Choose one of .*, "):
        NeuralPathKernel(None, **{option: value})
    with pytest.raises(OptionError, match=rf"{option}="):
        KernelOptions(**{option: value})


def test_a_memory_that_is_no_size_is_refused_when_it_is_given():
    with pytest.raises(OptionError, match="memory="):
        NeuralPathKernel(None, memory="much")
