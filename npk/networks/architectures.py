"""Architectures: dense, convolutional, residual, VGG-16, ResNet-110, as layer descriptions."""

import itertools
import math
from collections.abc import Sequence

from npk.errors import OptionError
from npk.networks.layers import (
    Conv,
    Flatten,
    GatePoint,
    GlobalPool,
    Layer,
    Layers,
    Linear,
    Norm,
    Pool,
    Skip,
)


class Draft:
    """Layers under construction, with the shape that has been reached.

    Args:
        shape: of one sample, channels first.
        bias: whether linear operators have biases (those before a batch norm never have one, its
            shift does that work).
        batch_norm: whether every gate point is preceded by a batch norm.
        circular: padding of the convolutions, circular or zero.
    """

    def __init__(self, shape: Sequence[int], bias: bool, batch_norm: bool, circular: bool = True):
        self.shape: tuple[int, ...] = tuple(shape)
        self.layers: list[Layer] = []
        self.bias, self.batch_norm, self.circular = bias, batch_norm, circular

    def branch(self) -> "Draft":
        """An empty draft that starts at the shape reached here."""
        return Draft(self.shape, self.bias, self.batch_norm, self.circular)

    def conv(self, outputs: int, kernel: int = 3, stride: int = 1, gated: bool = True) -> "Draft":
        """Append a convolution, with its batch norm; ``gated`` adds the gate point."""
        channels, height, width = self.shape
        padding = (kernel // 2, kernel // 2)
        bias = self.bias and not self.batch_norm
        self.layers.append(
            Conv(channels, outputs, (kernel, kernel), stride, padding, self.circular, bias)
        )
        self.shape = (outputs, -(-height // stride), -(-width // stride))
        return self._finish(gated)

    def linear(self, outputs: int, gated: bool = True) -> "Draft":
        """Append a dense layer, with its batch norm; ``gated`` adds the gate point."""
        self.layers.append(Linear(self.shape[0], outputs, self.bias and not self.batch_norm))
        self.shape = (outputs,)
        return self._finish(gated)

    def _finish(self, gated: bool) -> "Draft":
        if self.batch_norm:
            self.layers.append(Norm(self.shape[0], images=len(self.shape) == 3))
        return self.gate() if gated else self

    def gate(self) -> "Draft":
        """Append a gate point."""
        self.layers.append(GatePoint(self.shape))
        return self

    def flatten(self) -> "Draft":
        """Append a flattening, unless the shape is flat already."""
        if len(self.shape) > 1:
            self.layers.append(Flatten())
            self.shape = (math.prod(self.shape),)
        return self

    def pool(self, size: int, maximum: bool) -> "Draft":
        """Append a pooling.

        Raises:
            OptionError: the image is smaller than the window.
        """
        channels, height, width = self.shape
        if min(height, width) < size:
            raise OptionError(
                f"a pooling of {size} x {size} meets an image of {height} x {width}. "
                f"Pool less, or give larger images."
            )
        self.layers.append(Pool(size, maximum))
        self.shape = (channels, height // size, width // size)
        return self

    def read_out(self, classes: int, readout: str, hidden: Sequence[int] = ()) -> Layers:
        """Append global pool or flatten, hidden dense layers and the last linear layer."""
        channels, *positions = self.shape
        if readout == "gap" and positions:
            self.layers.append(GlobalPool())
            self.shape = (channels,)
        self.flatten()
        for width in hidden:
            self.linear(width)
        return (*self.layers, Linear(self.shape[0], classes, self.bias))


def fc(draft: Draft, classes: int, *, hidden: Sequence[int] = (128, 128, 128)) -> Layers:
    """Fully connected: ``hidden`` are the widths of the hidden layers."""
    check_sizes("hidden", hidden, least=1)
    return draft.flatten().read_out(classes, "flatten", hidden)


def conv(
    draft: Draft,
    classes: int,
    *,
    channels: Sequence[int] = (64, 64, 64),
    kernel: int = 3,
    strides: int | Sequence[int] = 1,
    pool: str | None = None,
    pool_size: int = 2,
    pool_after: Sequence[int] = (),
    readout: str = "gap",
    hidden: Sequence[int] = (),
) -> Layers:
    """Convolutional.

    Args:
        draft: where to append; its shape is that of one image.
        classes: number of outputs.
        channels: output channels of each convolution.
        kernel: side of the kernels, odd.
        strides: one for all, or one a convolution.
        pool: ``"average"`` | ``"max"``.
        pool_size: side of the pooling window.
        pool_after: the convolutions (counted from 1) that a pooling follows.
        readout: ``"gap"`` (global average pool) or ``"flatten"``, then a linear layer.
        hidden: widths of hidden dense layers of the read-out.

    Returns:
        The layers.

    Raises:
        OptionError: the options contradict each other or the input.
    """
    _check_image(draft, kernel)
    check_sizes("channels", channels, least=1)
    check_sizes("hidden", hidden)
    check_sizes("pool_after", pool_after)
    check_sizes("pool_size", [pool_size])
    if not set(pool_after) <= set(range(1, len(channels) + 1)):
        raise OptionError(
            f"pool_after names {list(pool_after)}, the convolutions are 1 to "
            f"{len(channels)}. Name some of these."
        )
    for number, (width, stride) in enumerate(
        zip(channels, _each(strides, len(channels)), strict=True), 1
    ):
        draft.conv(width, kernel, stride)
        if number in pool_after:
            draft.pool(pool_size, pool == "max")
    return draft.read_out(classes, readout, hidden)


def residual(
    draft: Draft,
    classes: int,
    *,
    widths: Sequence[int] = (64, 64, 64),
    block_layers: int = 2,
    skip: str = "ungated",
    flavor: str = "conv",
    kernel: int = 3,
    strides: int | Sequence[int] = 1,
    readout: str = "gap",
) -> Layers:
    """Residual: a first layer, one block an entry of ``widths``, a read-out.

    ``skip="ungated"`` is the theory's network: blocks of gated layers, no gate after the addition,
    and one more gated layer before the read-out. ``skip="gated"`` is that of He et al.: the last
    gate of a block comes after the addition. A block that changes width or size has a 1 x 1
    convolution (or a dense layer) in its shortcut.

    Args:
        draft: where to append; its shape is that of one sample.
        classes: number of outputs.
        widths: channels (``flavor="conv"``) or units (``flavor="fc"``) of each block.
        block_layers: linear operators in a block.
        skip: ``"ungated"`` | ``"gated"``.
        flavor: ``"conv"`` | ``"fc"``.
        kernel: side of the kernels, odd.
        strides: one for all blocks, or one a block.
        readout: ``"gap"`` | ``"flatten"``.

    Returns:
        The layers.

    Raises:
        OptionError: the options contradict each other or the input.
    """
    check_choice("skip", skip, ("ungated", "gated"))
    check_choice("flavor", flavor, ("conv", "fc"))
    check_sizes("widths", widths, least=1)
    check_sizes("block_layers", [block_layers])
    if flavor == "conv":
        _check_image(draft, kernel)
    elif strides != 1:
        raise OptionError(
            f"strides is {strides!r}, but a fully connected residual network has "
            f"none. Leave it out."
        )
    else:
        draft.flatten()
    _step(draft, widths[0], kernel)
    for width, stride in zip(widths, _each(strides, len(widths)), strict=True):
        _block(draft, width, stride, block_layers, kernel, skip == "gated")
    if skip == "ungated":
        _step(draft, widths[-1], kernel)
    return draft.read_out(classes, readout)


def _step(draft: Draft, width: int, kernel: int, stride: int = 1, gated: bool = True) -> None:
    """One linear operator of a residual network: dense on a flat shape, else a convolution."""
    if len(draft.shape) == 1:
        draft.linear(width, gated)
    else:
        draft.conv(width, kernel, stride, gated)


def _block(
    draft: Draft, width: int, stride: int, block_layers: int, kernel: int, gated_sum: bool
) -> None:
    body, shortcut = draft.branch(), draft.branch()
    for number in range(1, block_layers + 1):
        last = number == block_layers
        _step(body, width, kernel, stride if number == 1 else 1, gated=not (last and gated_sum))
    if body.shape != draft.shape:
        _step(shortcut, width, 1, stride, gated=False)
    draft.layers.append(Skip(tuple(body.layers), tuple(shortcut.layers)))
    draft.shape = body.shape
    if gated_sum:
        draft.gate()


def vgg16(draft: Draft, classes: int, *, pool: str | None = None, width: float = 1.0) -> Layers:
    """VGG-16 in its CIFAR form: 13 convolutions of 3 x 3, five poolings, one linear layer.

    Args:
        draft: where to append; images of 32 x 32 or more.
        classes: number of outputs.
        pool: ``"max"`` or ``"average"``.
        width: multiplies the channels 64, 128, 256, 512, 512.

    Returns:
        The layers.

    Raises:
        OptionError: the images are too small, or the width is not positive.
    """
    _check_image(draft, 3)
    if width <= 0:
        raise OptionError(
            f"width is {width}, it multiplies the channels 64 to 512 and must be positive. Use 1, "
            f"or less for a smaller network."
        )
    stages = [
        [max(1, round(width * c))] * n for c, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    ]
    ends = list(itertools.accumulate(map(len, stages)))
    return conv(
        draft,
        classes,
        channels=list(itertools.chain(*stages)),
        pool=pool,
        pool_after=ends,
        readout="flatten",
    )


def resnet110(draft: Draft, classes: int, *, blocks: int = 18, width: int = 16) -> Layers:
    """ResNet-110 in its CIFAR form: three stages of ``blocks`` gated blocks of two convolutions,
    widths 16, 32, 64, strides 1, 2, 2.

    Shortcuts that change size are 1 x 1 convolutions, so that every branch but the identity has
    parameters.

    Args:
        draft: where to append.
        classes: number of outputs.
        blocks: blocks a stage; depth is 6 blocks + 2.
        width: channels of the first stage.

    Returns:
        The layers.

    Raises:
        OptionError: no image, or a size that is not positive.
    """
    check_sizes("blocks and width", [blocks, width])
    widths = [width * factor for factor in (1, 2, 4) for _ in range(blocks)]
    strides = [2 if i in (blocks, 2 * blocks) else 1 for i in range(3 * blocks)]
    return residual(draft, classes, widths=widths, skip="gated", strides=strides)


def _check_image(draft: Draft, kernel: int) -> None:
    if len(draft.shape) != 3:
        raise OptionError(
            f"a convolution needs images (channels, height, width), input_shape is "
            f"{list(draft.shape)}. Use fc, or give images."
        )
    if kernel < 1 or kernel % 2 == 0:
        raise OptionError(
            f"kernel is {kernel}, it must be odd and positive so that padding keeps "
            f"the size. Use 3 or 5."
        )


def check_sizes(name: str, sizes: object, least: int = 0) -> None:
    """Raise an OptionError unless ``sizes`` are positive whole numbers, at least ``least`` of them."""
    if (
        not isinstance(sizes, Sequence)
        or len(sizes) < least
        or any(not isinstance(s, int) or s < 1 for s in sizes)
    ):
        raise OptionError(
            f"{name} is {sizes!r}, it must hold {'at least one' if least else 'only'} positive "
            f"whole number(s). Correct it."
        )


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise an OptionError unless ``value`` is allowed."""
    if value not in allowed:
        raise OptionError(
            f"{name} is {value!r}, it must be one of {', '.join(allowed)}. Choose one of these."
        )


def _each(value: int | Sequence[int], count: int) -> list[int]:
    """One stride for each of ``count`` layers."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count or any(not isinstance(v, int) or v < 1 for v in values):
        raise OptionError(
            f"strides is {values}, it must hold {count} positive whole numbers, one "
            f"a layer. Correct it."
        )
    return values
