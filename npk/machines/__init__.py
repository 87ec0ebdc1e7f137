"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import conjugate_gradients, ridge, svm
from npk.machines.needs import envelope
from npk.machines.uncertainty import conformal, gaussian_process

__all__ = ["conformal", "conjugate_gradients", "envelope", "gaussian_process", "ridge", "svm"]
