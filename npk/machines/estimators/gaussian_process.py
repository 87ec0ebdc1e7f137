"""Gaussian process regression as a scikit-learn estimator."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin

from npk.choices import BackendName, BiasName, DtypeLike, GatesName, ScaleName, ValueInputName
from npk.errors import OptionError
from npk.machines import ridge
from npk.machines.estimators.base import Cache, KernelMachine
from npk.machines.inputs import Network, Shape
from npk.machines.problem import Floats, check_alpha
from npk.machines.uncertainty import gaussian_process
from npk.progress import Progress
from npk.recursion.instruments import Instrument


class NPKGaussianProcessRegressor(MultiOutputMixin, RegressorMixin, KernelMachine):
    r"""A Gaussian process whose covariance is the neural path kernel of a network.

    .. math:: y \sim \mathcal N\big(0,\; a\,(K + \alpha \operatorname{mean}(\operatorname{diag} K)\, I)\big)

    Its mean is kernel ridge; it says how sure it is, too. Noise and amplitude are those of the
    largest marginal likelihood, from one eigendecomposition.

    Args:
        net: as in :class:`NPKRidge`, like all parameters but the next three.
        alpha: variance of the noise in units of the amplitude and of the mean diagonal of K; or
            ``"auto"``: the most likely.
        amplitude: what the kernel is multiplied by; or ``"auto"``: the most likely.
        normalize_y: bring each output to mean 0 and variance 1 first; predictions are of y as it
            came.
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
        kernel: as in :class:`NPKRidge`; with ``"precomputed"`` deviations need ``diagonal``.
        cache: as in :class:`NPKRidge`.

    Attributes:
        alpha_: the alpha that was used.
        amplitude_: the amplitude that was used.
        noise_: variance of the noise of an observation, in the units of the normalized y.
        log_marginal_likelihood_value_: of the normalized y, with these.
        evidence_: likelihood of every alpha tried (``gaussian_process.Evidence``); None when alpha
            was given.
        process_: the fitted process (``gaussian_process.Process``), with its eigendecomposition.
        dual_coef_: (n,) or (n, outputs).
        bias_: ``"paths"`` or ``"ignore"``: what the kernel takes of the network's biases.
        X_fit_: the training samples, ``(n, *input_shape_)``.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``predict`` refuses one that has changed since.
        kernel_: the kernel object of ``net_`` (:class:`npk.NeuralPathKernel`); not pickled.
        gates_: gates of the training samples, a gate table.
        n_features_in_: the product of ``input_shape_``.
    """

    def __init__(
        self,
        net: Network | None = None,
        *,
        alpha: float | Literal["auto"] = "auto",
        amplitude: float | Literal["auto"] = "auto",
        normalize_y: bool = False,
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
        kernel: str = "npk",
        cache: Cache = True,
    ) -> None:
        self.net = net
        self.alpha: float | Literal["auto"] = alpha
        self.amplitude: float | Literal["auto"] = amplitude
        self.normalize_y = normalize_y
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
        self.kernel = kernel
        self.cache: Cache = cache

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Compute the kernel of X, and condition on y.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: targets, (n,) or (n, outputs): independent processes of one noise and amplitude.

        Returns:
            The estimator itself.

        Raises:
            ShapeError: X does not fit the input shape.
            DataError: the kernel is zero on all samples, or not positive definite with this alpha;
                or X or y is refused, as in :meth:`NPKRidge.fit`.
            OptionError: an option, alpha or the amplitude has no such value; told before any kernel
                is computed.
        """
        K, targets, _ = self._learn_inputs(X, y, None, y_numeric=True, multi_output=True)
        targets = targets.astype(np.float64)
        self._mean, self._size = np.zeros(targets.shape[1:]), np.ones(targets.shape[1:])
        if self.normalize_y:
            size = targets.std(0)
            self._mean, self._size = targets.mean(0), np.where(size > 0, size, 1.0)
        self.process_ = gaussian_process.fit(
            ridge.factor(K, backend=self.backend),
            (targets - self._mean) / self._size,
            self.alpha,
            amplitude=self.amplitude,
        )
        self.alpha_, self.amplitude_ = self.process_.alpha, self.process_.amplitude
        self.noise_, self.evidence_ = self.process_.noise, self.process_.evidence
        self.log_marginal_likelihood_value_ = self.process_.log_likelihood
        self.dual_coef_ = self.process_.coefficients
        return self

    def _check_targets(self, y: NDArray) -> NDArray:
        check_alpha(self.alpha)
        gaussian_process.check_amplitude(self.amplitude)
        return y

    def predict(
        self,
        X: ArrayLike,
        return_std: bool = False,
        return_cov: bool = False,
        *,
        diagonal: ArrayLike | None = None,
    ) -> NDArray | tuple[NDArray, NDArray]:
        """Mean at X, and how far f may be from it.

        Args:
            X: samples, ``(m, *input_shape)`` or ``(m, features)``.
            return_std: also the standard deviation of f, without the noise of observations.
            return_cov: also the covariance of f at all of X.
            diagonal: K(x, x) of the samples, with ``kernel="precomputed"`` and ``return_std``.

        Returns:
            Means, (m,) or (m, outputs); and deviations of the same shape, or covariances (m, m) or
            (m, m, outputs).

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
            OptionError: ``net_`` was changed after ``fit``; both are asked for; or of a given
                kernel what it does not hold.
        """
        if return_std and return_cov:
            raise OptionError("deviations are roots of the covariance's diagonal. Ask for one.")
        cross = self._cross(X)
        mean = self._mean + self._size * (cross @ self.dual_coef_)
        if return_std:
            own = self._own_diagonal(X, diagonal)
            deviations = np.sqrt(self.process_.variance(cross, own))
            return mean, np.multiply.outer(deviations, self._size)
        if return_cov:
            covariance = self.process_.covariance(cross, self._own_gram(X))
            return mean, np.multiply.outer(covariance, self._size**2)
        return mean

    def _own_diagonal(self, X: ArrayLike, given: ArrayLike | None) -> Floats:
        """K(x, x) on the scale of the kernel."""
        if not self._is_given:
            table = self._recorded(X)
            values = self.kernel_.diagonal(table)
            return (values > 0).astype(float) if self.scale == "cosine" else values
        if given is None:
            raise OptionError(
                "a kernel of test and training samples does not tell K(x, x). Pass diagonal=, one "
                "value a sample."
            )
        return np.asarray(given, np.float64)

    def _own_gram(self, X: ArrayLike) -> NDArray:
        if self._is_given:
            raise OptionError(
                "a kernel of test and training samples does not tell that of test samples. Take "
                "process_.covariance(cross, gram)."
            )
        table = self._recorded(X)
        return self.kernel_(table)
