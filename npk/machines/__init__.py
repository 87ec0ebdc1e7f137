"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import conjugate_gradients, ridge, svm

__all__ = ["conjugate_gradients", "ridge", "svm"]
