"""Residual networks in the form of He et al. (arXiv 1512.03385), with random weights: ResNet-20
and ResNet-110 for CIFAR, ResNet-18 for ImageNet; and with gates before layers (arXiv 1603.05027).
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions, a shortcut around them, and a rectifier after the addition.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution and of the shortcut.
        projection: a 1 x 1 convolution in a shortcut that changes size (the paper's option B); else
            positions are left out and channels of zeros added (option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, projection: bool):
        super().__init__()
        first = _convolution(inputs, outputs, 3, stride)
        self.body = nn.Sequential(*first, nn.ReLU(), *_convolution(outputs, outputs, 3, 1))
        changes = stride > 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(*_convolution(inputs, outputs, 1, stride))
            if changes and projection
            else None
        )
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Values after the block."""
        if self.shortcut is not None:
            short = self.shortcut(x)
        elif self.stride > 1 or self.added:
            short = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added)
            )
        else:
            short = x
        return functional.relu(self.body(x) + short)


class Before(nn.Module):
    """Two 3 x 3 convolutions, each behind a batch norm and a rectifier, and a shortcut around them,
    without a gate on the stream.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution and, with parameters, of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        layers: list[nn.Module] = []
        for ends, step in (((inputs, outputs), stride), ((outputs, outputs), 1)):
            conv = nn.Conv2d(*ends, 3, step, padding=1, bias=False)
            layers += [nn.BatchNorm2d(ends[0]), nn.ReLU(), conv]
        self.body = nn.Sequential(*layers)
        changes = stride > 1 or inputs != outputs
        short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut = short if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Values after the block."""
        return self.body(x) + self.shortcut(x)


def preactivation20() -> nn.Module:
    """As :func:`resnet20` with gates before layers and shortcuts by projection."""
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        blocks += [Before(inputs, outputs, 1 + (inputs != outputs))]
        blocks += [Before(outputs, outputs, 1) for _ in range(2)]
    ends = [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*blocks, *ends, nn.Linear(64, 10)).eval()


def resnet20() -> nn.Module:
    """As :func:`resnet110` with three blocks a stage."""
    return _network([*_convolution(3, 16, 3, 1), nn.ReLU()], [16, 32, 64], 3, False)


def resnet110(projection: bool = False) -> nn.Module:
    """For 32 x 32, with 18 blocks a stage: :func:`for_cifar`."""
    return for_cifar(110, projection)


def for_cifar(depth: int, projection: bool = False) -> nn.Module:
    """For 32 x 32: a 3 x 3 convolution, three stages of (depth - 2) / 6 blocks with 16, 32 and 64
    channels, shortcuts without parameters.
    """
    stem = [*_convolution(3, 16, 3, 1), nn.ReLU()]
    return _network(stem, [16, 32, 64], (depth - 2) // 6, projection)


def resnet18() -> nn.Module:
    """With torchvision's layout: a 7 x 7 convolution of stride 2, a max pool, four stages of two
    blocks, shortcuts by projection.
    """
    stem = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return _network(stem, [64, 128, 256, 512], 2, True)


def _network(stem: list[nn.Module], widths: list[int], count: int, projection: bool) -> nn.Module:
    """Stem, stages of ``count`` blocks that begin with stride 2 but the first, global pool, linear
    layer.
    """
    ends = [widths[0], *(width for width in widths for _ in range(count))]
    strides = [2 if number and number % count == 0 else 1 for number in range(len(ends) - 1)]
    blocks = [
        Block(*pair, stride, projection)
        for pair, stride in zip(itertools.pairwise(ends), strides, strict=True)
    ]
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)
    ).eval()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
