"""Weights that are written by hand or computed from parameters: the kernel and the output of the
plain layer with that weight.
"""

import numpy as np
import pytest
import torch
from frozen_gates import differentiated_kernel
from test_spellings import assert_duality, kernels, table_of
from tiny_operators import Net, conv
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import npk
from npk.errors import OptionError, UnsupportedGraphError


def random(*shape):
    return nn.Parameter(torch.randn(*shape))


def layer(function, shape, plain, **members):
    """Linear layer a position, then a layer by hand, a gate and a linear read-out; ``plain``: the
    same layer as a module.
    """
    torch.manual_seed(0)
    members = {
        "a": nn.Linear(shape[-1], 3),
        "w": random(4, 3),
        "b": random(4),
        "g": random(2, 4, 3),
        **members,
    }
    net = Net(lambda s, x: s.h(torch.relu(function(s, s.a(x))).flatten(1)), **members)
    width = net.function.__closure__ and 4 * int(np.prod(shape[:-1]))
    net.h = nn.Linear(width, 2)
    other = Net(
        lambda s, x: s.h(torch.relu(plain(s, s.a(x))).flatten(1)),
        **dict(net.named_children()),
        w=net.w,
        b=net.b,
        g=net.g,
    )
    return net.double().eval(), other.double().eval()


V, WORDS = (3,), (2, 3)
by_linear = lambda s, q: F.linear(q, s.w, s.b)  # noqa: E731
without = lambda s, q: F.linear(q, s.w)  # noqa: E731
grouped = lambda s, q: F.conv1d(q.flatten(1).unsqueeze(2), s.g.reshape(8, 3, 1), groups=2).reshape(  # noqa: E731
    -1, 2, 4
)
PRODUCTS = {
    "x @ w.T + b": (lambda s, q: q @ s.w.T + s.b, V, by_linear),
    "b + x @ w.t()": (lambda s, q: s.b + torch.matmul(q, s.w.t()), V, by_linear),
    "transpose": (lambda s, q: torch.mm(q, s.w.transpose(0, 1)) + s.b.reshape(1, -1), V, by_linear),
    "addmm": (lambda s, q: torch.addmm(s.b, q, s.w.t()), V, by_linear),
    "linear of a transpose": (
        lambda s, q: F.linear(q, s.w.t().contiguous().t(), s.b),
        V,
        by_linear,
    ),
    "einsum": (lambda s, q: torch.einsum("ni,oi->no", q, s.w) + s.b, V, by_linear),
    "einsum, weight first": (lambda s, q: torch.einsum("zq, bq -> bz", s.w, q) + s.b, V, by_linear),
    "einsum, implicit": (lambda s, q: torch.einsum("ab,cb", q, s.w) + s.b, V, by_linear),
    "tensordot": (lambda s, q: torch.tensordot(q, s.w, dims=([1], [1])) + s.b, V, by_linear),
    "inner": (lambda s, q: torch.inner(q, s.w), V, without),
    "matrix on the left": (lambda s, q: (s.w @ q.unsqueeze(2)).squeeze(2), V, without),
    "bmm with one matrix repeated": (
        lambda s, q: torch.bmm(q, s.w.t().expand(q.shape[0], 3, 4)),
        WORDS,
        without,
    ),
    "bmm, unsqueezed": (
        lambda s, q: torch.bmm(
            s.w.unsqueeze(0).expand(q.shape[0], -1, -1), q.transpose(1, 2)
        ).transpose(1, 2),
        WORDS,
        without,
    ),
    "words, einsum": (lambda s, q: torch.einsum("nti,oi->nto", q, s.w) + s.b, WORDS, by_linear),
    "words, dots": (lambda s, q: torch.einsum("...i,oi->...o", q, s.w), WORDS, without),
    "words, @": (lambda s, q: q @ s.w.T + s.b, WORDS, by_linear),
    "words, matrix on the left": (
        lambda s, q: torch.einsum("oi,nti->not", s.w, q).transpose(1, 2),
        WORDS,
        without,
    ),
    "a matrix a word": (lambda s, q: torch.einsum("nti,toi->nto", q, s.g), WORDS, grouped),
    "a matrix a word, matmul": (lambda s, q: (s.g @ q.unsqueeze(3)).squeeze(3), WORDS, grouped),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_with_a_matrix_is_a_layer(name):
    function, shape, plain = PRODUCTS[name]
    X = np.random.default_rng(5).standard_normal((3, *shape))
    net, other = layer(function, shape, plain)
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    for actual, right in zip(kernels(table), kernels(table_of(other, X)[0]), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-12)
    for scale in ("fan_in", "count"):
        actual, right = (
            npk.kernel(
                n,
                X,
                scale=scale,
                bias="paths",
                dtype="float64",
                backend="reference",
                progress=False,
            )
            for n in (net, other)
        )
        np.testing.assert_allclose(actual, right, rtol=1e-12)


class Frozen(nn.Module):
    """Batch norm of buffers alone, by hand."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x):
        weight, bias, mean, var = (
            getattr(self, name).reshape(1, -1, 1, 1) for name in ("weight", "bias", "mean", "var")
        )
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Standardized(nn.Conv2d):
    def forward(self, x):
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(
            x, centred / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias
        )


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.up, self.down = nn.Conv2d(2, 2, 1), random(2, 1), random(1, 2)

    def forward(self, x):
        return F.conv2d(
            x, self.base.weight + 0.5 * (self.up @ self.down)[:, :, None, None], self.base.bias
        )


def pruned():
    layer = conv(2, 2)
    prune.random_unstructured(layer, "weight", amount=0.5)
    return layer


def instance():
    layer = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    layer.running_mean.fill_(0.2)
    layer.running_var.fill_(1.5)
    return layer


COMPUTED = {
    "frozen batch norm": (lambda: Frozen(2), lambda: nn.BatchNorm2d(2)),
    "instance norm with running statistics": (instance, lambda: nn.BatchNorm2d(2)),
    "weight norm": (lambda: parametrizations.weight_norm(conv(2, 2)), lambda: conv(2, 2)),
    "weight norm of old": (lambda: nn.utils.weight_norm(conv(2, 2)), lambda: conv(2, 2)),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv(2, 2)), lambda: conv(2, 2)),
    "spectral norm of old": (lambda: nn.utils.spectral_norm(conv(2, 2)), lambda: conv(2, 2)),
    "mask of pruning": (pruned, lambda: conv(2, 2)),
    "standardized weights": (lambda: Standardized(2, 2, 3, padding=1), lambda: conv(2, 2)),
    "low-rank update": (LowRank, lambda: conv(2, 2, 1)),
}


def around(middle):
    torch.manual_seed(1)
    layers = nn.Sequential(
        conv(1, 2),
        nn.ReLU(),
        middle,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    return layers.double().eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", COMPUTED)
def test_a_computed_weight_is_the_layers_weight(name):
    """Under the gates of the network as it is, the kernel is that of a layer with a weight of its
    own, here by differentiation.
    """
    made, plain = COMPUTED[name]
    X = np.random.default_rng(6).standard_normal((3, 1, 3, 3))
    net, other = around(made()), around(plain())
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    with torch.no_grad():  # the plain network with the computed values has the same gates
        own, middle = (
            next(
                n for n in table.graph.nodes if n.name.startswith(("conv2d_1", "mul", "batch_norm"))
            ),
            other[2],
        )
        if isinstance(middle, nn.Conv2d):
            middle.weight.copy_(weights[own.operator.weight])
            middle.bias.copy_(weights[own.operator.bias])
            for i in (0, 6):
                other[i].load_state_dict(net[i].state_dict())
    if isinstance(other[2], nn.Conv2d):
        for actual, bias in zip(kernels(table), ("ignore", "paths"), strict=True):
            right = differentiated_kernel(other, torch.as_tensor(X), bias=bias)
            np.testing.assert_allclose(actual, right, rtol=1e-10)


def vector(function, **members):
    torch.manual_seed(0)
    members = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "h": nn.Linear(4, 2), **members}
    return Net(lambda s, x: s.h(function(s, s.a(x))), **members).double().eval()


# products of values and sums with tensors of the network: each as a Scale node, diagonal weights
DIAGONAL = {
    "a sum times a vector": lambda s, q: torch.relu((q + s.b(torch.relu(q))) * s.p),
    "a sum times a number of the network": lambda s, q: torch.relu(
        (s.b(torch.relu(q)) + q) * s.one
    ),
    "a residual branch times a number of the network": lambda s, q: torch.relu(
        q + s.one * s.b(torch.relu(q))
    ),
    "a sum over a vector": lambda s, q: torch.relu((q - s.b(torch.relu(q))) / s.p),
    "a sum of sums times numbers": lambda s, q: torch.relu(
        2.0 * (0.5 * (q + s.b(torch.relu(q))) + 0.25 * s.c(torch.relu(q)))
    ),
    "a computed vector": lambda s, q: torch.relu((q + s.b(torch.relu(q))) * s.p.exp()),
    "a gate of the network": lambda s, q: torch.relu(q * torch.sigmoid(s.p)),
    "scale and shift": lambda s, q: torch.relu(q * s.p + s.shift),
    "einsum of two vectors": lambda s, q: torch.relu(torch.einsum("nc,c->nc", q, s.p)),
}


# a network so small has dead samples
@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
@pytest.mark.parametrize("name", DIAGONAL)
def test_a_tensor_of_the_network_is_a_diagonal_weight(name):
    members = {
        "p": nn.Parameter(torch.rand(4) + 0.5),
        "one": nn.Parameter(torch.tensor(0.3)),
        "shift": random(4),
        "c": nn.Linear(4, 4),
    }
    net = vector(DIAGONAL[name], **members)
    X = np.random.default_rng(7).standard_normal((3, 3))
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    for bias, right in zip(("ignore", "paths"), kernels(table), strict=True):
        planned = npk.kernel(
            net, X, scale="count", dtype="float64", bias=bias, backend="reference", progress=False
        )
        np.testing.assert_allclose(planned, right, rtol=1e-11)


DEPENDENT = {
    "a matrix and its transpose": lambda s, q: torch.relu(q @ s.m) @ s.m.T,
    "a matrix and its double": lambda s, q: F.linear(torch.relu(F.linear(q, s.m)), 2 * s.m),
    "two computed from one": lambda s, q: F.linear(torch.relu(F.linear(q, s.m.exp())), s.m.tanh()),
    "in two branches": lambda s, q: F.linear(q, s.m.exp()) + F.linear(torch.relu(q), s.m.tanh()),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_weights_from_one_parameter_are_not_independent(name):
    with pytest.raises(UnsupportedGraphError, match="parameter m is used twice"):
        npk.trace(vector(DEPENDENT[name], m=random(4, 4)), (3,))


def test_one_computed_weight_is_met_again():
    twice = vector(
        lambda s, q: F.linear(torch.relu(F.linear(q, s.m.exp())), s.m.exp()), m=random(4, 4)
    )
    with pytest.raises(UnsupportedGraphError, match="is used twice along a path"):
        npk.trace(twice, (3,))


def test_a_mask_may_be_shared_where_parameters_enter():
    net = vector(
        lambda s, q: F.linear(torch.relu(F.linear(q, s.m * s.mask)), s.o * s.mask),
        m=random(4, 4),
        o=random(4, 4),
        mask=torch.eye(4),
    )
    X = np.random.default_rng(8).standard_normal((3, 3))
    assert_duality(net, X, *table_of(net, X))


REFUSED = {
    "a weight from the samples": (
        lambda s, q: F.linear(q, s.m * q.mean()),
        "weight is computed from the samples",
    ),
    "a weight by chance": (
        lambda s, q: F.linear(q, torch.rand(4, 4, dtype=q.dtype)),
        "computed from the samples, or by chance",
    ),
    "a product of samples": (
        lambda s, q: torch.einsum("ni,nj->nj", q, torch.relu(q)),
        "multiplies two computed values",
    ),
    "three matrices": (lambda s, q: torch.einsum("ni,ij,jk->nk", q, s.m, s.m), "more than two"),
    "bilinear": (lambda s, q: F.bilinear(q, torch.relu(q), s.t), "multiplies two computed values"),
    "samples mixed": (
        lambda s, q: torch.einsum("ni,ij->j", q, s.m)[None] + q,
        "its letters mix samples",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_layer_is_refused(name):
    function, words = REFUSED[name]
    with pytest.raises((UnsupportedGraphError), match=words):
        npk.trace(vector(function, m=random(4, 4), t=random(4, 4, 4)), (3,))


# ------------------------------------------------------------------------------------------------ ones


STARTS = {
    "of every sample": lambda s, x: torch.ones(x.shape[0], 5),
    "without a batch axis": lambda s, x: torch.ones(5),
    "of one sample": lambda s, x: torch.ones(1, 5),
    "expanded": lambda s, x: torch.ones(1, 5).expand(x.shape[0], 5),
    "repeated": lambda s, x: torch.ones(5).expand(x.shape[0], -1),
    "like another value": lambda s, x: torch.ones_like(s.v(x)),
    "times 0 plus 1": lambda s, x: s.v(x) * 0 + 1,
    "new": lambda s, x: x.new_ones(x.shape[0], 5),
    "full": lambda s, x: torch.full((5,), 1.0),
}


def started(start):
    torch.manual_seed(0)
    members = {
        "g": nn.Linear(3, 4),
        "v": nn.Linear(3, 5),
        "w": nn.Linear(5, 4),
        "h": nn.Linear(4, 2),
    }

    def forward(s, x):
        return s.h(torch.sigmoid(4 * s.g(x)) * s.w(start(s, x).to(x.dtype)))

    return Net(forward, **members).double().eval()


@pytest.mark.parametrize("name", STARTS)
def test_paths_start_from_ones_of_any_shape(name):
    X = np.random.default_rng(9).standard_normal((4, 3))
    net = started(STARTS[name])
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
    soft = torch.sigmoid(4 * net.g(torch.as_tensor(X))).detach().numpy()
    # five ones, one path each to every gate
    np.testing.assert_allclose(kernels(table)[0], 5 * soft @ soft.T, rtol=1e-12)
    planned = npk.kernel(
        net, X, scale="count", bias="ignore", dtype="float64", backend="reference", progress=False
    )
    np.testing.assert_allclose(planned, 5 * soft @ soft.T, rtol=1e-12)
    with pytest.raises(
        OptionError,
        match=r"samples of shape \(3,\) in the place of the ones .* of "
        r"shape \(5,\)",
    ):
        npk.kernel(net, X, value_input="x", progress=False, bias="ignore")


def test_images_of_ones_without_a_batch_axis():
    torch.manual_seed(0)
    net = Net(
        lambda s, x: s.h(
            (torch.sigmoid(s.g(x)) * s.v(torch.ones(2, 4, 4, dtype=x.dtype))).mean((2, 3))
        ),
        **{"g": conv(1, 2), "v": conv(2, 2), "h": nn.Linear(2, 2)},
    )
    X = np.random.default_rng(10).standard_normal((3, 1, 4, 4))
    net = net.double().eval()
    table, weights = table_of(net, X)
    assert_duality(net, X, table, weights)
