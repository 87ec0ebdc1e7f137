"""From the networks of a training to what a page says of its way."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from npk import __version__, measures
from npk.errors import NpkError
from npk.progress import Progress
from npk.results import KernelSummary, Move, TrackResult
from npk.studies.commands import Commands, keep_samples
from npk.studies.comparing import Side
from npk.studies.kernels import TRAINED
from npk.studies.pictures import Album
from npk.studies.running import Findings, Question, accuracy, machine, make_folder, studied
from npk.studies.scores import standard_error
from npk.typed import finite

_SHOWN = 4  # kernels that are drawn

Curves = tuple[Sequence[float], Sequence[float | None]]  # loss, validation accuracy of each epoch


def follow(
    question: Question, epochs: Sequence[int], curves: Curves, out: Path, progress: Progress
) -> TrackResult:
    """Study each network of a training, and how far each is from the others.

    Args:
        question: of the networks, in the order of their epochs.
        epochs: theirs.
        curves: of the training; empty where they are not known.
        out: the folder; what an earlier run left there is used where it fits.
        progress: what is told meanwhile.

    Returns:
        Everything that was found.
    """
    started, draws = time.perf_counter(), question.draws
    make_folder(out)
    keep_samples(draws, out)
    commands = Commands(out, question.command, question.loading)
    found, album = Findings(), Album(draws)
    with progress.task("following the training", len(epochs)) as advance:
        for subject in question.subjects:
            studied(question, subject, out, commands, found, album, progress)
            advance(1)
    gain = _gain(found)
    sides = dict(zip(epochs, found.trained, strict=True))
    return TrackResult(
        version=__version__,
        command=question.command,
        data=draws.fresh.name,
        test=draws.test.name,
        classes=list(draws.fresh.classes),
        seen=question.seen,  # type: ignore[arg-type]
        samples_fresh=len(np.unique(np.concatenate(draws.order))),
        samples_test=len(draws.test),
        size=draws.sizes[-1],
        splits=draws.splits,
        disjoint=draws.disjoint,
        scale=question.asked.scale,
        seed=question.seed,
        seconds=time.perf_counter() - started,
        machine=machine(),
        epochs=tuple(epochs),
        networks=tuple(found.networks),
        accuracies=tuple(accuracy(one, found.commands, question) for one in found.scores),
        gain=None if gain is None else float(gain.mean()),
        gain_error=None if gain is None else standard_error(gain),
        measures=tuple(found.measures),
        from_start=tuple(_moves(sides, lambda _: epochs[0])),
        steps=tuple(_moves(sides, lambda place: epochs[place - 1])),
        kernels=tuple(_some(found.kernels)),
        curve_train=list(curves[0]),
        curve_validation=list(curves[1]),
        notes=found.all_notes(),
    )


def _gain(found: Findings) -> np.ndarray | None:
    """What ridge on the gates gets right in the last epoch less the first, sample by sample."""
    right = [score.right for score in found.scores if score.model == TRAINED]
    return right[-1].astype(float) - right[0] if right else None


def _moves(sides: dict[int, Side], since: Callable[[int], int]) -> Iterator[Move]:
    epochs = list(sides)
    for place in range(1, len(epochs)):
        yield moved(sides, since(place), epochs[place])


def moved(sides: dict[int, Side], since: int, epoch: int) -> Move:
    """How far kernel and gates went between two epochs.

    Args:
        sides: gates and kernel of each epoch, on the same samples.
        since: the earlier epoch.
        epoch: the later one.

    Returns:
        The angle between the kernels with its interval, and the flips of each layer; of soft gates
        there are none.
    """
    first, second = sides[since].state, sides[epoch].state
    try:
        cka = measures.cka_interval(first.K, second.K)
    except NpkError:  # fewer than eight samples, or a kernel that is the same for all
        angles, level = (None, None, None), None
    else:
        angles, level = cka.angles, cka.level
    names, flips, errors = (), (), ()
    if all(first.table.entries[name].kind == "hard" for name in first.table.names):
        differ = measures.flips(first.table, second.table)
        names, flips = differ.names, tuple(differ.share.tolist())
        errors = tuple(finite(float(error)) for error in differ.error)
    return Move(since, epoch, *angles, level, names, flips, errors, len(first.K))


def _some(kernels: Sequence[KernelSummary]) -> Iterator[KernelSummary]:
    """Kernels to draw, from the first to the last."""
    count = min(_SHOWN, len(kernels))
    for place in np.linspace(0, len(kernels) - 1, count).round().astype(int):
        yield dataclasses.replace(kernels[place], heat_pictures=[])


__all__ = ["Curves", "follow", "moved"]
