"""Networks of many kinds, small and with random weights: which motions leave their kernels alone is
a matter of structure.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F

from npk import networks
from npk.bench.rows import Row, Shape

_WIDTH, _CLASSES = 8, 4
_SIDE, _SMOOTH, _ROUGH = 16, 1.5, 0.3  # of the noise that stands for pictures


class Blur(nn.Module):
    """A filter 1-2-1 along both axes, held in a buffer, with a stride."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        side = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.stride = stride
        self.register_buffer("filter", torch.outer(side, side).repeat(channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The filtered picture, its borders joined."""
        padded = F.pad(x, (1, 1, 1, 1), mode="circular")
        return F.conv2d(padded, self.filter, stride=self.stride, groups=x.shape[1])  # type: ignore[arg-type]


class Polyphase(nn.Module):
    """Every second position along both axes: the phase with the largest norm (arXiv 2011.14214)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The chosen phase."""
        n, channels, height, width = x.shape
        cut = x.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        phases = cut.reshape(n, channels, 4, height // 2, width // 2)
        norms = phases.pow(2).sum((1, 3, 4))
        others = [torch.cat([norms[:, :i], norms[:, i + 1 :]], 1).amax(1) for i in range(4)]
        largest = norms - torch.stack(others, 1) > 0
        return (phases * largest.view(n, 1, 4, 1, 1)).sum(2)


class TurnedCopies(nn.Module):
    """The picture in four positions, the same filters for all of them, and their mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _volume(channels, _WIDTH), _volume(_WIDTH, _WIDTH)
        self.head = nn.Linear(_WIDTH, _CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores that do not depend on the position."""
        copies = [x]
        for _ in range(3):
            copies.append(copies[-1].transpose(2, 3).flip(3))
        h = torch.stack(copies, 2)
        h = F.relu(self.second(F.relu(self.first(h))))
        return self.head(h.mean((2, 3, 4)))


def _volume(i: int, o: int) -> nn.Conv3d:
    return nn.Conv3d(i, o, (1, 3, 3), padding=(0, 1, 1), padding_mode="circular")


@dataclass(frozen=True)
class Kind(Row):
    """One row of the suite: a network for samples of a shape, and what is asked of it."""

    group: str = "circular"
    fixed: tuple[str, ...] = ()
    shifts: tuple[tuple[int, int], ...] | None = None  # those that are looked at; None: as asked


def _conv(i: int, o: int, kernel: int = 3, **options: int | str) -> nn.Conv2d:
    return nn.Conv2d(
        i,
        o,
        kernel,
        padding=kernel // 2,
        **{"padding_mode": "circular", **options},  # type: ignore[arg-type]
    )


def _plain(
    *between: Callable[[], nn.Module],
    first: dict | None = None,
    second: dict | None = None,
    kernel: int = 3,
) -> Callable[[Shape], nn.Module]:
    """Convolution, ReLU, what is made by ``between``, convolution, ReLU, global pool, linear layer."""

    def make(shape: Shape) -> nn.Module:
        layers = [
            _conv(shape[0], _WIDTH, kernel, **(first or {})),
            nn.ReLU(),
            *(module() for module in between),
            _conv(_WIDTH, _WIDTH, kernel, **(second or {})),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_WIDTH, _CLASSES),
        ]
        return nn.Sequential(*layers)

    return make


def _flatten(shape: Shape) -> nn.Module:
    layers = [_conv(shape[0], _WIDTH), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(_WIDTH * shape[1] * shape[2], _CLASSES))


def _built(arch: str, **options: object) -> Callable[[Shape], nn.Module]:
    return lambda shape: networks.build(
        arch,
        input_shape=shape,
        classes=_CLASSES,
        seed=0,
        **options,  # type: ignore[arg-type]
    )


class _MaxBlur(nn.Sequential):
    """The maximum of two by two at every position, then a blur with a stride."""

    def __init__(self) -> None:
        super().__init__(nn.MaxPool2d(2, 1), Blur(_WIDTH, 2))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The pooled picture."""
        return super().forward(F.pad(input, (0, 1, 0, 1), mode="circular"))


_TWO = {"stride": 2}
_ZEROS = {"padding_mode": "zeros"}
_WIDE = [_WIDTH, _WIDTH]

KINDS: tuple[Kind, ...] = (
    Kind("circular", _plain()),
    Kind("zero padding", _plain(first=_ZEROS, second=_ZEROS)),
    Kind("stride 2", _plain(second=_TWO)),
    Kind("strides 2 and 2", _plain(first=_TWO, second=_TWO)),
    Kind("max pool 2", _plain(lambda: nn.MaxPool2d(2))),
    Kind("average pool 2", _plain(lambda: nn.AvgPool2d(2))),
    Kind("blur pool, declared fixed", _plain(_MaxBlur), fixed=("*.filter",)),
    Kind("blur pool, read as weights", _plain(_MaxBlur)),
    Kind("polyphase sampling", _plain(Polyphase)),
    Kind("flatten", _flatten),
    Kind("residual, no gate after sums", _built("residual", widths=_WIDE, skip="ungated")),
    Kind("residual, gate after sums", _built("residual", widths=_WIDE, skip="gated")),
    Kind("DGN", _built("conv", kind="dgn", channels=_WIDE)),
    Kind("DLGN", _built("conv", kind="dlgn", channels=_WIDE)),
    Kind(
        "zero padding, filled shifts",
        _plain(first=_ZEROS, second=_ZEROS),
        "filled",
        shifts=tuple((dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)),
    ),
    Kind("circular, turned and reflected", _plain(), "dihedral"),
    Kind("four turned copies", lambda shape: TurnedCopies(shape[0]), "turns"),
    Kind(
        "1x1 filters and fixed blurs",
        _plain(lambda: Blur(_WIDTH, 1), kernel=1),
        "dihedral",
        ("*.filter",),
    ),
)


def pictures(n: int, seed: int) -> np.ndarray:
    """Noise that looks a little like pictures: what is near is alike, and there are no borders.

    Args:
        n: how many.
        seed: of the noise.

    Returns:
        ``(n, 1, 16, 16)``, of mean square 1.
    """
    rng = np.random.default_rng(seed)
    rough, noise = rng.standard_normal((2, n, 1, _SIDE, _SIDE))
    smooth = gaussian_filter(rough, (0, 0, _SMOOTH, _SMOOTH), mode="wrap")
    made = smooth / smooth.std() + _ROUGH * noise
    return made / np.sqrt((made**2).mean())
