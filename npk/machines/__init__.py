"""Kernel machines: they see a matrix, never a network (``estimators`` alone knows both)."""

from npk.machines import ridge, svm

__all__ = ["ridge", "svm"]
