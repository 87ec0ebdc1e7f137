"""Data sets in the plane: two classes that a picture shows, and points on a circle."""

from npk.data.dataset import Dataset
from npk.data.toys import circle, toy_points


def toy(shape: str, n: int = 500, *, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Points in the plane, inside and outside of a shape.

    Args:
        shape: "circle", "box" or "union", as :func:`npk.data.toys.toy_points` has them.
        n: how many points.
        noise: standard deviation of what is added to the points after their class is known.
        seed: of all that is drawn.

    Returns:
        The data set: classes "outside" and "inside".

    Raises:
        OptionError: another shape, no whole number of points, or a noise that is no deviation.
    """
    X, y = toy_points(shape, n, noise, seed)
    return Dataset(X, y, ("outside", "inside"), shape)


def circle_points(n: int = 180, *, radius: float = 1.0) -> Dataset:
    """Points on a circle in the order of their angles, without labels: what
    :func:`npk.plot.on_circle` draws a kernel of.

    Args:
        n: how many, from angle 0 on.
        radius: of the circle.

    Returns:
        The data set.

    Raises:
        OptionError: no whole number of points, or a radius that is not positive.
    """
    return Dataset(circle(n, radius), None, (), "points on a circle")
