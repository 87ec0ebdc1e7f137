"""Toy sets in the plane: two classes that a picture shows, and points on a circle."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npk.errors import OptionError

Points = NDArray[np.float64]
AREA = 0.5  # share of the square [-1, 1] x [-1, 1] that is inside of a circle and of a box
_RADIUS = math.sqrt(4 * AREA / math.pi)
_SIDE = math.sqrt(AREA)  # half of it
_BUNDLED = 2000  # points of the sets that have a word in the DATA notation


def _in_circle(X: Points) -> NDArray[np.bool_]:
    return np.square(X).sum(1) < _RADIUS**2


def _in_box(X: Points) -> NDArray[np.bool_]:
    return np.abs(X).max(1) < _SIDE


def _in_union(X: Points) -> NDArray[np.bool_]:
    """A disc below on the left, and a box above on the right, which it touches."""
    disc = np.square(X + 0.35).sum(1) < 0.55**2
    return disc | (np.abs(X - 0.4).max(1) < 0.45)


INSIDE: dict[str, Callable[[Points], NDArray[np.bool_]]] = {
    "circle": _in_circle,
    "box": _in_box,
    "union": _in_union,
}


def toy_points(
    shape: str, n: int, noise: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points drawn evenly from the square [-1, 1] x [-1, 1], and whether each is inside of a shape.

    Args:
        shape: "circle" (radius 0.80) and "box" (half side 0.71): half of the points are inside;
            "union": a disc and a box that overlap.
        n: how many.
        noise: standard deviation of what is added to the points after their class is known.
        seed: of all that is drawn.

    Returns:
        Points ``(n, 2)``, and 1 for inside, 0 for outside, ``(n,)``.

    Raises:
        OptionError: another shape, no whole number of points, or a noise that is no deviation.
    """
    if shape not in INSIDE:
        raise OptionError(f"shape is {shape!r}. Choose of {', '.join(INSIDE)}.")
    _check_count(n)
    if isinstance(noise, bool) or not isinstance(noise, Real) or not 0 <= noise < math.inf:
        raise OptionError(f"noise is {noise!r}. Give a standard deviation from 0 on.")
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    y = INSIDE[shape](X).astype(np.int64)
    return (X + noise * rng.standard_normal(X.shape)).astype(np.float32), y


def circle(n: int, radius: float = 1.0) -> NDArray[np.float32]:
    r"""Points on a circle around the origin in the order of their angles.

    .. math:: x_k = r\, (\cos 2\pi k / n,\ \sin 2\pi k / n), \qquad k = 0, \dots, n - 1

    Args:
        n: how many.
        radius: r.

    Returns:
        Points ``(n, 2)``.

    Raises:
        OptionError: no whole number of points, or a radius that is not positive.
    """
    _check_count(n)
    if isinstance(radius, bool) or not isinstance(radius, Real) or not 0 < radius < math.inf:
        raise OptionError(f"radius is {radius!r}. Give a positive number.")
    angles = 2 * np.pi * np.arange(n) / n
    return (radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)


def _check_count(n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise OptionError(f"n is {n!r}. Give a whole number of points, from 1 on.")


def bundled(shape: str) -> Callable[[], tuple[Any, Any, tuple[str, ...]]]:
    """What the DATA notation reads for a shape: 2,000 points, always the same."""
    return lambda: (*toy_points(shape, _BUNDLED), ("outside", "inside"))
