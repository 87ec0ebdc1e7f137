"""Operators that only put values in other places: the same torch operator, run once on the numbers
of the units, says where they go.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from npk.reading.exported import arguments, is_tensor, name_of, shape_of
from npk.reading.units import Layout, joined

if TYPE_CHECKING:
    from npk.reading.tracing import Reader

SAME = ("clone", "detach", "alias", "contiguous", "identity", "lift_fresh_copy")
CASTS = ("_to_copy", "to", "type_as")
# keep the flat order
ORDERED = ("view", "flatten", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "unflatten")
MOVES = (
    *(
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "slice",
        "select",
        "narrow",
        "index_select",
        "expand",
        "expand_as",
        "repeat",
        "tile",
    ),
    *(
        "repeat_interleave",
        "flip",
        "roll",
        "chunk",
        "split",
        "split_with_sizes",
        "tensor_split",
        "unbind",
        "cat",
        "concat",
        "stack",
        "pad",
    ),
    *(
        "constant_pad_nd",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "index",
    ),
    *(f"{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in (1, 2, 3)),
    *(
        f"{kind}{rank}d"
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for rank in (1, 2, 3)
    ),
)
ONES = ("ones_like", "new_ones", "ones", "full_like", "full", "new_full")
_ADD = ("Add it to a value, or multiply a value by it",)
LED = (
    "it puts another axis before that of the samples",
    "Put it behind: torch.stack([a, b], 1).mean(1), x.unsqueeze(1)",
)
MIXED = ("it mixes the samples of a batch", "Leave the first axis alone")
ZEROS = ("zeros_like", "new_zeros", "zeros")
MAX_POOLS = tuple(f"max_pool{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_with_indices"))
NUMBER = "npk number"  # in a node's meta: the number that all its values are, for every sample


def constant_behind(argument: object) -> fx.Node | None:
    """The parameter or buffer behind a view of it, every number of it once."""
    node = argument
    while (
        isinstance(node, fx.Node)
        and node.op == "call_function"
        and name_of(node) in (*SAME, *CASTS, *ORDERED, "expand")
        and node.args
    ):
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.op != "get_attr" or not isinstance(argument, fx.Node):
        return None
    shown, held = argument.meta.get("val"), node.meta.get("val")
    return node if shown is None or held is None or shown.numel() == held.numel() else None


def tensors_among(node: fx.Node) -> list[fx.Node]:
    """The tensors that an operator on places takes, indices and the network's own tensors left out."""
    return [a for a in node.all_input_nodes if is_tensor(a) and not constant_behind(a)]


def move(reader: "Reader", node: fx.Node, inputs: list[Any]) -> Any:
    """Layout of the result of an operator that only moves values."""
    _refuse_filling(reader, node)
    if name_of(node) in ORDERED and inputs[0].units is None:
        return Layout(inputs[0].sources, shape_of(node))
    sources, numbers = joined(inputs)
    total = sum(int(np.prod(source.shape)) for source in sources)
    tensors = {
        a: _two_samples(number, total)
        for a, number in zip(tensors_among(node), numbers, strict=True)
    }
    args = fx.map_arg(node.args, lambda a: _plain(reader, node, a, tensors))
    kwargs = fx.map_arg(node.kwargs, lambda a: _plain(reader, node, a, tensors))
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    if isinstance(result, list | tuple):
        return tuple(_layout(reader, node, sources, part, total) for part in result)
    return _layout(reader, node, sources, result, total)


def _filling(node: fx.Node) -> Any:
    """What a padding fills with, if it is not zeros."""
    values = {"pad": ("pad", "mode", "value"), "constant_pad_nd": ("pad", "value")}.get(
        name_of(node)
    )
    return arguments(node, *((name, None) for name in values))[-1] if values else None


def _refuse_filling(reader: "Reader", node: fx.Node) -> None:
    """Padding with anything but zeros would start paths of its own."""
    if filled := _filling(node):
        remedy = (
            "Pad with zeros, or by circular, reflect or replicate; with minus infinity right "
            "before a max pool"
        )
        reader.refuse(node, f"it pads with {filled}", remedy)


def unpadded(pool: fx.Node) -> tuple[fx.Node, tuple[tuple[int, int], ...]]:
    """What a max pool sees, and the padding with minus infinity around it, before and after each
    axis: no maximum is there.
    """
    node: Any = pool.args[0]
    lowest = (
        torch.finfo(node.meta["val"].dtype).min if node.meta["val"].is_floating_point() else -np.inf
    )
    filled = _filling(node)
    if not isinstance(filled, int | float) or filled > lowest or min(node.args[1]) < 0:
        return node, ()
    sides = [int(side) for side in node.args[1]]
    return node.args[0], tuple(zip(sides[-2::-2], sides[::-2], strict=True))


def _two_samples(numbers: np.ndarray, total: int) -> torch.Tensor:
    """The numbers as a batch of two samples, so that mixing samples is seen."""
    return torch.tensor(
        np.ascontiguousarray(np.stack([numbers, np.where(numbers > 0, numbers + total, 0)])),
        dtype=torch.float64,
    )


def _plain(
    reader: "Reader", node: fx.Node, argument: fx.Node, tensors: dict[fx.Node, torch.Tensor]
) -> Any:
    if argument in tensors:
        return tensors[argument]
    value = argument.meta.get("val")
    if isinstance(value, torch.SymInt):
        return value.node.hint  # traced with a batch of two, as the numbers are
    if held := constant_behind(argument):
        indices = reader.tensor(str(held.target)).cpu()
        return (
            indices
            if not indices.is_floating_point()
            else reader.refuse(node, "it puts a tensor of the network among values", *_ADD)
        )
    if isinstance(value, int):
        return value
    return reader.refuse(
        node,
        f"{name_of(node)} takes {argument.name}, which is no value on a path",
        "Compute it from the input",
    )


def _layout(
    reader: "Reader", node: fx.Node, sources: tuple, result: torch.Tensor, total: int
) -> Layout:
    first, second = result.round().long().numpy()
    if not np.array_equal(second, np.where(first > 0, first + total, 0)):
        reader.refuse(node, *MIXED)
    return Layout(sources, first.shape, first).with_units(first)
