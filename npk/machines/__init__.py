"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import conjugate_gradients, ridge, svm
from npk.machines.needs import envelope

__all__ = ["conjugate_gradients", "envelope", "ridge", "svm"]
