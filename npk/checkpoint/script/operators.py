"""The operators of TorchScript: on numbers, lists and texts by Python, on tensors by PyTorch's own."""

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import torch

import npk.networks.gating  # noqa: F401 - registers the operator npk::gate
from npk.errors import UnsupportedGraphError

LONGEST, LARGEST = 1 << 20, 1 << 63  # entries of a list or a text; a whole number

# On numbers, lists and None; the same names on tensors are operators of torch.
PLAIN: dict[str, Callable[..., Any]] = {
    "aten::__contains__": operator.contains,
    "aten::__getitem__": operator.getitem,
    "aten::__not__": operator.not_,
    "aten::add": operator.add,
    "aten::append": lambda items, item: items.append(item) or items,
    "aten::div": operator.truediv,
    "aten::eq": operator.eq,
    "aten::floordiv": operator.floordiv,
    "aten::ge": operator.ge,
    "aten::gt": operator.gt,
    "aten::le": operator.le,
    "aten::len": len,
    "aten::lt": operator.lt,
    "aten::mul": operator.mul,
    "aten::ne": operator.ne,
    "aten::neg": operator.neg,
    "aten::remainder": operator.mod,
    "aten::slice": lambda items, start=None, end=None, step=1: items[start:end:step],
    "aten::sub": operator.sub,
}


def _convolution(
    x: Any,
    w: Any,
    b: Any,
    strides: Any,
    pads: Any,
    dilations: Any,
    turned: bool,
    extra: Any,
    groups: int,
    *_: Any,
) -> Any:
    """What tracing writes for all convolutions; the last four arguments are switches of cuDNN."""
    name = f"{'conv_transpose' if turned else 'conv'}{w.dim() - 2}d"
    rest = (extra, groups, dilations) if turned else (dilations, groups)
    return getattr(torch.nn.functional, name)(x, w, b, strides, pads, *rest)


# by number
KINDS = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
)


def _raise(message: Any, *_: Any) -> None:
    raise ValueError(f"the network raises {message!r}")


# On anything.
ALWAYS: dict[str, Callable[..., Any]] = {
    "aten::_convolution": _convolution,
    # numbers stay what they are: a size of a traced network must stay a size
    "aten::Bool": lambda value: value,
    "aten::Float": lambda value: value,
    "aten::Int": lambda value: value,
    "aten::ScalarImplicit": lambda value: value,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::device": lambda *_: torch.device("cpu"),
    "aten::dim": lambda x: x.dim(),
    "aten::format": lambda text, *values: (
        text.replace("{}", "%s") % values if text.count("{}") == len(values) else text
    ),
    "aten::list": list,
    "aten::tensor": lambda data, dtype=None, **_: torch.tensor(
        data, dtype=KINDS[dtype] if isinstance(dtype, int) else None
    ),
    "aten::warn": lambda *_, **__: None,
    "aten::size": lambda x, dim=None: list(x.shape) if dim is None else x.shape[dim],
    "npk::gate": torch.ops.npk.gate,
    "prim::NumToTensor": lambda value: value,
    "prim::RaiseException": _raise,
    "prim::dtype": lambda x: x.dtype,
    "prim::device": lambda x: x.device,
    "prim::unchecked_unwrap_optional": lambda value: value,
}
_PRIVATE = {
    *"_softmax _log_softmax _prelu_kernel _convolution_mode _shape_as_tensor".split(),
    *"_cast_Float _weight_norm".split(),
}
_FILES = ("filename", "file_name", "path")


def computed(kind: str, values: list[Any], named: dict[str, Any], source: str) -> Any:
    """What an operator gives.

    Args:
        kind: its whole name, such as ``aten::add``.
        values: its arguments by place.
        named: its arguments by name.
        source: where the network uses it.

    Raises:
        UnsupportedGraphError: an operator that npk does not follow: one that reads files, or has
            results of any length.
    """
    if kind in ALWAYS:
        return _bounded(ALWAYS[kind](*values, **named), kind, source)
    if kind in PLAIN and not any(isinstance(value, torch.Tensor) for value in values[:2]):
        if kind == "aten::mul" and any(isinstance(value, str | list) for value in values):
            _refuse(kind, source)
        return _bounded(PLAIN[kind](*values, **named), kind, source)
    name = kind.removeprefix("aten::")
    if (
        not kind.startswith("aten::")
        or (name.startswith("_") and name not in _PRIVATE)
        or "unsafe" in name
    ):
        _refuse(kind, source)
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or _meets_files(kind):
        _refuse(kind, source)
    return packet(*values, **named)


def _meets_files(kind: str) -> bool:
    return any(
        argument.name in _FILES
        for schema in torch._C._jit_get_schemas_for_operator(kind)
        for argument in schema.arguments
    )


def _bounded(value: Any, kind: str, source: str) -> Any:
    """The value, if no file could have made it grow from use to use."""
    long = isinstance(value, str | list) and len(value) > LONGEST
    if long or (isinstance(value, int) and abs(value) > LARGEST):
        _refuse(kind, source)
    return value


def _refuse(kind: str, source: str) -> NoReturn:
    raise UnsupportedGraphError(
        f"npk does not follow {kind} of TorchScript ({source}). Load the weights with "
        f"arch='module:callable', or export to .pt2."
    )
