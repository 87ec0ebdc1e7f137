r"""Which training samples a prediction rests on, and what it would be without them.

.. math:: f(x) = \sum_i c_i K(x, x_i), \qquad K = \sum_L K_L

The terms of the sum are the *shares* of the training samples (representer theorem); those of sub-networks
of L layers add up to them. A share says what a sample adds to the machine as it is; the *removal* says
what the prediction would be if the machine had never seen the sample, exactly and without a refit:

.. math:: f_{-S}(x) = f(x) - k(x)^\top A^{-1}_{:,S} (A^{-1}_{S,S})^{-1} c_S, \qquad A = K + \lambda I

References:
    C.-K. Yeh, J. S. Kim, I. Yen and P. Ravikumar, *Representer point selection for explaining deep
    neural networks*, NeurIPS 2018.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from npk.errors import DataError, OptionError, ShapeError
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.machines.problem import (
    Floats,
    checked_alpha,
    checked_gram,
    checked_targets,
    mean_diagonal,
    not_definite,
)
from npk.recursion.instruments import Depth, depths, instrument_of
from npk.samples import as_array

Numbers = NDArray[np.intp]


def representer_shares(cross: ArrayLike, coefficients: ArrayLike) -> Floats:
    r"""What each training sample adds to each prediction: :math:`c_i K(x, x_i)`.

    Args:
        cross: kernel of m samples (rows) with the n training samples (columns), (m, n).
        coefficients: of the machine, (n,) or (n, outputs).

    Returns:
        (m, n) or (m, n, outputs); sums over the training samples are the predictions.

    Raises:
        ShapeError: they do not fit together.
    """
    kernel = np.asarray(as_array(cross, "cross"), np.float64)
    found = np.asarray(as_array(coefficients, "coefficients"), np.float64)
    if kernel.ndim != 2 or kernel.shape[1] != len(found):
        raise ShapeError(
            f"cross has shape {kernel.shape}, there are {len(found)} coefficients. Pass the kernel "
            f"of test samples (rows) with the training samples (columns)."
        )
    return kernel[:, :, None] * found if found.ndim == 2 else kernel * found


class Removal:
    """Ridge regression without some of its training samples, from one inverse.

    Args:
        K: Gram matrix of the training samples, (n, n).
        y: targets, (n,) or (n, outputs).
        alpha: ridge in units of the mean diagonal of K, > 0 or such that the matrix can be inverted.
            The unit stays that of all samples.

    Raises:
        ShapeError: K is not square and symmetric, or y has another length.
        DataError: K is zero, not finite, or with this alpha not positive definite.
        OptionError: alpha is not a number >= 0.
    """

    def __init__(self, K: ArrayLike, y: ArrayLike, alpha: float) -> None:
        alpha = checked_alpha(alpha)
        gram = checked_gram(K)
        targets = checked_targets(y, len(gram))
        system = gram + alpha * mean_diagonal(np.diagonal(gram)) * np.eye(len(gram))
        try:
            factor = linalg.cho_factor(system, check_finite=False)
        except linalg.LinAlgError as error:
            raise DataError(not_definite(alpha)) from error
        self.inverse: Floats = linalg.cho_solve(factor, np.eye(len(gram)), check_finite=False)
        self.coefficients: Floats = self.inverse @ targets

    def without(self, removed: Sequence[int] | Numbers) -> Floats:
        """Coefficients of a machine that has never seen some samples.

        Args:
            removed: their numbers.

        Returns:
            Shape of y; 0 for those that were removed.

        Raises:
            OptionError: there is no such sample, one is named twice, or none would be left.
        """
        n = len(self.inverse)
        chosen = np.asarray(removed)
        whole = chosen.ndim == 1 and (chosen.dtype.kind in "iu" or not chosen.size)
        if not whole or len(set(chosen.tolist())) < len(chosen) or len(chosen) >= n:
            raise OptionError(
                f"removed={removed!r}: give numbers of different training samples, fewer than {n}."
            )
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < n):
            raise OptionError(f"removed={removed!r}: training samples are numbered 0 to {n - 1}.")
        S = chosen.astype(np.intp)
        change = np.linalg.solve(self.inverse[np.ix_(S, S)], self.coefficients[S])
        left = self.coefficients - self.inverse[:, S] @ change
        left[S] = 0.0
        return left

    def effects(self, cross: ArrayLike) -> Floats:
        """How much each prediction would change without each single training sample.

        Args:
            cross: kernel of m samples (rows) with the training samples (columns), (m, n).

        Returns:
            :math:`f_{-i}(x) - f(x)`, (m, n) or (m, n, outputs).

        Raises:
            ShapeError: cross has another number of columns.
        """
        kernel = np.asarray(as_array(cross, "cross"), np.float64)
        ratio = (self.coefficients.T / np.diagonal(self.inverse)).T
        if kernel.ndim != 2 or kernel.shape[1] != len(ratio):
            return representer_shares(kernel, ratio)  # which says what is wrong
        return -representer_shares(kernel @ self.inverse, ratio)


class FittedRidge(Protocol):
    """What an explanation asks of :class:`npk.NPKRidge` and :class:`npk.NPKRidgeClassifier`."""

    kernel_: NeuralPathKernel
    gates_: GateTable
    dual_coef_: NDArray

    def _recorded(self, X: ArrayLike) -> GateTable:
        """Gates of samples, of the network as it was in fit."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Predictions taken apart: ``shares.sum((1, 3))`` of all training samples is the prediction."""

    predictions: Floats  # (m, outputs)
    samples: Numbers  # (m, top): training samples, the largest share of the largest output first
    shares: Floats  # (m, top, outputs): what each of them adds
    depths: tuple[int, ...]  # numbers of layers that paths pass
    by_depth: Floats  # (m, top, outputs, depths): the shares by sub-networks of so many layers


def explain(machine: FittedRidge, X: ArrayLike, *, top: int = 10) -> Explanation:
    """The training samples that predictions of a ridge machine rest on most, by depth.

    Args:
        machine: a fitted :class:`npk.NPKRidge` or :class:`npk.NPKRidgeClassifier` with
            ``of="paths"``.
        X: samples, ``(m, *input_shape)`` or ``(m, features)``.
        top: training samples a prediction, those whose share of the largest output is largest in
            size.

    Returns:
        The explanation.

    Raises:
        OptionError: ``top`` is no positive whole number, or the machine is none of paths.
    """
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise OptionError(f"top is {top!r}. Give a whole number, 1 or more.")
    table = machine._recorded(X)
    kernel = machine.kernel_
    if (asked := instrument_of(kernel.options.of).text) != "paths":
        raise OptionError(
            f"the machine's kernel is of={asked!r}, which is no sum over depths. "
            'Fit one with of="paths".'
        )
    coefficients = machine.dual_coef_.reshape(len(machine.dual_coef_), -1)
    shares = representer_shares(kernel(table, machine.gates_), coefficients)
    predictions = shares.sum(1)
    largest = np.abs(predictions).argmax(1)
    of_largest = np.abs(shares[np.arange(len(table)), :, largest])
    chosen = np.argsort(-of_largest, axis=1, kind="stable")[:, :top]
    layers, parts = _by_depth(kernel, table, machine.gates_)
    rows_of, across = np.arange(len(table))[:, None], chosen
    return Explanation(
        predictions,
        chosen,
        shares[rows_of, across],
        layers,
        parts[rows_of, across][:, :, None, :] * coefficients[chosen][..., None],
    )


def _by_depth(
    kernel: NeuralPathKernel, rows: GateTable, cols: GateTable
) -> tuple[tuple[int, ...], Floats]:
    """The kernels of all depths on the scale of the machine's, ``(m, n, depths)``."""
    options = kernel.options
    scale = "fan_in" if options.scale == "cosine" else options.scale
    layers = depths(kernel.engine.paths(rows.graph))
    made = [
        NeuralPathKernel(
            None,
            scale=scale,
            dtype=options.dtype,
            gates=options.gates,
            value_input=options.value_input,
            bias=options.bias,
            backend=options.backend,
            of=Depth(depth),
            progress=kernel.engine.progress,
        )
        for depth in layers
    ]
    parts = np.stack([each(rows, cols).astype(np.float64) for each in made], axis=-1)
    if options.scale == "cosine":
        sizes = np.outer(kernel.diagonal(rows), kernel.diagonal(cols))
        parts /= np.sqrt(np.where(sizes > 0, sizes, 1.0))[..., None]
    return layers, parts
