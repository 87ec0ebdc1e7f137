"""Refusals teach: each names the node, its module, the line of the user's code, what is wrong
there, and what would be accepted.
"""

import linecache
import re
from pathlib import Path

import pytest
import torch
from tiny_operators import Net, conv, parameter
from torch import nn
from torch.nn import functional as F

import npk
from npk.errors import UnsupportedGraphError
from npk.reading.rules import RULES
from npk.reading.rules.refused import REFUSED

Linear = nn.Linear
VECTOR, IMAGE, WORDS = (4,), (2, 4, 4), (3, 4)
MESSAGE = re.compile(
    r"node (?P<node>\S+) in module '(?P<module>[^']+)' \((?P<file>\w+\.py):(?P<line>\d+)\): "
    r"(?P<what>.+?)\. (?P<remedy>.+)\.$"
)


def block(function, members):
    """A module with this forward. torch.export keeps the source lines of functions called "forward"
    only.
    """
    function.__code__ = function.__code__.replace(co_name="forward")
    return type("Block", (Net,), {"forward": function})(None, **members)


def inner(function, **members):
    """Linear layer, a module ``block`` with this function, linear read-out."""
    return Net(
        lambda s, x: s.h(s.block(s.a(x))),
        a=Linear(4, 4),
        block=block(function, members),
        h=Linear(4, 2),
    )


def inner_image(function, *, channels=2, **members):
    """Convolution, a module ``block`` with this function, global pool and linear read-out."""
    return Net(
        lambda s, x: s.h(s.block(s.a(x)).mean((2, 3))),
        a=conv(2, 2),
        block=block(function, members),
        h=Linear(channels, 2),
    )


def inner_words(function, **members):
    """Linear layer a word, a module ``block`` with this function, flatten and linear read-out."""
    return Net(
        lambda s, x: s.h(s.block(s.a(x)).flatten(1)),
        a=Linear(4, 4),
        block=block(function, members),
        h=Linear(12, 2),
    )


def ending(function):
    return Net(lambda s, x: s.block(s.h(x)), h=Linear(4, 2), block=block(function, {}))


def attention(s, x):
    return F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x))


def by_hand(s, x):
    weights = s.q(x) @ s.k(x).transpose(1, 2)  # a matrix that is computed
    return weights @ s.v(x)


def projections():
    return {name: Linear(4, 4) for name in "qkv"}


# name -> (network, sample shape, piece of the source line, what is wrong, what to do)
OPERATORS = {
    "multi-head attention": (
        inner_words(lambda s, x: s.m(x, x, x)[0], m=nn.MultiheadAttention(4, 1, batch_first=True)),
        WORDS,
        "s.m(x, x, x)",
        "attention",
        ".",
    ),
    "scaled dot-product attention": (
        inner_words(attention, **projections()),
        WORDS,
        "scaled_dot_product",
        "attention",
        ".",
    ),
    "matrix that is computed": (
        inner_words(by_hand, **projections()),
        WORDS,
        "@",
        "as attention does",
        ".",
    ),
    "clamp between computed bounds": (
        inner(
            lambda s, x: torch.clamp(x, -torch.sigmoid(s.m(x)), torch.sigmoid(s.m(x))),
            m=Linear(4, 4),
        ),
        VECTOR,
        "torch.clamp",
        "bounds are computed",
        "two numbers",
    ),
    "clamp that leaves nothing": (
        inner(lambda s, x: x.clamp(2.0, 1.0)),
        VECTOR,
        "x.clamp",
        "leave nothing between",
        "smaller one first",
    ),
    "zeros alone": (
        inner(lambda s, x: F.relu(torch.zeros_like(x))),
        VECTOR,
        "zeros_like",
        "constant zeros only",
        "Leave them out",
    ),
    "layer norm": (
        inner(lambda s, x: s.norm(x), norm=nn.LayerNorm(4)),
        VECTOR,
        "s.norm(x)",
        "statistics of the sample",
        "batch norm",
    ),
    "group norm": (
        inner_image(lambda s, x: s.norm(x), norm=nn.GroupNorm(1, 2)),
        IMAGE,
        "s.norm(x)",
        "statistics of the sample",
        "batch norm",
    ),
    "instance norm": (
        inner_image(lambda s, x: s.norm(x), norm=nn.InstanceNorm2d(2)),
        IMAGE,
        "s.norm(x)",
        "statistics|train mode",
        "batch norm|eval",
    ),
    "rms norm": (
        inner(lambda s, x: s.norm(x), norm=nn.RMSNorm(4)),
        VECTOR,
        "s.norm(x)",
        "statistics of the sample",
        "batch norm",
    ),
    "local response norm": (
        inner_image(lambda s, x: F.local_response_norm(x, 2)),
        IMAGE,
        "local_response",
        ".",
        ".",
    ),
    "length normalized": (inner(lambda s, x: F.normalize(x)), VECTOR, "F.normalize", ".", "."),
    "softmax inside": (
        inner(lambda s, x: x.softmax(1)),
        VECTOR,
        "softmax",
        "softmax couples",
        "npk.choose_output",
    ),
    "softmax at the end": (
        ending(lambda s, x: F.softmax(x, 1)),
        VECTOR,
        "softmax",
        "softmax couples",
        "npk.choose_output",
    ),
    "log-softmax at the end": (
        ending(lambda s, x: F.log_softmax(x, 1)),
        VECTOR,
        "log_softmax",
        "softmax couples",
        "npk.choose_output",
    ),
    "sigmoid at the end": (
        ending(lambda s, x: torch.sigmoid(x)),
        VECTOR,
        "torch.sigmoid",
        "a sigmoid is a gate",
        "npk.choose_output",
    ),
    "tanh": (inner(lambda s, x: torch.tanh(x)), VECTOR, "tanh", "no gate on its input", "ReLU"),
    "elu": (inner(lambda s, x: F.elu(x)), VECTOR, "elu", "no gate on its input", "ReLU"),
    "softplus": (
        inner(lambda s, x: F.softplus(x)),
        VECTOR,
        "softplus",
        "no gate on its input",
        "ReLU",
    ),
    "selu": (inner(lambda s, x: F.selu(x)), VECTOR, "selu", "no gate on its input", "ReLU"),
    "square": (inner(lambda s, x: x**2), VECTOR, "x**2", ".", "."),
    "product with itself": (
        inner(lambda s, x: x * x),
        VECTOR,
        "x * x",
        "multiplies two values",
        "gate",
    ),
    "product of two branches": (
        inner(lambda s, x: s.p(x) * s.q(x), p=Linear(4, 4), q=Linear(4, 4)),
        VECTOR,
        "s.p(x) * s.q(x)",
        "multiplies two values",
        "gate",
    ),
    "quotient of two branches": (
        inner(lambda s, x: s.p(x) / s.q(x), p=Linear(4, 4), q=Linear(4, 4)),
        VECTOR,
        "s.p(x) / s.q(x)",
        "divides",
        ".",
    ),
    "reciprocal": (inner(lambda s, x: 1 / x), VECTOR, "1 / x", ".", "."),
    "larger of two branches": (
        inner(lambda s, x: torch.maximum(s.p(x), s.q(x)), p=Linear(4, 4), q=Linear(4, 4)),
        VECTOR,
        "torch.maximum",
        "larger",
        ".",
    ),
    "one of two branches": (
        inner(lambda s, x: torch.where(s.p(x) > 0, s.q(x), x), p=Linear(4, 4), q=Linear(4, 4)),
        VECTOR,
        "torch.where",
        ".",
        ".",
    ),
    "lstm": (
        inner_words(lambda s, x: s.m(x)[0], m=nn.LSTM(4, 4, batch_first=True)),
        WORDS,
        "s.m(x)",
        "recurrent",
        "feed-forward",
    ),
    "gru": (
        inner_words(lambda s, x: s.m(x)[0], m=nn.GRU(4, 4, batch_first=True)),
        WORDS,
        "s.m(x)",
        "recurrent",
        "feed-forward",
    ),
    "embedding": (
        inner(lambda s, x: s.m(x.long()).mean(1), m=nn.Embedding(5, 4)),
        VECTOR,
        "s.m(x.long())",
        "embedding",
        "embedded values",
    ),
    "bilinear upsampling": (
        inner_image(lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        IMAGE,
        "bilinear",
        "interpolates",
        "nearest",
    ),
    "bicubic upsampling": (
        inner_image(lambda s, x: F.interpolate(x, scale_factor=2, mode="bicubic")),
        IMAGE,
        "bicubic",
        "interpolates",
        "nearest",
    ),
    "cumulative sum": (inner(lambda s, x: x.cumsum(1)), VECTOR, "cumsum", "cumsum", "."),
    "weights by position": (
        inner_image(lambda s, x: x * s.w, w=parameter(2, 4, 4)),
        IMAGE,
        "x * s.w",
        "value of its own at every position",
        "one a channel",
    ),
    "biases by position": (
        inner_image(lambda s, x: x + s.w, w=parameter(2, 4, 4)),
        IMAGE,
        "x + s.w",
        "value of its own at every position",
        "one a channel",
    ),
    "routing by the largest": (
        inner(lambda s, x: s.table[x.argmax(1)], table=parameter(4, 4)),
        VECTOR,
        "argmax",
        "depend on the values",
        "fixed positions",
    ),
    "the largest few": (
        inner(lambda s, x: x.topk(4)[0]),
        VECTOR,
        "topk",
        "depend on the values",
        "fixed positions",
    ),
    "sorted": (
        inner(lambda s, x: x.sort(1)[0]),
        VECTOR,
        "sort",
        "depend on the values",
        "fixed positions",
    ),
    "complex numbers": (
        inner(lambda s, x: torch.fft.fft(x).real),
        VECTOR,
        "fft",
        "complex|no paths",
        ".",
    ),
    "mean over the samples": (
        inner(lambda s, x: x - x.mean(0)),
        VECTOR,
        "x.mean(0)",
        "samples",
        ".",
    ),
    "samples exchanged": (
        inner(lambda s, x: x + s.p(x).flip(0), p=Linear(4, 4)),
        VECTOR,
        "flip(0)",
        "samples",
        ".",
    ),
    "dropout in train mode": (
        inner(lambda s, x: F.dropout(x, 0.5, True)),
        VECTOR,
        "F.dropout",
        "dropout in train mode",
        "eval",
    ),
    "random leaky relu in train mode": (
        inner(lambda s, x: F.rrelu(x, training=True)),
        VECTOR,
        "F.rrelu",
        "random",
        ".",
    ),
    "noise added": (inner(lambda s, x: x + torch.randn_like(x)), VECTOR, "randn_like", ".", "."),
    "weights from the samples": (
        inner(lambda s, x: F.linear(x, s.m.weight - s.m(x).mean()), m=Linear(4, 4)),
        VECTOR,
        "F.linear",
        "weight is computed from the samples",
        ".",
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_refusal_teaches(name):
    network, shape, source, what, remedy = OPERATORS[name]
    with pytest.raises(UnsupportedGraphError, match=what) as caught:
        npk.trace(network.eval(), shape)
    found = MESSAGE.match(str(caught.value))
    assert found, str(caught.value)
    assert found["module"].startswith("block")
    assert found["file"] == "test_refusals.py", found["file"]
    assert source in linecache.getline(__file__, int(found["line"])), linecache.getline(
        __file__, int(found["line"])
    )
    assert re.search(what, found["what"]), found["what"]
    assert re.search(remedy, found["remedy"]), found["remedy"]


# paths that are not independent: a matter of the whole graph, told at the node where they meet
DEPENDENT = {
    "weight twice along a path": (
        inner(lambda s, x: s.m(F.relu(s.m(x))), m=Linear(4, 4)),
        VECTOR,
        "s.m(F.relu",
        "used twice along a path",
        "weights of their own",
    ),
    "value plus its gated self": (
        inner(lambda s, x: x + F.relu(x)),
        VECTOR,
        "x + F.relu(x)",
        "through the same weights",
        "weights of its own",
    ),
    "value plus its average": (
        inner_image(lambda s, x: x + F.avg_pool2d(x, 3, 1, 1)),
        IMAGE,
        "F.avg_pool2d",
        "through the same weights",
        "weights of its own",
    ),
    "value stacked on its gated self": (
        inner_image(lambda s, x: torch.cat([x, F.relu(x)], 2)),
        IMAGE,
        "self.function",  # found where the stack is used
        "side by side in one channel",
        "parametric layer",
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_refusal_of_dependent_paths_teaches(name):
    network, shape, source, what, remedy = DEPENDENT[name]
    with pytest.raises(UnsupportedGraphError, match=what) as caught:
        npk.trace(network.eval(), shape)
    found = re.match(
        r"node \S+ .*\((?P<file>\w+)\.py:(?P<line>\d+)\): "
        r".*" + f"{what}.*{remedy}",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert source in linecache.getline(
        str(Path(__file__).with_name(f"{found['file']}.py")), int(found["line"])
    )


WHOLE = {
    "batch norm in train mode": (
        nn.Sequential(Linear(4, 4), nn.BatchNorm1d(4), Linear(4, 2)).train(),
        VECTOR,
        r"batch norm in train mode.*depend on the batch.*net\.eval\(\)",
    ),
    "batch norm without statistics": (
        nn.Sequential(
            Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), Linear(4, 2)
        ).eval(),
        VECTOR,
        r"batch norm in train mode depends on the batch",
    ),
    "control flow by the data": (
        Net(lambda s, x: s.h(x) if x.sum() > 5 else s.h(-x), h=Linear(4, 2)),
        VECTOR,
        r"Net makes a number of the values of its samples.*\(test_refusals\.py:\d+\)",
    ),
    "loop as long as the data says": (
        Net(lambda s, x: s.h(x * int(x.sum())), h=Linear(4, 2)),
        VECTOR,
        r"Net makes a number of the values of its samples.*\(test_refusals\.py:\d+\)",
    ),
    "numbers through numpy": (
        Net(lambda s, x: s.h(torch.as_tensor(x.detach().numpy() * 2)), h=Linear(4, 2)),
        VECTOR,
        "Net",
    ),
    "two heads": (
        Net(lambda s, x: (s.h(x), x), h=Linear(4, 2)),
        VECTOR,
        "returns 2 values.*npk.choose_output",
    ),
    "a dictionary of heads": (
        Net(lambda s, x: {"a": s.h(x), "b": x}, h=Linear(4, 2)),
        VECTOR,
        "returns 2 values.*npk.choose_output",
    ),
    "no value at all": (Net(lambda s, x: None), VECTOR, "returns a NoneType with no tensor in it"),
    "a constant": (Net(lambda s, x: s.w.expand(len(x), 2), w=parameter(2)), VECTOR, "."),
}


@pytest.mark.parametrize("name", WHOLE)
def test_refusal_of_the_whole(name):
    network, shape, why = WHOLE[name]
    with pytest.raises(UnsupportedGraphError, match=why):
        npk.trace(network, shape)


def test_no_operator_is_read_and_refused():
    """What is refused is refused first, whatever rule it has."""
    assert not RULES.keys() & REFUSED.keys()
