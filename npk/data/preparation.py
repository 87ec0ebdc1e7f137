"""What stands between a file of samples and a network: resizing, the range of pixels, mean and std.

A network knows only samples like those that it was trained on. A :class:`Preparation` says how
these are made; checkpoints, gate tables and kernels on disk keep it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from npk.errors import DataError, OptionError
from npk.samples import as_floats
from npk.typed import Typed

Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]  # as Pillow
LARGEST_SIDE, MOST_FEATURES = 4096, 65_536
# Means and standard deviations of red, green and blue (of grey for MNIST) over the training
# pictures, between 0 and 1: as torchvision's models and the usual recipes have them.
NAMED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
}
_Numbers = float | Sequence[float] | str | None
_Sides = int | Sequence[int] | None


@dataclass(frozen=True)
class Preparation(Typed):
    """How samples become what a network was given, in this order: pictures are resized, their
    middle is cut out, pixels are divided by ``scale_pixels``, ``mean`` is subtracted, and what is
    left is divided by ``std``.

    Args:
        mean: of each channel (of each feature of vectors), or one for all; none: 0.
        std: likewise; none: 1.
        resize: the length of the shorter side, or (height, width); none: as pictures are.
        crop: (height, width) of the middle that is kept; none: all of it.
        scale_pixels: what values are divided by; ``None``: bytes by 255, all others by 1.
        interpolation: of resizing, by Pillow's name.
        sequences: arrays of three dimensions are sequences (n, channels, length), not grey
            pictures.

    Raises:
        DataError: a value of another type.
        OptionError: lengths that differ, a std that is not above 0, or a size that is no size.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    scale_pixels: float | None = None
    interpolation: Interpolation = "bilinear"
    sequences: bool = False

    def __post_init__(self) -> None:
        """Refuse what no sample can be made with."""
        super().__post_init__()
        if self.std and min(self.std) <= 0:
            raise OptionError(f"std is {self.std}. Give standard deviations above 0.")
        lengths = {len(self.mean), len(self.std)} - {0, 1}
        if len(lengths) > 1 or max(lengths, default=0) > MOST_FEATURES:
            counts = f"mean has {len(self.mean)} numbers and std {len(self.std)}"
            raise OptionError(f"{counts}. Give one for each channel, or one for all.")
        if self.scale_pixels is not None and self.scale_pixels <= 0:
            raise OptionError(
                f"scale_pixels is {self.scale_pixels}. Give what pixels are divided by, such as 255."
            )
        _check_sides("resize", self.resize, (0, 1, 2))
        _check_sides("crop", self.crop, (0, 2))

    def __call__(self, X: NDArray[Any], name: str = "X") -> NDArray[np.float32]:
        """Prepare samples.

        Args:
            X: pictures (n, channels, height, width) or feature vectors (n, d), as a file has them.
            name: what messages call them.

        Returns:
            The same samples, float32.

        Raises:
            DataError: no numbers, no pictures where these are to be resized, or another number of
                channels than of means.
        """
        if self.resize or self.crop:
            if X.ndim != 4:
                raise DataError(
                    f"{name} has shape {X.shape}, and only pictures (n, channels, height, width) "
                    f"can be resized. Leave resize and crop out."
                )
            X = np.stack([self.fitted(picture) for picture in X]) if len(X) else X
        with np.errstate(over="ignore"):  # becomes infinite, which a data set reports
            values = np.array(as_floats(X, name, self.scale_pixels), dtype=np.float32, order="C")
        for numbers, change in ((self.mean, np.subtract), (self.std, np.divide)):
            if numbers:
                change(values, self._along(numbers, values.shape, name), out=values)
        return values

    def fitted(self, picture: NDArray[Any]) -> NDArray[Any]:
        """One picture (channels, height, width) at the size asked for, its type as it was."""
        height, width = picture.shape[1:]
        if self.resize:
            size = self.resize
            if len(size) == 1:  # the shorter side, as torchvision rounds the other
                short = min(height, width)
                size = (int(size[0] * height / short), int(size[0] * width / short))
            picture = _resized(picture, (size[0], size[1]), self.interpolation)
        cut = self.crop or (self.resize * 2 if len(self.resize) == 1 else ())
        return _middle(picture, (cut[0], cut[1])) if cut else picture

    def _along(
        self, numbers: tuple[float, ...], shape: tuple[int, ...], name: str
    ) -> NDArray[np.float32]:
        """The numbers, to stand beside samples of a shape."""
        if len(numbers) not in (1, shape[1]):
            what = "features" if len(shape) == 2 else "channels"
            raise DataError(
                f"{name} has {shape[1]} {what}, and mean or std has {len(numbers)} numbers. Give "
                f"one for each, or one for all."
            )
        return np.array(numbers, np.float32).reshape(-1, *(1,) * (len(shape) - 2))

    def __str__(self) -> str:
        parts = []
        if self.resize:
            parts.append(f"resize {_listed(self.resize)} ({self.interpolation})")
        parts += [f"crop {_listed(self.crop)}"] if self.crop else []
        if self.scale_pixels is not None:
            parts.append(f"divided by {self.scale_pixels:g}")
        parts += ["sequences"] if self.sequences else []
        parts += [f"mean {_listed(self.mean)}"] if self.mean else []
        parts += [f"std {_listed(self.std)}"] if self.std else []
        return ", ".join(parts) or "as they are"


def preparation(
    mean: _Numbers = None,
    std: _Numbers = None,
    *,
    resize: _Sides = None,
    crop: _Sides = None,
    scale_pixels: float | None = None,
    sequences: bool = False,
) -> Preparation:
    """What was done to samples before a network got them.

    Args:
        mean: subtracted: a number for each channel, one for all, or "imagenet", "cifar10" or
            "mnist", which say the std too.
        std: divided by, likewise.
        resize: length of the shorter side, of which the middle square is kept unless ``crop`` says
            otherwise; or (height, width) exactly.
        crop: side, or (height, width), of the middle that is kept.
        scale_pixels: what pixels are divided by; bytes by 255 if left out, others not at all.
        sequences: arrays of three dimensions are sequences (n, channels, length).

    Returns:
        The preparation, checked.

    Raises:
        OptionError: an unknown name, or values that are no numbers or no sizes.
    """
    if isinstance(mean, str) and std is None:
        std = mean
    sides = _sides("crop", crop)
    return Preparation(
        mean=_numbers("mean", mean, 0),
        std=_numbers("std", std, 1),
        resize=_sides("resize", resize),
        crop=sides * 2 if len(sides) == 1 else sides,
        scale_pixels=None if scale_pixels is None else _number("scale_pixels", scale_pixels),
        sequences=sequences,
    )


def _numbers(what: str, given: _Numbers, which: int) -> tuple[float, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        if given not in NAMED:
            raise OptionError(
                f"{what} {given!r} is not known. Give numbers, or one of {', '.join(NAMED)}."
            )
        return NAMED[given][which]
    parts = [given] if isinstance(given, Real) else given
    if not isinstance(parts, Sequence | np.ndarray) or not len(parts):
        raise OptionError(f"{what} is {given!r}. Give a number for each channel, or one for all.")
    return tuple(_number(what, part) for part in parts)


def _number(what: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise OptionError(f"{what} has {given!r} in it. Give finite numbers.")
    return float(given)


def _sides(what: str, given: _Sides) -> tuple[int, ...]:
    parts: Any = () if given is None else (given,) if isinstance(given, Integral) else given
    whole = isinstance(parts, Sequence) and all(
        isinstance(side, Integral) and not isinstance(side, bool) for side in parts
    )
    if not whole or isinstance(parts, str) or len(parts) > 2 or (given is not None and not parts):
        raise OptionError(f"{what} is {given!r}. Give one side, or height and width.")
    return tuple(int(side) for side in parts)


def _check_sides(what: str, sides: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    fits = len(sides) in lengths and all(1 <= side <= LARGEST_SIDE for side in sides)
    if not fits:
        raise OptionError(
            f"{what} is {sides}. Give one side, or height and width, from 1 to {LARGEST_SIDE} "
            f"pixels."
        )


def _resized(picture: NDArray[Any], size: tuple[int, int], how: str) -> NDArray[Any]:
    """Each channel by Pillow: bytes as bytes, which it rounds to, all else as float32."""
    from PIL import Image

    if max(size) > LARGEST_SIDE:
        raise DataError(
            f"a picture of {picture.shape[1]} x {picture.shape[2]} pixels would become {size[0]} x "
            f"{size[1]}. Give height and width, or a smaller side."
        )
    resample = Image.Resampling[how.upper()]
    height, width = size
    dtype = np.uint8 if picture.dtype == np.uint8 else np.float32
    return np.stack(
        [
            np.asarray(Image.fromarray(channel).resize((width, height), resample))
            for channel in picture.astype(dtype, copy=False)
        ]
    )


def _middle(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The middle of a picture, where torchvision has it too."""
    (height, width), (wanted, wide) = picture.shape[1:], size
    if wanted > height or wide > width:
        raise DataError(
            f"a picture of {height} x {width} pixels has no middle of {wanted} x {wide}. Give a "
            f"larger resize, or a smaller crop."
        )
    top, left = round((height - wanted) / 2), round((width - wide) / 2)
    return picture[:, top : top + wanted, left : left + wide]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
