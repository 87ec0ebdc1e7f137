"""Frozen results that travel: plain values, no logic, to JSON and back.

A report is made from these alone, on a machine that may have neither torch nor the data. Every
value is checked when it is made, and a file says in which format it is written.
"""

from npk.results.base import FORMAT, Case, CaseDetails, Details, Result, kind_of
from npk.results.checks import (
    DETAILS,
    CheckResult,
    Curve,
    DepthShares,
    DualityDetails,
    EnsembleDetails,
    InvarianceCase,
    InvarianceDetails,
    InvarianceSuite,
    Lesion,
    LesionTable,
    Moved,
    Point,
    Shares,
    TangentDetails,
    TangentEntry,
    TimedCheck,
)
from npk.results.study import (
    MODELS,
    Accuracy,
    Comparison,
    Difference,
    KernelSummary,
    Measure,
    Mistake,
    Neighbors,
    NetworkSummary,
    Picture,
    StudyResult,
)
from npk.results.track import Move, TrackResult

__all__ = [
    "DETAILS",
    "FORMAT",
    "MODELS",
    "Accuracy",
    "Case",
    "CaseDetails",
    "CheckResult",
    "Comparison",
    "Curve",
    "DepthShares",
    "Details",
    "Difference",
    "DualityDetails",
    "EnsembleDetails",
    "InvarianceCase",
    "InvarianceDetails",
    "InvarianceSuite",
    "KernelSummary",
    "Lesion",
    "LesionTable",
    "Measure",
    "Mistake",
    "Move",
    "Moved",
    "Neighbors",
    "NetworkSummary",
    "Picture",
    "Point",
    "Result",
    "Shares",
    "StudyResult",
    "TangentDetails",
    "TangentEntry",
    "TimedCheck",
    "TrackResult",
    "kind_of",
]
