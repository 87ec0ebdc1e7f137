r"""The kernel averaged over a group: what a network's gates know, made blind to where things are.

.. math:: K_G(x, x') = \frac{1}{|G|} \sum_{g \in G} K(g x, x')
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.checks.groups import Element, Group, Shifts, family
from npk.errors import DataError, OptionError
from npk.gram.kernel import NeuralPathKernel
from npk.samples import as_samples
from npk.structure.motions import Shift
from npk.structure.prediction import Prediction

if TYPE_CHECKING:
    import torch

_SIDES = ("one", "both")


def orbit_average(
    net: "torch.nn.Module",
    X: np.ndarray,
    Y: np.ndarray | None = None,
    *,
    group: Group = "circular",
    shifts: Shifts = "all",
    sides: str = "one",
    seed: int = 0,
    **options: Any,
) -> np.ndarray:
    r"""The neural path kernel averaged over the elements of a group.

    .. math:: K_G(x, x') = \frac{1}{|G|} \sum_{g \in G} K(g x, x')

    Of the circular shifts those that structure promises to leave the kernel alone form a sub-group,
    and one element of each of its cosets is enough: the mean over all shifts of a network with a
    stride of 2 is that over 4 of them, exactly.

    Args:
        net: a network in eval mode.
        X: images ``(n, channels, *positions)``.
        Y: other ones; ``None``: X itself.
        group: as in :func:`npk.check_invariance`.
        shifts: as there; "all" by default.
        sides: "one" moves the rows, as in the formula; "both" moves rows and columns and takes the
            mean of :math:`K(g x, h x')`, an inner product of averaged features, and so symmetric and
            positive semidefinite whatever the network. They are equal where
            :math:`K(g x, g x') = K(x, x')`.
        seed: of shifts that are drawn.
        **options: of :func:`npk.kernel`; ``scale="cosine"`` needs both sides.

    Returns:
        ``(n, m)`` array; ``(n, n)`` without Y.

    Raises:
        DataError: samples without positions.
        OptionError: an option that is not known, or a cosine of one side.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    if sides not in _SIDES:
        raise OptionError(f"sides={sides!r} is not known. Choose one of {', '.join(_SIDES)}.")
    cosine = options.get("scale") == "cosine"
    if cosine and sides != "both":
        raise OptionError(
            "scale='cosine' divides by lengths of averaged features, which one side does not give. "
            "Use sides='both', or scale='fan_in'."
        )
    plain = {**options, "scale": "fan_in"} if cosine else options
    kernel = NeuralPathKernel(net, **{"progress": False, **plain})
    rows = as_samples(X)
    cols = None if Y is None else as_samples(Y)
    if rows.ndim < 3:
        raise DataError(f"X has shape {rows.shape}, which has no positions to move. Give images.")
    elements = _needed(kernel, rows, (group, shifts, seed))
    averaged = _averaged(kernel, (rows, cols), elements, sides)
    if cols is None and sides == "both":
        averaged = (averaged + averaged.T) / 2  # equal up to rounding
    if cosine:
        left = _lengths(kernel, rows, elements)
        right = left if cols is None else _lengths(kernel, cols, elements)
        unit = np.outer(left, right)
        averaged = np.divide(averaged, unit, out=np.zeros_like(averaged), where=unit > 0)
    return averaged.astype(kernel.options.dtype)


def _needed(
    kernel: NeuralPathKernel, X: np.ndarray, what: tuple[Group, Shifts, int]
) -> list[Element]:
    """One element of each coset of the sub-group that structure promises."""
    group, shifts, seed = what
    prediction = Prediction(kernel.trace(X.shape[1:]))
    chosen = family(group, X.shape[2:], shifts, prediction.keeps, seed)
    steps = prediction.shifts.steps if group == "circular" and not prediction.outside else None
    if len(chosen.elements) < chosen.size or steps is None:
        return list(chosen.elements)
    return [
        element
        for element in chosen.elements
        if isinstance(element, Shift)
        and all(r % n < step for r, n, step in zip(element.by, element.grid, steps, strict=True))
    ]


def _averaged(
    kernel: NeuralPathKernel,
    samples: tuple[np.ndarray, np.ndarray | None],
    elements: Sequence[Element],
    sides: str,
) -> np.ndarray:
    """Mean over the pairs of moved rows and, of both sides, moved columns."""
    X, Y = samples
    rows = [kernel.record(element.moved(X)) for element in elements]
    if sides == "one":
        cols = [kernel.record(X if Y is None else Y)]
    else:
        cols = rows if Y is None else [kernel.record(element.moved(Y)) for element in elements]
    total = np.zeros((len(rows[0]), len(cols[0])))
    for col in cols:
        for row in rows:
            total += kernel(row, col)
    return total / (len(rows) * len(cols))


def _lengths(kernel: NeuralPathKernel, X: np.ndarray, elements: Sequence[Element]) -> np.ndarray:
    """Lengths of the averaged features of each sample."""
    squares = [
        kernel(np.concatenate([element.moved(X[i : i + 1]) for element in elements])).mean()
        for i in range(len(X))
    ]
    return np.sqrt(np.maximum(squares, 0))
