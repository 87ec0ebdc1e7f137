"""Suites of the command line: what they run on, and where they write."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npk.cli.checking import as_shifts
from npk.cli.reading import How, Loading, about_samples, check_folder
from npk.data import Dataset
from npk.errors import OptionError

if TYPE_CHECKING:
    from npk.results import InvarianceSuite

SUITES = ("invariance",)


def check(suite: str, out: Path, ckpts: Sequence[Path], kinds: bool) -> None:
    """Refuse a suite that there is not, or that has nothing to run on, before any work.

    Args:
        suite: its name.
        out: folder of the run.
        ckpts: the checkpoints.
        kinds: whether the built-in networks are wanted.

    Raises:
        OptionError: so it is.
        StoreError: a place that cannot be written.
    """
    if suite not in SUITES:
        raise OptionError(f"the suite {suite!r} is not known. Choose {', '.join(SUITES)}.")
    if not ckpts and not kinds:
        raise OptionError(
            "--no-kinds leaves nothing to measure. Name a checkpoint, or leave it out."
        )
    check_folder(out)


def run(
    ckpts: Sequence[Path],
    how: How,
    data: tuple[str | None, int],
    asked: tuple[str | None, int, bool],
    out: Path,
    loading: Loading,
    tell: Callable[[list[str]], None],
) -> "InvarianceSuite":
    """The suite of invariance.

    Args:
        ckpts: checkpoints of the user's.
        how: they are read.
        data: DATA, and how many samples of it; noise without.
        asked: shifts, seed, and whether the built-in networks are wanted.
        out: folder of the run.
        loading: how DATA becomes samples.
        tell: is told of the samples, and how each checkpoint itself does on them.

    Returns:
        What was found.

    Raises:
        OptionError: checkpoints without data.
    """
    from npk.bench import invariance
    from npk.bench.kinds import pictures
    from npk.cli.writing import progress

    notation, samples = data
    sets: list[Dataset] = []
    shifts, seed, kinds = asked
    if notation is None and ckpts:
        raise OptionError(
            "--data is missing: checkpoints need samples. Add for instance --data digits."
        )
    if notation is None:
        X = pictures(samples, seed)
        notation = f"smooth noise of {' x '.join(map(str, X.shape[1:]))}"
    else:
        sets = [loading.load(notation)]
        X = sets[0].X[:samples]
    given = [invariance.Given(ckpt.stem, how.network(ckpt), tuple(how.fixed)) for ckpt in ckpts]
    for one in given:
        tell([f"{one.name}: {line}" for line in about_samples(loading, one.net, *sets)])
    return invariance.run(
        out,
        X,
        given,
        data=notation,
        kinds=kinds,
        shifts=as_shifts(shifts or "auto"),
        seed=seed,
        progress=progress(json=False),
    )
