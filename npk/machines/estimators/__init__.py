"""Scikit-learn estimators on the neural path kernel of a network: where network and matrix meet.

``fit`` keeps the kernel object with its trace and plan, and the gates of the training samples:
``predict`` sends nothing but its own samples through the network.
"""

from npk.machines.estimators.base import KernelMachine
from npk.machines.estimators.gaussian_process import NPKGaussianProcessRegressor
from npk.machines.estimators.kept import GRAMS, Grams
from npk.machines.estimators.ridge import NPKRidge, NPKRidgeClassifier
from npk.machines.estimators.svm import NPKSVC

__all__ = [
    "GRAMS",
    "NPKSVC",
    "Grams",
    "KernelMachine",
    "NPKGaussianProcessRegressor",
    "NPKRidge",
    "NPKRidgeClassifier",
]
