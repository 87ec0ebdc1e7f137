"""The kernel of features, which multiplies without being formed."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.errors import ShapeError
from npk.machines.problem import Floats
from npk.samples import as_array

_ROWS = 4096  # brought to float64 at a time


class LowRank:
    r"""K = Z Z' of n samples with m features: :func:`npk.machines.conjugate_gradients.solve` takes it
    as it takes a matrix, for n m operations a step instead of n n.

    With coefficients c of the samples, those of the features are :math:`w = Z^\top c`, and what the
    machine says of a sample is :math:`z(x)^\top w`.

    Args:
        features: Z, (n, m); may be a memory map. It is not copied.

    Raises:
        ShapeError: Z is no matrix.
    """

    def __init__(self, features: ArrayLike) -> None:
        self.features: NDArray = as_array(features, "features")
        if self.features.ndim != 2:
            raise ShapeError(
                f"features have shape {self.features.shape}. Pass (n, m), a row a sample."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self.features), len(self.features)

    @property
    def dtype(self) -> np.dtype:
        """Of the features."""
        return self.features.dtype

    def diagonal(self) -> Floats:
        """Of K, (n,)."""
        rows = [np.square(self._wide(rows)).sum(1) for rows in self._batches()]
        return np.concatenate(rows)

    def __matmul__(self, V: NDArray) -> Floats:
        """K V in float64."""
        return self.values(self.weights(V))

    def weights(self, coefficients: NDArray) -> Floats:
        """Z' c.

        Args:
            coefficients: (n,) or (n, outputs).

        Returns:
            (m,) or (m, outputs).
        """
        total = np.zeros((self.features.shape[1], *coefficients.shape[1:]))
        for rows in self._batches():
            total += self._wide(rows).T @ coefficients[rows]
        return total

    def values(self, weights: NDArray) -> Floats:
        """Z w.

        Args:
            weights: (m,) or (m, outputs).

        Returns:
            (n,) or (n, outputs).
        """
        return np.concatenate([self._wide(rows) @ weights for rows in self._batches()])

    def _batches(self) -> list[slice]:
        return list(gen_batches(len(self.features), _ROWS))

    def _wide(self, rows: slice) -> Floats:
        return self.features[rows].astype(np.float64, copy=False)
