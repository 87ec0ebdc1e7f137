r"""A Gaussian process with the neural path kernel as its covariance, from one eigendecomposition.

.. math::

    y \sim \mathcal N\big(0,\; a\,(K + \lambda I)\big), \qquad
    \operatorname{E} f(x) = k_x^\top A\, y, \qquad
    \operatorname{var} f(x) = a\,\big(K(x, x) - k_x^\top A\, k_x\big), \qquad A = (K + \lambda I)^{-1}

with the amplitude a. Its mean is kernel ridge. The likelihood is largest, for a given
:math:`\lambda`, at :math:`a = y^\top A\, y / n`, so that a search over :math:`\lambda` alone finds both. (Rasmussen and
Williams, *Gaussian processes for machine learning*, 2006, equations 2.25, 2.26 and 2.30.)
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from npk.errors import OptionError, ShapeError
from npk.machines.choice import ALPHAS, log_determinants
from npk.machines.factor import Factor, solve
from npk.machines.problem import Floats, checked_alpha, checked_targets, is_auto


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """Log marginal likelihood of each alpha, and the amplitude it is of."""

    alphas: Floats  # (a,)
    amplitudes: Floats  # (a,)
    log_likelihood: Floats  # (a,), summed over outputs

    @property
    def best(self) -> int:
        """Place of the largest; the first of equals."""
        return int(self.log_likelihood.argmax())


@dataclasses.dataclass(frozen=True, eq=False)
class Process:
    """A fitted process: coefficients of its mean, and what its variance is made of."""

    factored: Factor
    alpha: float
    amplitude: float
    log_likelihood: float
    coefficients: Floats  # (n,) or (n, outputs)
    evidence: Evidence | None  # None when alpha was given

    @property
    def noise(self) -> float:
        """Variance of the noise of an observation."""
        return self.amplitude * self.alpha * self.factored.unit

    def variance(self, cross: ArrayLike, diagonal: ArrayLike) -> Floats:
        """Variance of f, without the noise, at samples.

        Args:
            cross: kernel of the samples with those of the fit, (m, n).
            diagonal: K(x, x) of the samples, (m,).

        Returns:
            (m,), at least 0: rounding of K may lead below.

        Raises:
            ShapeError: they do not fit each other, or the process.
        """
        known = self._known(cross, np.shape(diagonal))
        explained = np.einsum("mi,mi->m", known, known)
        return np.maximum(self.amplitude * (np.asarray(diagonal) - explained), 0)

    def covariance(self, cross: ArrayLike, gram: ArrayLike) -> Floats:
        """Covariance of f, without the noise, at samples.

        Args:
            cross: kernel of the samples with those of the fit, (m, n).
            gram: kernel of the samples, (m, m).

        Returns:
            (m, m), symmetric.

        Raises:
            ShapeError: they do not fit each other, or the process.
        """
        known = self._known(cross, np.shape(gram)[:1])
        return self.amplitude * (np.asarray(gram) - known @ known.T)

    def _known(self, cross: ArrayLike, samples: tuple[int, ...]) -> Floats:
        """Rows whose inner products are what the observations explain."""
        values, factored = np.asarray(cross, np.float64), self.factored
        if values.shape != (*samples, len(factored.gram)):
            raise ShapeError(
                f"the kernel has shape {values.shape}, for {samples[0]} samples and a process of "
                f"{len(factored.gram)} it is ({samples[0]}, {len(factored.gram)}). Pass that of "
                f"test samples (rows) with those of the fit."
            )
        roots = factored.roots
        placed = factored.algebra.put(values if roots is None else values * roots)
        along = factored.algebra.get(placed @ factored.eigenvectors)
        return along / np.sqrt(factored.eigenvalues + self.alpha * factored.unit)


def fit(
    factored: Factor,
    y: ArrayLike,
    alpha: float | Literal["auto"] = "auto",
    *,
    amplitude: float | Literal["auto"] = "auto",
) -> Process:
    """Fit a process to targets of mean zero.

    Args:
        factored: what :func:`npk.machines.factor.factor` returned.
        y: targets, (n,) or (n, outputs): independent processes of one alpha and amplitude.
        alpha: variance of the noise, in units of the amplitude and of the mean diagonal of K; or
            ``"auto"``: the most likely of ``ALPHAS``.
        amplitude: what the kernel is multiplied by; or ``"auto"``: the most likely one.

    Returns:
        The process.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite, or K with this alpha is singular to rounding.
        OptionError: alpha or the amplitude is neither ``"auto"`` nor a number (alpha >= 0, the
            amplitude > 0), or no alpha is above the rounding of K.
    """
    check_amplitude(amplitude)
    targets = checked_targets(y, len(factored.gram))
    tried = ALPHAS if is_auto(alpha) else (checked_alpha(alpha),)
    found = evidence(factored, targets, tried, amplitude=amplitude)
    best, chosen = found.best, float(found.alphas[found.best])
    return Process(
        factored,
        chosen,
        float(found.amplitudes[best]),
        float(found.log_likelihood[best]),
        solve(factored, targets, chosen).coefficients,
        found if is_auto(alpha) else None,
    )


def evidence(
    factored: Factor,
    y: ArrayLike,
    alphas: Sequence[float] = ALPHAS,
    *,
    amplitude: float | Literal["auto"] = "auto",
) -> Evidence:
    r"""Log marginal likelihood of many alphas.

    .. math:: \log p(y) = -\frac{y^\top A\, y}{2a} + \tfrac12 \log \det A - \tfrac n2 \log(2 \pi a)

    Args:
        factored: as in :func:`fit`.
        y: as in :func:`fit`.
        alphas: candidates >= 0; those below the rounding of K are left out.
        amplitude: as in :func:`fit`.

    Returns:
        The likelihoods. Targets that are all zero have an amplitude of 1.

    Raises:
        ShapeError: y has another length than K.
        DataError: y is not finite.
        OptionError: no alpha is above the rounding of K, or one is no number >= 0.
    """
    columns = checked_targets(y, len(factored.gram)).reshape(len(factored.gram), -1)
    floor = 2 * max(0.0, -factored.eigenvalues[0])
    spectra = {
        checked_alpha(alpha): factored.eigenvalues + alpha * factored.unit for alpha in alphas
    }
    tried = np.array(
        [a for a, values in spectra.items() if a * factored.unit >= floor and values[0] > 0]
    )
    if not len(tried):
        raise OptionError(
            f"no alpha is above the rounding of K, {floor / factored.unit:.2g}. Offer larger ones "
            f"or compute K in float64."
        )
    squares = np.sum(factored.algebra.get(factored.projected(columns)) ** 2, axis=1)
    energies = np.array([squares @ (1 / spectra[alpha]) for alpha in tried])  # y A y
    size = factored.samples * columns.shape[1]
    amplitudes = energies / size if is_auto(amplitude) else np.full(len(tried), float(amplitude))
    amplitudes = np.where(amplitudes > 0, amplitudes, 1.0)
    halves = columns.shape[1] / 2 * log_determinants(factored, tried * factored.unit)
    likelihood = -energies / (2 * amplitudes) - halves - size / 2 * np.log(2 * np.pi * amplitudes)
    return Evidence(tried, amplitudes, likelihood)


def check_amplitude(amplitude: object) -> None:
    """Refuse what is neither "auto" nor a number > 0.

    Args:
        amplitude: what came.

    Raises:
        OptionError: so it is.
    """
    number = isinstance(amplitude, (int, float, np.integer, np.floating))
    if not is_auto(amplitude) and (
        isinstance(amplitude, bool) or not number or not 0 < amplitude < np.inf
    ):
        raise OptionError(f"amplitude is {amplitude!r}. Give a number > 0, or 'auto'.")
