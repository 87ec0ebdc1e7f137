"""From (network, X) to Gram matrices: what all estimators on the kernel share."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from npk.errors import OptionError, ShapeError
from npk.gates.table import GateTable
from npk.gram.kernel import Columns, NeuralPathKernel
from npk.gram.options import check_folder_around
from npk.machines.estimators.kept import GRAMS
from npk.machines.inputs import Network, Shape, flattened, resolved_shape
from npk.machines.of_network import OfNetwork, check_options
from npk.machines.problem import checked_gram, checked_weights
from npk.machines.validation import validated
from npk.samples import as_array

OPTIONS = "scale dtype gates value_input bias backend fixed of memory progress".split()
Cache = bool | str | Path


def kernel(
    made: NeuralPathKernel, rows: Columns | GateTable, cols: Columns | GateTable | None = None
) -> NDArray:
    """A part of the matrix that a machine learns from (rows alone), or predicts from."""
    return made(rows, cols)


class KernelMachine(OfNetwork):
    """From (network, X) to Gram matrices; what is done with them is the subclass's business."""

    net: Network | None
    input_shape: Shape | None
    fixed: str | Sequence[str]
    memory: int | str | None
    kernel: str
    cache: Cache
    gates_: GateTable
    bias_: str
    _columns: Columns

    def _check_targets(self, y: NDArray) -> NDArray:
        """Refuse targets and parameters that cannot be fitted, before there is a kernel."""
        raise NotImplementedError

    def _learn_inputs(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, **checks: bool
    ) -> tuple[NDArray, NDArray, NDArray[np.float64] | None]:
        """Check all that came, keep a copy of the network, its kernel and gates; give K, y and
        weights.
        """
        options = self._checked_options()
        raw, shape = (as_array(X, "X"), None) if self._is_given else flattened(X)
        rows, targets = validated(self, raw, y, **checks)
        targets = self._check_targets(targets)
        weights = checked_weights(sample_weight, len(rows))
        if self._is_given:
            return checked_gram(rows), targets, weights
        net: Any = self.net  # what is none is refused there
        self.input_shape_ = resolved_shape(self.input_shape, net, shape, rows.shape[1])
        self._keep_network(net, options)
        self.X_fit_ = rows.reshape(len(rows), *self.input_shape_)
        self.kernel_.keep_promise(self.X_fit_)
        self._columns = self.kernel_.columns(self.X_fit_)
        self.gates_ = self._columns.table
        self.bias_ = self.kernel_.settled(self.gates_).bias
        return self._matrix(self._columns), targets, weights

    def _cross(self, X: ArrayLike) -> NDArray:
        """Kernel of X (rows) with the samples of fit (columns)."""
        check_is_fitted(self)
        if self._is_given:
            return self._given_cross(as_array(X, "X"))
        return self._matrix(self._recorded(X), self._columns)

    def _recorded(self, X: ArrayLike) -> GateTable:
        """Gates of samples, of the network as it was in fit."""
        samples = self._samples(X)
        return self.kernel_.record(samples)

    def _given_cross(self, K: NDArray) -> NDArray:
        """The matrix that came in the place of samples."""
        if K.ndim == 2 and K.shape[1] != self.n_features_in_:
            n = self.n_features_in_
            turned = " Give its transpose." if K.shape[0] == n else ""
            raise ShapeError(
                f"X is a kernel of shape {K.shape}, and this machine has learnt from {n} samples: "
                f"(m, {n}) is wanted, test samples as rows and those of fit as columns.{turned}"
            )
        return validated(self, K, reset=False)

    def _matrix(self, rows: Columns | GateTable, cols: Columns | None = None) -> NDArray:
        """The kernel, cut out of what is known of it where that is kept."""
        if self.cache is False or (self.cache is True and self._is_promised):
            return kernel(self.kernel_, rows, cols)
        folder = None if isinstance(self.cache, bool) else self.cache
        return GRAMS.matrix(self.kernel_, kernel, rows, cols, folder)

    @property
    def _is_promised(self) -> bool:
        """Whether what is kept would be beside a promise of memory, or where it takes no time."""
        return self.memory is not None or self.kernel_.options.backend == "cuda"

    @property
    def _is_given(self) -> bool:
        """Whether kernels come in the place of samples."""
        return isinstance(self.kernel, str) and self.kernel == "precomputed"

    def _checked_options(self) -> dict[str, Any]:
        """Options of the kernel, refused where they are wrong."""
        options = {name: getattr(self, name) for name in OPTIONS}
        check_options(options)
        if not isinstance(self.kernel, str) or self.kernel not in ("npk", "precomputed"):
            raise OptionError(
                f"kernel is {self.kernel!r}. Take 'npk', the kernel of the network, or "
                f"'precomputed': then X is the kernel itself."
            )
        if isinstance(self.cache, bool):
            return options
        if not isinstance(self.cache, (str, os.PathLike)) or not str(self.cache):
            raise OptionError(
                f"cache is {self.cache!r}. Give a folder for kernels, True (in memory) or False."
            )
        check_folder_around(Path(self.cache))
        return options

    def __sklearn_tags__(self) -> Tags:
        """Scikit-learn cuts both sides of a kernel that is given."""
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self._is_given
        return tags
