"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import conformal, conjugate_gradients, gaussian_process, ridge, svm
from npk.machines.needs import envelope

__all__ = ["conformal", "conjugate_gradients", "envelope", "gaussian_process", "ridge", "svm"]
