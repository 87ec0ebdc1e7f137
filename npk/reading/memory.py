"""Tensors in one memory: two objects over the same numbers are one weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from npk.errors import UnsupportedGraphError
from npk.graph.node import PathNode


def refuse_shared_memory(nodes: Sequence[PathNode], tensor: Callable[[str], torch.Tensor]) -> None:
    """See that weights which are not one have no number in common: a transposed, sliced or expanded
    view of another one does.

    Args:
        nodes: of the path graph.
        tensor: gives the parameter or buffer of a name.

    Raises:
        UnsupportedGraphError: weights of two layers, or of one, are partly the same numbers.
    """
    first: dict[str, PathNode] = {}
    for node in nodes:
        for name in node.operator.matrices:
            if repeats_itself(tensor(name)):
                raise UnsupportedGraphError(
                    f"node {node.name} ({node.source}): several elements of {name} are one number "
                    "in memory (it was expanded), so the layer's weights are not independent. "
                    "Give it numbers of its own: tensor.clone()."
                )
        for name in (*node.operator.parameters, *node.operator.biases):
            first.setdefault(name, node)
    order = list(first)
    for pair in overlapping({name: tensor(name) for name in first}):
        one, two = sorted(pair, key=order.index)
        raise UnsupportedGraphError(
            f"node {first[two].name} ({first[two].source}): parameters {one} and {two} have "
            f"numbers of one memory in common (views of one tensor), so the weights of the two "
            f"layers are not independent. Give the layers weights of their own."
        )


def is_one(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are one object, or show the same memory in the same way: what is written
    into one is in the other.

    Args:
        a: a tensor.
        b: another one.

    Returns:
        Whether they are one weight.
    """
    if a is b:
        return True
    here, there = _span(a), _span(b)
    return (
        here is not None
        and here == there
        and a.dtype == b.dtype
        and (a.shape, a.stride()) == (b.shape, b.stride())
    )


def overlapping(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of tensors that have numbers in common.

    Args:
        tensors: by name, no two of them one.

    Yields:
        The names of a pair, in the order of their places.
    """
    placed = sorted((span, name) for name, tensor in tensors.items() if (span := _span(tensor)))
    # that end behind the place that is looked at
    reaching: list[tuple[tuple[str, int, int], str]] = []
    for span, name in placed:
        reaching = [other for other in reaching if other[0][0] == span[0] and other[0][2] > span[1]]
        yield from (
            (other, name)
            for _, other in reaching
            if _have_common_bytes(tensors[other], tensors[name])
        )
        reaching.append((span, name))


def repeats_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements of a tensor are one number in memory, as in one that was expanded."""
    if _span(tensor) is None:
        return False
    steps = sorted(
        (step, size) for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1
    )
    reach = 1
    for step, size in steps:
        if step < reach:
            return len(np.unique(_bytes(tensor))) < tensor.numel()
        reach += step * (size - 1)
    return False


def _span(tensor: torch.Tensor) -> tuple[str, int, int] | None:
    """Device, first byte and the one behind the last; ``None``: no memory that could be shared."""
    try:
        first = tensor.data_ptr() if tensor.layout == torch.strided else 0
    except RuntimeError:  # fake and functional tensors have no address
        first = 0
    if not first or not tensor.numel():
        return None
    length = (
        sum(step * (size - 1) for step, size in zip(tensor.stride(), tensor.shape, strict=True)) + 1
    )
    return str(tensor.device), first, first + length * tensor.element_size()


def _have_common_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors whose spans overlap have an element in common: rows and columns of one
    matrix may lie between each other.
    """
    if a.is_contiguous() and b.is_contiguous():
        return True
    item = max(a.element_size(), b.element_size())
    return bool(np.isin(_bytes(a) // item, _bytes(b) // item).any())


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    """Address of each element."""
    place = np.zeros(tensor.shape, np.int64)
    for axis, (step, size) in enumerate(zip(tensor.stride(), tensor.shape, strict=True)):
        place += (np.arange(size) * step).reshape(-1, *[1] * (tensor.dim() - axis - 1))
    return place.reshape(-1) * tensor.element_size() + tensor.data_ptr()
