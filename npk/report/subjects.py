"""Who is compared with whom: the networks of a run, their groups, and the order of models."""

import dataclasses
from typing import TypeVar

from npk.results import Accuracy, CheckResult, Details, RunResult

D = TypeVar("D", bound=Details)

KINDS = ("dnn", "dgn", "dlgn", "dlgn-sf")
PIXELS = "pixels"
UNTRAINED = "at random initialisation"
PAPER_RATIO = 83.5  # per cent of the DNN's accuracy that the DLGN keeps at least, in the paper


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network as figures and tables name it."""

    name: str  # "conv-gap dnn"
    group: str  # "conv-gap": the architecture that its dnn, dgn and dlgn share
    kind: str  # "dnn"; "" if it cannot be told
    family: str  # "shift-invariant"; "" if it cannot be told


def subjects(run: RunResult) -> tuple[Subject, ...]:
    """Every network that the run says anything about, in the order in which it is first named."""
    names = (
        [n.name for n in run.networks]
        + [a.network for a in run.accuracies]
        + [k.network for k in run.kernels]
    )
    return tuple(_subject(run, name) for name in dict.fromkeys(names) if name != PIXELS)


def _subject(run: RunResult, name: str) -> Subject:
    summary = next((n for n in run.networks if n.name == name), None)
    kind = summary.kind if summary else next((word for word in name.split() if word in KINDS), "")
    group = " ".join(word for word in name.split() if word != kind) or name
    return Subject(name, group, kind, summary.family if summary else "")


def groups(run: RunResult) -> dict[str, tuple[Subject, ...]]:
    """The networks by architecture: what is worth putting side by side."""
    by_group: dict[str, list[Subject]] = {}
    for subject in subjects(run):
        by_group.setdefault(subject.group, []).append(subject)
    return {group: tuple(members) for group, members in by_group.items()}


def group_title(members: tuple[Subject, ...]) -> str:
    """``"conv-gap, shift-invariant"``."""
    first = members[0]
    return f"{first.group}, {first.family}" if first.family else first.group


def models(run: RunResult) -> tuple[str, ...]:
    """The models that see a network: itself and kernel machines, trained and at initialisation."""
    measured = dict.fromkeys(a.model for a in run.accuracies if a.network != PIXELS)
    return tuple(sorted(measured, key=lambda model: (model != "network", UNTRAINED in model)))


def short_model(model: str) -> str:
    """The model in a few letters, for an axis."""
    return f"{model.replace(UNTRAINED, '').strip()}, untrained" if UNTRAINED in model else model


def accuracy_of(run: RunResult, network: str, model: str) -> Accuracy | None:
    """The accuracy of one model on one network, if the run has it."""
    return next((a for a in run.accuracies if a.network == network and a.model == model), None)


def baselines(run: RunResult) -> tuple[Accuracy, ...]:
    """The models that see pixels and no network, best first."""
    return tuple(
        sorted((a for a in run.accuracies if a.network == PIXELS), key=lambda a: -a.accuracy)
    )


def dlgn_ratio(run: RunResult, members: tuple[Subject, ...]) -> float | None:
    """Accuracy of the DLGN as a share of the DNN's of its group, or ``None`` without both."""
    by_kind = {m.kind: accuracy_of(run, m.name, "network") for m in members}
    dnn, dlgn = by_kind.get("dnn"), by_kind.get("dlgn")
    return dlgn.accuracy / dnn.accuracy if dnn and dlgn and dnn.accuracy else None


def checks_of(run: RunResult, kind: type[D]) -> tuple[tuple[CheckResult, D], ...]:
    """The checks with details of one kind, and these details."""
    pairs = ((check, check.details) for check in run.checks)
    return tuple((check, details) for check, details in pairs if isinstance(details, kind))
