"""What each figure of a page shows, in words, for those who do not see it."""

from collections.abc import Callable, Sequence

from npk.report.style import NOTHING, percent, points, scientific
from npk.report.subjects import (
    accuracies_of,
    differences_of,
    groups,
    kernel_of,
    measures_of,
    subjects,
)
from npk.report.words import listed
from npk.results import Measure, StudyResult


def _curves(run: StudyResult) -> str:
    said = []
    for subject in subjects(run):
        for model in ("trained", "untrained"):
            found = accuracies_of(run, subject.name, model)
            each = ", ".join(f"{percent(a.accuracy)} with {a.samples}" for a in found)
            said += [f"{subject.name}, {model} gates {each}"] if found else []
        found = differences_of(run, subject.name, "untrained")
        each = ", ".join(points(d.difference, d.error) for d in found)
        said += [f"difference {each} points"] if found else []
    return f"Test accuracy against the number of fresh samples: {'; '.join(said)}."


def _kernels(run: StudyResult) -> str:
    names = listed([s.name for s in subjects(run) if kernel_of(run, s.name, "trained")])
    return (
        f"Heat maps of the kernels of {names}, samples sorted by class, before training and after."
    )


def _ends(found: Sequence[Measure]) -> str:
    values = [NOTHING if m.value is None else f"{m.value:.2f}" for m in found if m.layer]
    return f"{values[0]} in the first layer, {values[-1]} in the last" if values else ""


def _by_layer(run: StudyResult, name: str, what: str) -> str:
    said = [
        f"{s.name} {when} training {_ends(found)}"
        for s in subjects(run)
        for gates, when in (("untrained", "before"), ("trained", "after"))
        if (found := measures_of(run, s.name, gates, name))
    ]
    return f"{what}: {'; '.join(said)}."


def _layers(run: StudyResult) -> str:
    what = "Overlap of pairs of one class over that of pairs of different classes"
    return _by_layer(run, "class overlap", what)


def _gates(run: StudyResult) -> str:
    return _by_layer(run, "activity", "Mean share of the gates that are on, by layer")


def _depths(run: StudyResult) -> str:
    said = []
    for s in subjects(run):
        for gates, when in (("untrained", "before"), ("trained", "after")):
            found = measures_of(run, s.name, gates, "depth share")
            mean = sum(int(m.layer) * (m.value or 0.0) for m in found if m.layer)
            said += [f"{s.name} {mean:.1f} {when} training"] if mean else []
    return f"Share of the kernel by number of layers of its paths; mean number: {'; '.join(said)}."


def _spectra(run: StudyResult) -> str:
    said = [
        f"{s.name} has effective rank {m.value:.1f} {when} training"
        for s in subjects(run)
        for gates, when in (("untrained", "before"), ("trained", "after"))
        for m in measures_of(run, s.name, gates, "effective rank")
        if m.value is not None
    ]
    return f"Eigenvalues of the kernels on logarithmic axes: {'; '.join(said)}."


def _likeness(run: StudyResult) -> str:
    said = [
        f"{c.first} before and after training {c.cka:.2f}"
        if c.gates == "untrained"
        else f"{c.first} and {c.second} {c.cka:.2f}"
        for c in run.comparisons
    ]
    return f"CKA of pairs of kernels: {'; '.join(said)}."


def _training(run: StudyResult) -> str:
    return f"Training loss and validation accuracy by epoch for {listed(list(groups(run)))}."


_CHECKS = {
    "duality": "Deviation of the output from features times values",
    "invariance": "Deviation of the kernel where the input is moved",
    "ensemble": (
        "Share of the kernel by depth of sub-network and by block, and deviation of each form "
        "of the sum"
    ),
    "tangent": "Mean slopes of random value networks beside the tangent kernel, in standard errors",
}


def _check(run: StudyResult, name: str) -> str:
    what = _CHECKS.get(name, f"Deviation of each case of the check {name}")
    checks = [check for check in run.checks if check.name == name]
    measured = [f"{check.network} {scientific(check.measured)}" for check in checks]
    return f"{what}: {', '.join(measured)}."


_OTHERS: dict[str, Callable[[StudyResult], str]] = {
    "curves": _curves,
    "kernels": _kernels,
    "layers": _layers,
    "gates": _gates,
    "depths": _depths,
    "spectra": _spectra,
    "likeness": _likeness,
    "training": _training,
}


def alternative(run: StudyResult, name: str) -> str:
    """What the figure of this name shows; one that is no other's is that of a check."""
    return _OTHERS[name](run) if name in _OTHERS else _check(run, name)
