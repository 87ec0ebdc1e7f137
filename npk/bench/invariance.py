"""The suite of invariance: what structure promises and what is measured, on networks of many kinds
and on given ones. A run that was stopped goes on where it was.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from npk import __version__
from npk.bench.folder import file_of, made
from npk.bench.kinds import KINDS
from npk.checkpoint.weights import fingerprint
from npk.checks.groups import Shifts
from npk.checks.invariance import check_invariance
from npk.errors import DataError
from npk.gates.table import samples_digest
from npk.progress import Progress, as_progress
from npk.report.suite_page import write_suite
from npk.results import CheckResult, InvarianceSuite, TimedCheck
from npk.samples import as_samples

_LEAST = 4  # positions along an axis, for networks with two strides


@dataclass(frozen=True)
class Given:
    """A network, by name; the tensors of it that are fixed coefficients; what is asked of it."""

    name: str
    net: nn.Module
    fixed: tuple[str, ...] = ()
    group: str = "circular"
    shifts: Sequence[tuple[int, ...]] | None = None  # those that are looked at; None: as asked


def run(
    out: str | os.PathLike,
    X: np.ndarray,
    given: Sequence[Given] = (),
    *,
    data: str = "",
    kinds: bool = True,
    shifts: Shifts = "auto",
    seed: int = 0,
    progress: bool | Progress = True,
) -> InvarianceSuite:
    """Check every network, and write results, pictures and a page into a folder.

    Args:
        out: the folder; made if missing. Checks that an earlier run left there are used again.
        X: pictures ``(n, channels, height, width)``.
        given: networks beside those built in.
        data: what the samples are called.
        kinds: whether the built-in networks are checked.
        shifts: as in :func:`npk.check_invariance`.
        seed: of the weights of the built-in networks, and of shifts that are drawn.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        What was found; the same is in ``results.json``.

    Raises:
        DataError: samples that the built-in networks do not take.
        StoreError: the folder cannot be written.
        UnsupportedGraphError: a given network is not wholly understood.
    """
    X, told = as_samples(X), as_progress(progress)
    if kinds and (X.ndim != 4 or min(X.shape[2:]) < _LEAST or any(n % 2 for n in X.shape[2:])):
        raise DataError(
            f"the networks of the suite take pictures with an even number of rows and columns, at "
            f"least {_LEAST}, and X has shape {X.shape}. Give other data, or leave them out."
        )
    place = made(Path(out) / "checks").parent
    many = [*given, *_built(X, seed)] if kinds else list(given)
    found, seconds = [], 0.0
    with told.task("networks", len(many)) as advance:
        for one in many:
            check, took = _checked(one, X, (shifts, seed), place / "checks")
            found, seconds = [*found, check], seconds + took
            advance(1)
    suite = InvarianceSuite(__version__, data, len(X), seed, seconds, tuple(found))
    suite.save(place / "results.json")
    write_suite(suite, place)
    return suite


def _built(X: np.ndarray, seed: int) -> Iterator[Given]:
    for kind in KINDS:
        net = kind.network(X.shape[1:], seed)
        yield Given(kind.name, net, kind.fixed, kind.group, kind.shifts)


def _checked(
    one: Given, X: np.ndarray, chosen: tuple[Shifts, int], folder: Path
) -> tuple[CheckResult, float]:
    """The check of a network and the seconds that it took, of this run or of an earlier one."""
    shifts, seed = (chosen[0] if one.shifts is None else one.shifts), chosen[1]
    asked = __version__, one.fixed, one.group, shifts, seed
    path = file_of(folder, one.name, *asked, samples_digest(X), fingerprint(one.net))
    if path.exists():
        kept = TimedCheck.load(path)
        return kept.check, kept.seconds
    start = time.perf_counter()
    asks_shifts = one.group in ("circular", "filled")
    check = check_invariance(
        one.net,
        X,
        shifts if asks_shifts else "auto",
        group=one.group,
        fixed=one.fixed,
        seed=seed,
        name=one.name,
    )
    kept = TimedCheck(check, time.perf_counter() - start)
    kept.save(path)
    return kept.check, kept.seconds
