"""What the tables of a page hold where it is more than the fields of a result.

Templates make rows of it.
"""

from dataclasses import dataclass

from npk.report.style import points
from npk.report.subjects import (
    accuracies_of,
    differences_of,
    kernel_of,
    measures_of,
    models,
    owner,
    subjects,
)
from npk.results import MODELS, Accuracy, Difference, Measure, StudyResult

# measures of a kernel or of all gates: their heading, and how many digits they have
_MEASURES = {
    "alignment": ("alignment with the classes", 3),
    "effective rank": ("effective rank", 1),
    "NASWOT": ("NASWOT", 0),
}


@dataclass(frozen=True)
class Cell:
    """A number and its standard error, as text."""

    value: str
    error: str  # empty: none


@dataclass(frozen=True)
class Row:
    """A model or a difference at every size."""

    name: str
    look: str  # of its dot
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Accuracies:
    """Models down, numbers of fresh samples across; a block a network."""

    caption: str
    head: tuple[str, ...]
    blocks: dict[str, tuple[Row, ...]]


def accuracies(run: StudyResult) -> Accuracies:
    """The table of accuracies; without blocks where the study has none."""
    caption = (
        f"Test accuracy in per cent, ± one standard error over {run.splits} draws of fresh samples "
        f"and {run.samples_test:,} test samples. Differences are paired, in points."
    )
    head = ("", *(f"n = {n:,}" for n in run.sizes))
    names = [subject.name for subject in subjects(run)]
    blocks = {name: _rows(run, name) for name in names}
    if len(names) > 1:
        blocks = {"all networks, mean": _differences(run, ""), **blocks}
    return Accuracies(caption, head, {name: rows for name, rows in blocks.items() if rows})


def _rows(run: StudyResult, name: str) -> tuple[Row, ...]:
    rows = []
    for model in models(run, name):
        found = {a.samples: a for a in accuracies_of(run, owner(model, name), model)}
        own = found.get(0)
        cells = tuple(_accuracy(own or found.get(n)) for n in run.sizes)
        rows.append(Row(MODELS[model], model.replace(" ", "-"), cells))
    return (*rows, *_differences(run, name)) if rows else ()


def _accuracy(found: Accuracy | None) -> Cell | None:
    if found is None:
        return None
    error = "" if found.error is None else f"{100 * found.error:.1f}"
    return Cell(f"{100 * found.accuracy:.1f}", error)


def _differences(run: StudyResult, name: str) -> tuple[Row, ...]:
    """Trained gates less other models: those that have no block of their own say more of them."""
    against = (
        ("untrained",)
        if name
        else ("untrained", "penultimate", "random gates", "RBF", "logistic", "network")
    )
    rows = []
    for other in against:
        found = {d.samples: d for d in differences_of(run, name, other)}
        if found:
            cells = tuple(_points(found.get(n)) for n in run.sizes)
            rows.append(Row(f"trained gates less {_SHORT[other]}", "", cells))
    return tuple(rows)


_SHORT = {
    "untrained": "untrained",
    "penultimate": "penultimate features",
    "random gates": "random gates",
    "RBF": "RBF",
    "logistic": "logistic regression",
    "network": "the network itself",
}


def _points(found: Difference | None) -> Cell | None:
    if found is None:
        return None
    value, _, error = points(found.difference, found.error).partition("\N{NO-BREAK SPACE}±")
    return Cell(value, error.strip())


@dataclass(frozen=True)
class Kernel:
    """The measures of a network before and after training."""

    name: str
    cells: tuple[Cell | None, ...]
    dead: int  # samples without an active path, after training


@dataclass(frozen=True)
class Measures:
    """Networks down, measures across, each before and after training."""

    head: tuple[str, ...]
    rows: tuple[Kernel, ...]
    notes: tuple[str, ...]  # why a number is missing


def measures(run: StudyResult) -> Measures:
    """The table of measures of whole kernels and gate tables."""
    there = [name for name in _MEASURES if any(m.name == name for m in run.measures)]
    head = ["network"]
    for name in there:
        head += [f"{_MEASURES[name][0]}, before", "after"]
    rows = []
    for subject in subjects(run):
        cells = []
        for name in there:
            for gates in ("untrained", "trained"):
                found = measures_of(run, subject.name, gates, name)
                cells.append(_measure(found[0], _MEASURES[name][1]) if found else None)
        kernel = kernel_of(run, subject.name, "trained")
        rows.append(Kernel(subject.name, tuple(cells), kernel.dead_inputs if kernel else 0))
    notes = {m.name: m.note for m in reversed(run.measures) if m.note}  # one is as good as many
    return Measures(
        tuple(head),
        tuple(rows) if there else (),
        tuple(f"{name}: {why}" for name, why in notes.items()),
    )


def _measure(found: Measure, digits: int) -> Cell | None:
    if found.value is None:
        return None
    error = "" if found.error is None else f"{found.error:.{digits}f}"
    return Cell(f"{found.value:.{digits}f}", error)
