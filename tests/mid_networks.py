"""Networks of the families that people use, narrow and on small images: too many paths to
enumerate. name -> (maker, sample shape).
"""

import itertools

import torch
from torch import nn
from torch.nn import functional as F


def conv_norm(i, o, k=3, **options):
    return nn.Sequential(
        nn.Conv2d(
            i, o, k, **{"padding": 0 if isinstance(k, tuple) else k // 2, "bias": False, **options}
        ),
        nn.BatchNorm2d(o),
    )


class Basic(nn.Module):
    """Two convolutions with a skip, gated after the sum."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.first, self.second = conv_norm(i, o, stride=stride), conv_norm(o, o)
        self.skip = conv_norm(i, o, 1, stride=stride) if i != o else nn.Identity()

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


def resnet18(width=8, classes=8):
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        blocks += [Basic(before, after, 1 if i == 0 else 2), Basic(after, after, 1)]
    stem = [
        conv_norm(3, width, 7, stride=2, padding=3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)
    )


def vgg11(width=4, classes=8):
    layers, before = [], 3
    for step in (1, "pool", 2, "pool", 4, 4, "pool", 8, 8, "pool", 8, 8, "pool"):
        if step == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, step * width, 3, padding=1), nn.ReLU(inplace=True)]
            before = step * width
    dense = [
        nn.Linear(before, 16),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(16, 16),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(16, classes),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *dense)


class Dense(nn.Module):
    """A dense layer: norm, gate, 1x1, norm, gate, 3x3; its result is joined to what came."""

    def __init__(self, i, growth):
        super().__init__()
        self.norm, self.squeeze, self.grow = (
            nn.BatchNorm2d(i),
            conv_norm(i, 2 * growth, 1),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x):
        return torch.cat([x, self.grow(F.relu(self.squeeze(F.relu(self.norm(x)))))], 1)


def densenet(growth=4, classes=8):
    layers, width = (
        [
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ],
        8,
    )
    for block in range(2):
        for _ in range(2):
            layers.append(Dense(width, growth))
            width += growth
        if block == 0:
            layers += [
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            width //= 2
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class Fire(nn.Module):
    """SqueezeNet's module: 1x1, then 1x1 beside 3x3."""

    def __init__(self, i, squeeze, expand):
        super().__init__()
        self.squeeze, self.one = nn.Conv2d(i, squeeze, 1), nn.Conv2d(squeeze, expand, 1)
        self.three, self.relu = nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.one(x)), self.relu(self.three(x))], 1)


def squeezenet(classes=8):
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
    fires = [Fire(8, 4, 6), Fire(12, 4, 6), pool(), Fire(12, 4, 8)]
    head = [
        nn.Dropout(),
        nn.Conv2d(16, classes, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), pool(), *fires, *head)


class Inverted(nn.Module):
    """MobileNet v2's block: 1x1 wider, depthwise, 1x1 narrower without a gate; a skip where shapes
    allow.
    """

    def __init__(self, i, o, stride):
        super().__init__()
        wide = 2 * i
        self.layers = nn.Sequential(
            conv_norm(i, wide, 1),
            nn.ReLU6(True),
            conv_norm(wide, wide, stride=stride, groups=wide),
            nn.ReLU6(True),
            conv_norm(wide, o, 1),
        )
        self.skip = stride == 1 and i == o

    def forward(self, x):
        return x + self.layers(x) if self.skip else self.layers(x)


def mobilenet(classes=8):
    blocks = [Inverted(4, 6, 2), Inverted(6, 6, 1), Inverted(6, 8, 2), Inverted(8, 8, 1)]
    head = [
        conv_norm(8, 16, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16, classes),
    ]
    return nn.Sequential(conv_norm(3, 4, stride=2), nn.ReLU6(True), *blocks, *head)


class Shuffle(nn.Module):
    """ShuffleNet v2's unit; with stride 2 both halves see all channels."""

    def __init__(self, i, o, stride):
        super().__init__()
        self.stride, half = stride, o // 2
        seen = i if stride > 1 else i // 2
        self.left = (
            nn.Sequential(
                conv_norm(seen, seen, stride=stride, groups=seen),
                conv_norm(seen, half, 1),
                nn.ReLU(True),
            )
            if stride > 1
            else None
        )
        depth = conv_norm(half, half, stride=stride, groups=half)
        self.right = nn.Sequential(
            conv_norm(seen, half, 1), nn.ReLU(True), depth, conv_norm(half, half, 1), nn.ReLU(True)
        )

    def forward(self, x):
        a, b = (x, x) if self.left else x.chunk(2, dim=1)
        h = torch.cat((self.left(a) if self.left else a, self.right(b)), 1)
        n, c, *sides = h.shape
        return h.view(n, 2, c // 2, *sides).transpose(1, 2).contiguous().view(n, c, *sides)


def shufflenet(classes=8):
    units = [Shuffle(6, 8, 2), Shuffle(8, 8, 1), Shuffle(8, 12, 2), Shuffle(12, 12, 1)]
    return nn.Sequential(
        conv_norm(3, 6, stride=2),
        nn.ReLU(True),
        *units,
        conv_norm(12, 16, 1),
        nn.ReLU(True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


class Inception(nn.Module):
    """1x1, 1x1-3x3, 1x1-1x3-3x1 and pool-1x1 side by side, each with batch norm and gate."""

    def __init__(self, i, o):
        super().__init__()
        unit = lambda *a, **k: nn.Sequential(conv_norm(*a, **k), nn.ReLU(True))  # noqa: E731
        self.one, self.three = unit(i, o, 1), nn.Sequential(unit(i, o, 1), unit(o, o, 3))
        self.split = nn.Sequential(
            unit(i, o, 1), unit(o, o, (1, 3), padding=(0, 1)), unit(o, o, (3, 1), padding=(1, 0))
        )
        self.pool = unit(i, o, 1)

    def forward(self, x):
        branches = [
            self.one(x),
            self.three(x),
            self.split(x),
            self.pool(F.avg_pool2d(x, 3, stride=1, padding=1)),
        ]
        return torch.cat(branches, 1)


def inception(classes=8):
    stem = [conv_norm(3, 6, stride=2), nn.ReLU(True), nn.MaxPool2d(3, 2)]
    return nn.Sequential(
        *stem,
        Inception(6, 3),
        nn.MaxPool2d(3, 2),
        Inception(12, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


class UNet(nn.Module):
    """Two levels down and up, by transposed convolution and by nearest neighbors; one logit a
    position.
    """

    def __init__(self):
        super().__init__()
        double = lambda i, o: nn.Sequential(  # noqa: E731
            conv_norm(i, o), nn.ReLU(True), conv_norm(o, o), nn.ReLU(True)
        )
        self.down, self.deeper, self.bottom = double(1, 3), double(3, 4), double(4, 5)
        self.up, self.wide, self.last = (
            nn.ConvTranspose2d(5, 4, 2, stride=2),
            double(8, 4),
            double(7, 3),
        )
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.deeper(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        h = self.wide(torch.cat([self.up(c), b], 1))
        return self.head(
            self.last(torch.cat([F.interpolate(h, scale_factor=2, mode="nearest"), a], 1))
        )


MID_NETWORKS = {
    "resnet-18": (resnet18, (3, 32, 32)),
    "vgg-11": (vgg11, (3, 32, 32)),
    "densenet": (densenet, (3, 16, 16)),
    "squeezenet": (squeezenet, (3, 32, 32)),
    "mobilenet": (mobilenet, (3, 32, 32)),
    "shufflenet": (shufflenet, (3, 32, 32)),
    "inception": (inception, (3, 32, 32)),
    "u-net": (UNet, (1, 8, 8)),
}


def make_mid(name, rng):
    """Network in eval mode with He-like weights, norms and biases off their special values; and the
    shape of a sample.
    """
    maker, shape = MID_NETWORKS[name]
    net = maker().double().eval()
    for key, tensor in net.state_dict().items():
        if tensor.dim() > 1:
            tensor.copy_(
                torch.as_tensor(
                    rng.standard_normal(tuple(tensor.shape)) * (2 / tensor[0].numel()) ** 0.5
                )
            )
        elif tensor.dtype.is_floating_point:
            center = 1.0 if key.endswith(("weight", "var")) else 0.0
            tensor.copy_(torch.as_tensor(center + rng.uniform(-0.3, 0.3, tuple(tensor.shape))))
    return net, shape
