"""Who is compared with whom: the networks of a study, their groups, and what was found of each."""

import dataclasses
from typing import TypeVar

from npk.results import (
    MODELS,
    Accuracy,
    CheckResult,
    Details,
    Difference,
    KernelSummary,
    Measure,
    StudyResult,
    TrackResult,
)

D = TypeVar("D", bound=Details)

KINDS = ("dnn", "dgn", "dlgn", "dlgn-sf")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network as figures and tables name it."""

    name: str  # "conv-gap dnn"
    group: str  # "conv-gap": the architecture that its dnn, dgn and dlgn share
    kind: str  # "dnn"; "" if it cannot be told
    family: str  # "shift-invariant"; "" if it cannot be told


def subjects(run: StudyResult) -> tuple[Subject, ...]:
    """Every network that the study says anything about, in the order in which it is first named."""
    names = (
        [n.name for n in run.networks]
        + [a.network for a in run.accuracies]
        + [k.network for k in run.kernels]
    )
    return tuple(_subject(run, name) for name in dict.fromkeys(names) if name)


def _subject(run: StudyResult, name: str) -> Subject:
    summary = next((n for n in run.networks if n.name == name), None)
    kind = summary.kind if summary else next((word for word in name.split() if word in KINDS), "")
    group = " ".join(word for word in name.split() if word != kind) or name
    return Subject(name, group, kind, summary.family if summary else "")


def groups(run: StudyResult) -> dict[str, tuple[Subject, ...]]:
    """The networks by architecture: what is worth putting side by side."""
    by_group: dict[str, list[Subject]] = {}
    for subject in subjects(run):
        by_group.setdefault(subject.group, []).append(subject)
    return {group: tuple(members) for group, members in by_group.items()}


def group_title(members: tuple[Subject, ...]) -> str:
    """``"conv-gap, shift-invariant"``."""
    first = members[0]
    return f"{first.group}, {first.family}" if first.family else first.group


def accuracies_of(run: StudyResult, network: str, model: str) -> tuple[Accuracy, ...]:
    """What a model reaches, from few samples to many."""
    found = (a for a in run.accuracies if (a.network, a.model) == (network, model))
    return tuple(sorted(found, key=lambda a: a.samples))


def models(run: StudyResult, network: str) -> tuple[str, ...]:
    """The models that there are accuracies of for a network, in the order of a page; those that see
    the inputs alone are each network's rivals too.
    """
    there = {a.model for a in run.accuracies if a.network in (network, "")}
    return tuple(model for model in MODELS if model in there)


def owner(model: str, network: str) -> str:
    """Under which network the accuracies of a model are."""
    return "" if model in ("RBF", "logistic") else network


def differences_of(run: StudyResult, network: str, against: str) -> tuple[Difference, ...]:
    """Trained gates less another model, from few samples to many; network "": the mean of all."""
    found = (d for d in run.differences if (d.network, d.against) == (network, against))
    return tuple(sorted(found, key=lambda d: d.samples))


def measures_of(run: StudyResult, network: str, gates: str, name: str) -> tuple[Measure, ...]:
    """A measure of a network, layer by layer where it has layers."""
    key = (network, gates, name)
    return tuple(m for m in run.measures if (m.network, m.gates, m.name) == key)


def kernel_of(run: StudyResult, network: str, gates: str) -> KernelSummary | None:
    """A kernel of a network."""
    return next((k for k in run.kernels if (k.network, k.gates) == (network, gates)), None)


def class_name(run: StudyResult | TrackResult, index: int) -> str:
    """The name of a class, or its number where the study has no name for it."""
    return run.classes[index] if 0 <= index < len(run.classes) else str(index)


def checks_of(run: StudyResult, kind: type[D]) -> tuple[tuple[CheckResult, D], ...]:
    """The checks with details of one kind, and these details."""
    pairs = ((check, check.details) for check in run.checks)
    return tuple((check, details) for check, details in pairs if isinstance(details, kind))
