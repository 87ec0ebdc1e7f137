"""Scikit-learn estimators on the neural path kernel of a network: where network and matrix meet.

``fit`` keeps the kernel object with its trace and plan, and the gates of the training samples:
``predict`` sends nothing but its own samples through the network.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from npk.checkpoint.weights import fingerprint
from npk.choices import as_patterns
from npk.errors import DataError, DataTypeError, NpkError, OptionError
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.work.columns import Columns
from npk.machines import ridge, svm
from npk.machines.inputs import Network, Shape, built, check_picture, flattened, resolved_shape
from npk.machines.problem import check_alpha, checked_labels
from npk.progress import Progress
from npk.recursion.instruments import Instrument
from npk.samples import as_array

_OPTIONS = "scale dtype gates value_input bias backend fixed of memory progress".split()


def kernel(made: NeuralPathKernel, rows: NDArray | Columns, cols: Columns | None = None) -> NDArray:
    """The matrix that a machine learns from (rows alone), or predicts from."""
    return made(rows, cols)


class _KernelMachine(BaseEstimator):
    """From (network, X) to Gram matrices; what is done with them is the subclass's business."""

    net: Network
    input_shape: Shape | None
    fixed: str | Sequence[str]
    net_: nn.Module
    gates_: GateTable
    _columns: Columns

    def _check_targets(self, y: NDArray) -> NDArray:
        """Refuse targets and parameters that cannot be fitted, before there is a kernel."""
        raise NotImplementedError

    def _learn_inputs(self, X: ArrayLike, y: ArrayLike, **checks: bool) -> tuple[NDArray, NDArray]:
        """Check X and y, keep a copy of the network, its kernel and gates; give K and y."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        as_patterns(self.fixed)
        NeuralPathKernel(None, **{**options, "fixed": ()})  # refuses options that are wrong
        raw, shape = flattened(X)
        rows, targets = self._validated(
            raw, as_array(y, "y") if hasattr(y, "detach") else y, **checks
        )
        targets = self._check_targets(targets)
        self.input_shape_ = resolved_shape(self.input_shape, self.net, shape, rows.shape[1])
        self.net_ = built(self.net, self.input_shape_)
        self._options, self._as_of_fit = options, fingerprint(self.net_)
        self.kernel_ = NeuralPathKernel(self.net_, **options)
        self.X_fit_ = rows.reshape(len(rows), *self.input_shape_)
        self.kernel_.keep_promise(self.X_fit_)
        self._columns = self.kernel_.columns(self.X_fit_)
        self.gates_ = self._columns.table
        return kernel(self.kernel_, self._columns), targets

    def _cross(self, X: ArrayLike) -> NDArray:
        """Kernel of X (rows) with the samples of fit (columns)."""
        check_is_fitted(self)
        raw, shape = flattened(X)
        rows = self._validated(raw, reset=False)
        check_picture(shape, self.input_shape_)
        if fingerprint(self.net_) != self._as_of_fit:
            raise OptionError(
                "net_ has changed since fit, whose gates and coefficients are of the "
                "network as it was. Call fit again."
            )
        if not hasattr(self, "kernel_"):  # it was pickled
            self.kernel_ = NeuralPathKernel(self.net_, **self._options)
        return kernel(self.kernel_, rows.reshape(len(rows), *self.input_shape_), self._columns)

    def _validated(self, X: Any, *y: Any, **checks: bool) -> Any:
        """Samples, and targets if any, as scikit-learn checks them; its errors are npk's."""
        try:
            return validate_data(self, X, *y, dtype=(np.float32, np.float64), **checks)
        except NpkError:
            raise
        except TypeError as error:
            raise DataTypeError(" ".join(str(error).split())) from error
        except ValueError as error:
            raise DataError(" ".join(str(error).split())) from error

    def __getstate__(self) -> dict[str, Any]:
        """All but the kernel object, which holds the network once more; it is made again."""
        return {name: value for name, value in super().__getstate__().items() if name != "kernel_"}


class _RidgeMachine(_KernelMachine):
    """What the two ridge estimators share."""

    def __init__(
        self,
        net: Network,
        *,
        alpha: float | Literal["auto"] = "auto",
        input_shape: Shape | None = None,
        scale: str = "cosine",
        dtype: str = "float32",
        gates: str = "auto",
        value_input: str = "auto",
        bias: str = "ignore",
        backend: str = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = False,
    ) -> None:
        self.net = net
        self.alpha: float | Literal["auto"] = alpha
        self.input_shape = input_shape
        self.scale = scale
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend = backend
        self.fixed = fixed
        self.of: str | Instrument = of
        self.memory = memory
        self.progress = progress

    def _check_targets(self, y: NDArray) -> NDArray:
        check_alpha(self.alpha)
        return y

    def _fit_ridge(self, K: NDArray, targets: NDArray, criterion: ridge.Criterion) -> None:
        machine = ridge.fit(K, targets, self.alpha, criterion=criterion, backend=self.backend)
        self.alpha_ = machine.alpha
        self.choice_ = machine.choice
        self.dual_coef_ = machine.solution.coefficients


class NPKRidge(MultiOutputMixin, RegressorMixin, _RidgeMachine):
    r"""Kernel ridge regression on the neural path kernel of a network.

    .. math:: f(x) = \sum_i c_i K(x, x_i), \qquad c = (K + \alpha \operatorname{mean}(\operatorname{diag} K)\, I)^{-1} y

    There is no intercept: center y if its mean is far from zero.

    Args:
        net: a torch module, or a callable ``net(input_shape)`` that makes one in ``fit``. A copy is
            kept: training ``net`` later does not change a fitted machine.
        alpha: ridge in units of the mean diagonal of K, or ``"auto"``: by leave-one-out squared
            error.
        input_shape: shape of one sample, to unflatten X; known already if X comes unflattened or
            the network has ``architecture["input_shape"]``; (n_features,) otherwise.
        scale: ``"cosine"``, ``"fan_in"`` or ``"count"``; this and all options below are those of
            ``npk.kernel``.
        dtype: ``"float32"`` or ``"float64"``: arithmetic of the kernel. The solver works in
            float64.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"ignore"`` or ``"paths"``.
        backend: ``"auto"``, ``"reference"``, ``"cpu"`` or ``"cuda"``: then kernel and solver run on
            the GPU.
        fixed: names of tensors that are coefficients and no weights, such as ``["blur.*"]``.
        of: ``"paths"``, ``"tangent"``, ``npk.Depth(8)`` or another instrument: what is asked of
            the paths.
        memory: bytes or ``"8GB"``: what the kernel may use; the solver needs about four float64
            matrices (n, n) more.
        progress: show the kernel's progress, or a Progress to tell it to.

    Attributes:
        alpha_: the ridge that was used.
        choice_: leave-one-out figures of every alpha tried (``ridge.Choice``); None when alpha was
            given.
        dual_coef_: (n,) or (n, outputs).
        X_fit_: the training samples, ``(n, *input_shape_)``.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``predict`` refuses one that has changed since.
        kernel_: the kernel object of ``net_`` (:class:`npk.NeuralPathKernel`), with its trace and
            its plan; not pickled.
        gates_: gates of the training samples, a gate table.
        n_features_in_: the product of ``input_shape_``.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the kernel of X and solve.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: targets, (n,) or (n, outputs).

        Returns:
            The estimator itself.

        Raises:
            ShapeError: X does not fit the input shape.
            DataError: the kernel is zero on all samples, or not positive definite with this alpha.
            OptionError: an option, alpha or C has no such value; told before any kernel is
                computed, as are labels that do not fit.
            DataError: X or y is refused: a form that is no samples, or by scikit-learn's checks
                (NaN, lengths).
        """
        K, y = self._learn_inputs(X, y, y_numeric=True, multi_output=True)
        self._fit_ridge(K, y, "squared error")
        return self

    def predict(self, X: ArrayLike) -> NDArray:
        """Values at X.

        Args:
            X: samples, ``(m, *input_shape)`` or ``(m, features)``.

        Returns:
            (m,) or (m, outputs), as y was in fit.

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
            OptionError: ``net_`` was changed after ``fit``.
        """
        return self._cross(X) @ self.dual_coef_


class NPKRidgeClassifier(ClassifierMixin, _RidgeMachine):
    r"""Kernel ridge on -1 and +1 targets, one column a class; the largest score wins.

    Args:
        net: as in :class:`NPKRidge`, like all other parameters.
        alpha: ridge in units of the mean diagonal of K, or ``"auto"``: by leave-one-out accuracy,
            then squared error.
        input_shape: shape of one sample.
        scale: scale of the kernel.
        dtype: arithmetic of the kernel.
        gates: hard or soft gates.
        value_input: what the value network sees.
        bias: paths from biases or not.
        backend: what computes the kernel, and solves.
        fixed: names of tensors that are no weights.
        of: what is asked of the paths.
        memory: budget of the kernel.
        progress: progress of the kernel.

    Attributes:
        classes_: class labels, sorted.
        alpha_: the ridge that was used.
        choice_: leave-one-out figures of every alpha tried; None when alpha was given.
        dual_coef_: (n,) for two classes, else (n, classes).
        X_fit_: the training samples, ``(n, *input_shape_)``.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``predict`` refuses one that has changed since.
        kernel_: the kernel object of ``net_`` (:class:`npk.NeuralPathKernel`), with its trace and
            its plan; not pickled.
        gates_: gates of the training samples, a gate table.
        n_features_in_: the product of ``input_shape_``.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the kernel of X and solve for every class.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: class labels, (n,).

        Returns:
            The estimator itself.

        Raises:
            ShapeError: X does not fit the input shape.
            DataError: one class only, or the kernel is zero on all samples, or not positive
                definite with this alpha.
            OptionError: an option, alpha or C has no such value; told before any kernel is
                computed, as are labels that do not fit.
            DataError: X or y is refused: a form that is no samples, or by scikit-learn's checks
                (NaN, lengths).
        """
        K, y = self._learn_inputs(X, y)
        targets, self.classes_ = ridge.signed_targets(y)
        self._fit_ridge(K, targets, "accuracy")
        return self

    def _check_targets(self, y: NDArray) -> NDArray:
        return checked_labels(super()._check_targets(y))

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
            OptionError: ``net_`` was changed after ``fit``.
        """
        return self._cross(X) @ self.dual_coef_

    def predict(self, X: ArrayLike) -> NDArray:
        """Class labels, (m,); arguments and errors as in :meth:`decision_function`."""
        scores = self.decision_function(X)
        return self.classes_[
            (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        ]


class NPKSVC(ClassifierMixin, _KernelMachine):
    r"""Support vector classification on the neural path kernel: ``SVC(kernel="precomputed")``, one
    machine a pair of classes.

    Args:
        net: as in :class:`NPKRidge`, like all parameters but C.
        C: the cost of ``SVC``, or ``"auto"``: by stratified cross-validation on the training
            kernel, up to 5 folds.
        input_shape: shape of one sample.
        scale: scale of the kernel.
        dtype: arithmetic of the kernel.
        gates: hard or soft gates.
        value_input: what the value network sees.
        bias: paths from biases or not.
        backend: what computes the kernel.
        fixed: names of tensors that are no weights.
        of: what is asked of the paths.
        memory: budget of the kernel.
        progress: progress of the kernel.

    Attributes:
        classes_: class labels, sorted.
        C_: the cost that was used.
        choice_: cross-validation figures of every C tried (``svm.Choice``); None when C was given.
        machine_: the fitted ``SVC``.
        support_: indices of the support vectors among the training samples.
        dual_coef_: (classes - 1, support vectors), as in ``SVC``.
        X_fit_: the training samples, ``(n, *input_shape_)``.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``predict`` refuses one that has changed since.
        kernel_: the kernel object of ``net_`` (:class:`npk.NeuralPathKernel`), with its trace and
            its plan; not pickled.
        gates_: gates of the training samples, a gate table.
        n_features_in_: the product of ``input_shape_``.
    """

    def __init__(
        self,
        net: Network,
        *,
        C: float | Literal["auto"] = "auto",
        input_shape: Shape | None = None,
        scale: str = "cosine",
        dtype: str = "float32",
        gates: str = "auto",
        value_input: str = "auto",
        bias: str = "ignore",
        backend: str = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = False,
    ) -> None:
        self.net = net
        self.C: float | Literal["auto"] = C
        self.input_shape = input_shape
        self.scale = scale
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend = backend
        self.fixed = fixed
        self.of: str | Instrument = of
        self.memory = memory
        self.progress = progress

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the kernel of X, choose C, and fit.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: class labels, (n,).

        Returns:
            The estimator itself.

        Raises:
            ShapeError: X does not fit the input shape.
            DataError: one class only, a class of one sample with ``C="auto"``, or the kernel is
                zero on all samples.
            OptionError: an option, alpha or C has no such value; told before any kernel is
                computed, as are labels that do not fit.
            DataError: X or y is refused: a form that is no samples, or by scikit-learn's checks
                (NaN, lengths).
        """
        K, y = self._learn_inputs(X, y)
        fitted = svm.fit(K, y, self.C)
        self.C_, self.choice_, self.machine_ = fitted.C, fitted.choice, fitted.machine
        self.classes_, self.support_, self.dual_coef_ = (
            self.machine_.classes_,
            self.machine_.support_,
            self.machine_.dual_coef_,
        )
        return self

    def _check_targets(self, y: NDArray) -> NDArray:
        return svm.check(y, self.C)

    def decision_function(self, X: ArrayLike) -> NDArray:
        """Scores of ``SVC``: (m,) for two classes, positive for the second; else (m, classes).

        Args:
            X: samples, ``(m, *input_shape)`` or ``(m, features)``.

        Returns:
            The scores, float64.

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
            OptionError: ``net_`` was changed after ``fit``.
        """
        cross = self._cross(X)
        return self.machine_.decision_function(cross)

    def predict(self, X: ArrayLike) -> NDArray:
        """Class labels by the vote of the pairs, (m,); otherwise as :meth:`decision_function`."""
        cross = self._cross(X)
        return self.machine_.predict(cross)
