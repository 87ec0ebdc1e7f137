"""Support vector classification as a scikit-learn estimator."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from numpy.typing import ArrayLike, NDArray

from npk.choices import BackendName, BiasName, DtypeLike, GatesName, ScaleName, ValueInputName
from npk.machines import svm
from npk.machines.estimators.base import Cache
from npk.machines.estimators.classifier import KernelClassifier
from npk.machines.inputs import Network, Shape
from npk.machines.problem import checked_gram
from npk.progress import Progress
from npk.recursion.instruments import Instrument


class NPKSVC(KernelClassifier):
    r"""Support vector classification on the neural path kernel: libsvm, one machine a pair of
    classes, the pairs on all threads.

    Args:
        net: as in :class:`NPKRidge`, like all parameters but C.
        C: the cost of ``SVC``, or ``"auto"``: by stratified cross-validation on the training
            kernel, up to 5 folds.
        input_shape: shape of one sample.
        scale: scale of the kernel.
        dtype: arithmetic of the kernel.
        gates: hard or soft gates.
        value_input: what the value network sees.
        bias: paths from biases, or not; ``bias_`` is what was taken.
        backend: what computes the kernel.
        fixed: names of tensors that are no weights.
        of: what is asked of the paths.
        memory: budget of the kernel.
        progress: progress of the kernel.
        class_weight: "balanced", or a weight for each class: what C is multiplied by for its samples.
        probability: have ``predict_proba``: fit calibrates the scores of stratified
            cross-validation on the training kernel.
        kernel: as in :class:`NPKRidge`.
        cache: as in :class:`NPKRidge`.

    Attributes:
        classes_: class labels, sorted.
        C_: the cost that was used.
        choice_: cross-validation figures of every C tried (``svm.Choice``); None when C was given.
        machine_: the fitted machine (``svm.Machine``), whose scores are those of ``SVC``.
        support_: indices of the support vectors among the training samples.
        n_support_: how many each class has.
        dual_coef_: (classes - 1, support vectors), as in ``SVC``.
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
        C: float | Literal["auto"] = "auto",
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
        self.class_weight = class_weight
        self.probability = probability
        self.kernel = kernel
        self.cache: Cache = cache

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Compute the kernel of X, choose C, and fit.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: class labels, (n,).
            sample_weight: what C is multiplied by for each sample, (n,), >= 0.

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
        K, labels, weights = self._learn_inputs(X, y, sample_weight)
        K, options = checked_gram(K), {"sample_weight": weights, "class_weight": self.class_weight}
        fitted = svm.fit(K, labels, self.C, **options)
        self.C_, self.choice_, self.machine_ = fitted.C, fitted.choice, fitted.machine
        self.classes_, self.support_ = self.machine_.classes_, self.machine_.support_
        self.n_support_, self.dual_coef_ = self.machine_.n_support_, self.machine_.dual_coef_
        if self.probability:
            scores = svm.left_out_scores(K, labels, self.C_, **options)
            self._calibrate(scores, labels, self._weights_of(labels, weights))
        return self

    def _check_targets(self, y: NDArray) -> NDArray:
        labels = svm.check(y, self.C)
        if self.probability:
            svm.check(y)  # cross-validation, as for C
        self._weights_of(labels, None)  # refuses what are none
        return labels

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
