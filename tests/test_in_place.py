"""Networks that work in place on what they are given: read as they compute, and the caller's arrays
stay as they are.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk


class Normalizes(nn.Module):
    """Samples are normalized where they are."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(F.relu(self.first(x.sub_(0.5).div_(0.25))))


class NormalizesElsewhere(Normalizes):
    """The same without working in place."""

    def forward(self, x):
        return self.last(F.relu(self.first((x - 0.5) / 0.25)))


class Views(nn.Module):
    """A value that was taken before its tensor is worked on in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        view = x.view(-1, 4)
        x.mul_(2.0)
        return self.layer(F.relu_(view))


class ViewsElsewhere(Views):
    def forward(self, x):
        return self.layer(F.relu(2.0 * x))


def first_relu(inplace):
    return nn.Sequential(nn.ReLU(inplace), nn.Linear(4, 8), nn.ReLU(inplace), nn.Linear(8, 3))


PAIRS = {
    "normalizes": (Normalizes, NormalizesElsewhere),
    "relu first": (lambda: first_relu(True), lambda: first_relu(False)),
    "views": (Views, ViewsElsewhere),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """A network that works in place on its input, and one that computes the same."""
    torch.manual_seed(0)
    net, same = (make().eval() for make in PAIRS[request.param])
    same.load_state_dict(net.state_dict())
    return net, same


@pytest.fixture
def X():
    return np.random.default_rng(0).uniform(-0.5, 1.5, (6, 4)).astype(np.float32)


def test_the_kernel_is_that_of_the_network_without_working_in_place(pair, X):
    net, same = pair
    before, hooks = X.copy(), dict(net._forward_pre_hooks)
    np.testing.assert_allclose(
        npk.kernel(net, X, progress=False),
        npk.kernel(same, X, progress=False),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_array_equal(X, before)
    assert net._forward_pre_hooks == hooks


def test_hooks_of_the_network_run_as_before(X):
    """Whatever comes before the network sees a copy, too."""
    torch.manual_seed(0)
    net, same = first_relu(True).eval(), first_relu(False).eval()
    same.load_state_dict(net.state_dict())
    net.register_forward_pre_hook(lambda _module, inputs: (inputs[0].add_(1.0),))
    same.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1.0,))
    np.testing.assert_allclose(
        npk.kernel(net, X, progress=False),
        npk.kernel(same, X, progress=False),
        rtol=1e-6,
        atol=1e-6,
    )


def test_checks_leave_the_samples_alone(pair, X):
    before = X.copy()
    result = npk.check_duality(pair[0], X, draws=20)
    assert result.passed
    assert result.measured < 1e-5
    np.testing.assert_array_equal(X, before)
    tensor = torch.tensor(X)
    npk.check_duality(pair[0], tensor, draws=20)
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_training_leaves_the_samples_alone(pair, X):
    """And validates on the same samples after every epoch."""
    X, y = np.tile(X, (5, 1)), np.tile(np.arange(3), 10)
    before, options = (
        X.copy(),
        {"epochs": 3, "validation": 0.2, "batch_size": 8, "seed": 0, "progress": False},
    )
    results = [npk.networks.train(net, X, y, **options) for net in pair]
    np.testing.assert_array_equal(X, before)
    for name in ("curve_train", "curve_validation"):
        np.testing.assert_allclose(*[getattr(result, name) for result in results], rtol=1e-4)


def test_a_chosen_output_is_that_of_its_module():
    """The ReLU behind it works in place on what it gave."""
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).eval(),
        torch.randn(5, 4),
    )
    chosen = npk.choose_output(net, "0")
    torch.testing.assert_close(chosen(x), net[0](x), rtol=0, atol=0)
    assert [node.operator for node in npk.trace(chosen, (4,)).nodes] == [
        node.operator for node in npk.trace(net[:1], (4,)).nodes
    ]
