"""What is given as a network: a module out of its wrappers, and the one tensor it returns."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from npk.errors import OptionError, UnsupportedGraphError
from npk.networks.copies import copied, inside

_MAKE_ONE = "Give a torch module (npk.load(path) makes one of a checkpoint)"


def as_network(net: Any, beside: str = "") -> nn.Module:
    """A network without what is wrapped around it or its parts: ``torch.compile``,
    ``DataParallel``, ``AveragedModel``.

    Args:
        net: what was given in the place of a network.
        beside: what else may be given there, for the message: "or a callable that makes one".

    Returns:
        The network itself, or a copy of its modules that has the same parameters and buffers, by
        the names inside the wrappers.

    Raises:
        OptionError: it is no torch module, or one of TorchScript.
    """
    if not isinstance(net, nn.Module):
        what = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise OptionError(f"net is {what}. {_MAKE_ONE}{' ' * bool(beside)}{beside}.")
    for name, part in net.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"its part {name!r} is" if name else "net is"
            raise OptionError(
                f"{where} a {type(part).__name__}, which is TorchScript. "
                "Give the torch module that it was made of; or write it with torch.jit.save, and "
                "load that with npk.load."
            )
    while (inner := inside(net)) is not None:
        net = inner
    return copied(net) if any(inside(part) is not None for part in net.modules()) else net


def as_shape(input_shape: Any) -> tuple[int, ...]:
    """The shape of one sample.

    Args:
        input_shape: what was given for it.

    Returns:
        The sides.

    Raises:
        OptionError: it is no sequence of whole numbers from 1.
    """
    sides: list[Any] = list(input_shape) if isinstance(input_shape, tuple | list) else []
    whole = [
        operator.index(side)
        for side in sides
        if hasattr(side, "__index__") and not isinstance(side, bool)
    ]
    if not whole or len(whole) != len(sides) or min(whole) < 1:
        raise OptionError(
            f"input_shape is {input_shape!r}. Give the shape of one sample, such as "
            f"(784,) or (3, 32, 32)."
        )
    return tuple(whole)


def tensors_in(result: Any) -> list[torch.Tensor]:
    """The tensors in what a network returned: in tuples, lists, dicts and data classes of them.

    Args:
        result: of its forward.

    Returns:
        The tensors in order.
    """
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping):
        parts = list(result.values())
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        parts = [getattr(result, field.name) for field in dataclasses.fields(result)]
    else:
        parts = list(result) if isinstance(result, tuple | list) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


def only_tensor(result: Any) -> torch.Tensor:
    """The tensor that a network returned, alone or beside what is none.

    Args:
        result: of its forward.

    Returns:
        The tensor.

    Raises:
        UnsupportedGraphError: there are several, or none.
    """
    tensors = tensors_in(result)
    if not tensors:
        raise UnsupportedGraphError(
            f"the network returns a {type(result).__name__} with no tensor "
            f"in it. Have its forward return one."
        )
    if len(tensors) > 1:
        raise UnsupportedGraphError(
            f"the network returns {len(tensors)} values; npk reads one. Choose one: "
            f"npk.choose_output(net, NAME) or --output NAME."
        )
    return tensors[0]
