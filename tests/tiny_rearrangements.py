"""Tiny networks that cut, join and rearrange channels and positions. Each entry: name -> (maker,
shape of a sample).
"""

import torch
from tiny_operators import SMALL, conv, image, net, pooled, sequential, shuffle
from torch import nn
from torch.nn import functional as F


def shuffle_unit(s, x):
    """ShuffleNet v2: half the channels pass, the others through 1x1, depthwise, 1x1; then a
    shuffle.
    """
    a, b = F.relu(s.stem(x)).chunk(2, dim=1)
    b = F.relu(s.last(s.depth(F.relu(s.first(b)))))
    return s.head(pooled(shuffle(torch.cat((a, b), 1), 2)))


def dense_block(s, x):
    h = s.stem(x)
    for layer in (s.first, s.second):
        h = torch.cat([h, layer(F.relu(h))], 1)
    return s.head(pooled(F.relu(h)))


def inception(s, x):
    branches = (
        s.one(x),
        s.three(x),
        s.pool(F.max_pool2d(x, 3, 1, 1)),
        s.mean(F.avg_pool2d(x, 3, 1, 1)),
    )
    return s.head(pooled(F.relu(torch.cat(branches, 1))))


def u_net(s, x):
    a = F.relu(s.down(x))
    b = F.relu(s.deep(F.max_pool2d(a, 2)))
    b = F.interpolate(b, scale_factor=2, mode="nearest")
    return s.head(pooled(F.relu(s.up(torch.cat([a, b], 1)))))


REARRANGED = {
    "dense block": net(
        (2, 3, 3),
        dense_block,
        stem=conv(2, 2, 1),
        first=conv(2, 1),
        second=conv(3, 1),
        head=nn.Linear(4, 2),
    ),
    "concatenation, batch norm, gate, convolution": net(
        (1, 3, 4),
        lambda s, x: s.h(pooled(F.relu(s.c(F.relu(s.norm(torch.cat([s.a(x), s.b(x)], 1))))))),
        a=conv(1, 2),
        b=conv(1, 1, 1),
        norm=nn.BatchNorm2d(3),
        c=conv(3, 2, 1),
        h=nn.Linear(2, 2),
    ),
    "inception": net(
        (1, 3, 4),
        inception,
        one=conv(1, 1, 1),
        three=conv(1, 2),
        pool=conv(1, 1, 1),
        mean=conv(1, 1, 1),
        head=nn.Linear(5, 2),
    ),
    "channel split and shuffle": net(
        (1, 3, 3),
        shuffle_unit,
        stem=conv(1, 4, 1),
        first=conv(2, 2, 1),
        depth=conv(2, 2, groups=2),
        last=conv(2, 2, 1),
        head=nn.Linear(4, 2),
    ),
    "slices of channels and positions": net(
        (3, 4, 4),
        lambda s, x: s.h(F.relu(s.a(x[:, 1:]))[:, :, 1:, ::2].flatten(1)),
        a=conv(2, 2),
        h=nn.Linear(12, 2),
    ),
    "one channel selected": net(
        (2, 3, 3),
        lambda s, x: s.h(F.relu(s.a(x[:, 1:2]))[:, 0].flatten(1)),
        a=conv(1, 2),
        h=nn.Linear(9, 2),
    ),
    "option-A shortcut": net(
        (2, 4, 4),
        lambda s, x: s.h(
            pooled(F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + s.b(F.relu(s.a(x)))))
        ),
        a=conv(2, 2, stride=2),
        b=conv(2, 4, 1),
        h=nn.Linear(4, 2),
    ),
    "nearest upsampling and a long skip": net(
        SMALL, u_net, down=conv(1, 2), deep=conv(2, 1), up=conv(3, 2, 1), head=nn.Linear(2, 2)
    ),
    "upsampling by 3 and to a size": net(
        (1, 2, 2),
        lambda s, x: s.h(
            pooled(s.b(F.interpolate(F.interpolate(F.relu(s.a(x)), scale_factor=3), size=(4, 5))))
        ),
        a=conv(1, 2, 1),
        b=conv(2, 2, 2, padding=0),
        h=nn.Linear(2, 2),
    ),
    "pixel shuffle": image(
        (1, 2, 3), 2, conv(1, 4), nn.ReLU(), nn.PixelShuffle(2), conv(1, 2), nn.ReLU()
    ),
    "pixel unshuffle": image(SMALL, 2, nn.PixelUnshuffle(2), conv(4, 2), nn.ReLU()),
    "pixel shuffle of the input": image((4, 2, 2), 2, nn.PixelShuffle(2), conv(1, 2), nn.ReLU()),
    "pixel shuffle of equal channels": net(
        (1, 2, 2),
        lambda s, x: s.h(
            pooled(F.relu(s.b(F.pixel_shuffle(F.leaky_relu(s.a(x), 0.1).repeat(1, 4, 1, 1), 2))))
        ),
        a=conv(1, 1),
        b=conv(1, 2),
        h=nn.Linear(2, 2),
    ),
    "permuted and flattened": net(
        (1, 3, 4),
        lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x)).permute(0, 2, 3, 1).flatten(1)))),
        a=conv(1, 2),
        b=nn.Linear(24, 2),
        h=nn.Linear(2, 2),
    ),
    "linear on the last axis": net(
        (2, 2, 3),
        lambda s, x: s.h(
            pooled(F.relu(s.b(F.relu(s.a(x)).permute(0, 2, 3, 1))).permute(0, 3, 1, 2))
        ),
        a=conv(2, 3),
        b=nn.Linear(3, 2),
        h=nn.Linear(2, 2),
    ),
    "linear along positions": net(
        (2, 4),
        lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x)))).flatten(1)),
        a=nn.Conv1d(2, 2, 2),
        b=nn.Linear(3, 2),
        h=nn.Linear(4, 2),
    ),
    "axes of positions exchanged": net(
        (1, 3, 4),
        lambda s, x: s.h(pooled(F.relu(s.b(s.a(x).transpose(2, 3))))),
        a=conv(1, 2),
        b=nn.Conv2d(2, 2, (2, 3)),
        h=nn.Linear(2, 2),
    ),
    "channels and positions exchanged": net(
        (2, 3),
        lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x)).transpose(1, 2))).mean(2)),
        a=nn.Conv1d(2, 2, 1),
        b=nn.Conv1d(3, 2, 2),
        h=nn.Linear(2, 2),
    ),
    "an image with channels last": net(
        (3, 4, 2),
        lambda s, x: s.h(pooled(F.relu(s.b(F.relu(s.a(x.permute(0, 3, 1, 2))))))),
        a=conv(2, 2),
        b=conv(2, 2, 2),
        h=nn.Linear(2, 2),
    ),
    "a vector seen as an image": net(
        (12,),
        lambda s, x: s.h(F.relu(s.a(x.view(-1, 1, 3, 4))).flatten(1)),
        a=conv(1, 2),
        h=nn.Linear(24, 2),
    ),
    "a middle layer seen as an image": net(
        (3,),
        lambda s, x: s.h(pooled(F.relu(s.b(F.relu(s.a(x)).view(-1, 2, 2, 3))))),
        a=nn.Linear(3, 12),
        b=conv(2, 2),
        h=nn.Linear(2, 2),
    ),
    "repeated and expanded channels": net(
        (2, 3, 3),
        lambda s, x: s.h(
            pooled(
                F.relu(
                    s.b(torch.cat([s.a(x).repeat(1, 2, 1, 1), x[:, :1].expand(-1, 2, -1, -1)], 1))
                )
            )
        ),
        a=conv(2, 1),
        b=conv(4, 2, 1),
        h=nn.Linear(2, 2),
    ),
    "circular branches of different dilation": net(
        SMALL,
        lambda s, x: s.h(pooled(F.relu(s.c(F.relu(torch.cat([s.a(x), s.b(x)], 1)))))),
        a=conv(1, 1, padding_mode="circular"),
        b=conv(1, 2, padding=2, dilation=2, padding_mode="circular"),
        c=conv(3, 2, 1),
        h=nn.Linear(2, 2),
    ),
    "branches stacked as positions": net(
        (1, 3, 3),
        lambda s, x: s.h(pooled(F.relu(s.c(torch.cat([F.relu(s.a(x)), s.b(x)], 2))))),
        a=conv(1, 2),
        b=conv(1, 2, 1),
        c=conv(2, 2),
        h=nn.Linear(2, 2),
    ),
    "flattened branches side by side": net(
        (1, 3, 3),
        lambda s, x: s.h(
            F.relu(s.c(torch.cat([F.relu(s.a(x)).flatten(1), pooled(s.b(x)), x.flatten(1)], 1)))
        ),
        a=conv(1, 2),
        b=conv(1, 2, 1),
        c=nn.Linear(29, 2),
        h=nn.Linear(2, 2),
    ),
    "one layer on two branches, side by side": net(
        (3,),
        lambda s, x: s.h(torch.cat([F.relu(s.b(F.relu(s.a(x)))), s.b(s.c(x))], 1)),
        a=nn.Linear(3, 2),
        b=nn.Linear(2, 2, bias=False),
        c=nn.Linear(3, 2),
        h=nn.Linear(4, 2),
    ),
    "channels stacked anew": net(
        (1, 4),
        lambda s, x: s.h(
            F.relu(s.b(torch.stack([F.relu(q := s.a(x))[:, 1], q[:, 0]], 1))).flatten(1)
        ),
        a=nn.Conv1d(1, 2, 2),
        b=nn.Conv1d(2, 2, 2),
        h=nn.Linear(4, 2),
    ),
    "cropped by a negative pad": net(
        (1, 4, 4),
        lambda s, x: s.h(pooled(F.relu(F.pad(s.a(x), (-1, 1, 0, -2))))),
        a=conv(1, 2),
        h=nn.Linear(2, 2),
    ),
    "one branch of a concatenation": net(
        (1, 3),
        lambda s, x: s.h(torch.cat([F.silu(x), F.relu(s.a(x))], 1)[:, 1:]).mean(2),
        a=nn.Conv1d(1, 1, 1),
        h=nn.Conv1d(1, 2, 1),
    ),
    "positions before channels at the end": net(
        (1, 3), lambda s, x: F.relu(s.a(x)).transpose(1, 2).flatten(1), a=nn.Conv1d(1, 2, 2)
    ),
    "pixel shuffle at the end": (sequential(conv(1, 4), nn.PixelShuffle(2)), (1, 2, 3)),
}
