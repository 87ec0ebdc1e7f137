"""ONNX operators that gate, in any spelling, as the functions of torch that npk reads as gates."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from npk.checkpoint.onnx.values import Attributes, Tensor, elementwise, number, one, plain
from npk.tie import is_on

FLOATS = (1, 10, 11, 16)  # ONNX's numbers for float32, float16, float64 and bfloat16
BOOL = 9


def _clip(a: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = number(a, "min", low, -math.inf), number(a, "max", high, math.inf)
    if low == 0 and high > 1e30:
        return F.relu(x)
    return F.hardtanh(x, low, high) if max(abs(low), abs(high)) < 1e30 else x.clamp(low, high)


def _larger(x: Any, y: Any) -> Tensor:
    """The maximum with a number is a clamp, and with 0 a ReLU."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.maximum(x, y)
    x, low = (x, y) if isinstance(x, Tensor) else (y, x)
    return F.relu(x) if low == 0 else x.clamp(min=low)


def _smaller(x: Any, y: Any) -> Tensor:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.minimum(x, y)
    return x.clamp(max=y) if isinstance(x, Tensor) else y.clamp(max=x)


def _prelu(a: Attributes, x: Tensor, slopes: Tensor) -> Tensor:
    """``a["slope"]``: the shape of the slopes in the file, which ONNX lines up with the last axes
    of x, and torch with axis 1.
    """
    shape = a.get("slope", slopes.shape)
    if slopes.numel() == 1:
        return F.prelu(x, slopes)
    own = [i for i, side in enumerate(shape) if side != 1]
    axis = x.dim() - len(shape) + own[0]
    if len(shape) == 1 and x.shape[-1] != shape[0]:
        axis = 1  # older files have one slope a channel so
    if len(own) != 1 or axis < 1:
        raise NotImplementedError("a PRelu with slopes along several axes")
    return F.prelu(x, slopes) if axis == 1 else F.prelu(x.movedim(axis, 1), slopes).movedim(1, axis)


def _thresholded(a: Attributes, x: Tensor) -> Tensor:
    """Give x where x > alpha, else 0. The difference is positive just where x is larger:
    subtraction rounds no difference to 0.
    """
    alpha = a.get("alpha", 1.0)
    return F.relu(x) if alpha == 0 else x * is_on(x - alpha)


def _leaky(a: Attributes, x: Tensor) -> Tensor:
    alpha = a.get("alpha", 0.01)
    return F.relu(x) if alpha == 0 else F.leaky_relu(x, alpha)


def _hard_sigmoid(a: Attributes, x: Tensor) -> Tensor:
    slope, shift = a.get("alpha", 0.2), a.get("beta", 0.5)
    if (round(6 * slope, 4), shift) == (1, 0.5):
        return F.hardsigmoid(x)
    return F.hardtanh(x * slope + shift, 0.0, 1.0)


def _where(a: Attributes, condition: Any, x: Any, y: Any) -> Tensor:
    like = next(value for value in (x, y, condition) if isinstance(value, Tensor))
    if isinstance(condition, Tensor):
        mask = condition
    else:
        mask = torch.as_tensor(np.array(condition), device=like.device)
    x, y = plain(x, like), plain(y, like)
    if not isinstance(x, Tensor) and not isinstance(y, Tensor) and {x, y} == {0, 1}:
        return (mask if x else torch.logical_not(mask)).float()
    return torch.where(mask.bool(), x, y)


def _cast(a: Attributes, x: Tensor) -> Tensor:
    """Numbers keep the precision that the network runs in."""
    if a["to"] in FLOATS:
        return x if x.is_floating_point() else x.float()
    return x.bool() if a["to"] == BOOL else x.long()


def _cast_like(a: Attributes, x: Any, like: Any) -> Tensor:
    if not isinstance(x, Tensor):
        return torch.as_tensor(np.array(x), device=like.device).to(like.dtype)
    kind = like.dtype if isinstance(like, Tensor) else torch.as_tensor(np.array(like)).dtype
    return x if x.is_floating_point() and kind.is_floating_point else x.to(kind)


GATES: dict[str, Any] = {
    "Abs": one(torch.abs),
    "And": elementwise(torch.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": lambda a, x: F.celu(x, a.get("alpha", 1.0)),
    "Clip": _clip,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Greater": elementwise(lambda x, y: x > y),
    "GreaterOrEqual": elementwise(lambda x, y: x >= y),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": one(F.hardswish),
    "LeakyRelu": _leaky,
    "Less": elementwise(lambda x, y: x < y),
    "LessOrEqual": elementwise(lambda x, y: x <= y),
    "Max": elementwise(_larger),
    "Min": elementwise(_smaller),
    "Mish": one(F.mish),
    "Not": one(torch.logical_not),
    "Or": elementwise(torch.logical_or),
    "PRelu": _prelu,
    "Relu": one(F.relu),
    "Selu": one(F.selu),
    "Sigmoid": one(torch.sigmoid),
    "Softplus": one(F.softplus),
    "ThresholdedRelu": _thresholded,
    "Where": _where,
}
