"""From networks and samples to what a page says: kernels, machines, measures, checks."""

import dataclasses
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from npk import __version__
from npk.errors import OptionError, StoreError
from npk.progress import Progress
from npk.reading.inputs import trace_for
from npk.results import (
    MODELS,
    Accuracy,
    CheckResult,
    Difference,
    KernelSummary,
    Measure,
    Mistake,
    Neighbors,
    NetworkSummary,
    StudyResult,
)
from npk.studies import measuring
from npk.studies.baselines import linear_ridge, scored
from npk.studies.checking import CHECKS, check_all
from npk.studies.commands import Commands, keep_samples, keep_untrained
from npk.studies.comparing import Side, compared
from npk.studies.cost import Estimate, estimate, pace, within
from npk.studies.draws import Draws
from npk.studies.kernels import RANDOM, TRAINED, UNTRAINED, Asked, Kernels, State
from npk.studies.pictures import Album
from npk.studies.scores import Score, ridge_of, score, standard_error
from npk.studies.subjects import Subject, check_outputs, decided, outputs, penultimate

BASELINES = tuple(model for model in MODELS if model not in ("network", TRAINED))
# what is compared with trained gates, one by one
_AGAINST = (UNTRAINED, "penultimate", RANDOM, "RBF", "logistic", "network")


@dataclass(frozen=True)
class Question:
    """What a study asks; everything in it was checked."""

    subjects: tuple[Subject, ...]
    draws: Draws
    asked: Asked
    seen: str  # "seen" | "fresh" | "not known"
    baselines: tuple[str, ...] = BASELINES
    checks: tuple[str, ...] = tuple(CHECKS)
    seed: int = 0
    budget: float | None = None  # seconds
    samples_train: int = 0  # that the networks were trained on; 0: not known
    command: str = ""
    loading: tuple[str, ...] = ()  # words of a command line that a checkpoint needs

    def __post_init__(self) -> None:
        """Refuse baselines and checks that there are not, and networks of other classes.

        Raises:
            OptionError: a name that is not known.
            DataError: a network with another number of outputs than there are classes.
        """
        for name, given, known in (
            ("baselines", self.baselines, BASELINES),
            ("checks", self.checks, tuple(CHECKS)),
        ):
            if unknown := [one for one in given if one not in known]:
                raise OptionError(f"{name} has {unknown[0]!r}. Choose of {', '.join(known)}.")
        for subject in self.subjects if self.draws.labeled else ():
            check_outputs(
                subject, outputs(subject.net, self.draws.test.X[:2]), self.draws.fresh.classes
            )

    @property
    def states(self) -> tuple[str, ...]:
        """Gates that are studied."""
        return (TRAINED, *(s for s in (UNTRAINED, RANDOM) if s in self.baselines))


def within_budget(question: Question, out: Path) -> tuple[Question, Estimate]:
    """What the study will take, measured on a few samples; and the question within its budget.

    Args:
        question: the question.
        out: its folder, in which nothing is written.

    Returns:
        The question with as many samples as its budget allows, and what they take.

    Raises:
        OptionError: the budget is too small for the smallest study.
    """
    paces = []
    for subject in question.subjects:
        kernels = _kernels(question, subject, out, None)
        states = [s for s in question.states if s != UNTRAINED or kernels.anew[0] is not None]
        paces.append(pace(kernels, [s for s in states if question.draws.labeled or s != RANDOM]))
    draws = question.draws
    if question.budget is not None:
        draws = within(paces, draws, question.budget)
    return dataclasses.replace(question, draws=draws), estimate(paces, draws)


def _kernels(question: Question, subject: Subject, out: Path, progress: Progress | None) -> Kernels:
    kernels = Kernels(subject, question.draws, question.asked, out / "kernels", question.seed)
    return kernels if progress is None else dataclasses.replace(kernels, progress=progress)


@dataclass(eq=False)
class Findings:
    """What was found so far."""

    scores: list[Score] = field(default_factory=list)
    commands: dict[tuple[str, str, int], str] = field(default_factory=dict)
    networks: list[NetworkSummary] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    kernels: list[KernelSummary] = field(default_factory=list)
    neighbors: list[Neighbors] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    trained: list[Side] = field(default_factory=list)
    before: list[tuple[Side, Side]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # checks, and why

    def all_notes(self) -> tuple[str, ...]:
        """What was left out: of the checks the networks with one reason together."""
        checks = (
            f"check of {name} left out for {', '.join(networks)}: {why}"
            for (name, why), networks in self.left_out.items()
        )
        return (*self.notes, *checks)


def answer(question: Question, out: Path, progress: Progress) -> StudyResult:
    """Study the networks, and keep kernels and samples in a folder.

    Args:
        question: what is asked.
        out: the folder; what an earlier run left there is used where it fits.
        progress: what is told meanwhile.

    Returns:
        Everything that was found.

    Raises:
        StoreError: the folder cannot be written.
    """
    started, draws = time.perf_counter(), question.draws
    make_folder(out)
    keep_samples(draws, out)
    commands, found, album = (
        Commands(out, question.command, question.loading),
        Findings(),
        Album(draws),
    )
    with progress.task("studying networks", len(question.subjects) + 1) as advance:
        for subject in question.subjects:
            studied(question, subject, out, commands, found, album, progress)
            advance(1)
        _without_network(question, found)
        advance(1)
    comparisons = compared(found.before, found.trained, question.command)
    return StudyResult(
        version=__version__,
        command=question.command,
        data=draws.fresh.name,
        test=draws.test.name,
        classes=list(draws.fresh.classes),
        seen=question.seen,  # type: ignore[arg-type]
        samples_train=question.samples_train,
        samples_fresh=len(np.unique(np.concatenate(draws.order))),
        samples_test=len(draws.test),
        sizes=draws.sizes,
        splits=draws.splits,
        disjoint=draws.disjoint,
        scale=question.asked.scale,
        seed=question.seed,
        seconds=time.perf_counter() - started,
        machine=machine(),
        networks=tuple(found.networks),
        accuracies=tuple(accuracy(one, found.commands, question) for one in found.scores),
        differences=tuple(_differences(found.scores, question)),
        measures=tuple(found.measures),
        comparisons=tuple(comparisons),
        kernels=tuple(found.kernels),
        pictures=tuple(album.pictures.values()),
        neighbors=tuple(found.neighbors),
        mistakes=tuple(found.mistakes),
        checks=tuple(found.checks),
        notes=found.all_notes(),
    )


def make_folder(out: Path) -> None:
    """Make the folder of a study.

    Args:
        out: the folder.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        for folder in (out, out / "kernels", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {out}: {error.strerror}. Name a folder that you "
            f"may write, with --out."
        ) from error


def machine() -> str:
    """The machine in a line."""
    import torch

    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def studied(
    question: Question,
    subject: Subject,
    out: Path,
    commands: Commands,
    found: Findings,
    album: Album,
    progress: Progress,
) -> None:
    """One network: its kernels, what machines reach on them, measures, pictures and checks.

    Args:
        question: what is asked.
        subject: the network.
        out: the folder.
        commands: the command lines of the study.
        found: takes what is found.
        album: takes the samples that are shown.
        progress: what is told meanwhile.
    """
    kernels = _kernels(question, subject, out, progress)
    _, untrained = kernels.anew
    found.networks.append(subject.summary(kernels.bias, untrained, commands.place(subject)))
    if UNTRAINED in question.baselines and kernels.anew[0] is None:
        found.notes.append(f"{subject.name} before training left out: {untrained}")
    own = _own(question, subject, found) if question.draws.labeled else None
    for gates in question.states:
        if gates == UNTRAINED and kernels.anew[0] is None:
            continue
        if gates == RANDOM and not question.draws.labeled:
            continue
        states = [kernels.state(gates, split) for split in range(question.draws.splits)]
        if gates == UNTRAINED:
            _keep_untrained(kernels, out)
        _machines(kernels, gates, states, commands, found)
        if gates != RANDOM:
            _look(kernels, gates, states, commands, found, album)
    if own is not None and album.possible:
        last = [s for s in found.scores if (s.network, s.model) == (subject.name, TRAINED)][-1]
        found.mistakes += album.mistakes(last, own)
    results, left_out = check_all(
        question.checks,
        subject,
        question.draws.test.X,
        question.seed,
        lambda name: commands.check(name, kernels),
        question.asked,
        progress,
    )
    found.checks += results
    for reason in left_out:
        found.left_out.setdefault(reason, []).append(subject.name)


def _keep_untrained(kernels: Kernels, out: Path) -> None:
    make = kernels.anew[0]
    assert make is not None
    for split in range(kernels.draws.splits):
        keep_untrained(kernels.subject, make(kernels.seed_of(split)), split, out)


def _own(question: Question, subject: Subject, found: Findings) -> np.ndarray:
    """The network's own decisions, and ridge on what its last layer reads."""
    draws = question.draws
    y, y_test = draws.labels
    start = time.perf_counter()
    own = decided(outputs(subject.net, draws.test.X))
    seconds = time.perf_counter() - start
    found.scores.append(Score(subject.name, "network", 0, (own == y_test)[None], own, {}, seconds))
    if "penultimate" not in question.baselines:
        return own
    rows = np.unique(np.concatenate(draws.order))
    trace = trace_for(subject.net, draws.fresh.X, subject.fixed)
    fresh, test = (penultimate(trace, X) for X in (draws.fresh.X[rows], draws.test.X))
    if fresh is None or test is None:
        found.notes.append(f"{subject.name} has one layer of weights, and no penultimate features")
        return own

    def fit(split: int, n: int) -> tuple[np.ndarray, dict[str, float]]:
        own = draws.order[split][:n]
        return linear_ridge(fresh[np.searchsorted(rows, own)], y[own], test)

    labels = [y[own] for own in draws.order], y_test
    found.scores += [score(subject.name, "penultimate", n, labels, fit) for n in draws.sizes]
    return own


def _machines(
    kernels: Kernels, gates: str, states: Sequence[State], commands: Commands, found: Findings
) -> None:
    """Ridge on the kernel of every draw, at every size."""
    draws = kernels.draws
    if not draws.labeled:
        return
    y, y_test = draws.labels

    def fit(split: int, n: int) -> tuple[np.ndarray, dict[str, float]]:
        rows, state = draws.order[split][:n], states[split]
        said, chosen, _ = ridge_of(state.K[:n, :n], y[rows], state.cross[:, :n])
        return said, chosen

    labels = [y[rows] for rows in draws.order], y_test
    found.scores += [score(kernels.subject.name, gates, n, labels, fit) for n in draws.sizes]
    for n in draws.sizes if gates != RANDOM else ():
        found.commands[kernels.subject.name, gates, n] = commands.fit(kernels, gates, n)


def _look(
    kernels: Kernels,
    gates: str,
    states: Sequence[State],
    commands: Commands,
    found: Findings,
    album: Album,
) -> None:
    """Measures and pictures of the kernels of one network."""
    name, draws = kernels.subject.name, kernels.draws
    y = None if draws.fresh.y is None else draws.fresh.y
    labels = [None if y is None else y[rows] for rows in draws.order]
    said = {"trained": commands.gates(kernels.subject)}.get(gates, commands.whole)
    found.measures += [
        dataclasses.replace(one, command=said)
        for one in measuring.measured(name, gates, states, labels)
    ]
    found.kernels.append(
        measuring.summary(
            name, gates, kernels.asked.scale, states, labels[0], album, draws.order[0]
        )
    )
    side = Side(name, gates, states[0])
    if gates == TRAINED:
        found.trained.append(side)
    else:
        found.before.append((found.trained[-1], side))
    if album.possible:
        found.neighbors += album.neighbors(name, gates, states[0], draws.order[0])


def _without_network(question: Question, found: Findings) -> None:
    """Baselines that see the inputs alone."""
    for model in ("RBF", "logistic"):
        if model in question.baselines and question.draws.labeled:
            found.scores += scored(model, question.draws, question.draws.sizes)


def accuracy(one: Score, commands: dict[tuple[str, str, int], str], question: Question) -> Accuracy:
    """A score as a result.

    Args:
        one: the score.
        commands: what gives scores again, by network, model and size.
        question: what was asked.

    Returns:
        The accuracy with its standard error.
    """
    return Accuracy(
        network=one.network,
        model=one.model,
        samples=one.samples,
        accuracy=float(one.right.mean()),
        error=standard_error(one.right),
        by_split=one.by_split,
        seconds=one.seconds,
        parameters=one.chosen,
        command=commands.get((one.network, one.model, one.samples), question.command),
    )


def _differences(scores: Sequence[Score], question: Question) -> Iterable[Difference]:
    """Trained gates against everything else, for each network and for the mean of them."""
    by_key = {(s.network, s.model, s.samples): s.right.astype(float) for s in scores}
    names = [subject.name for subject in question.subjects]
    for n in question.draws.sizes:
        for against in _AGAINST:
            pairs = {}
            for name in names:
                own = by_key.get((name, TRAINED, n))
                other = by_key.get(
                    (
                        name if against not in ("RBF", "logistic") else "",
                        against,
                        n if against != "network" else 0,
                    )
                )
                if own is not None and other is not None:
                    pairs[name] = own - other
            for name, values in pairs.items():
                yield _difference(name, against, n, values, question)
            if len(pairs) == len(names) > 1:
                mean = np.mean(list(pairs.values()), 0)
                yield _difference("", against, n, mean, question)


def _difference(
    network: str, against: str, n: int, values: np.ndarray, question: Question
) -> Difference:
    return Difference(
        network, TRAINED, against, n, float(values.mean()), standard_error(values), question.command
    )
