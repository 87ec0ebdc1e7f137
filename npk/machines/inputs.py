"""What the estimators make of a network and samples before there is a kernel: rows for
scikit-learn's checks, and the shape of a sample.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from npk.errors import OptionError, ShapeError
from npk.layouts import Shape, advice, known_shape, misfit
from npk.networks.given import as_network
from npk.samples import as_array, as_floats

Network = nn.Module | Callable[[Shape], nn.Module]


def flattened(X: ArrayLike) -> tuple[Any, Shape | None]:
    """Samples as rows for scikit-learn's checks, and the shape they had if they were not rows; a
    table keeps the names of its columns.
    """
    samples: Any = X if hasattr(X, "columns") else as_array(X)
    if getattr(samples, "dtype", None) == np.uint8:  # pixels, as everywhere
        samples = as_floats(samples)
    if getattr(samples, "ndim", 2) <= 2:
        return samples, None
    return samples.reshape(len(samples), math.prod(samples.shape[1:])), samples.shape[1:]


def resolved_shape(asked: Shape | None, net: Network, came: Shape | None, features: int) -> Shape:
    """Shape of one sample: as asked, else as the network knows it, else as X came.

    Raises:
        ShapeError: X has another number of features, or pictures of another shape.
        OptionError: ``asked`` is no shape.
    """
    if asked is not None and not (
        isinstance(asked, (tuple, list)) and all(type(side) is int and side > 0 for side in asked)
    ):
        raise OptionError(
            f"input_shape is {asked!r}. Give the shape of one sample, such as (3, 32, 32)."
        )
    known = known_shape(net) if asked is None else asked
    shape = tuple(known) if known is not None else came or (features,)
    if math.prod(shape) != features:
        message = f"X has {features} features a sample, input_shape {shape} has {math.prod(shape)}."
        raise ShapeError(f"{message} Is X of the data the network was made for?")
    check_picture(came, shape)
    return shape


def check_picture(came: Shape | None, shape: Shape) -> None:
    """Refuse pictures of another shape: reshaping (32, 32, 3) into (3, 32, 32) would give nonsense
    without a symptom.

    Raises:
        ShapeError: they have another one.
    """
    if came is not None and came != shape and len(shape) > 1:
        advised = advice((0, *came), lambda way: way == shape)
        raise ShapeError(
            f"{misfit((0, *came), shape)}{f': {advised[1]}' if advised else ''}. Bring "
            f"the axes of X into that order."
        )


def built(net: Network, shape: Shape) -> nn.Module:
    """A copy of the network, or the network that a callable makes.

    Args:
        net: what came.
        shape: of one sample.

    Returns:
        The network.

    Raises:
        OptionError: neither came.
    """
    if isinstance(net, nn.Module) or not callable(net):
        return copy.deepcopy(as_network(net, "or a callable that makes one"))
    return net(shape)
