"""What is said of things that are no network, of a forward that fails, and of what cannot be
traced; outputs in containers; ensembles.
"""

import re
import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import NpkError, OptionError, ShapeError, UnsupportedGraphError
from npk.networks.given import as_shape

X = np.random.default_rng(0).standard_normal((5, 4)).astype("f")
Pair = namedtuple("Pair", "logits aux")


@dataclass
class Output:
    logits: Any
    loss: Any = None


class Net(nn.Module):
    """Two branches and a function of them."""

    def __init__(self, function):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a, self.b = (
                nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(2)
            )
        self.function = function
        self.eval()

    def forward(self, x):
        return self.function(self, x)


def kernel(function):
    return npk.kernel(Net(function), X, progress=False)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4))


KINDS = {
    "a path": ("net.safetensors", "net is a str"),
    "a state dict": (nn.Linear(4, 3).state_dict(), "net is a OrderedDict"),
    "a class": (nn.Linear, "net is the class Linear"),
    "a function": (kernel, "net is a function"),
    "an array": (X, "net is a ndarray"),
    "TorchScript": (scripted(), r"which is TorchScript.*torch\.jit\.save.*npk\.load"),
    "a part of TorchScript": (
        nn.Sequential(nn.ReLU(), scripted()),
        r"its part '1' is a TopLevelTracedModule, which is TorchScript",
    ),
}
DOORS = {
    "kernel": lambda net: npk.kernel(net, X, progress=False),
    "NeuralPathKernel": lambda net: npk.NeuralPathKernel(net, progress=False),
    "trace": lambda net: npk.trace(net, (4,)),
    "record_gates": lambda net: npk.record_gates(net, X),
    "check_duality": lambda net: npk.check_duality(net, X),
    "check_ensemble": lambda net: npk.check_ensemble(net, X),
    "choose_output": lambda net: npk.choose_output(net, 0),
    "train": lambda net: npk.networks.train(net, X, np.zeros(5, int), progress=False),
    "save": lambda net: npk.save(net, "nowhere.pt"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_door_says_the_same_of_what_is_no_network(kind, door):
    given, what = KINDS[kind]
    with pytest.raises(
        OptionError, match=f"{what}.*" + ("" if "TorchScript" in kind else "Give a torch module")
    ):
        DOORS[door](given)


@pytest.mark.parametrize("shape", [4, "4", (), (4.5,), (0, 3), (True,), None, (-1,)])
def test_a_shape_is_whole_numbers(shape):
    with pytest.raises(OptionError, match=r"input_shape is .*such as \(784,\)"):
        as_shape(shape)
    assert as_shape([np.int64(3), 2]) == (3, 2)
    assert as_shape(torch.Size([3])) == (3,)


class Two(nn.Module):
    def forward(self, x, mask):
        return x * mask


class Named(nn.Module):
    def forward(self, *, x):
        return x


def asserts(net, x):
    assert x.shape[1] == 3, "expected 3 channels"
    return net.a(x)


FORWARDS = {
    "an assertion": (
        Net(asserts),
        ShapeError,
        r"shape \(4,\): AssertionError: expected 3 channels \(test_tracing\.py:\d+\)\. Give X the "
        r"shape",
    ),
    "a key": (
        Net(lambda s, x: s.a({}["h"])),
        UnsupportedGraphError,
        r"KeyError: 'h' "
        r"\(test_tracing\.py:\d+\)\. "
        r"Mend its forward",
    ),
    "an attribute": (
        Net(lambda s, x: s.a(x.feats)),
        UnsupportedGraphError,
        r"AttributeError: "
        r".*feats' "
        r"\(test_tracing\.py:\d+\)",
    ),
    "a shape": (
        Net(lambda s, x: s.a(x[:, :2])),
        ShapeError,
        r"mat1 and mat2 .*\. Give X the "
        r"shape",
    ),
    "no forward": (nn.ModuleList([nn.Linear(4, 3)]), UnsupportedGraphError, "missing the required"),
    "two inputs": (
        Two(),
        UnsupportedGraphError,
        "forward of Two takes x and mask; npk reads networks of one input",
    ),
    "a named input": (Named(), UnsupportedGraphError, r"forward of Named takes x \(by name only\)"),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_what_forward_raises_is_told_with_its_line(name):
    net, kind, what = FORWARDS[name]
    with pytest.raises(kind, match=what):
        npk.trace(net, (4,))


TRACED = {
    "a branch": (
        lambda s, x: s.a(x) if x.sum() > 0 else s.b(x),
        "makes a number of the values of its samples, or decides by them",
    ),
    "a number": (
        lambda s, x: s.a(x) * x.max().item(),
        "makes a number of the values of its samples",
    ),
    "NumPy": (lambda s, x: s.a(torch.from_numpy(np.abs(x.numpy()))), "takes values out of torch"),
    "len(x)": (lambda s, x: s.a(x).view(len(x), -1), "makes a plain number of the batch size"),
    "int(size)": (
        lambda s, x: s.a(x).view(int(x.size(0)), -1),
        "makes a plain number of the batch size",
    ),
    "a loop": (
        lambda s, x: torch.stack([s.a(row) for row in x]),
        "makes a plain number of the batch size",
    ),
    "some sizes": (
        lambda s, x: s.a(x) if x.shape[0] > 3 else s.b(x),
        "does something else for some batch sizes",
    ),
    "an error": (
        lambda s, x: s.a(x) if type(x) is torch.Tensor else {}["x"],
        "cannot trace Net.*KeyError: 'x'",
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_cannot_be_traced_is_told_with_its_line(name):
    function, what = TRACED[name]
    with pytest.raises(UnsupportedGraphError, match=what) as caught:
        npk.trace(Net(function), (4,))
    line = re.search(r"\(test_tracing\.py:(\d+)\)", str(caught.value))
    assert line, str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda h: (h, None),
        lambda h: Pair(h, None),
        lambda h: {"logits": h, "n": 3},
        lambda h: [h],
        Output,
    ],
)
def test_one_tensor_in_a_container_is_the_output(wrap):
    net = Net(lambda s, x: wrap(s.a(x)))
    assert npk.trace(net, (4,)) == npk.trace(Net(lambda s, x: s.a(x)), (4,))
    assert npk.check_duality(net, X, draws=5).passed


def test_several_tensors_are_refused():
    with pytest.raises(
        UnsupportedGraphError,
        match=r"returns 2 values; npk reads one\. Choose "
        r"one: npk\.choose_output",
    ):
        kernel(lambda s, x: Output(s.a(x), s.b(x)))


def test_an_ensemble_stacked_before_its_samples():
    mean = kernel(lambda s, x: (s.a(x) + s.b(x)) / 2)
    np.testing.assert_allclose(
        kernel(lambda s, x: torch.stack([s.a(x), s.b(x)]).mean(0)), mean, rtol=1e-6
    )
    np.testing.assert_allclose(
        kernel(lambda s, x: torch.stack([s.a(x), s.b(x)]).sum(-3)), 4 * mean, rtol=1e-6
    )
    with pytest.raises(
        NpkError,
        match=r"another axis before that of the samples\. Put it behind: "
        r"torch\.stack\(\[a, b\], 1\)",
    ):
        kernel(lambda s, x: torch.stack([s.a(x), s.b(x)])[0])
