"""The whole story on real digits: train, kernels, kernel machines, checks, report. What an earlier
run left in the folder is used again.
"""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npk import __version__
from npk import data as datasets
from npk.demo.kernels import Machines, baselines
from npk.demo.networks import prepare_networks
from npk.demo.theory import check_theory
from npk.errors import DataError, StoreError
from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import write_figures, write_page
from npk.results import RunResult

# at most so many training samples for the kernel machines, and test samples for all
_SMALL, _LARGE = (2000, 1000), (1000, 500)


@dataclass(frozen=True)
class Samples:
    """What the networks learn from, the kernel machines' part of it, and the test samples."""

    notation: str
    classes: tuple[str, ...]
    train: datasets.Dataset
    test: datasets.Dataset
    kernel_train: datasets.Dataset

    @property
    def recipe(self) -> str:
        """Which recipe of :mod:`npk.networks.recipes` suits the size of the pictures."""
        return "digits" if self.train.X.shape[-1] < 16 else "mnist"


def run(
    out: str | os.PathLike, *, data: str = "digits", seed: int = 0, progress: bool | Progress = True
) -> RunResult:
    """Run the demo and write checkpoints, kernels, ``results.json``, figures and ``report.html``
    into a folder.

    Args:
        out: the folder; made if missing.
        data: DATA notation of labelled pictures, "digits" or "mnist5k".
        seed: of split, weights and training.
        progress: ``True`` for bars on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        Everything that was found; the same is in ``results.json``.

    Raises:
        DataError: data without labels or without positions.
        StoreError: the folder cannot be written.
    """
    started, out, progress = time.perf_counter(), Path(out), as_progress(progress)
    samples = choose_samples(data, seed)
    _make_folder(out)
    for name, part in (("train", samples.kernel_train), ("test", samples.test)):
        with written_whole(out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, X=part.X, y=part.require_labels())
    networks = prepare_networks(samples, out, seed, progress)
    machines = Machines(samples, out, progress)
    outcomes = [machines.on(trained) for trained in networks]
    result = RunResult(
        version=__version__,
        data=data,
        classes=list(samples.classes),
        samples_train=len(samples.train),
        samples_test=len(samples.test),
        seed=seed,
        seconds=0.0,
        machine=_machine(),
        networks=tuple(trained.summary for trained in networks),
        accuracies=(
            *(a for accuracies, _ in outcomes for a in accuracies),
            *baselines(samples, progress),
        ),
        kernels=tuple(kernel for _, kernel in outcomes),
        checks=check_theory(samples, networks, seed, progress),
    )
    return _write(result, out, started, progress)


def choose_samples(data: str, seed: int) -> Samples:
    """Load and split the data of a demo.

    Raises:
        DataError: no such data, no labels, or no positions.
    """
    dataset = datasets.load(data)
    if dataset.X.ndim != 4:
        raise DataError(
            f"{data} has samples of shape {dataset.X.shape[1:]}; the demo shows "
            f"convolutions. Give pictures, such as digits."
        )
    train, test = datasets.split(dataset, seed=seed)
    most = _SMALL if dataset.X.shape[-1] < 16 else _LARGE
    return Samples(
        data, dataset.classes, train, _part(test, most[1], seed), _part(train, most[0], seed)
    )


def _part(dataset: datasets.Dataset, most: int, seed: int) -> datasets.Dataset:
    """A stratified part of at most so many samples."""
    if len(dataset) <= most:
        return dataset
    return datasets.split(dataset, test=most / len(dataset), seed=seed)[1]


def _make_folder(out: Path) -> None:
    try:
        for folder in (out, out / "kernels", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {out}: {error.strerror}. Name a folder that you "
            f"may write, with --out."
        ) from error


def _machine() -> str:
    import torch

    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def _write(result: RunResult, out: Path, started: float, progress: Progress) -> RunResult:
    """Write results, figures and page; the time is taken before the pictures show it."""
    import dataclasses

    result = dataclasses.replace(result, seconds=time.perf_counter() - started)
    result.save(out / "results.json")
    write_figures(result, out / "figures", progress)
    write_page(result, out / "report.html", progress)
    return result


__all__ = ["Samples", "choose_samples", "run"]
