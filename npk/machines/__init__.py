"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import conformal, conjugate_gradients, gaussian_process, ridge, svm

__all__ = ["conformal", "conjugate_gradients", "gaussian_process", "ridge", "svm"]
