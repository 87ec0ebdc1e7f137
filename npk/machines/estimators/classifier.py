"""What all classifiers on the kernel share: weights of classes, and probabilities."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from npk.machines.estimators.base import KernelMachine
from npk.machines.problem import Floats, class_weights, times
from npk.machines.uncertainty import calibration


class KernelClassifier(ClassifierMixin, KernelMachine):
    """From scores of each class to probabilities."""

    class_weight: Any
    probability: bool
    classes_: NDArray

    def decision_function(self, X: ArrayLike) -> NDArray:
        """Scores of each class."""
        raise NotImplementedError

    @available_if(lambda self: bool(self.probability))
    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Probability of each class; only with ``probability=True``.

        Args:
            X: samples, ``(m, *input_shape)`` or ``(m, features)``.

        Returns:
            (m, classes), rows of sum 1; the largest is that of the class with the highest score.
            Errors are those of :meth:`decision_function`.
        """
        return calibration.probabilities(self.decision_function(X), self.temperature_)

    def _calibrate(self, scores: Floats, y: NDArray, weights: Floats | None) -> None:
        """Find the temperature on scores of samples that were left out."""
        numbers = np.searchsorted(self.classes_, y)
        self.temperature_ = calibration.temperature(scores, numbers, weights)

    def _weights_of(self, y: NDArray, weights: Floats | None) -> Floats | None:
        """Weights of the samples, times those of their classes."""
        return times(weights, class_weights(self.class_weight, y))
