r"""Several kernels in one machine: of depths, instruments, networks.

.. math:: K = \sum_k w_k K_k / \operatorname{mean}(\operatorname{diag} K_k), \qquad w_k \ge 0, \quad \sum_k w_k = 1

The weights are those whose sum is best aligned with the targets, all kernels centered: a least squares
problem with weights that are not negative, solved exactly.

References:
    C. Cortes, M. Mohri and A. Rostamizadeh, *Algorithms for learning kernels based on centered
    alignment*, JMLR 2012, section 4.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from npk.checkpoint.weights import fingerprint
from npk.choices import BackendName, BiasName, DtypeLike, GatesName, ValueInputName
from npk.errors import OptionError, ShapeError
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import dtype_named
from npk.machines import ridge
from npk.machines.inputs import Network, Shape, built, check_picture, flattened, resolved_shape
from npk.machines.of_network import check_options, check_unchanged
from npk.machines.problem import (
    Floats,
    check_alpha,
    checked_gram,
    checked_labels,
    checked_targets,
    mean_diagonal,
    rounding,
)
from npk.machines.validation import validated
from npk.progress import Progress
from npk.recursion.instruments import Depth, Instrument, depths, instrument_of

_ROUNDINGS = 32  # of the mean diagonal: as far as entries may be apart by rounding alone
Weights = Literal["alignment", "uniform"] | Sequence[float]


def alignment_weights(kernels: Sequence[ArrayLike], y: ArrayLike) -> Floats:
    r"""Weights of kernels whose sum is best aligned with the targets.

    .. math:: w \propto \arg\max_{w \ge 0} \frac{\langle \sum_k w_k H K_k H, Y Y^\top\rangle}{\|\sum_k w_k H K_k H\|}

    with every K_k divided by its mean diagonal.

    Args:
        kernels: Gram matrices of the same n samples.
        y: targets, (n,) or (n, outputs), such as those of :func:`npk.machines.ridge.signed_targets`.

    Returns:
        A weight a kernel, not negative, of sum 1; all alike where none is aligned at all. A kernel
        that is the same for all pairs, up to rounding, tells nothing apart and has the weight 0.

    Raises:
        ShapeError: a matrix is not square and symmetric, of another size, or y of another length.
        DataError: a matrix is zero or not finite, or y is not.
        OptionError: there are no kernels.
    """
    if not len(kernels):
        raise OptionError("there are no kernels to weigh. Pass one at least.")
    centered: list[Floats] = []
    floors = []
    for K in kernels:
        floors.append(_ROUNDINGS * rounding(K))
        gram = checked_gram(K)
        if centered and gram.shape != centered[0].shape:
            raise ShapeError(
                f"kernels are of {len(centered[0])} and of {len(gram)} samples. Compute all of them "
                "on the same ones."
            )
        centered.append(_centered(gram / mean_diagonal(np.diagonal(gram))))
    targets = checked_targets(y, len(centered[0])).reshape(len(centered[0]), -1)
    targets = targets - targets.mean(0)
    products = np.array([[np.vdot(K, L) for L in centered] for K in centered], np.float64)
    with_targets = np.array([np.vdot(targets, K @ targets) for K in centered])
    # of a constant kernel, such as that of paths from the last bias alone, rounding is left
    sizes = np.sqrt(np.diagonal(products)) / len(targets)
    there = np.flatnonzero(sizes > floors)
    weights = np.zeros(len(centered))
    weights[there] = _least_squares(products[np.ix_(there, there)], with_targets[there])
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))


def _centered(gram: Floats) -> Floats:
    means = gram.mean(0)
    return gram - means - means[:, None] + means.mean()


def _least_squares(products: Floats, with_targets: Floats) -> Floats:
    r"""Minimize :math:`w^\top M w - 2 a^\top w` with w >= 0; its direction is the best one."""
    if not len(products):
        return with_targets
    values, vectors = np.linalg.eigh(products)
    kept = values > 1e-12 * values[-1]
    roots = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    weights, _ = nnls(roots, (vectors[:, kept] / np.sqrt(values[kept])).T @ with_targets)
    return weights


class NPKMultiKernelRidgeClassifier(ClassifierMixin, BaseEstimator):
    r"""Kernel ridge on a weighted sum of kernels: of several networks, instruments, or depths.

    Each kernel is computed with variances 1/fan-in and divided by its mean diagonal on the samples
    of fit, so that a weight says what part of the sum a kernel is.

    Args:
        nets: a network, or networks by name, all of one input shape. Copies are kept.
        of: what is asked of the paths of each network: ``"depths"`` (a kernel for each number of
            layers that paths pass), or one or several of :mod:`npk.recursion.instruments`.
        weights: ``"alignment"`` (learnt, :func:`alignment_weights`), ``"uniform"``, or a number a
            kernel.
        alpha: ridge in units of the mean diagonal of the sum, or ``"auto"``: by leave-one-out
            accuracy.
        input_shape: shape of one sample, as in :class:`npk.NPKRidge`, like all that follow.
        dtype: ``"float32"`` or ``"float64"``.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"auto"`` (paths where the network has biases), ``"paths"`` or ``"ignore"``.
        backend: what computes the kernels, and solves.
        fixed: names of tensors that are coefficients and no weights.
        progress: show progress of the kernels.

    Attributes:
        classes_: class labels, sorted.
        weights_: weight by name of the kernel, "network: instrument"; of sum 1 if learnt.
        alpha_: the ridge that was used.
        choice_: leave-one-out figures of every alpha tried; None when alpha was given.
        dual_coef_: (n,) for two classes, else (n, classes).
        input_shape_: shape of one sample.
        nets_: the networks, copies.
        n_features_in_: the product of ``input_shape_``.
    """

    def __init__(
        self,
        nets: Network | Mapping[str, Network],
        *,
        of: str | Instrument | Sequence[str | Instrument] = "depths",
        weights: Weights = "alignment",
        alpha: float | Literal["auto"] = "auto",
        input_shape: Shape | None = None,
        dtype: DtypeLike = "float32",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        backend: BackendName = "auto",
        fixed: str | Sequence[str] = (),
        progress: bool | Progress = False,
    ) -> None:
        self.nets = nets
        self.of = of
        self.weights: Weights = weights
        self.alpha: float | Literal["auto"] = alpha
        self.input_shape = input_shape
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend: BackendName = backend
        self.fixed = fixed
        self.progress = progress

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the kernels, weigh them, and solve.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: class labels, (n,).

        Returns:
            The estimator itself.

        Raises:
            ShapeError: X does not fit the input shape.
            DataError: X or y is refused, or a kernel is zero on all samples.
            OptionError: an option has no such value, or there are not as many weights as kernels.
        """
        raw, shape = flattened(X)
        rows, labels = validated(self, raw, y)
        check_alpha(self.alpha)
        labels = checked_labels(labels)
        samples = self._begun(rows, shape)
        targets, self.classes_ = ridge.signed_targets(labels)
        grams = [np.asarray(part(part.table)) for part in self._parts]
        self._units = np.array([mean_diagonal(np.diagonal(gram)) for gram in grams])
        found = self._weighed(grams, targets)
        self.weights_ = dict(zip((part.name for part in self._parts), found.tolist(), strict=True))
        total = self._sum(grams).astype(dtype_named(self.dtype))  # which tells what its rounding is
        fitted = ridge.fit(total, targets, self.alpha, criterion="accuracy", backend=self.backend)
        self.alpha_, self.choice_ = fitted.alpha, fitted.choice
        self.dual_coef_ = fitted.solution.coefficients
        self._n_fit = len(samples)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray:
        """Scores: (m,) for two classes, positive for the second; else (m, classes).

        Args:
            X: samples, ``(m, *input_shape)`` or ``(m, features)``.

        Returns:
            The scores, float64.

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
        """
        check_is_fitted(self)
        raw, shape = flattened(X)
        rows = validated(self, raw, reset=False)
        check_picture(shape, self.input_shape_)
        for name, net in self.nets_.items():
            check_unchanged(net, self._as_of_fit[name], f"nets_[{name!r}]")
        samples = rows.reshape(len(rows), *self.input_shape_)
        return self._sum([part(samples, part.table) for part in self._parts]) @ self.dual_coef_

    def predict(self, X: ArrayLike) -> NDArray:
        """Class labels, (m,); arguments and errors as in :meth:`decision_function`."""
        scores = self.decision_function(X)
        return self.classes_[
            (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        ]

    def _begun(self, rows: NDArray, shape: Shape | None) -> NDArray:
        """Copies of the networks, and the kernels that are asked of them."""
        nets = self.nets if isinstance(self.nets, Mapping) else {"network": self.nets}
        options = self._options()
        check_options(options)
        if not nets:
            raise OptionError("nets is empty. Give a network at least.")
        first = next(iter(nets.values()))
        self.input_shape_ = resolved_shape(self.input_shape, first, shape, rows.shape[1])
        samples = rows.reshape(len(rows), *self.input_shape_)
        self.nets_ = {name: built(net, self.input_shape_) for name, net in nets.items()}
        self._as_of_fit = {name: fingerprint(net) for name, net in self.nets_.items()}
        self._parts = [
            part
            for name, net in self.nets_.items()
            for part in self._of_network(name, net, samples)
        ]
        return samples

    def _of_network(self, name: str, net: Any, samples: NDArray) -> list["_Part"]:
        plain = NeuralPathKernel(net, **self._options())
        table = plain.record(samples)
        if isinstance(self.of, str) and self.of == "depths":
            asked: list[Instrument] = [
                Depth(depth) for depth in depths(plain.engine.paths(table.graph))
            ]
        else:
            given = [self.of] if isinstance(self.of, (str, Instrument)) else list(self.of)
            asked = [instrument_of(each) for each in given]
        return [
            _Part(f"{name}: {each.text}", NeuralPathKernel(net, of=each, **self._options()), table)
            for each in asked
        ]

    def _weighed(self, grams: list[NDArray], targets: Floats) -> Floats:
        if isinstance(self.weights, str):
            if self.weights == "uniform":
                return np.full(len(grams), 1 / len(grams))
            if self.weights == "alignment":
                return alignment_weights(grams, targets)
        found = np.asarray(self.weights, dtype=object)
        numbers = [w for w in found.reshape(-1) if isinstance(w, (int, float, np.number))]
        if found.shape != (len(grams),) or len(numbers) < len(grams) or not _usable(numbers):
            names = ", ".join(part.name for part in self._parts)
            raise OptionError(
                f"weights={self.weights!r}: give 'alignment', 'uniform', or a number from 0 on, not "
                f"all of them 0, for each of {len(grams)} kernels: {names}."
            )
        return np.array(numbers, np.float64)

    def _sum(self, grams: list[NDArray]) -> Floats:
        total = np.zeros(grams[0].shape)
        for weight, unit, gram in zip(self.weights_.values(), self._units, grams, strict=True):
            total += weight / unit * gram
        return total

    def _options(self) -> dict[str, Any]:
        names = "dtype gates value_input bias backend fixed progress".split()
        return {name: getattr(self, name) for name in names}


class _Part:
    """One of the kernels."""

    def __init__(self, name: str, kernel: NeuralPathKernel, table: GateTable) -> None:
        self.name, self.kernel, self.table = name, kernel, table

    def __call__(self, rows: Any, cols: GateTable | None = None) -> NDArray:
        """The matrix."""
        return self.kernel(rows, cols)


def _usable(numbers: list[Any]) -> bool:
    values = np.array(numbers, np.float64)
    return bool(np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0)
