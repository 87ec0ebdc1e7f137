"""Networks whose paths have different numbers of layers, and a plain one beside them: small, with
random weights.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from npk import networks
from npk.bench.rows import Row, Shape

_WIDTH, _CLASSES, _BLOCKS, _MANY = 8, 4, 3, 10


class Projected(nn.Module):
    """A block with a stride and a 1 x 1 convolution in its shortcut."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, outputs, 3, 2, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, outputs, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values after the block."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Dense(nn.Module):
    """Convolutions that see all that was before: joined, not added (arXiv 1608.06993)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = [channels + _WIDTH * i for i in range(_BLOCKS)]
        self.layers = nn.ModuleList(nn.Conv2d(n, _WIDTH, 3, padding=1) for n in inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What was there and what was made of it."""
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return x


def _built(arch: str, kind: str = "dnn", **options: object) -> Callable[[Shape], nn.Module]:
    return lambda shape: networks.build(
        arch,
        kind,
        input_shape=shape,
        classes=_CLASSES,
        seed=0,
        **options,  # type: ignore[arg-type]
    )


def _residual(
    kind: str = "dnn", blocks: int = _BLOCKS, **options: object
) -> Callable[..., nn.Module]:
    return _built("residual", kind, **{"widths": [_WIDTH] * blocks, "skip": "gated", **options})


def _headed(width: int, *layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, _CLASSES))


def _projected(shape: Shape) -> nn.Module:
    blocks = Projected(_WIDTH, _WIDTH), Projected(_WIDTH, 2 * _WIDTH)
    return _headed(2 * _WIDTH, nn.Conv2d(shape[0], _WIDTH, 3, padding=1), nn.ReLU(), *blocks)


def _dense(shape: Shape) -> nn.Module:
    return _headed(_WIDTH * (1 + _BLOCKS), nn.Conv2d(shape[0], _WIDTH, 3, padding=1), Dense(_WIDTH))


STREAMS: tuple[Row, ...] = (
    Row("plain", _built("conv", channels=[_WIDTH] * (2 * _BLOCKS))),
    Row("dense block, joined", _dense),
    Row("no ReLU after sums", _residual(skip="ungated")),
    Row("ReLU after sums", _residual()),
    Row("one layer a block", _residual(block_layers=1)),
    Row("batch norm", _residual(batch_norm=True)),
    Row("stages of He et al.", _built("resnet110", blocks=1, width=_WIDTH)),
    Row("projection in shortcuts", _projected),
    Row("DGN", _residual("dgn")),
    Row("DLGN", _residual("dlgn")),
    Row("ten blocks, no ReLU after sums", _residual(blocks=_MANY, skip="ungated")),
    Row("ten blocks", _residual(blocks=_MANY)),
)
