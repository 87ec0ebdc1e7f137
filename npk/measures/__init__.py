"""Measures of kernel matrices and of gate tables; :mod:`npk.plot` draws each of them.

Those of matrices take arrays and :class:`npk.Gram`, those of gates a :class:`npk.GateTable` or a
:class:`~npk.gates.store.GateStore`. A measure says what it does of the samples that it is given:
whether these are **fresh** (no weight of the network has seen them) or seen, only the caller knows.
"""

from npk.measures.agreements import agreement, duplicates, naswot
from npk.measures.intervals import Interval, cka_interval
from npk.measures.matrices import alignment, angle, cka, effective_rank, spectrum
from npk.measures.overlaps import ClassOverlap, class_overlap
from npk.measures.pairs import SharedGates, shared_gates
from npk.measures.risk import RiskCurve, nu, predicted_risk
from npk.measures.statistics import (
    Flips,
    GateReport,
    GateStatistics,
    LayerStatistics,
    flips,
    gate_statistics,
)

__all__ = [
    "ClassOverlap",
    "Flips",
    "GateReport",
    "GateStatistics",
    "Interval",
    "LayerStatistics",
    "RiskCurve",
    "SharedGates",
    "agreement",
    "alignment",
    "angle",
    "cka",
    "cka_interval",
    "class_overlap",
    "duplicates",
    "effective_rank",
    "flips",
    "gate_statistics",
    "naswot",
    "nu",
    "predicted_risk",
    "shared_gates",
    "spectrum",
]
