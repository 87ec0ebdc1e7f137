"""The shape of a sample: what a network takes, and what to do with samples of another shape."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from npk.errors import ShapeError

Shape = tuple[int, ...]


def known_shape(net: Any) -> Shape | None:
    """The shape of one sample as a network itself knows it: one of npk's own, or of a file that
    says so.

    Args:
        net: any network.

    Returns:
        The shape without the batch axis; ``None`` where the network does not say.
    """
    described = getattr(net, "architecture", None)
    if isinstance(described, dict):
        shape = described.get("input_shape")
    else:
        shape = getattr(net, "input_shape", None)
    fits = isinstance(shape, (list, tuple)) and all(isinstance(side, int) for side in shape)
    return tuple(shape) if shape is not None and fits else None


def check_layout(net: Any, shape: Shape) -> None:
    """Refuse pictures with their channels last where the network is known to take them first: it
    may take both without a word.

    Args:
        net: any network.
        shape: of X, ``(n, *input_shape)``.

    Raises:
        ShapeError: channels stand last.
    """
    expected = known_shape(net)
    if (
        expected is not None
        and len(expected) > 1
        and shape[1:] != expected
        and shape[1:] == (*expected[1:], expected[0])
    ):
        raise ShapeError(
            f"{misfit(shape, expected)}: channels stand last, give {_transposed(1, len(expected))}."
        )


def misfit(shape: Shape, wanted: Shape) -> str:
    """What came and what is wanted, as the beginning of a sentence."""
    came = f"(n, {', '.join(map(str, shape[1:]))})" if len(shape) > 1 else _written(shape)
    return f"X is {came}; the network wants {_written(wanted)}"


def advice(shape: Shape, takes: Callable[[Shape], bool]) -> tuple[Shape, str] | None:
    """What makes samples of a shape that a network takes.

    Args:
        shape: of X, ``(n, *input_shape)``.
        takes: whether the network takes samples of a shape.

    Returns:
        The shape that it takes, and what to do with X, as the end of a sentence; ``None`` where
        nothing of this kind helps.
    """
    return next(
        ((way, text) for way, text in _ways(shape) if way != shape[1:] and takes(way)), None
    )


def _ways(shape: Shape) -> Iterator[tuple[Shape, str]]:
    """What people mean by X of a shape that does not fit, the likely first."""
    sample = shape[1:]
    if len(sample) > 1:
        yield _moved(sample), f"channels stand last, give {_transposed(1, len(sample))}"
    yield shape, "it is one sample, give X[None]"
    if len(shape) > 2:
        yield (
            _moved(shape),
            (
                f"it is one sample whose channels stand last, give "
                f"{_transposed(0, len(sample))}[None]"
            ),
        )
    yield (1, *sample), "the axis of the channels is missing, give X[:, None]"
    if len(sample) > 1:
        yield (math.prod(sample),), "samples should be vectors, give X.reshape(len(X), -1)"


def _moved(sample: Shape) -> Shape:
    """Channels from the last place to the first."""
    return (sample[-1], *sample[:-1])


def _transposed(first: int, last: int) -> str:
    """The call that brings the last axis before all others but the axis of the samples."""
    return f"X.transpose({', '.join(map(str, [*range(first), last, *range(first, last)]))})"


def _written(sides: Shape) -> str:
    return f"({', '.join(map(str, sides))}{',' * (len(sides) == 1)})"
