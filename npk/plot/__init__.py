"""Figures of measures: a function each, which takes what the measure returns (or its inputs) and
returns Matplotlib's Axes.

``ax=None`` makes a figure of its own in the look of npk's pages, ``ax.figure.savefig("x.png")``
writes it; an Axes of yours keeps your style. Colors are told apart with every common color
blindness, and error bars are drawn wherever a measure has errors.
"""

from npk.errors import check_installed
from npk.plot.figures import (
    COLORS,
    MARKERS,
    alignment,
    cka,
    cka_interval,
    class_overlap,
    depth_spectrum,
    flips,
    gate_statistics,
    kernel,
    kernel_weights,
    leave_one_out,
    lesions,
    naswot,
    nu,
    predicted_risk,
    spectrum,
    through_training,
)
from npk.plot.gates import hyperplanes, on_circle, shared_gates

check_installed("matplotlib")

__all__ = [
    "COLORS",
    "MARKERS",
    "alignment",
    "cka",
    "cka_interval",
    "class_overlap",
    "depth_spectrum",
    "flips",
    "gate_statistics",
    "hyperplanes",
    "kernel",
    "kernel_weights",
    "leave_one_out",
    "lesions",
    "naswot",
    "nu",
    "on_circle",
    "predicted_risk",
    "shared_gates",
    "spectrum",
    "through_training",
]
