"""Results are checked when they are made, travel as strict JSON, and say what is wrong with a file
in one line.
"""

import dataclasses
import json
import math
from typing import get_args

import numpy as np
import pytest
from test_report import build_run, invariance_case, moved

from npk import choices
from npk.cli.training import TrainReport, Trial
from npk.data.preparation import Preparation
from npk.errors import DataError, StoreError
from npk.measures import GateReport, GateStatistics, LayerStatistics
from npk.networks import TrainingResult
from npk.results import (
    DETAILS,
    FORMAT,
    Accuracy,
    Case,
    CaseDetails,
    CheckResult,
    Comparison,
    Curve,
    DepthShares,
    Difference,
    DualityDetails,
    EnsembleDetails,
    EnsembleRun,
    EnsembleSuite,
    FitReport,
    InspectReport,
    InvarianceDetails,
    InvarianceSuite,
    KernelCost,
    KernelPlan,
    KernelReport,
    KernelsOf,
    KernelSummary,
    Lesion,
    LesionTable,
    MachineTable,
    Measure,
    Mistake,
    Move,
    Neighbors,
    NetworkSummary,
    Node,
    PairCost,
    Picture,
    Point,
    RandomLesion,
    Shares,
    StoreReport,
    StudyPlan,
    StudyResult,
    TangentDetails,
    TangentEntry,
    TimedCheck,
    TrackResult,
)
from npk.studies.subjects import OwnAccuracy
from npk.typed import Typed, finite

CURVE = Curve("kernel", (Point(1, 4, 0.5, 0.25, 0.75),))
EXAMPLES = {
    CaseDetails: CaseDetails((Case("own weights", 1e-15),)),
    DualityDetails: DualityDetails(
        (Case("own weights", 1e-15), Case("paths", None)), "undecided", 1.5, 0.2, None, 200, None
    ),
    InvarianceDetails: InvarianceDetails(
        (
            invariance_case("all", [moved((0, 1), 0.0)], curves=(CURVE,)),
            invariance_case("turns", [moved((), None, None, gates=(None,), labels=None)]),
        )
    ),
    EnsembleDetails: EnsembleDetails((Case("sum", 0.5),), Shares((1, 2), (0.25, 0.75), (0.5,))),
    TangentDetails: TangentDetails("ntk", 400, 2.5, (TangentEntry(0, 1, 2.0, 1.9, 0.1),)),
}
CHECKS = [
    CheckResult(name, "a net", "Equal.", True, 1e-15, 1e-9, EXAMPLES[kind])
    for name, kind in DETAILS.items()
]
CHOSEN = {"C": 1.0, "n": 3, "gamma": "scale", "x": None}
ACCURACY = Accuracy("a net", "NPK-SVM", 9, 0.5, None, (0.5, 0.5), 1.5, CHOSEN, "npk fit")
KERNEL = KernelSummary(
    "a net", "trained", "cosine", 2, [[1.0, 0.5], [0.5, 1.0]], [0, 1], [], [0.75, 0.25], [], 0
)
NETWORK = NetworkSummary(
    "a net", "shift-invariant", "dnn", "a line", 12, "a.safetensors", "paths", "made anew",
    [1.5], [None], False,
)  # fmt: skip
DIFFERENCE = Difference("", "trained", "untrained", 30, 0.1, None, "")
MEASURE = Measure("a net", "untrained", "activity", "relu", None, None, 30, "none", "")
COMPARISON = Comparison(
    "a", "b", "trained", 0.5, 0.4, 0.6, 1.0, 0.9, 1.1, 0.95, None, None, 30, "npk study"
)
TRAINING = TrainingResult(
    "relu", "loss", 2, 1, None, [1.5, 1.0], [None, None], [None, 0.5], 3.0, 0, {1: object()}
)
REPORT = TrainReport(
    "a net", "digits", "", 5, (Trial(3, "a.safetensors", 0.5, TRAINING),), 0.5, None
)
LAYER = LayerStatistics(
    "relu", "gate", "net.py:3", "soft", (2, 3), 0.5, 1, 0, None, None, (0.25, 0.75), 0
)
GATES = GateReport("a.gates", "", GateStatistics(3, None, (LAYER,)), None, 3, "soft gates")
RUN = StudyResult(
    version="0.1.0",
    command="npk study",
    data="digits – «ζ»",
    test="test.npz",
    classes=["0", "1"],
    seen="not known",
    samples_train=0,
    samples_fresh=10,
    samples_test=5,
    sizes=(2, 3),
    splits=3,
    disjoint=True,
    scale="cosine",
    seed=0,
    seconds=1.0,
    machine="a machine",
    networks=(NETWORK,),
    accuracies=(ACCURACY,),
    differences=(DIFFERENCE,),
    measures=(MEASURE,),
    comparisons=(COMPARISON,),
    kernels=(KERNEL,),
    pictures=(Picture(1, (1, 2), "AAA=", 0),),
    neighbors=(Neighbors("a net", "trained", 1, (1,), (0.5,)),),
    mistakes=(Mistake("a net", 1, 0, -1),),
    checks=tuple(CHECKS),
    notes=("a note",),
)
SPECTRUM = DepthShares("a net", "fan_in", "paths", (2, 4), ((0.25, 0.75), (0.0, 0.0)), (2.0, 0.0))
LESION = Lesion(1, "net.py:3", 0.25, None, 0.5, 0.75)
LESIONS = LesionTable("a net", 4, "paths", 1.0, (LESION,))
SUITE = InvarianceSuite("0.1.0", "digits", 4, 0, 1.5, tuple(CHECKS))
SUMS = EnsembleRun(
    "a net", tuple(CHECKS[:1]), SPECTRUM, (RandomLesion(1, 0.25, 0.5, 0.125),), 40, 5.5, 1.5
)
SUM_SUITE = EnsembleSuite("0.1.0", "digits", 4, 0, 1.5, (SUMS,))
WAITING = TimedCheck(CHECKS[0], 0.5)
TRACK = TrackResult(
    *("0.1.0", "npk track", "digits", "digits", ["0", "1"], "fresh", 9, 9, 4, 2, True, "cosine", 0),
    *(1.5, "2 cores", (0, 2), (NETWORK,), (ACCURACY,), 0.5, None, (MEASURE,)),
    from_start=(Move(0, 2, 0.5, 0.25, 0.75, 0.95, ("relu",), (0.5,), (None,), 9),),
    steps=(Move(0, 2, None, None, None, None, (), (), (), 9),),
    kernels=(KERNEL,),
    curve_train=[0.5],
    curve_validation=[None],
    notes=(),
)
MACHINES = MachineTable(
    (ACCURACY, ACCURACY), (Difference("a net", "NPK-ridge", "RBF", 9, 0.25, 0.125, ""),), 4
)
FIT = FitReport("a net.safetensors", "digits", "cosine", "paths", 0.5, 1.0, 9, 4, (ACCURACY,), ())
INSPECT = InspectReport(
    *("a.safetensors", "digits", 9, (1, 8, 8)),
    (Node(0, "", "input", (1, 8, 8), "", 0, None, None, None),),
    *(3.5, 12, 2, "all circular shifts", (1, 1), "paths", False),
    PairCost(1, 2, 3, 4, 5, 1.5, 0.25, 0.5, 6, 7),
    (KernelCost(1000, 1.5, 4000000),),
    ("a note",),
)
PLAN = KernelPlan(
    *(
        "a.gates",
        9,
        4,
        "float32",
        "cosine",
        "ignore",
        False,
        1,
        16,
        100,
        10,
        1.5,
        0.25,
        0.5,
        2.0,
        (),
    )
)
WRITTEN = KernelReport(
    *("a.gates", "K.npy", 9, 4, "float32", "cosine", "ignore", None, None, 1.5, ("a note",))
)
STORE = StoreReport("K.zarr", "9 x 4 float32", 1, ("tile (0, 0)",), False, 0.5)
STUDY_PLAN = StudyPlan((4,), 2, 9, (KernelsOf("a net", 0.5),), 0.5)
RESULTS = [
    *(
        *CHECKS,
        ACCURACY,
        KERNEL,
        NETWORK,
        TRAINING,
        REPORT,
        GATES,
        SPECTRUM,
        LESIONS,
        SUITE,
        SUMS,
        SUM_SUITE,
        WAITING,
        RUN,
        TRACK,
        MACHINES,
        FIT,
        INSPECT,
        PLAN,
        WRITTEN,
        STORE,
        STUDY_PLAN,
        build_run(),
    )
]
# checked when they are made like all others, and never a file of their own
ELSEWHERE = (Preparation((0.5,), (0.25,), (8,), (6, 6), 255.0), OwnAccuracy(0.75, 20, 4, 0.25))
NAMES = [f"{type(result).__name__} {getattr(result, 'name', '')}".strip() for result in RESULTS]


def classes_below(cls):
    return {cls, *(found for below in cls.__subclasses__() for found in classes_below(below))}


def test_the_help_names_the_checks_that_there_are():
    assert tuple(DETAILS) == get_args(choices.CheckName)


@pytest.mark.parametrize("result", RESULTS, ids=NAMES)
def test_what_is_saved_comes_back(result, tmp_path):
    result.save(tmp_path / "result.json")
    assert type(result).load(tmp_path / "result.json") == result
    values = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (values["format"], values["result"]) == (FORMAT, type(result).__name__)


def test_every_class_of_results_is_tried():
    """A new one needs a line in the list."""
    made = set()

    def look(value):
        if isinstance(value, Typed):
            made.add(type(value))
            for field in dataclasses.fields(value):
                look(getattr(value, field.name))
        elif isinstance(value, tuple):
            for part in value:
                look(part)

    look((*RESULTS, *ELSEWHERE))
    abstract = {cls for cls in classes_below(Typed) if cls.__subclasses__()}
    every = {cls for cls in classes_below(Typed) if cls.__module__.startswith("npk")}
    assert made - abstract == every - abstract


def numbers_of(value, place=()):
    """Every place in a result that holds a float, as the fields and positions that lead there."""
    if isinstance(value, float):
        yield place
    elif isinstance(value, Typed):
        for field in dataclasses.fields(value):
            yield from numbers_of(getattr(value, field.name), (*place, field.name))
    elif isinstance(value, list | tuple | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_of(part, (*place, key))


def changed(value, place, number):
    if not place:
        return number
    if isinstance(value, Typed):
        return dataclasses.replace(
            value, **{place[0]: changed(getattr(value, place[0]), place[1:], number)}
        )
    parts = dict(value.items() if isinstance(value, dict) else enumerate(value))
    parts[place[0]] = changed(parts[place[0]], place[1:], number)
    return parts if isinstance(value, dict) else type(value)(parts.values())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
@pytest.mark.parametrize("result", RESULTS[:-1], ids=NAMES[:-1])
def test_a_number_that_is_not_finite_gets_into_no_result(result, number):
    places = list(numbers_of(result))
    assert places
    for place in places:
        with pytest.raises(DataError, match=r"and must be .*a finite number"):
            changed(result, place, number)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_read_from_no_file(token):
    text = ACCURACY.to_json().replace('"accuracy": 0.5', f'"accuracy": {token}')
    with pytest.raises(StoreError, match="this is not a Accuracy in JSON") as refused:
        Accuracy.from_json(text)
    assert "\n" not in str(refused.value)


def test_whatever_gets_past_the_check_is_not_written():
    broken = dataclasses.replace(KERNEL)
    broken.spectrum[0] = math.nan  # a list in a frozen value can be changed
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        broken.to_json()
    broken.spectrum[0] = 0.75


def test_finite():
    assert finite(np.float32(0.5)) == 0.5
    assert type(finite(np.float32(0.5))) is float
    assert [finite(number) for number in (math.nan, math.inf, -math.inf)] == [None] * 3


WRONG = {
    "text": (lambda: dataclasses.replace(NETWORK, name=3), "name of a NetworkSummary is 3, and "
                                                           "must be text"),
    "whole": (lambda: dataclasses.replace(NETWORK, parameters=1.0), "parameters .* is 1.0, and "
                                                                    "must be a whole number"),
    "truth": (lambda: dataclasses.replace(NETWORK, reused=1), "reused .* is 1, and must be true or "
                                                              "false"),
    "number": (lambda: dataclasses.replace(ACCURACY, seconds=True), "seconds .* is True, and must "
                                                                    "be a finite number"),
    "large": (lambda: dataclasses.replace(ACCURACY, seconds=10**400), "seconds .* must be a finite "
                                                                      "number"),
    "list": (lambda: dataclasses.replace(KERNEL, spectrum="s"), "spectrum .* is 's', and must be a "
                                                                "list"),
    "entry": (lambda: dataclasses.replace(KERNEL, heat_labels=[0, "1"]), "entry 1 of heat_labels "
                                                                         ".* is '1'"),
    "tuple": (lambda: Shares([1], (0.5,), ()), r"depth of a Shares is \[1\], and must be a tuple"),
    "choice": (lambda: dataclasses.replace(LAYER, kind="sure"), "'sure', and must be 'hard' or "
                                                                "'soft'"),
    "dictionary": (lambda: dataclasses.replace(ACCURACY, parameters=[1]), "must be a dictionary "
                                                                          "with names"),
    "names": (lambda: dataclasses.replace(ACCURACY, parameters={1: 2}), "must be a dictionary with "
                                                                        "names"),
    "parameter": (lambda: dataclasses.replace(ACCURACY, parameters={"C": [1]}), r"'C' of parameters .* is \[1\]"),
    "array": (lambda: dataclasses.replace(ACCURACY, seconds=np.ones(2)), "seconds .* must be a "
                                                                         "finite number"),
    "share": (lambda: dataclasses.replace(ACCURACY, accuracy=1.5), "accuracy is 1.5, and must be a "
                                                                   "share from 0 to 1"),
    "lengths": (lambda: Shares((1, 2), (0.5,), ()), "2 depths and 1 shares: give one share a "
                                                    "depth"),
    "square": (lambda: dataclasses.replace(KERNEL, heat_labels=[0]), "heat has 2 rows, .* must be "
                                                                     "square"),
    "check": (lambda: dataclasses.replace(CHECKS[0], name="truth"), "the check 'truth' is not "
                                                                    "known"),
    "details": (lambda: dataclasses.replace(CHECKS[0], name="ensemble"), "details of ensemble are "
                                                                         "DualityDetails"),
    "free details": (lambda: dataclasses.replace(CHECKS[0], details={}), "must be a Details"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_when_they_are_given(name):
    make, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        make()


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


VALUES = json.loads(CHECKS[2].to_json())
FILES = {
    "empty": ("", "this is not a CheckResult in JSON"),
    "cut off": (CHECKS[2].to_json()[:200], "Was the file cut off"),
    "a list": ("[1]", "it holds no object"),
    "nested": ("[" * 100_000, "this is not a CheckResult in JSON"),
    "no format": (json.dumps(without(VALUES, "format")), "has no format number"),
    "another "
    "format": (json.dumps({**VALUES, "format": 3}), "has format 3, and this npk reads format 2"),
    "strange format": (json.dumps({**VALUES, "format": [1]}), r"has format \[1\]"),
    "another result": (ACCURACY.to_json(), "this is a 'Accuracy', not a CheckResult"),
    "no details": (json.dumps(without(VALUES, "details")), "a CheckResult lacks details"),
    "no name": (json.dumps(without(VALUES, "name")), "the check None is not known"),
    "another field": (json.dumps({**VALUES, "mood": 1}), "a CheckResult has no field mood"),
    "details of another "
    "check": (json.dumps({**VALUES, "name": "duality"}), "DualityDetails lacks draws, moment"),
    "details that are "
    "none": (json.dumps({**VALUES, "details": [1]}), "must be an object with fields"),
    "text for a number": (json.dumps({**VALUES, "tolerance": "small"}), "must be a finite number"),
    "a number of 5,000 digits": (
        CHECKS[2].to_json().replace("1e-09", "9" * 5000), "this is not a CheckResult in JSON"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_such_result_is_refused_in_one_line(name, tmp_path):
    text, message = FILES[name]
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(StoreError, match=message) as refused:
        CheckResult.load(tmp_path / "c.json")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="this is not a Accuracy in JSON"):
        Accuracy.load(tmp_path / "c.json")


def test_a_check_shows_itself_in_a_line():
    details = EXAMPLES[DualityDetails]
    check = CheckResult("duality", "net", "f(x) = <npf, npv>", True, 2e-7, 1e-4, details)
    assert repr(check) == (
        "<npk.CheckResult duality of net: passed, measured 2e-07, tolerance 0.0001>"
    )
    failed = dataclasses.replace(check, passed=False, measured=None)
    assert "failed, measured not finite" in repr(failed)
