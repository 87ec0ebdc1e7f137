"""What rules of ONNX operators have in common: attributes, numbers known while loading."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Attributes = dict[str, Any]
Tensor = torch.Tensor


def numbers(values: Any) -> list[Any]:
    """A shape, a list of axes and the like, as a list."""
    return (
        values.reshape(-1).tolist() if isinstance(values, np.ndarray) else [int(v) for v in values]
    )


def given(a: Attributes, name: str, values: Any) -> list[Any] | None:
    """What older versions of an operator have as an attribute and newer ones as an input."""
    values = a.get(name) if values is None else values
    return None if values is None else numbers(values)


def number(a: Attributes, name: str, value: Any, otherwise: float) -> float:
    """A limit, a slope and the like: an attribute, or the one cell of an input."""
    return a.get(name, otherwise) if value is None else float(np.asarray(value).reshape(()))


def tensor(value: Any, like: Tensor) -> Tensor:
    """A constant beside a tensor; a tensor stays what it is."""
    if isinstance(value, Tensor):
        return value
    # a copy: arrays of a file cannot be written
    constant = torch.as_tensor(np.array(value), device=like.device)
    return constant.to(like.dtype) if constant.is_floating_point() else constant


def plain(value: Any, beside: Tensor) -> Any:
    """A constant as a number, where its cells are one and it stretches nothing; else a tensor."""
    if isinstance(value, Tensor) or not np.size(value) or np.ndim(value) > beside.dim():
        return tensor(value, beside)
    cells, axes = np.asarray(value), range(beside.dim() - np.ndim(value), beside.dim())
    sides = zip(axes, cells.shape, strict=True)
    if any(side != 1 and (axis == 0 or side != beside.shape[axis]) for axis, side in sides):
        return tensor(value, beside)
    first = cells.reshape(-1)[0]
    return first.item() if bool(np.all(cells == first)) else tensor(value, beside)


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Two values or more, of which one or more are computed."""

    def rule(a: Attributes, *inputs: Any) -> Tensor:
        like = next(value for value in inputs if isinstance(value, Tensor))
        result = inputs[0]
        for value in inputs[1:]:
            beside = next((v for v in (result, value) if isinstance(v, Tensor)), None)
            pair = (
                tensor(v, like) if beside is None else plain(v, beside) for v in (result, value)
            )
            result = function(*pair)
        return tensor(result, like)

    return rule


def one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of a value and nothing else."""
    return lambda a, x: function(x)
