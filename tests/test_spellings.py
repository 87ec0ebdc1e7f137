"""Gates in every spelling, against the definition: the spelled network's output is the sum over the
paths that the plain one has.
"""

import math

import numpy as np
import pytest
import torch
from tiny_operators import Net, conv
from torch import nn
from torch.nn import functional as F

import npk
from npk.definition.paths import neural_path_feature, neural_path_value, path_kernel
from npk.definition.value_network import evaluate, own_weights
from npk.errors import UnsupportedGraphError
from npk.gates.recording import record_trace
from npk.progress import Silent
from npk.reading.tracing import trace_network


def _set(condition, value):
    def spelled(q):
        q = q.clone()
        q[condition(q)] = value
        return q

    return spelled


RELU = {
    "relu": torch.relu,
    "clip": lambda q: torch.clip(q, 0),
    "clamp, tensor": lambda q: q.clamp(min=torch.zeros(())),
    "clamp, tensors": lambda q: torch.clamp(q, torch.zeros_like(q)),
    "clamp_min, tensor": lambda q: torch.clamp_min(q, torch.tensor(0.0)),
    "where >": lambda q: torch.where(q > 0, q, 0.0),
    "where >=": lambda q: torch.where(q >= 0, q, torch.zeros_like(q)),
    "where <": lambda q: torch.where(q < 0, 0.0, q),
    "where <=": lambda q: torch.where(q <= 0, torch.tensor(0.0), q),
    "where 0 <": lambda q: torch.where(0 < q, q, q * 0),
    "where lt(0, q)": lambda q: torch.where(torch.zeros_like(q).lt(q), q, torch.zeros(8)),
    "where not": lambda q: torch.where(~(q > 0), 0.0, q),
    "where, negated": lambda q: torch.where(-q < 0, q, 0.0),
    "max": lambda q: torch.max(q, torch.zeros_like(q)),
    "maximum, swapped": lambda q: torch.maximum(torch.tensor(0.0), q),
    "fmax": lambda q: torch.fmax(q, torch.zeros(8)),
    "minus minimum": lambda q: q - torch.minimum(q, torch.zeros_like(q)),
    "threshold": lambda q: F.threshold(q, 0, 0),
    "Threshold": nn.Threshold(0.0, 0.0),
    "masked_fill": lambda q: q.masked_fill(q < 0, 0),
    "masked_fill_": lambda q: q.clone().masked_fill_(q <= 0, 0.0),
    "set to 0": _set(lambda q: q < 0, 0),
    "set to a tensor": _set(lambda q: ~(q >= 0), torch.tensor(0.0)),
    "times >": lambda q: q * (q > 0),
    "times >=": lambda q: (q >= 0) * q,
    "times float": lambda q: q * (q > 0).float(),
    "times type_as": lambda q: torch.multiply(q, q.gt(0).type_as(q)),
    "times 1 - (q <= 0)": lambda q: q * (1 - (q <= 0).float()),
    "heaviside": lambda q: q * torch.heaviside(q, torch.tensor(0.5, dtype=q.dtype)),
    "half of q + |q|": lambda q: (q + q.abs()) / 2,
    "half of |q| + q": lambda q: 0.5 * (torch.absolute(q) + q),
    "sign": lambda q: q * (torch.sign(q) + 1) * 0.5,
    "|q| where on": lambda q: torch.where(q > 0, q.abs(), 0),
    "negative part": lambda q: -torch.clamp(-q, max=0),
    "negated clamp_max": lambda q: torch.neg(torch.clamp_max(-q, 0)),
}
LEAKY = {
    "leaky_relu": lambda q: F.leaky_relu(q, 0.25),
    "where": lambda q: torch.where(q > 0, q, 0.25 * q),
    "where, swapped": lambda q: torch.where(q < 0, q / 4, q),
    "where >=": lambda q: torch.where(q >= 0, q, q * 0.25),
    "max": lambda q: torch.max(q, 0.25 * q),
    "maximum, swapped": lambda q: torch.maximum(0.25 * q, q),
    "two reluls": lambda q: torch.relu(q) - 0.25 * torch.relu(-q),
    "max and min": lambda q: torch.clamp(q, min=0) + 0.25 * torch.clamp(q, max=0),
    "rrelu": lambda q: F.rrelu(q, 0.125, 0.375),
    "RReLU": nn.RReLU(0.2, 0.3).eval(),
    "slope in a tensor": lambda q: torch.where(q > 0, q, torch.tensor(0.25) * q),
}
ABS = {
    "abs": torch.abs,
    "sign": lambda q: q * torch.sign(q),
    "where": lambda q: torch.where(q > 0, q, -q),
    "max": lambda q: torch.max(q, -q),
    "two relus": lambda q: torch.relu(q) + torch.relu(-q),
}
RELU6 = {
    "relu6": lambda q: F.hardtanh(q, 0.0, 0.5),
    "min of max": lambda q: torch.min(torch.max(q, torch.tensor(0.0)), torch.tensor(0.5)),
    "max of min": lambda q: torch.maximum(
        torch.minimum(q, torch.full_like(q, 0.5)), torch.tensor(0.0)
    ),
    "clamp of relu": lambda q: torch.minimum(torch.relu(q), torch.tensor(0.5)),
    "clip": lambda q: torch.clip(q, 0, 0.5),
    "clip, tensors": lambda q: torch.clip(q, torch.tensor(0.0), torch.tensor(0.5)),
    "where": lambda q: torch.where(torch.relu(q) > 0.5, 0.5, torch.relu(q)),
    "set": _set(lambda q: q > 0.5, 0.5),
}
RELU6["set"] = lambda q, cut=RELU6["set"]: torch.maximum(cut(q), torch.zeros(()))
HARDTANH = {
    "hardtanh": lambda q: F.hardtanh(q, -0.5, 0.25),
    "clamp": lambda q: torch.clamp(q, -0.5, 0.25),
    "clamp, tensors": lambda q: torch.clamp(q, torch.tensor(-0.5), torch.tensor(0.25)),
    "min of max": lambda q: torch.min(torch.max(q, torch.tensor(-0.5)), torch.tensor(0.25)),
    "set, twice": lambda q: _set(lambda q: q > 0.25, 0.25)(_set(lambda q: q < -0.5, -0.5)(q)),
}
FAMILIES = {"relu": RELU, "leaky_relu": LEAKY, "abs": ABS, "relu6": RELU6, "hardtanh": HARDTANH}
CASES = [(plain, name) for plain, family in FAMILIES.items() for name in family if name != plain]


def around(gate, seed=0):
    torch.manual_seed(seed)
    return Net(lambda s, x: s.b(gate(s.a(x))), a=nn.Linear(3, 8), b=nn.Linear(8, 2)).double().eval()


def table_of(net, X):
    trace = trace_network(net, X.shape[1:])
    return record_trace(trace, X, gates="auto", progress=Silent()), own_weights(trace.program)


def assert_duality(net, X, table, weights):
    """Output of the network as it is written = value network = inner product with the path values."""
    with torch.no_grad():
        output = net(torch.as_tensor(X)).flatten(1).numpy()
    np.testing.assert_allclose(
        evaluate(table, weights).reshape(len(X), -1), output, rtol=1e-12, atol=1e-12
    )
    feature = neural_path_feature(table, 0, bias="paths")
    value = math.fsum(c * neural_path_value(table.graph, p, weights) for p, c in feature.items())
    assert value == pytest.approx(output[0, 0], rel=1e-11, abs=1e-12)


def kernels(table):
    return [
        np.array(path_kernel(table, table, scale="count", bias=bias))
        for bias in ("ignore", "paths")
    ]


@pytest.fixture(scope="module")
def plain():
    X = np.random.default_rng(3).standard_normal((4, 3))
    found = {}
    for family in FAMILIES:
        net = around(FAMILIES[family][family])
        table, weights = table_of(net, X)
        assert_duality(net, X, table, weights)
        found[family] = kernels(table)
    return X, found


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_spelling_is_its_gate(family, name, plain):
    X, expected = plain
    net = around(FAMILIES[family][name])
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    for actual, right in zip(kernels(table), expected[family], strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-13)


def test_ties_are_off_in_every_spelling():
    """Where q is 0 to the bit, the spelled gate is off as the plain one is."""
    X = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    for name in ("relu", "where >=", "times >=", "set to 0", "half of q + |q|", "heaviside"):
        net = around(RELU[name])
        torch.nn.init.zeros_(net.a.bias)
        table, _ = table_of(net, X)
        assert not table[0][0].any(), name


OTHERS = {
    "a slope a channel": (
        lambda s, q: torch.where(q > 0, q, s.slope * q),
        lambda s, q: F.prelu(q, s.slope),
    ),
    "a learned slope": (lambda s, q: torch.max(q, s.one * q), lambda s, q: F.prelu(q, s.one)),
    "where another value is on": (
        lambda s, q: torch.where(s.g(q) > 0, q, 0),
        lambda s, q: q * (s.g(q) > 0),
    ),
    "where another value is off": (
        lambda s, q: torch.where(s.g(q) <= 0, 0, q),
        lambda s, q: q * (s.g(q) > 0),
    ),
    "filled where another is off": (
        lambda s, q: q.masked_fill(~(s.g(q) > 0), 0.0),
        lambda s, q: q * (s.g(q) > 0),
    ),
    "where another is below 0": (lambda s, q: q * (s.g(q) < 0), lambda s, q: q * (-s.g(q) > 0)),
    "an external gate times a number": (
        lambda s, q: q * (3.0 * (s.g(q) > 0)),
        lambda s, q: 3.0 * q * (s.g(q) > 0),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_choice_by_another_value_is_an_external_gate(name):
    made = []
    for function in OTHERS[name]:
        torch.manual_seed(0)
        members = {
            "a": nn.Linear(3, 4),
            "g": nn.Linear(4, 4),
            "b": nn.Linear(4, 2),
            "slope": nn.Parameter(torch.rand(4)),
        }
        net = (
            Net(
                lambda s, x, f=function: s.b(f(s, s.a(x))),
                one=nn.Parameter(torch.rand(1)),
                **members,
            )
            .double()
            .eval()
        )
        made.append((net, *table_of(net, np.random.default_rng(1).standard_normal((4, 3)))))
    X = np.random.default_rng(1).standard_normal((4, 3))
    assert_duality(made[0][0], X, *made[0][1:])
    for actual, right in zip(*(kernels(table) for _, table, _ in made), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-13)


# name -> function of the network and a value, what the refusal says
NO_GATES = {
    "the larger of two branches": (
        lambda s, q: torch.maximum(q, s.g(q)),
        "the larger of two branches",
    ),
    "the larger of itself and another's half": (
        lambda s, q: torch.max(q, 0.5 * s.g(q)),
        "the larger of two branches",
    ),
    "a choice between two values": (
        lambda s, q: torch.where(q > 0, q, s.g(q)),
        "chooses between two values",
    ),
    "a condition on another number": (
        lambda s, q: torch.where(q > 1, q, 0),
        "chooses between two values",
    ),
    "two conditions": (
        lambda s, q: torch.where((q > 0) & (s.g(q) > 0), q, 0),
        "chooses between two values",
    ),
    "another value is on at 0": (lambda s, q: q * (s.g(q) >= 0), "on at 0"),
    "where another value is on at 0": (
        lambda s, q: torch.where(s.g(q) >= 0, q, 0),
        "chooses between two values",
    ),
    "filled with another number": (
        lambda s, q: q.masked_fill(q < 0, 1.0),
        "chooses between two values",
    ),
    "set to another number": (
        lambda s, q: _set(lambda q: q < 0, 1.0)(q),
        "chooses between two values",
    ),
    "threshold that jumps": (lambda s, q: F.threshold(q, 0.1, 20.0), "jumps"),
    "positions by index": (
        lambda s, q: q.index_put((torch.tensor([0]),), torch.tensor(1.0)),
        "chooses between two values",
    ),
    "value plus its gated self": (lambda s, q: q + torch.relu(q), "through the same weights"),
    "rectified square": (lambda s, q: torch.relu(q) * q, "multiplies two values"),
    "logsumexp": (
        lambda s, q: torch.logsumexp(q, 1, keepdim=True).expand(-1, 4),
        "no gate on its input",
    ),
    "lp pool": (lambda s, q: F.lp_pool1d(q, 2, 1), "no gate on its input"),
}


@pytest.mark.parametrize("name", NO_GATES)
def test_what_is_no_gate_is_refused(name):
    function, words = NO_GATES[name]
    net = Net(
        lambda s, x: s.b(function(s, s.a(x))),
        a=nn.Linear(3, 4),
        g=nn.Linear(4, 4),
        b=nn.Linear(4, 2),
    ).eval()
    with pytest.raises(UnsupportedGraphError, match=words):
        npk.trace(net, (3,))


# ------------------------------------------------------------------------------------------------ maxima


def images(function, *, width, **members):
    torch.manual_seed(0)
    members = {"c": conv(1, 3), "h": nn.Linear(width, 2), **members}
    return Net(lambda s, x: s.h(function(s, s.c(x)).flatten(1)), **members).double().eval()


MAXIMA = {
    "global": (lambda s, q: q.amax((2, 3)), 3, lambda s, q: F.adaptive_max_pool2d(q, 1)),
    "global by max": (
        lambda s, q: q.max(3)[0].max(2).values,
        3,
        lambda s, q: F.adaptive_max_pool2d(q, 1),
    ),
    "keepdim": (
        lambda s, q: torch.amax(q, 3, keepdim=True),
        12,
        lambda s, q: F.max_pool2d(q, (1, 4)),
    ),
    "smallest": (lambda s, q: q.amin((2, 3)), 3, lambda s, q: -F.adaptive_max_pool2d(-q, 1)),
    "channels last": (
        lambda s, q: q.permute(0, 2, 3, 1).amax((1, 2)),
        3,
        lambda s, q: F.adaptive_max_pool2d(q, 1),
    ),
    "minus infinity around": (
        lambda s, q: F.max_pool2d(F.pad(q, (1,) * 4, value=-math.inf), 3, 2),
        12,
        lambda s, q: F.max_pool2d(q, 3, 2, 1),
    ),
    "lowest number around": (
        lambda s, q: F.max_pool2d(nn.ConstantPad2d(1, torch.finfo(q.dtype).min)(q), 3, 2),
        12,
        lambda s, q: F.max_pool2d(q, 3, 2, 1),
    ),
    "minus infinity on one side": (
        lambda s, q: F.max_pool2d(F.pad(q, (0, 1, 1, 0), value=-math.inf), 3, 2),
        12,
        None,
    ),
    "among channels": (lambda s, q: q.amax(1), 16, None),
    "among channels, kept": (lambda s, q: q.max(1, keepdim=True)[0], 16, None),
    "maxout": (lambda s, q: q.unflatten(1, (1, 3)).amax(2), 16, None),
    "all": (lambda s, q: q.amax((1, 2, 3)).unsqueeze(1), 1, None),
    "channels and rows": (lambda s, q: q.amax((1, 3)), 4, None),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima_over_axes_are_selections(name):
    function, width, pool = MAXIMA[name]
    X = np.random.default_rng(2).standard_normal((3, 1, 4, 4))
    net = images(function, width=width)
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    right = kernels(table_of(images(pool, width=width), X)[0]) if pool else kernels(table)
    for i, (actual, expected) in enumerate(zip(kernels(table), right, strict=True)):
        np.testing.assert_allclose(actual, expected, rtol=1e-13)
        planned = npk.kernel(
            net,
            X,
            scale="count",
            dtype="float64",
            bias=("ignore", "paths")[i],
            backend="reference",
            progress=False,
        )
        np.testing.assert_allclose(planned, actual, rtol=1e-11)


@pytest.mark.parametrize("name", ["values", "channels"])
def test_minus_infinity_elsewhere_is_refused(name):
    sides = {"values": (1, 1), "channels": (0, 0, 0, 0, 1, 1)}[name]
    after = {"values": torch.relu, "channels": lambda q: F.max_pool2d(q, 2)}[name]
    net = images(
        lambda s, q: after(F.pad(q, sides, value=-math.inf)),
        width={"values": 72, "channels": 20}[name],
    )
    with pytest.raises(UnsupportedGraphError, match=r"minus infinity"):
        npk.trace(net, (1, 4, 4))
