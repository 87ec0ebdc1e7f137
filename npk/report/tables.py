"""What the tables of a page hold where it is more than the fields of a result.

Templates make rows of it.
"""

import json
from dataclasses import dataclass

from npk.report.style import NOTHING, percent
from npk.report.subjects import (
    PAPER_RATIO,
    Subject,
    accuracy_of,
    baselines,
    group_title,
    groups,
    models,
    subjects,
)
from npk.report.words import standard_error
from npk.results import Accuracy, RunResult


@dataclass(frozen=True)
class Measured:
    """An accuracy and its standard error, in per cent."""

    accuracy: str
    error: str


@dataclass(frozen=True)
class NetworkRow:
    """A network, its accuracy by each model, and its own as a share of that of its DNN."""

    name: str
    kind: str
    cells: tuple[Measured | None, ...]
    of_the_dnn: str


@dataclass(frozen=True)
class Accuracies:
    """Networks down, models across."""

    caption: str
    head: tuple[str, ...]
    rows: dict[str, tuple[NetworkRow, ...]]  # by the title of their group


def accuracies(run: RunResult) -> Accuracies:
    """The table of accuracies; without rows where the run has none."""
    caption = (
        f"Test accuracy in per cent, ± one standard error of {run.samples_test:,} test samples."
        " Last column: the network's accuracy as a share of the accuracy of its DNN;"
        f" the paper reports at least {PAPER_RATIO} % for the DLGN."
    )
    names = ["the network itself" if model == "network" else model for model in models(run)]
    members = groups(run).values() if subjects(run) and models(run) else ()
    rows = {group_title(group): _rows(run, group) for group in members}
    return Accuracies(caption, ("network", *names, "of the DNN"), rows)


def _rows(run: RunResult, group: tuple[Subject, ...]) -> tuple[NetworkRow, ...]:
    own = {subject: accuracy_of(run, subject.name, "network") for subject in group}
    dnn = next(
        (accuracy for subject, accuracy in own.items() if accuracy and subject.kind == "dnn"), None
    )
    return tuple(
        NetworkRow(
            name=subject.name,
            kind=subject.kind,
            cells=tuple(_measured(run, accuracy_of(run, subject.name, m)) for m in models(run)),
            of_the_dnn=_share(own[subject], dnn),
        )
        for subject in group
    )


def _share(own: Accuracy | None, dnn: Accuracy | None) -> str:
    return percent(own.accuracy / dnn.accuracy) if own and dnn and dnn.accuracy else NOTHING


def _measured(run: RunResult, found: Accuracy | None) -> Measured | None:
    if found is None:
        return None
    error = 100 * standard_error(found.accuracy, run.samples_test)
    return Measured(f"{100 * found.accuracy:.1f}", f"{error:.1f}")


def baseline_rows(run: RunResult) -> tuple[tuple[str, Measured | None], ...]:
    """The models that see pixels and no network."""
    return tuple((accuracy.model, _measured(run, accuracy)) for accuracy in baselines(run))


def chosen(found: Accuracy) -> str:
    """What was chosen for a model: ``C = 10, samples = 1437``."""
    values = found.parameters.items()
    return ", ".join(f"{name} = {_short(value)}" for name, value in values) or NOTHING


def _short(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
