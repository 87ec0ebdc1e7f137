"""Samples on their way into a network: the trace for them, or what is wrong with their shape."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from npk.errors import ShapeError
from npk.layouts import Shape, advice, check_layout, misfit

if TYPE_CHECKING:
    import numpy as np
    import torch

    from npk.reading.tracing import Trace


def trace_for(net: "torch.nn.Module", X: "np.ndarray", fixed: str | Sequence[str] = ()) -> "Trace":
    """The trace of a network for samples.

    Args:
        net: a network in eval mode.
        X: samples, ``(n, *input_shape)``.
        fixed: as in :func:`npk.trace`.

    Returns:
        The trace.

    Raises:
        ShapeError: the network does not take samples of that shape; the message says what to do
            where that is known.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    from npk.reading.tracing import trace_network

    with shape_explained(net, X.shape):
        return trace_network(net, X.shape[1:], fixed)


@contextlib.contextmanager
def shape_explained(net: object, shape: Shape) -> Iterator[None]:
    """Tell what to do with samples whose shape the block refuses, where a network takes them in
    another one.

    Args:
        net: a network in eval mode.
        shape: of X, ``(n, *input_shape)``.

    Raises:
        ShapeError: the block's own, or one that says what to do.
    """
    check_layout(net, shape)
    try:
        yield
    except ShapeError as error:
        advised = advice(shape, lambda sample: _takes(net, sample))
        if advised is None:
            raise
        raise ShapeError(f"{misfit(shape, advised[0])}: {advised[1]}.") from error


def _takes(net: object, sample: Shape) -> bool:
    """Whether a network runs on samples of a shape."""
    import torch

    assert isinstance(net, torch.nn.Module)
    tensor = next(iter([*net.parameters(), *net.buffers()]), torch.zeros(()))
    kind = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net(torch.zeros((2, *sample), dtype=kind, device=tensor.device))
    except Exception:  # of the user's own code: of any kind
        return False
    return True
