"""The door of `approximate` for other rooms: machines that are content with a part of the kernel."""

from npk.machines.approximate.feature_ridge import FeatureRidge, fit
from npk.machines.approximate.landmarks import KernelEntries, Landmarks
from npk.machines.approximate.pivots import Entries, MatrixEntries, Numbers, checked_rank

__all__ = [
    "Entries",
    "FeatureRidge",
    "KernelEntries",
    "Landmarks",
    "MatrixEntries",
    "Numbers",
    "checked_rank",
    "fit",
]
