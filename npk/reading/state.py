"""What a trace rests on: the modules of a network, their modes and attributes, and where its
tensors lie. If it changes, it is traced anew.

Weights may change in place, since the traced program reads the same memory; of the values that the
path graph has read there are copies.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_DEEPEST = 4  # lists in lists that are looked into


class _Same:
    """An object equal to itself alone; it is kept, so that no other takes its place."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held

    __hash__ = None  # type: ignore[assignment]


def state_of(net: torch.nn.Module) -> list[Any]:
    """Modules, modes, attributes and places of tensors: equal as long as a network is traced to the
    same program.

    Args:
        net: any module.

    Returns:
        A list, to be compared with one of the same network at another time.
    """
    return [fact for module in net.modules() for fact in _facts(module)]


def have_values(tensors: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors hold the values that were copied from them.

    Args:
        tensors: by name.
        values: copies of some of them.

    Returns:
        Whether all of these are equal, element by element.
    """
    return all(torch.equal(tensors[name], value) for name, value in values.items())


def _facts(module: torch.nn.Module) -> list[Any]:
    facts: list[Any] = [_Same(module), module.training]
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules"):
            facts += [(key, _frozen(held)) for key, held in value.items()]
        # empty tables of hooks
        elif not (name.startswith("_") and isinstance(value, Mapping) and not value):
            facts.append((name, _frozen(value)))
    return facts


def _frozen(value: object, deep: int = 0) -> object:
    """A value that stays while the original changes; of objects not looked into, which one."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)  # 1 and True differ, NaN is itself
    if isinstance(value, torch.Tensor):
        strided = value.layout == torch.strided
        return (
            _Same(value),
            value.data_ptr() if strided else 0,
            value.shape,
            value.stride() if strided else (),
            value.dtype,
        )
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, list | tuple) and deep < _DEEPEST:
        return type(value).__name__, [_frozen(item, deep + 1) for item in value]
    if isinstance(value, Mapping) and deep < _DEEPEST:
        return type(value).__name__, [
            (repr(key), _frozen(item, deep + 1)) for key, item in value.items()
        ]
    return _Same(value)
