"""Kernel ridge regression and classification as scikit-learn estimators."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin

from npk.choices import BackendName, BiasName, DtypeLike, GatesName, ScaleName, ValueInputName
from npk.machines import ridge
from npk.machines.estimators.base import Cache, KernelMachine
from npk.machines.estimators.classifier import KernelClassifier
from npk.machines.inputs import Network, Shape
from npk.machines.problem import Floats, check_alpha, checked_labels
from npk.progress import Progress
from npk.recursion.instruments import Instrument


class NPKRidge(MultiOutputMixin, RegressorMixin, KernelMachine):
    r"""Kernel ridge regression on the neural path kernel of a network.

    .. math:: f(x) = \sum_i c_i K(x, x_i), \qquad c = (K + \alpha \operatorname{mean}(\operatorname{diag} K)\, I)^{-1} y

    There is no intercept: center y if its mean is far from zero.

    Args:
        net: a torch module, or a callable ``net(input_shape)`` that makes one in ``fit``. A copy is
            kept: training ``net`` later does not change a fitted machine.
        alpha: ridge in units of the mean diagonal of K, one for all outputs or (outputs,); or
            ``"auto"``: by leave-one-out squared error.
        input_shape: shape of one sample, to unflatten X; known already if X comes unflattened or
            the network has ``architecture["input_shape"]``; (n_features,) otherwise.
        scale: ``"cosine"``, ``"fan_in"`` or ``"count"``; this and all options below are those of
            ``npk.kernel``.
        dtype: ``"float32"`` or ``"float64"``: arithmetic of the kernel. The solver works in
            float64.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"auto"`` (paths where the network has biases), ``"paths"`` or ``"ignore"``.
        backend: ``"auto"``, ``"reference"``, ``"cpu"`` or ``"cuda"``: then kernel and solver run on
            the GPU.
        fixed: names of tensors that are coefficients and no weights, such as ``["blur.*"]``.
        of: ``"paths"``, ``"tangent"``, ``npk.Depth(8)`` or another instrument: what is asked of
            the paths.
        memory: bytes or ``"8GB"``: what the kernel may use; the solver needs about four float64
            matrices (n, n) more.
        progress: show the kernel's progress, or a Progress to tell it to.
        alpha_per_target: ``"auto"`` chooses an alpha for each output of y apart.
        kernel: ``"npk"``; or ``"precomputed"``: X is the kernel itself, (n, n) in fit and (m, n) in
            predict, and the options of the network's kernel have no effect.
        cache: ``True``: kernels stay in this process's memory (up to 1 GB, those used last), so
            that a search over parameters and folds computes each pair of samples once; a folder:
            they are kept there, as stores, for all processes; ``False``: nothing is kept. In memory
            nothing is kept where ``memory`` is promised or the backend is "cuda".

    Attributes:
        alpha_: the ridge that was used.
        choice_: leave-one-out figures of every alpha tried (``ridge.Choice``); None when alpha was
            given.
        dual_coef_: (n,) or (n, outputs).
        bias_: ``"paths"`` or ``"ignore"``: what the kernel takes of the network's biases.
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
        net: Network | None = None,
        *,
        alpha: float | ArrayLike | Literal["auto"] = "auto",
        input_shape: Shape | None = None,
        scale: ScaleName = "cosine",
        dtype: DtypeLike = "float32",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        backend: BackendName = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = False,
        alpha_per_target: bool = False,
        kernel: str = "npk",
        cache: Cache = True,
    ) -> None:
        self.net = net
        self.alpha: float | ArrayLike | Literal["auto"] = alpha
        self.input_shape = input_shape
        self.scale = scale
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend: BackendName = backend
        self.fixed = fixed
        self.of: str | Instrument = of
        self.memory = memory
        self.progress = progress
        self.alpha_per_target = alpha_per_target
        self.kernel = kernel
        self.cache: Cache = cache

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Compute the kernel of X and solve.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: targets, (n,) or (n, outputs).
            sample_weight: weight of each sample's squared error, (n,), >= 0.

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
        K, targets, weights = self._learn_inputs(
            X, y, sample_weight, y_numeric=True, multi_output=True
        )
        machine = ridge.fit(
            K,
            targets,
            self.alpha,
            per_target=bool(self.alpha_per_target),
            sample_weight=weights,
            backend=self.backend,
        )
        self.alpha_, self.choice_ = machine.alpha, machine.choice
        self.dual_coef_ = machine.solution.coefficients
        return self

    def _check_targets(self, y: NDArray) -> NDArray:
        check_alpha(self.alpha, y)
        return y

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


class NPKRidgeClassifier(KernelClassifier):
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
        bias: paths from biases, or not; ``bias_`` is what was taken.
        backend: what computes the kernel, and solves.
        fixed: names of tensors that are no weights.
        of: what is asked of the paths.
        memory: budget of the kernel.
        progress: progress of the kernel.
        class_weight: "balanced", or a weight for each class: what the weights of its samples are
            multiplied by.
        probability: have ``predict_proba``: fit takes the eigendecomposition that ``"auto"`` takes,
            for a given alpha too, and calibrates leave-one-out scores.
        kernel: as in :class:`NPKRidge`.
        cache: as in :class:`NPKRidge`.

    Attributes:
        classes_: class labels, sorted.
        alpha_: the ridge that was used.
        choice_: leave-one-out figures of every alpha tried; None when alpha was given.
        dual_coef_: (n,) for two classes, else (n, classes).
        temperature_: what scores are multiplied by before they become probabilities.
        bias_: ``"paths"`` or ``"ignore"``: what the kernel takes of the network's biases.
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
        net: Network | None = None,
        *,
        alpha: float | Literal["auto"] = "auto",
        input_shape: Shape | None = None,
        scale: ScaleName = "cosine",
        dtype: DtypeLike = "float32",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        backend: BackendName = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = False,
        class_weight: Any = None,
        probability: bool = False,
        kernel: str = "npk",
        cache: Cache = True,
    ) -> None:
        self.net = net
        self.alpha: float | Literal["auto"] = alpha
        self.input_shape = input_shape
        self.scale = scale
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend: BackendName = backend
        self.fixed = fixed
        self.of: str | Instrument = of
        self.memory = memory
        self.progress = progress
        self.class_weight = class_weight
        self.probability = probability
        self.kernel = kernel
        self.cache: Cache = cache

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Compute the kernel of X and solve for every class.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: class labels, (n,).
            sample_weight: weight of each sample's squared error, (n,), >= 0.

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
        K, labels, weights = self._learn_inputs(X, y, sample_weight)
        weights = self._weights_of(labels, weights)
        targets, self.classes_ = ridge.signed_targets(labels)
        machine = self._solved(K, targets, weights, labels)
        self.alpha_, self.choice_ = machine.alpha, machine.choice
        self.dual_coef_ = machine.solution.coefficients
        return self

    def _solved(
        self, K: NDArray, targets: Floats, weights: Floats | None, labels: NDArray
    ) -> ridge.Ridge:
        """The machine, and the temperature where probabilities are wanted."""
        if not self.probability:
            return ridge.fit(
                K,
                targets,
                self.alpha,
                criterion="accuracy",
                sample_weight=weights,
                backend=self.backend,
            )
        factored = ridge.factor(K, backend=self.backend, sample_weight=weights)
        machine = ridge.fit_factored(factored, targets, self.alpha, criterion="accuracy")
        scores = targets - ridge.leave_one_out(factored, targets, float(machine.alpha))
        self._calibrate(scores, labels, weights)
        return machine

    def _check_targets(self, y: NDArray) -> NDArray:
        check_alpha(self.alpha)
        labels = checked_labels(y)
        self._weights_of(labels, None)  # refuses what are none
        return labels

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
        return ridge.classified(self.decision_function(X), self.classes_)
