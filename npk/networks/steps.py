"""What a step of training is made of: optimizer, learning rate, loss, augmentation."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from npk.networks.options import Options


def optimizer_of(net: nn.Module, options: Options) -> torch.optim.Optimizer:
    """The optimizer of the parameters that learn."""
    learning = [p for p in net.parameters() if p.requires_grad]
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adam":
        fused = all(p.is_floating_point() for p in learning)  # it knows no complex numbers
        return torch.optim.AdamW(learning, lr=rate, weight_decay=decay, fused=fused)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(learning, lr=rate, weight_decay=decay)
    return torch.optim.SGD(learning, lr=rate, momentum=options.momentum, weight_decay=decay)


def rate_share(options: Options, epoch: float) -> float:
    """Share of the largest learning rate after so many epochs."""
    rise = 0.3 * options.epochs if options.schedule == "one-cycle" else options.warm_up
    if epoch < rise:
        return 0.04 + 0.96 * epoch / rise
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "step":
        return 0.1 ** sum(epoch >= drop for drop in options.drops)
    return 0.5 * (1 + math.cos(math.pi * (epoch - rise) / (options.epochs - rise)))


def cross_entropy(logits: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """Softmax cross-entropy, mean over samples."""
    return functional.cross_entropy(logits, y, label_smoothing=smoothing)


def squared_error(logits: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """Mean over samples and outputs of the squared distance to 1 (the class) and -1 (the others)."""
    classes = logits.shape[1]
    share = functional.one_hot(y, classes).to(logits.dtype)
    return functional.mse_loss(logits, 2 * ((1 - smoothing) * share + smoothing / classes) - 1)


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "cross-entropy": cross_entropy,
    "mse": squared_error,
}


def augmented(x: Tensor, options: Options) -> Tensor:
    """The images of a batch, each changed at random by itself."""
    for name in options.augmentations:
        x = flipped(x) if name == "flip" else moved(x, options.shift, circular=name == "shift")
    return x


def moved(x: Tensor, shift: int, circular: bool) -> Tensor:
    """Each image moved by its own random offset of at most ``shift`` pixels both ways.

    Args:
        x: images (n, channels, height, width).
        shift: the largest offset.
        circular: what leaves on one side comes back on the other; else zeros follow, which is a
            random crop of the padded image.

    Returns:
        Images of the same shape.
    """
    n, _, height, width = x.shape
    down, right = torch.randint(-shift, shift + 1, (2, n, 1)).to(x.device)
    rows = torch.arange(height, device=x.device) + down
    columns = torch.arange(width, device=x.device) + right
    samples = torch.arange(n, device=x.device)[:, None, None]
    places = (rows % height)[:, :, None], (columns % width)[:, None, :]
    there = x.transpose(0, 1)[:, samples, *places].transpose(0, 1)
    if circular:
        return there
    inside = [
        (rows == rows % height)[:, None, :, None],
        (columns == columns % width)[:, None, None],
    ]
    return there * (inside[0] & inside[1])


def flipped(x: Tensor) -> Tensor:
    """Each image as it is or its mirror image, left for right, with equal chances."""
    chosen = torch.randint(0, 2, (len(x), 1, 1, 1)).to(x.device)
    return torch.where(chosen.bool(), x.flip(3), x)
