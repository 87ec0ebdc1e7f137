"""Suites of the command line: what they run on, and where they write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npk.cli.checking import as_shifts
from npk.cli.reading import How, Loading, about_samples, check_folder
from npk.data import Dataset
from npk.errors import REPORT, OptionError, check_installed

if TYPE_CHECKING:
    from torch import nn

    from npk.results import EnsembleSuite, InvarianceSuite


def check(suite: str, out: Path, ckpts: Sequence[Path], kinds: bool, shifts: str | None) -> None:
    """Refuse a suite that there is not, or that has nothing to run on, before any work.

    Args:
        suite: its name.
        out: folder of the run.
        ckpts: the checkpoints.
        kinds: whether the built-in networks are wanted.
        shifts: those that are asked for.

    Raises:
        OptionError: so it is, or shifts are asked for that the suite does not look at.
        StoreError: a place that cannot be written.
        MissingPackageError: what draws figures and pages is not installed.
    """
    check_installed(*REPORT)
    if not ckpts and not kinds:
        raise OptionError(
            "--no-kinds leaves nothing to measure. Name a checkpoint, or leave it out."
        )
    if suite == "ensemble" and shifts is not None:
        raise OptionError("--shifts is of the suite invariance. Leave it out.")
    check_folder(out)


@dataclass(frozen=True)
class Material:
    """What a suite runs on.

    Args:
        data: what the samples are called.
        X: the samples.
        networks: of the user's, by name.
        kinds: whether the built-in networks are wanted too.
        seed: of what is drawn.
    """

    data: str
    X: np.ndarray
    networks: "dict[str, nn.Module]"
    kinds: bool
    seed: int


def material(
    ckpts: Sequence[Path],
    how: How,
    data: tuple[str | None, int],
    asked: tuple[int, bool],
    loading: Loading,
    tell: Callable[[list[str]], None],
) -> Material:
    """Read what a suite runs on.

    Args:
        ckpts: checkpoints of the user's.
        how: they are read.
        data: DATA, and how many samples of it; noise without.
        asked: seed, and whether the built-in networks are wanted.
        loading: how DATA becomes samples.
        tell: is told of the samples, and how each checkpoint itself does on them.

    Raises:
        OptionError: checkpoints without data.
    """
    from npk.bench.kinds import pictures

    notation, samples = data
    sets: list[Dataset] = []
    if notation is None and ckpts:
        raise OptionError(
            "--data is missing: checkpoints need samples. Add for instance --data digits."
        )
    if notation is None:
        X = pictures(samples, asked[0])
        notation = f"smooth noise of {' x '.join(map(str, X.shape[1:]))}"
    else:
        sets = [loading.load(notation)]
        X = sets[0].X[:samples]
    networks = {ckpt.stem: how.network(ckpt) for ckpt in ckpts}
    for name, net in networks.items():
        tell([f"{name}: {line}" for line in about_samples(loading, net, *sets)])
    return Material(notation, X, networks, asked[1], asked[0])


def invariance(
    of: Material, fixed: Sequence[str], shifts: str | None, out: Path
) -> "InvarianceSuite":
    """The suite of invariance.

    Args:
        of: networks and samples.
        fixed: names of tensors of the user's networks that are no weights.
        shifts: those that are asked for.
        out: folder of the run.

    Returns:
        What was found.
    """
    from npk.bench import invariance
    from npk.cli.writing import progress

    given = [invariance.Given(name, net, tuple(fixed)) for name, net in of.networks.items()]
    return invariance.run(
        out,
        of.X,
        given,
        data=of.data,
        kinds=of.kinds,
        shifts=as_shifts(shifts or "auto"),
        seed=of.seed,
        progress=progress(events=False),
    )


def ensemble(of: Material, out: Path) -> "EnsembleSuite":
    """The suite of ensembles.

    Args:
        of: networks and samples.
        out: folder of the run.

    Returns:
        What was found.
    """
    from npk.bench import ensemble
    from npk.cli.writing import progress

    return ensemble.run(
        out,
        of.X,
        list(of.networks.items()),
        data=of.data,
        kinds=of.kinds,
        seed=of.seed,
        progress=progress(events=False),
    )
