"""Tiny networks of every kind, small enough to enumerate their paths. Each entry: name -> (maker,
shape of a sample).
"""

import copy

import torch
from tiny_operators import GAP, OPERATORS, SMALL, conv, sequential
from tiny_rearrangements import REARRANGED
from torch import nn
from torch.nn import functional as F

import npk


class Residual(nn.Module):
    """Stem, blocks with skips, head; ``gated``: a ReLU after each addition. ReLUs functional, in
    place and re-used.
    """

    def __init__(self, gated):
        super().__init__()
        self.gated, self.relu = gated, nn.ReLU(inplace=True)
        self.stem, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        h = self.relu(self.stem(x))
        for layer in (self.first, self.second):
            h = h + F.relu(layer(h)) if not self.gated else F.relu_(h + layer(h))
        return self.head(h)


class ConvResidual(nn.Module):
    """A strided block with a 1x1 projection and batch norm, gated after the addition."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.main, self.norm = (
            nn.Conv2d(2, 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2),
        )
        self.skip, self.head = nn.Conv2d(2, 2, 1, stride=2), nn.Linear(2, 2)

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = torch.relu(self.norm(self.main(h)) + self.skip(h))
        return self.head(h.mean((2, 3)))


class Comparison(nn.Module):
    """ReLU written as x * (x > 0), and a sigmoid gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Linear(3, 4),
            nn.Linear(4, 3),
            nn.Linear(3, 2),
            nn.Linear(3, 3),
        )

    def forward(self, x):
        h = self.a(x)
        h = h * (h > 0)
        return self.c(self.b(h) * torch.sigmoid(self.d(x)))


def built(arch, kind, shape, **options):
    return lambda: npk.networks.build(
        arch, kind, input_shape=shape, classes=2, seed=1, **options
    ), shape


NETWORKS = {
    "one linear layer": (sequential(nn.Linear(5, 2)), (5,)),
    "fully connected": (
        sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
        (3,),
    ),
    "leaky": (sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 2)), (3,)),
    "batch norm": (
        sequential(
            nn.Linear(3, 4),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.Linear(4, 3),
            nn.ReLU(),
            nn.BatchNorm1d(3),
            nn.Linear(3, 2),
        ),
        (3,),
    ),
    "residual, no gate after the sum": (lambda: Residual(gated=False), (3,)),
    "residual, gate after the sum": (lambda: Residual(gated=True), (3,)),
    "comparison and sigmoid": (Comparison, (3,)),
    "conv circular, global pool": (
        sequential(
            conv(1, 2, padding_mode="circular"),
            nn.ReLU(),
            conv(2, 2, padding_mode="circular"),
            nn.ReLU(),
            *GAP,
            nn.Linear(2, 2),
        ),
        SMALL,
    ),
    "conv zero padding, global pool": (
        sequential(
            conv(2, 2),
            nn.ReLU(),
            conv(2, 2),
            nn.ReLU(),
            *GAP,
            nn.Linear(2, 3),
            nn.ReLU(),
            nn.Linear(3, 2),
        ),
        (2, 3, 4),
    ),
    "conv, flatten": (
        sequential(
            conv(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3), nn.ReLU(), nn.Linear(3, 2)
        ),
        SMALL,
    ),
    "conv stride 2, circular": (
        sequential(conv(1, 3, stride=2, padding_mode="circular"), nn.ReLU(), *GAP, nn.Linear(3, 2)),
        (1, 5, 4),
    ),
    "conv dilated, valid": (
        sequential(
            nn.Conv2d(1, 2, 2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(2, 2, 2),
            nn.ReLU(),
            *GAP,
            nn.Linear(2, 2),
        ),
        (1, 5, 5),
    ),
    "conv same, even kernel": (
        sequential(nn.Conv2d(1, 2, 2, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)),
        (1, 3, 3),
    ),
    "conv, reflected padding": (
        sequential(conv(1, 2, padding_mode="reflect"), nn.ReLU(), *GAP, nn.Linear(2, 2)),
        (1, 3, 3),
    ),
    "max pool": (
        sequential(
            conv(1, 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            conv(2, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 2),
        ),
        SMALL,
    ),
    "max pool, overlapping and padded": (
        sequential(conv(1, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(8, 2)),
        SMALL,
    ),
    "average pool, then gate": (
        sequential(
            conv(1, 2), nn.AvgPool2d(2), nn.ReLU(), conv(2, 2), nn.ReLU(), *GAP, nn.Linear(2, 2)
        ),
        SMALL,
    ),
    "average pool without padding in the count": (
        sequential(
            conv(1, 2),
            nn.ReLU(),
            nn.AvgPool2d(2, 1, 1, count_include_pad=False),
            nn.ReLU(),
            *GAP,
            nn.Linear(2, 2),
        ),
        (1, 3, 3),
    ),
    "adaptive pool": (
        sequential(conv(1, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
        SMALL,
    ),
    "conv residual with projection": (ConvResidual, SMALL),
    "conv in one dimension": (
        sequential(
            nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 2)
        ),
        (2, 4),
    ),
    "pool of the input": (
        sequential(nn.AvgPool2d(2), conv(1, 2), nn.ReLU(), *GAP, nn.Linear(2, 2)),
        SMALL,
    ),
    "dropout": (sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)), (3,)),
    "fc dgn, soft": built("fc", "dgn", (3,), hidden=[4, 3]),
    "fc dgn, hard": built("fc", "dgn", (3,), hidden=[4, 3], gates="hard"),
    "fc dlgn, ones": built("fc", "dlgn", (3,), hidden=[4, 4]),
    "fc dlgn-sf": built("fc", "dlgn-sf", (3,), hidden=[4, 4], gates="hard"),
    "conv dgn": built("conv", "dgn", SMALL, channels=[2, 2], epsilon=0.1),
    "conv dlgn": built(
        "conv", "dlgn", SMALL, channels=[2, 2], strides=[1, 2], readout="flatten", padding="zero"
    ),
    "conv dlgn-sf": built("conv", "dlgn-sf", SMALL, channels=[2, 2], gates="hard", value_input="x"),
    "residual dlgn, gated skips": built("residual", "dlgn", SMALL, widths=[2], skip="gated"),
    "residual dnn, ungated skips": built(
        "residual", "dnn", (3,), widths=[3, 3], flavor="fc", block_layers=1
    ),
    "vgg16": built("vgg16", "dnn", (1, 32, 32), width=1 / 64),
    "resnet110": built("resnet110", "dnn", SMALL, blocks=1, width=1),
    **OPERATORS,
    **REARRANGED,
}
# too many to enumerate: the moment identity serves
MANY_PATHS = ("vgg16", "resnet110", "residual dlgn, gated skips")


# What is left of a network behind what it adds to its samples, which gate tables have.
BEHIND_SHIFTS = {
    "constants added": lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x) - 0.3)))),
    "normalization in the network": lambda s, x: s.h(F.relu(s.a(x / s.std)).mean((2, 3))),
}


def behind_shifts(name, net):
    """The network that gives for the samples of its gate table what it gives for its own."""
    if name not in BEHIND_SHIFTS:
        return net
    left = copy.deepcopy(net)
    left.function = BEHIND_SHIFTS[name]
    return left


def make(name, rng):
    """Network of its own and sample shape; parameters drawn, batch-norm statistics moved off their
    special values.
    """
    maker, shape = NETWORKS[name]
    net = copy.deepcopy(maker()).double().eval()
    for tensor in net.parameters():
        fan_in = tensor[0].numel() if tensor.dim() > 1 else tensor.numel()
        tensor.data = torch.as_tensor(
            rng.uniform(-1, 1, tuple(tensor.shape)) / fan_in**0.5
            + 0.2 * rng.random(tuple(tensor.shape))
        )
    for buffer, tensor in net.named_buffers():
        if tensor.dtype.is_floating_point:
            tensor.add_(
                torch.as_tensor(
                    (-0.4 if buffer.endswith("mean") else 0.4) * rng.random(tuple(tensor.shape))
                )
            )
    return net, shape


def samples(net_shape, n, rng):
    return rng.standard_normal((n, *net_shape))
