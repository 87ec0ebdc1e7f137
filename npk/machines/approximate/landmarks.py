"""Samples that the others are seen from, and the entries of a kernel that this takes."""

import dataclasses
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.machines.approximate.pivots import (
    Entries,
    Numbers,
    PivotedCholesky,
    Selection,
    pivoted_cholesky,
)
from npk.machines.problem import Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Landmarks:
    """Samples that the others are seen from."""

    factor: PivotedCholesky  # of the kernel of all samples, by the landmarks
    normalization: Floats  # K_SS^(-1/2), (m, m): what turns rows K(x, S) into features
    turn: Floats  # (m, m): what turns the factor into features

    @classmethod
    def of(
        cls,
        entries: Entries,
        n_components: int,
        *,
        selection: Selection = "rpcholesky",
        rng: np.random.Generator | int = 0,
    ) -> Self:
        """Choose landmarks.

        Args:
            entries: of the kernel.
            n_components: as of :class:`NPKNystroem`, like all that follow.
            selection: how they are chosen.
            rng: source of randomness, or a seed.

        Returns:
            The landmarks.

        Raises:
            OptionError: no positive whole number, or a selection that is not known.
            DataError: the diagonal is zero or not finite.
        """
        factor = pivoted_cholesky(entries, n_components, selection=selection, rng=rng)
        left, sizes, right = linalg.svd(factor.factor[factor.pivots])
        return cls(factor, (left / sizes) @ left.T, (left @ right).T)

    @property
    def chosen(self) -> Numbers:
        """Their numbers among the samples, (m,), in the order in which they were taken."""
        return self.factor.pivots

    @property
    def features(self) -> Floats:
        """Of the samples themselves, (n, m)."""
        return self.factor.factor @ self.turn


class KernelEntries:
    """Entries of the kernel of a network on samples, computed as they are asked for.

    Args:
        kernel: of the network.
        table: gates of the samples.
    """

    def __init__(self, kernel: NeuralPathKernel, table: GateTable) -> None:
        self.kernel, self.table = kernel, table
        self.dtype = np.dtype(kernel.options.dtype)

    def diagonal(self) -> NDArray:
        """K(x, x) of the samples, on the kernel's scale."""
        values = self.kernel.diagonal(self.table)
        return (values > 0).astype(np.float64) if self.kernel.options.scale == "cosine" else values

    def proposed(self, samples: Numbers) -> tuple[NDArray, Callable[[Numbers], NDArray]]:
        """The block of the samples, and rows of those of them that are kept."""
        part = self.table.take(samples)
        return self.kernel(part), lambda kept: self.kernel(part.take(kept), self.table)
