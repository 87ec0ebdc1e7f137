"""ONNX operators that exporters apply to shapes, as functions of NumPy.

The arrays hold objects: under ``torch.export`` the batch size is a symbol. As in
``operators``, a rule takes attributes, then inputs.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npk.checkpoint.onnx.values import Attributes, given, numbers


def _sizes(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=object)


def _size_slice(a: Attributes, x: np.ndarray, *rest: Any) -> np.ndarray:
    names = ("starts", "ends", "axes", "steps")
    start, end, _, step = (
        given(a, n, rest[i] if i < len(rest) else None) or [None] for i, n in enumerate(names)
    )
    return x[start[0] : end[0] : step[0]]


SIZES: dict[str, Callable[..., Any]] = {
    "Add": lambda a, x, y: _sizes(x + y),
    "Cast": lambda a, x: x,
    "Concat": lambda a, *xs: np.concatenate([_sizes(x).reshape(-1) for x in xs]),
    "Div": lambda a, x, y: _sizes(x // y),
    "Floor": lambda a, x: x,
    "Gather": lambda a, x, i: _sizes(np.take(x, np.asarray(i, dtype=np.int64))),
    "Identity": lambda a, x: x,
    "Mul": lambda a, x, y: _sizes(x * y),
    "ReduceProd": lambda a, x, *_: _sizes([math.prod(x.reshape(-1).tolist())]),
    "Reshape": lambda a, x, shape: x.reshape(numbers(shape)),
    "Slice": _size_slice,
    "Squeeze": lambda a, x, *_: _sizes(x.reshape(-1)[0] if x.size == 1 else x),
    "Sub": lambda a, x, y: _sizes(x - y),
    "Unsqueeze": lambda a, x, *_: _sizes(x).reshape(-1),
}
