"""Tiny networks, one for each operator and dangerous combination. Each entry: name -> (maker, shape
of a sample).
"""

import torch
from torch import nn
from torch.nn import functional as F

GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
SMALL = (1, 4, 4)


class Net(nn.Module):
    """A network from a function of itself and x."""

    def __init__(self, function, **members):
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, x):
        return self.function(self, x)


def net(shape, function, **members):
    return lambda: Net(function, **members), shape


def sequential(*layers):
    return lambda: nn.Sequential(*layers)


def conv(i, o, k=3, **options):
    return nn.Conv2d(i, o, k, **{"padding": k // 2, **options})


def parameter(*shape):
    return nn.Parameter(torch.ones(shape))


def image(shape, channels, *layers, classes=2):
    """Layers, then a global average pool of so many channels and a linear read-out."""
    return sequential(*layers, *GAP, nn.Linear(channels, classes)), shape


def flat(shape, width, *layers, classes=2):
    """Layers, then a flatten to so many values and a linear read-out."""
    return sequential(*layers, nn.Flatten(), nn.Linear(width, classes)), shape


def pooled(h):
    return h.mean((2, 3))


def shuffle(h, groups):
    n, channels, *sides = h.shape
    return (
        h.view(n, groups, channels // groups, *sides).transpose(1, 2).reshape(n, channels, *sides)
    )


def stochastic_depth(s, x):
    h = F.relu(s.a(x))
    branch = s.b(h)
    if s.training:
        branch = branch * torch.bernoulli(torch.full((len(x), 1), 0.5))
    return s.h(F.relu(h + F.dropout(branch, 0.5, s.training)))


def squeeze(s, x, gate, form):
    q = F.relu(s.c(x))
    pooled_q = q.mean((2, 3), keepdim=True)
    if form == "view":
        weights = gate(s.up(F.relu(s.down(pooled_q.flatten(1))))).view(q.shape[0], q.shape[1], 1, 1)
    else:
        weights = gate(s.up(F.relu(s.down(pooled_q))))
    return s.h(pooled(q * weights))


def re_used(s, x):
    """One in-place module, functional and method ReLUs in turn."""
    h = s.relu(s.a(x))
    h = s.relu(h + F.relu(s.b(h)))
    return s.h(torch.relu_(s.c(h)).relu())


CONVOLUTIONS = {
    "grouped": image(
        (2, 3, 4), 2, conv(2, 4, groups=2), nn.ReLU(), conv(4, 2, groups=2), nn.ReLU()
    ),
    "depthwise, then pointwise": image(
        SMALL, 3, conv(1, 2), nn.ReLU(), conv(2, 2, groups=2), nn.ReLU(), conv(2, 3, 1), nn.ReLU()
    ),
    "depthwise, multiplier 2": flat((2, 4, 3), 16, conv(2, 4, groups=2, stride=2), nn.ReLU()),
    "grouped, shuffled, grouped": net(
        (2, 3, 3),
        lambda s, x: s.h(pooled(F.relu(s.b(shuffle(F.relu(s.a(x)), 2))))),
        a=conv(2, 4, groups=2),
        b=conv(4, 2, 2, groups=2, padding=0),
        h=nn.Linear(2, 2),
    ),
    "three groups shuffled into two": net(
        (3, 2, 2),
        lambda s, x: s.h(F.relu(s.b(shuffle(s.a(x), 3))).flatten(1)),
        a=conv(3, 6, groups=3),
        b=conv(6, 2, 1, groups=2),
        h=nn.Linear(8, 2),
    ),
    "one dimension, strided, average pool": flat(
        (2, 7),
        4,
        nn.Conv1d(2, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool1d(2, 1),
        nn.Conv1d(3, 2, 2),
        nn.ReLU(),
    ),
    "three dimensions, max pool": flat(
        (1, 3, 3, 4),
        2,
        nn.Conv3d(1, 2, 2),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(2, 2, (2, 1, 1)),
        nn.ReLU(),
    ),
    "three dimensions, padded average pool": flat(
        (1, 2, 3, 3),
        8,
        nn.Conv3d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool3d(2, 2, (1, 0, 1), count_include_pad=False),
    ),
    "transposed, stride 2, output padding": image(
        SMALL,
        2,
        conv(1, 2, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
    ),
    "transposed, even kernel": flat(
        (1, 2, 2),
        18,
        nn.ConvTranspose2d(1, 2, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(2, 2, 2),
        nn.ReLU(),
    ),
    "transposed, grouped and dilated": image(
        (2, 2, 3),
        4,
        nn.ConvTranspose2d(2, 4, 2, groups=2, dilation=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 1, groups=4),
        nn.ReLU(),
    ),
    "transposed, stride 3 beyond the kernel": flat(
        (1, 3), 14, nn.ConvTranspose1d(1, 2, 2, 3, padding=1, output_padding=1), nn.ReLU()
    ),
    "even kernels, padded same": image(
        (1, 4, 3),
        2,
        nn.Conv2d(1, 2, (2, 4), padding="same"),
        nn.ReLU(),
        nn.Conv2d(2, 2, 2, padding="same", dilation=3),
        nn.ReLU(),
    ),
    "dilated": image(
        (1, 5, 4),
        2,
        conv(1, 2, padding=2, dilation=2),
        nn.ReLU(),
        conv(2, 2, stride=(2, 1), dilation=(1, 2)),
        nn.ReLU(),
    ),
    "replicated padding": image(
        SMALL,
        2,
        conv(1, 2, padding_mode="replicate"),
        nn.ReLU(),
        conv(2, 2, padding_mode="reflect"),
        nn.ReLU(),
    ),
    "circular depthwise": image(
        SMALL,
        2,
        conv(1, 2, padding_mode="circular"),
        nn.ReLU(),
        conv(2, 2, groups=2, padding_mode="circular"),
        nn.ReLU(),
    ),
    "depthwise, stride and pool": image(
        (2, 5, 5),
        2,
        conv(2, 2, groups=2, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        conv(2, 2, groups=2),
        nn.ReLU(),
    ),
    "1x1 projection beside a pool": net(
        (2, 4, 4),
        lambda s, x: s.h(pooled(F.relu(s.b(F.relu(s.a(x))) + s.p(F.avg_pool2d(x, 2))))),
        a=conv(2, 2, stride=2),
        b=conv(2, 2, 1),
        p=conv(2, 2, 1, bias=False),
        h=nn.Linear(2, 2),
    ),
}

POOLS = {
    "overlapping max pools": image(
        (1, 5, 5),
        2,
        conv(1, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        conv(2, 2, 2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
    ),
    "max pool, ceil_mode": flat(
        (1, 3, 5), 12, conv(1, 2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)
    ),
    "max pool, padded, ceil_mode, dilated": flat(
        (1, 5, 6), 24, conv(1, 2), nn.ReLU(), nn.MaxPool2d(2, 2, 1, dilation=2, ceil_mode=True)
    ),
    "average pool, ceil_mode": flat(
        (1, 4, 5), 18, conv(1, 2), nn.ReLU(), nn.AvgPool2d(3, 2, 1, ceil_mode=True)
    ),
    "average pool, ceil_mode, no padding counted": flat(
        (1, 4, 5),
        18,
        conv(1, 2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    "average pool, another divisor": flat(
        (1, 4, 3), 4, conv(1, 2), nn.ReLU(), nn.AvgPool2d(2, divisor_override=3)
    ),
    "adaptive average 5 to 3": flat((1, 5, 4), 18, conv(1, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3)),
    "adaptive average beyond the image": flat(
        (1, 2, 3), 20, conv(1, 2), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 5))
    ),
    "adaptive max 5 to 3": flat((1, 5, 3), 12, conv(1, 2), nn.ReLU(), nn.AdaptiveMaxPool2d((3, 2))),
    "adaptive pools of lines": flat(
        (1, 7), 4, nn.Conv1d(1, 2, 2), nn.AdaptiveMaxPool1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(2)
    ),
    "max pool before the gate": image(
        (1, 4, 5), 2, conv(1, 2), nn.MaxPool2d(2), nn.ReLU(), conv(2, 2), nn.ReLU()
    ),
    "max pool of the input": image(SMALL, 2, nn.MaxPool2d(2, 1), conv(1, 2), nn.ReLU()),
    "two pools in a row": flat(
        (1, 5, 5), 2, conv(1, 2), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(1)
    ),
    "global max pool": net(
        SMALL,
        lambda s, x: s.h(F.adaptive_max_pool2d(F.relu(s.a(x)), 1).flatten(1)),
        a=conv(1, 3),
        h=nn.Linear(3, 2),
    ),
    "means over one axis": net(
        (1, 3, 4),
        lambda s, x: s.h(F.relu(s.a(x)).mean(3).mean(2, keepdim=True).squeeze(2)),
        a=conv(1, 2),
        h=nn.Linear(2, 2),
    ),
}

NORMS = {
    "batch norm of the input": image((2, 3, 3), 2, nn.BatchNorm2d(2), conv(2, 2), nn.ReLU()),
    "batch norm after the gate, zero padding": image(
        SMALL, 2, conv(1, 2), nn.ReLU(), nn.BatchNorm2d(2), conv(2, 2), nn.ReLU()
    ),
    "batch norm without weights": image(
        SMALL, 2, conv(1, 2), nn.BatchNorm2d(2, affine=False), nn.ReLU()
    ),
    "batch norm on a skip": net(
        (2, 3, 3),
        lambda s, x: s.h(pooled(F.relu(s.norm(x) + s.b(F.relu(s.a(x)))))),
        norm=nn.BatchNorm2d(2),
        a=conv(2, 2, 2, padding=0),
        b=nn.Conv2d(2, 2, 2, padding=1),
        h=nn.Linear(2, 2),
    ),
    "batch norm after flatten": (
        sequential(conv(1, 2), nn.Flatten(), nn.BatchNorm1d(18), nn.ReLU(), nn.Linear(18, 2)),
        (1, 3, 3),
    ),
    "batch norm before a pool": image(
        SMALL, 2, conv(1, 2), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.ReLU()
    ),
}

SCALED = {
    "multiples": net(
        (3,),
        lambda s, x: s.h(F.relu(0.5 * s.a(x) - s.b(x) / 3) + F.relu(-s.c(x)).mul(1.5)),
        a=nn.Linear(3, 2),
        b=nn.Linear(3, 2),
        c=nn.Linear(3, 2),
        h=nn.Linear(2, 2),
    ),
    "add of a multiple": net(
        (3,),
        lambda s, x: s.h(F.relu(torch.add(s.a(x), s.b(x), alpha=-2))),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
        h=nn.Linear(4, 2),
    ),
    "one learned multiple of a branch": net(
        (3,),
        lambda s, x: s.h(F.relu((q := F.relu(s.a(x))) + s.alpha * s.b(q))),
        a=nn.Linear(3, 3),
        b=nn.Linear(3, 3),
        alpha=parameter(),
        h=nn.Linear(3, 2),
    ),
    "learned multiples of channels": net(
        SMALL,
        lambda s, x: s.h(pooled(F.relu((q := F.relu(s.a(x))) + s.gamma * s.b(q)))),
        a=conv(1, 2),
        b=conv(2, 2),
        gamma=parameter(2, 1, 1),
        h=nn.Linear(2, 2),
    ),
    "constants added": net(
        (3,),
        lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x + 1) - 0.3)))),
        a=nn.Linear(3, 3),
        b=nn.Linear(3, 3),
        h=nn.Linear(3, 2),
    ),
    "normalization in the network": net(
        (2, 3, 3),
        lambda s, x: s.h(pooled(F.relu(s.a((x - s.mean) / s.std)))),
        mean=torch.tensor([0.3, -0.2]).view(1, 2, 1, 1),
        std=torch.tensor([0.5, 2.0]).view(1, 2, 1, 1),
        a=conv(2, 2),
        h=nn.Linear(2, 2),
    ),
    "a learned constant added": net(
        (3,),
        lambda s, x: s.h(F.relu(s.a(x) + s.bias)),
        a=nn.Linear(3, 3, bias=False),
        bias=parameter(3),
        h=nn.Linear(3, 2),
    ),
}

VECTOR = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2)


def gated(gate):
    """Two hidden layers under one kind of gate."""
    a, b, c = VECTOR
    return sequential(a, gate, b, gate, c), (3,)


GATES = {
    "prelu": gated(nn.PReLU(init=0.3)),
    "prelu by channel": image(
        SMALL, 2, conv(1, 2), nn.PReLU(2), nn.MaxPool2d(2), conv(2, 2), nn.PReLU(2)
    ),
    "relu6": (
        sequential(
            nn.Linear(3, 4), nn.ReLU6(), nn.Linear(4, 3), nn.Hardtanh(0.0, 0.5), nn.Linear(3, 2)
        ),
        (3,),
    ),
    "hardtanh": (
        sequential(
            nn.Linear(3, 4),
            nn.Hardtanh(-0.5, 0.7),
            nn.Linear(4, 3),
            nn.Hardtanh(-1, 2),
            nn.Linear(3, 2),
        ),
        (3,),
    ),
    "hardtanh before a pool": image(
        SMALL, 2, conv(1, 2), nn.Hardtanh(-0.2, 0.3), nn.AvgPool2d(3, 2, 1), conv(2, 2), nn.ReLU6()
    ),
    "clamp": net(
        (3,),
        lambda s, x: s.h(s.b(s.a(x).clamp(min=0)).clamp_(min=0)),
        a=nn.Linear(3, 4),
        b=nn.Linear(4, 3),
        h=nn.Linear(3, 2),
    ),
    "abs": net(
        (3,),
        lambda s, x: s.h(torch.abs(s.b(s.a(x).abs()))),
        a=nn.Linear(3, 4),
        b=nn.Linear(4, 3),
        h=nn.Linear(3, 2),
    ),
    "squeeze and excite, sigmoid": net(
        SMALL,
        lambda s, x: squeeze(s, x, torch.sigmoid, "conv"),
        c=conv(1, 3),
        down=conv(3, 2, 1),
        up=conv(2, 3, 1),
        h=nn.Linear(3, 2),
    ),
    "squeeze and excite, hard sigmoid and views": net(
        SMALL,
        lambda s, x: squeeze(s, x, F.hardsigmoid, "view"),
        c=conv(1, 3),
        down=nn.Linear(3, 2),
        up=nn.Linear(2, 3),
        h=nn.Linear(3, 2),
    ),
    "gated linear units": net(
        (3,),
        lambda s, x: s.h(F.glu(s.b(F.glu(s.a(x), 1)))),
        a=nn.Linear(3, 6),
        b=nn.Linear(3, 4),
        h=nn.Linear(2, 2),
    ),
    "gated convolution units": image(SMALL, 2, conv(1, 4), nn.GLU(1), conv(2, 4), nn.GLU(1)),
    "silu": gated(nn.SiLU()),
    "hardswish": gated(nn.Hardswish()),
    "mish": gated(nn.Mish()),
    "relu6 under a sigmoid gate": net(
        (3,),
        lambda s, x: s.h(F.relu6(3 * s.a(x)) * torch.sigmoid(s.g(x))),
        a=nn.Linear(3, 4),
        g=nn.Linear(3, 4),
        h=nn.Linear(4, 2),
    ),
    "relu6, halved": net(
        (3,), lambda s, x: s.h(0.5 * F.relu6(3 * s.a(x))), a=nn.Linear(3, 4), h=nn.Linear(4, 2)
    ),
    "dropout and stochastic depth": net(
        (3,), stochastic_depth, a=nn.Linear(3, 3), b=nn.Linear(3, 3), h=nn.Linear(3, 2)
    ),
    "re-used and in-place gates": net(
        (3,),
        re_used,
        relu=nn.ReLU(inplace=True),
        a=nn.Linear(3, 3),
        b=nn.Linear(3, 3),
        c=nn.Linear(3, 3),
        h=nn.Linear(3, 2),
    ),
}

OUTPUTS = {
    "second of two heads": net(
        (3,),
        lambda s, x: (s.g(q := F.relu(s.a(x))), s.h(q))[1],
        a=nn.Linear(3, 4),
        g=nn.Linear(4, 3),
        h=nn.Linear(4, 2),
    ),
    "gate before the last pool": (
        sequential(conv(1, 2), nn.ReLU(), conv(2, 3, 1), nn.ReLU(), *GAP),
        (1, 3, 4),
    ),
    "gated output": (sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU()), (3,)),
    "output with positions": (sequential(conv(1, 2), nn.ReLU(), conv(2, 2)), (1, 3, 3)),
    "gated output with positions": (
        sequential(conv(1, 2), nn.ReLU(), conv(2, 2, 1), nn.LeakyReLU(0.1)),
        (1, 3, 2),
    ),
    "concatenated heads": net(
        (3,),
        lambda s, x: torch.cat([s.g(q := F.relu(s.a(x))), s.h(q), x], 1),
        a=nn.Linear(3, 4),
        g=nn.Linear(4, 1),
        h=nn.Linear(4, 2),
    ),
    "read-out without weights": (sequential(conv(2, 3, 1), nn.ReLU(), nn.MaxPool2d(2)), (2, 2, 4)),
}

OPERATORS = {**CONVOLUTIONS, **POOLS, **NORMS, **SCALED, **GATES, **OUTPUTS}
