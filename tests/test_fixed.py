"""Tensors that are declared fixed are coefficients of the paths: exact, against enumeration, the
network's own pools, and the second moment of random value networks.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk
from npk.cli import run
from npk.definition.paths import path_kernel
from npk.errors import OptionError, UnsupportedGraphError
from npk.graph.operators import AveragePool, Scale
from npk.graph.path_graph import from_dict, to_dict

GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Blur(nn.Module):
    """A depthwise filter in a buffer; how it is written, and where its bias is."""

    def __init__(self, filters, stride=1, padding=0, *, expand=False, bias=False, rank=2):
        super().__init__()
        self.stride, self.padding, self.expand, self.rank = stride, padding, expand, rank
        self.register_buffer("filt", torch.as_tensor(filters, dtype=torch.float64))
        self.bias = nn.Parameter(torch.ones(len(filters)) * 0.3) if bias else None

    def forward(self, x):
        filters = self.filt
        if self.expand:
            filters = filters.expand(x.shape[1], *filters.shape[1:])
        conv = F.conv1d if self.rank == 1 else F.conv2d
        return conv(x, filters, self.bias, self.stride, self.padding, groups=x.shape[1])


class Back(nn.Module):
    """Bilinear upsampling as a depthwise transposed convolution."""

    def __init__(self, filters):
        super().__init__()
        self.register_buffer("filt", torch.as_tensor(filters))

    def forward(self, x):
        return F.conv_transpose2d(x, self.filt, stride=2, padding=1, groups=x.shape[1])


class Times(nn.Module):
    """A product with, or a division by, a tensor of the network."""

    def __init__(self, values, divide=False):
        super().__init__()
        self.divide = divide
        self.register_buffer("by", torch.as_tensor(values, dtype=torch.float64))

    def forward(self, x):
        return x / self.by if self.divide else x * self.by


def net_of(*layers):
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers).double().eval()


def conv(i, o, k=2):
    return nn.Conv2d(i, o, k)


def drawn(*shape):
    return np.random.default_rng(3).standard_normal(shape)


def samples(n, *shape):
    return np.random.default_rng(5).standard_normal((n, *shape))


# name -> (layers, shape of a sample); what is called "1.*" or "0.*" is fixed
FILTERS = {
    "one filter for all": ((conv(1, 3), Blur(drawn(1, 1, 2, 2), expand=True), nn.ReLU()), "1.*"),
    "a filter a channel": ((conv(1, 3), Blur(drawn(3, 1, 2, 2)), nn.ReLU()), "1.filt"),
    "some filters equal": (
        (conv(1, 3), Blur(drawn(3, 1, 2, 2)[[0, 1, 0]], padding=1), nn.ReLU()),
        "1.*",
    ),
    "behind gates": ((conv(1, 3), nn.ReLU(), Blur(drawn(3, 1, 2, 2), 2)), "2.*"),
    "with a zero": ((conv(1, 3), Blur(np.array([[[[1.0, -2.0, 0.0]]]] * 3)), nn.ReLU()), "1.*"),
    "before the first weight": ((Blur(drawn(1, 1, 2, 2)), conv(1, 3), nn.ReLU()), "0.*"),
    "ungated twice": ((conv(1, 3), Blur(drawn(3, 1, 2, 2)), Blur(drawn(3, 1, 2, 1))), "[12].*"),
    "transposed": ((conv(1, 3), nn.ReLU(), Back(drawn(3, 1, 4, 4)), nn.ReLU()), "2.*"),
    "a scale a channel": ((conv(1, 3), Times(drawn(3, 1, 1)), nn.ReLU()), "1.by"),
    "a divisor a channel": ((conv(1, 3), Times(drawn(3, 1, 1), divide=True), nn.ReLU()), "1.by"),
    "a scale for all": ((conv(1, 3), Times(drawn(1)), nn.ReLU()), "1.by"),
}


def made(name):
    layers, fixed = FILTERS[name]
    head = (conv(3, 6, 1), nn.ReLU(), *GAP, nn.Linear(6, 2))
    return net_of(*layers, *head), fixed


def oracle(net, X, fixed, **options):
    table = npk.record_gates(net, X, fixed=fixed)
    return np.array(path_kernel(table, table, **options))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("bias", ["ignore", "paths"])
def test_kernel_is_that_of_the_enumerated_paths(name, bias):
    net, fixed = made(name)
    X = samples(3, 1, 4, 4)
    expected = oracle(net, X, fixed, bias=bias)
    for backend in ("reference", "cpu"):
        found = npk.kernel(
            net, X, fixed=fixed, bias=bias, backend=backend, dtype="float64", progress=False
        )
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13 * abs(expected).max())


@pytest.mark.parametrize("name", FILTERS)
def test_duality_holds_with_fixed_filters(name):
    net, fixed = made(name)
    result = npk.check_duality(net, samples(4, 1, 4, 4), draws=200, fixed=fixed)
    assert result.passed
    assert result.measured < 1e-11


def test_duality_in_half_precision_keeps_the_filters_fixed():
    net, fixed = made("a filter a channel")
    assert npk.check_duality(net.half(), samples(3, 1, 4, 4), draws=50, fixed=fixed).passed


def test_a_mean_in_a_buffer_is_an_average_pool():
    X = samples(5, 1, 6, 6)
    layers = lambda pool: net_of(conv(1, 3), nn.ReLU(), pool, conv(3, 2), nn.ReLU(), *GAP)  # noqa: E731
    options = {"bias": "ignore", "dtype": "float64", "progress": False}
    pooled = npk.kernel(layers(nn.AvgPool2d(2, 1)), X, **options)
    blurred = layers(Blur(np.full((3, 1, 2, 2), 0.25)))
    declared = npk.kernel(blurred, X, fixed=["2.filt"], **options)
    np.testing.assert_allclose(declared, pooled, rtol=1e-13)
    undeclared = npk.kernel(blurred, X, **options)
    assert abs(undeclared - pooled).max() > 0.1 * abs(pooled).max()


def test_filters_of_one_axis():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(1, 2, 2), nn.ReLU(), Blur(drawn(2, 1, 3), rank=1), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    X = samples(3, 1, 5)
    found = npk.kernel(net.eval(), X, fixed="2.*", dtype="float64", progress=False)
    np.testing.assert_allclose(found, oracle(net, X, "2.*"), rtol=1e-11)


def test_one_buffer_may_stand_in_two_layers():
    """A weight met twice on a path is refused; coefficients may be."""
    blur = Blur(drawn(3, 1, 2, 2))
    net = net_of(conv(1, 3), blur, nn.ReLU(), blur, nn.ReLU(), conv(3, 2, 1), nn.ReLU(), *GAP)
    X = samples(3, 1, 5, 5)
    with pytest.raises(UnsupportedGraphError, match="used twice"):
        npk.trace(net, (1, 5, 5))
    for fixed in ("1.filt", "3.filt"):
        found = npk.kernel(net, X, fixed=fixed, dtype="float64", progress=False)
        np.testing.assert_allclose(found, oracle(net, X, fixed), rtol=1e-11)


def test_a_bias_of_a_fixed_filter_starts_paths():
    net = net_of(conv(1, 3), Blur(drawn(3, 1, 2, 2), bias=True), nn.ReLU(), conv(3, 2, 1), *GAP)
    X = samples(3, 1, 4, 4)
    found = npk.kernel(net, X, fixed="1.filt", bias="paths", dtype="float64", progress=False)
    np.testing.assert_allclose(found, oracle(net, X, "1.filt", bias="paths"), rtol=1e-11)
    with pytest.raises(OptionError, match=r"fixed= names 1\.bias, which node .* has for a shift"):
        npk.trace(net, (1, 4, 4), fixed="1.*")


def test_values_that_change_are_read_again():
    net, fixed = made("a filter a channel")
    X = samples(3, 1, 4, 4)
    kernel = npk.NeuralPathKernel(net, fixed=fixed, dtype="float64", progress=False)
    before = kernel(X)
    net[1].filt.mul_(2)
    after = npk.kernel(net, X, fixed=fixed, dtype="float64", progress=False)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(kernel(X), after, rtol=1e-12)


def test_the_graph_says_what_is_fixed():
    net, fixed = made("some filters equal")
    graph = npk.trace(net, (1, 4, 4), fixed=fixed)
    assert "fixed filter 2x2, padding 1" in str(graph)
    assert from_dict(json.loads(json.dumps(to_dict(graph)))) == graph
    (pool,) = [node.operator for node in graph.nodes if getattr(node.operator, "weights", None)]
    assert isinstance(pool, AveragePool)
    assert "weights" not in AveragePool(pool.window).to_dict()  # as in files of earlier npk
    scaled = npk.trace(made("a scale for all")[0], (1, 4, 4), fixed="1.by")
    assert [n.operator.weight for n in scaled.nodes if isinstance(n.operator, Scale)] == [None]


def test_a_table_keeps_its_filters(tmp_path):
    net, fixed = made("a filter a channel")
    X = samples(3, 1, 4, 4)
    npk.record_gates(net, X, fixed=fixed).save(tmp_path / "gates")
    table = npk.GateTable.load(tmp_path / "gates")
    expected = npk.kernel(net, X, fixed=fixed, dtype="float64", progress=False)
    np.testing.assert_array_equal(npk.kernel(table, dtype="float64", progress=False), expected)


def test_estimators_take_fixed_filters():
    net, fixed = made("a filter a channel")
    X = samples(6, 1, 4, 4)
    machine = npk.NPKRidge(net, alpha=1.0, scale="fan_in", dtype="float64", fixed=fixed)
    machine.fit(X, np.arange(6.0))
    K = npk.kernel(net, X, fixed=fixed, dtype="float64", progress=False)
    expected = K @ np.linalg.solve(K + np.diag(K).mean() * np.eye(6), np.arange(6.0))
    np.testing.assert_allclose(machine.predict(X), expected, rtol=1e-8)
    with pytest.raises(OptionError, match="fixed=3 is not understood"):
        npk.NPKSVC(net, fixed=3).fit(X, [0, 1] * 3)


@pytest.mark.parametrize(
    ("fixed", "error", "why"),
    [
        (3, OptionError, "fixed=3 is not understood"),
        ([""], OptionError, "is not understood"),
        ("blr.*", OptionError, r"fixed='blr.\*' fits no parameter or buffer .* It has 0.bias, "),
        ("0.bias", OptionError, r"fixed= names 0\.bias, which node conv2d .* for a convolution"),
        ("0.weight", UnsupportedGraphError, r"names 0\.weight, whose filters mix channels \(1 to"),
        ("4.weight", UnsupportedGraphError, r"names 4\.weight, whose filters mix channels"),
        ("7.weight", OptionError, r"fixed= names 7\.weight, which node linear .* for a linear"),
        ("9.by", OptionError, r"fixed='9.by' names nothing on a path"),
    ],
)
def test_what_is_no_filter_is_refused(fixed, error, why):
    unused = Times([1.0])
    net = net_of(conv(1, 3), Blur(drawn(3, 1, 2, 2)), nn.ReLU(), nn.Identity(), conv(3, 2, 1))
    net.extend([*GAP, nn.Linear(2, 2), nn.Identity(), unused])
    net.double()

    def forward(x):
        for layer in list(net)[:8]:
            x = layer(x)
        return x

    net.forward = forward
    with pytest.raises(error, match=why):
        npk.trace(net, (1, 4, 4), fixed=fixed)


def test_a_filter_with_several_channels_of_one_is_refused():
    net = net_of(conv(1, 3), nn.Conv2d(3, 6, 2, groups=3, bias=False), nn.ReLU(), *GAP)
    with pytest.raises(UnsupportedGraphError, match=r"mix channels \(3 to 6\)"):
        npk.trace(net, (1, 4, 4), fixed="1.weight")


def test_a_gate_table_says_itself_what_is_fixed():
    net, fixed = made("a filter a channel")
    table = npk.record_gates(net, samples(3, 1, 4, 4), fixed=fixed)
    with pytest.raises(OptionError, match="a gate table's graph says already what is fixed"):
        npk.kernel(table, fixed=fixed)


@pytest.fixture
def checkpoint(tmp_path):
    net, _ = made("a filter a channel")
    torch.save(net.state_dict(), tmp_path / "net.pt")
    np.save(tmp_path / "X.npy", samples(3, 1, 4, 4))
    return tmp_path, net


def test_the_command_line_takes_fixed_filters(checkpoint, capsys):
    folder, net = checkpoint
    words = ["--arch", f"{__file__}:arch", "--data", str(folder / "X.npy"), "--fixed", "1.*"]
    ckpt, gates, out = (str(folder / name) for name in ("net.pt", "net.gates", "K.npy"))
    assert run(["inspect", ckpt, *words]) == 0
    assert "fixed filter 2x2" in capsys.readouterr().out
    expected = npk.kernel(net, samples(3, 1, 4, 4), fixed="1.*", progress=False)
    assert run(["kernel", ckpt, *words, "--out", out]) == 0
    np.testing.assert_array_equal(np.load(out), expected)
    assert run(["gates", ckpt, *words, "--out", gates]) == 0
    assert run(["kernel", gates, "--out", out]) == 0
    np.testing.assert_array_equal(np.load(out), expected)
    assert run(["check", "duality", ckpt, *words]) == 0


def arch():
    return made("a filter a channel")[0]
