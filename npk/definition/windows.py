"""What windows see: linear layers by torch's own operators, and values looked up by position.

Values are ``(n, channels, positions)``. An ordinary window is torch's convolution; one that sees
everything at once is a product of matrices; of any other kind, values are looked up by its taps.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from npk.graph.node import PathNode
from npk.graph.operators import Convolution
from npk.graph.path_graph import PathGraph, window_taps
from npk.graph.positions import Window

Lookup = Callable[[torch.Tensor], torch.Tensor]
Weighted = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # values, weight -> values

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def weight_shape(graph: PathGraph, node: PathNode, layer: Convolution) -> tuple[int, ...]:
    """Shape of a layer's weight as torch keeps it.

    Args:
        graph: of the node.
        node: the layer.
        layer: its operator.

    Returns:
        ``(outputs, inputs / groups, *kernel)``; of a transposed convolution ``(inputs, outputs /
        groups, *kernel)``.
    """
    first, second = node.channels, graph.input_of(node).channels
    first, second = (second, first) if layer.window.transposed else (first, second)
    return first, second // layer.groups, *layer.window.kernel


def weighted(graph: PathGraph, node: PathNode, layer: Convolution) -> Weighted:
    """A linear layer, without its bias.

    Args:
        graph: of the node.
        node: the layer.
        layer: its operator.

    Returns:
        What it makes of values and its weight.
    """
    taps, before = window_taps(graph, node), graph.input_of(node)
    shape = weight_shape(graph, node, layer)
    if node.positions == 1 and np.array_equal(taps[:, 0], np.arange(before.positions)):
        return _by_taps(None, layer, shape, node)
    if 1 <= len(before.grid) <= len(_CONVOLUTIONS):
        convolve = _transposed if layer.window.transposed else _ordinary
        apply = convolve(layer.window, layer.groups)
        return lambda value, weight: apply(
            value.reshape(*value.shape[:2], *before.grid), weight.reshape(shape)
        ).flatten(2)
    return _by_taps(taps, layer, shape, node)


def _ordinary(window: Window, groups: int) -> Weighted:
    """A convolution; what torch does not pad itself is padded (or cut) before."""
    convolve = _CONVOLUTIONS[len(window.kernel) - 1]
    even = all(left == right >= 0 for left, right in window.padding)
    padding = [left if even else 0 for left, _ in window.padding]

    def apply(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        shown = value if even else functional.pad(value, _sides(window.padding))
        return convolve(shown, weight, None, window.stride, padding, window.dilation, groups)

    return apply


def _transposed(window: Window, groups: int) -> Weighted:
    """A transposed convolution, whole; its padding is what is cut off afterwards."""
    convolve = _TRANSPOSED[len(window.kernel) - 1]
    cut = tuple(
        (-left, extra - right)
        for (left, right), extra in zip(window.padding, window.extra, strict=True)
    )

    def apply(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        whole = convolve(value, weight, None, window.stride, 0, 0, groups, window.dilation)
        return functional.pad(whole, _sides(cut))

    return apply


def _sides(padding: tuple[tuple[int, int], ...]) -> list[int]:
    """As torch's pad wants it, from the last axis on."""
    return [width for sides in reversed(padding) for width in sides]


def _by_taps(
    taps: np.ndarray | None, layer: Convolution, shape: tuple[int, ...], node: PathNode
) -> Weighted:
    """What each offset sees, times its weights; ``taps`` None: one window that sees everything."""
    looked, groups = lookup(taps) if taps is not None else None, layer.groups

    def apply(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen = looked(value) if looked else value[..., None]
        n, channels, offsets, positions = seen.shape
        seen = seen.reshape(n, groups, channels // groups * offsets, positions)
        rows = seen.permute(1, 0, 3, 2).flatten(1, 2)
        kernel = weight.reshape(*shape[:2], -1)
        if layer.window.transposed:
            kernel = kernel.unflatten(0, (groups, -1)).transpose(1, 2)
        kernel = kernel.reshape(groups, node.channels // groups, rows.shape[2])
        result = torch.bmm(rows, kernel.transpose(1, 2)).unflatten(1, (n, positions))
        return result.permute(1, 0, 3, 2).reshape(n, node.channels, positions)

    return apply


def lookup(index: np.ndarray) -> Lookup:
    """Values at given positions.

    Args:
        index: positions, -1 for a zero; of any shape.

    Returns:
        What makes ``(n, channels, *index.shape)`` of values.
    """
    if np.array_equal(index, np.arange(index.size)):
        return _same(index.size)
    flat, outside = torch.as_tensor(index.reshape(-1)), bool((index < 0).any())

    def look(value: torch.Tensor) -> torch.Tensor:
        places = torch.where(flat < 0, value.shape[2], flat) if outside else flat
        shown = functional.pad(value, (0, 1)) if outside else value
        return shown.index_select(2, places).reshape(*value.shape[:2], *index.shape)

    return look


def _same(positions: int) -> Lookup:
    """All positions in order; of more positions, the first ones."""
    return lambda value: value[:, :, :positions]


def gather(index: np.ndarray) -> Lookup:
    """Values at positions of each unit's own.

    Args:
        index: ``(n, channels, positions)``, -1 for a zero.

    Returns:
        What makes values of that shape.
    """
    places, outside = torch.as_tensor(index), bool((index < 0).any())

    def look(value: torch.Tensor) -> torch.Tensor:
        if not outside:
            return value.gather(2, places)
        own = torch.where(places < 0, value.shape[2], places)
        return functional.pad(value, (0, 1)).gather(2, own)

    return look
