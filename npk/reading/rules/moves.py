"""Operators that only put values in other places: the same torch operator, run once on the numbers
of the units, says where they go.
"""

from typing import Any

import numpy as np
import torch
from torch import fx

from npk.reading.builder import Builder
from npk.reading.exported import ORDERED, arguments, constant_behind, is_tensor, name_of, shape_of
from npk.reading.units import Layout, joined

_KINDS = ("upsample_nearest", "_upsample_nearest_exact", "reflection_pad", "replication_pad")
MOVES = (
    *"permute transpose swapaxes movedim slice select narrow index_select index".split(),
    *"expand expand_as repeat tile repeat_interleave flip roll".split(),
    *"chunk split split_with_sizes tensor_split unbind cat concat stack pad".split(),
    *"constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle".split(),
    *(f"{kind}{rank}d" for kind in _KINDS for rank in (1, 2, 3)),
)
ONES = ("ones_like", "new_ones", "ones", "full_like", "full", "new_full")
LED = (
    "it puts another axis before that of the samples",
    "Put it behind: torch.stack([a, b], 1).mean(1), x.unsqueeze(1)",
)
MIXED = ("it mixes the samples of a batch", "Leave the first axis alone")
ZEROS = ("zeros_like", "new_zeros", "zeros")
MAX_POOLS = tuple(f"max_pool{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_with_indices"))


def tensors_among(node: fx.Node) -> list[fx.Node]:
    """The tensors that an operator on places takes, indices and the network's own tensors left out."""
    return [a for a in node.all_input_nodes if is_tensor(a) and not constant_behind(a)]


def move(builder: Builder, node: fx.Node, inputs: list[Any]) -> Any:
    """Layout of the result of an operator that only moves values."""
    _refuse_filling(builder, node)
    if name_of(node) in ORDERED and inputs[0].units is None:
        return Layout(inputs[0].sources, shape_of(node))
    sources, numbers = joined(inputs)
    total = sum(int(np.prod(source.shape)) for source in sources)
    tensors = {
        a: _two_samples(number, total)
        for a, number in zip(tensors_among(node), numbers, strict=True)
    }
    args = fx.map_arg(node.args, lambda a: _plain(builder, node, a, tensors))
    kwargs = fx.map_arg(node.kwargs, lambda a: _plain(builder, node, a, tensors))
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    if isinstance(result, list | tuple):
        return tuple(_layout(builder, node, sources, part, total) for part in result)
    return _layout(builder, node, sources, result, total)


def _filling(node: fx.Node) -> Any:
    """What a padding fills with, if it is not zeros."""
    names = {"pad": ("pad", "mode", "value"), "constant_pad_nd": ("pad", "value")}
    given = arguments(node, *((name, None) for name in names.get(name_of(node), ())))
    return given[-1] if given else None


def _refuse_filling(builder: Builder, node: fx.Node) -> None:
    """Padding with anything but zeros would start paths of its own."""
    if filled := _filling(node):
        way = "Pad with zeros, or by circular, reflect or replicate"
        remedy = f"{way}; with minus infinity right before a max pool"
        builder.refuse(node, f"it pads with {filled}", remedy)


def unpadded(pool: fx.Node) -> tuple[fx.Node, tuple[tuple[int, int], ...]]:
    """What a max pool sees, and the padding with minus infinity before and after each axis."""
    node: Any = pool.args[0]
    kind = node.meta["val"].dtype
    lowest = torch.finfo(kind).min if kind.is_floating_point else -np.inf
    filled = _filling(node)
    if not isinstance(filled, int | float) or filled > lowest or min(node.args[1]) < 0:
        return node, ()
    sides = [int(side) for side in node.args[1]]
    return node.args[0], tuple(zip(sides[-2::-2], sides[::-2], strict=True))


def _two_samples(numbers: np.ndarray, total: int) -> torch.Tensor:
    """The numbers as a batch of two samples, so that mixing samples is seen."""
    both = np.stack([numbers, np.where(numbers > 0, numbers + total, 0)])
    return torch.tensor(np.ascontiguousarray(both), dtype=torch.float64)


def _plain(
    builder: Builder, node: fx.Node, argument: fx.Node, tensors: dict[fx.Node, torch.Tensor]
) -> Any:
    if argument in tensors:
        return tensors[argument]
    value = argument.meta.get("val")
    if isinstance(value, torch.SymInt):
        return value.node.hint  # traced with a batch of two, as the numbers are
    if held := constant_behind(argument):
        indices = builder.tensor(str(held.target)).cpu()
        if indices.is_floating_point():
            remedy = "Add it to a value, or multiply a value by it"
            builder.refuse(node, "it puts a tensor of the network among values", remedy)
        return indices
    if not isinstance(value, int):
        what = f"{name_of(node)} takes {argument.name}, which is no value on a path"
        builder.refuse(node, what, "Compute it from the input")
    return value


def _layout(
    builder: Builder, node: fx.Node, sources: tuple, result: torch.Tensor, total: int
) -> Layout:
    first, second = result.round().long().numpy()
    if not np.array_equal(second, np.where(first > 0, first + total, 0)):
        builder.refuse(node, *MIXED)
    return Layout(sources, first.shape, first).with_units(first)
