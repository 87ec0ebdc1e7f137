"""Recording gates: what the traced program must survive."""

import numpy as np
import torch
from torch import nn

from npk import record_gates


def test_channels_last_activations_are_flattened(rng):
    """Batches of one channel have ambiguous strides, so torch may put channels last; the traced view must not fail."""
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 64, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    net = net.to(memory_format=torch.channels_last)
    X = rng.random((70, 1, 8, 8)).astype(np.float32)
    table = record_gates(net, X)
    expected = net[:3](torch.as_tensor(X)).detach().numpy().reshape(70, 64, 8, 8) > 0
    np.testing.assert_array_equal(table[0], expected)


def test_gates_do_not_depend_on_strides_that_mean_nothing(rng):
    """Strides of an axis of length 1 are arbitrary; convolutions must not round by them."""
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Sigmoid()).eval()
    gated = nn.Conv2d(1, 64, 1)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gating, self.value, self.head = net, gated, nn.Linear(64, 1)

        def forward(self, x):
            return self.head((self.value(x) * self.gating(x)).mean((2, 3)))

    plain = rng.random((70, 1, 8, 8)).astype(np.float32)
    odd = np.lib.stride_tricks.as_strided(plain, plain.shape, (256, 4, 32, 4))
    model = Gated().eval()
    np.testing.assert_array_equal(record_gates(model, odd)[0], record_gates(model, plain)[0])
