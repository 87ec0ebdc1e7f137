"""The suite of ensembles: what sub-networks a network is the sum of, on networks of many kinds and on
given ones. A run that was stopped goes on where it was.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from npk import __version__
from npk.bench.folder import file_of, made
from npk.bench.streams import STREAMS
from npk.checkpoint.weights import fingerprint
from npk.checks.ensemble import check_ensemble
from npk.checks.spectrum import depth_spectrum
from npk.checks.theorem import lesion_theorem
from npk.errors import DataError
from npk.gates.recording import record_gates
from npk.gates.table import samples_digest
from npk.graph.parts import blocks_of
from npk.progress import Progress, as_progress
from npk.report.ensemble_page import write_ensemble
from npk.results import EnsembleRun, EnsembleSuite
from npk.samples import as_samples

_LEAST = 4  # positions along an axis, for networks with two strides


def run(
    out: str | os.PathLike,
    X: np.ndarray,
    given: Sequence[tuple[str, nn.Module]] = (),
    *,
    data: str = "",
    kinds: bool = True,
    draws: int = 400,
    seed: int = 0,
    progress: bool | Progress = True,
) -> EnsembleSuite:
    """Check every network, and write results, pictures and a page into a folder.

    Args:
        out: the folder; made if missing. What an earlier run left there is used again.
        X: pictures ``(n, channels, height, width)``; a few.
        given: networks beside those built in, by name.
        data: what the samples are called.
        kinds: whether the built-in networks are checked.
        draws: random weights of the lesions, at least 40.
        seed: of the weights of the built-in networks, and of the draws.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        What was found; the same is in ``results.json``.

    Raises:
        DataError: samples that the built-in networks do not take.
        StoreError: the folder cannot be written.
        UnsupportedGraphError: a given network is not wholly understood.
    """
    X, told = as_samples(X), as_progress(progress)
    if kinds and (X.ndim != 4 or min(X.shape[2:]) < _LEAST):
        raise DataError(
            f"the networks of the suite take pictures of at least {_LEAST} rows and columns, and X "
            f"has shape {X.shape}. Give other data, or leave them out."
        )
    place = made(Path(out) / "networks").parent
    built = [(one.name, one.network(X.shape[1:], seed)) for one in STREAMS] if kinds else []
    found: list[EnsembleRun] = []
    with told.task("networks", len(given) + len(built)) as advance:
        for name, net in [*given, *built]:
            found.append(_found(name, net, X, (draws, seed), place / "networks"))
            advance(1)
    seconds = sum(one.seconds for one in found)
    suite = EnsembleSuite(__version__, data, len(X), seed, seconds, tuple(found))
    suite.save(place / "results.json")
    write_ensemble(suite, place)
    return suite


def _found(
    name: str, net: nn.Module, X: np.ndarray, asked: tuple[int, int], folder: Path
) -> EnsembleRun:
    """What is found of a network, by this run or by an earlier one."""
    path = file_of(folder, name, __version__, *asked, samples_digest(X), fingerprint(net))
    if path.exists():
        return EnsembleRun.load(path)
    start, (draws, seed) = time.perf_counter(), asked
    table = record_gates(net, X)
    sums = blocks_of(table.graph)
    lesions, limit = lesion_theorem(table, draws, seed)
    run = EnsembleRun(
        name,
        (check_ensemble(net, X, bias="ignore", name=name),) if sums else (),
        depth_spectrum(None, table, bias="ignore", name=name).result(),
        lesions,
        draws if sums else 0,
        limit,
        time.perf_counter() - start,
    )
    run.save(path)
    return run
