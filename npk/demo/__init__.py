"""The whole story on real digits: train six networks, then study what their gates have learnt. What an
earlier run left in the folder is used again.
"""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

from npk import data as datasets
from npk.demo.networks import prepare_networks
from npk.demo.theory import ensembles
from npk.errors import REPORT, DataError, check_installed
from npk.progress import Progress, as_progress
from npk.results import StudyResult
from npk.studies.asking import ask, write
from npk.studies.running import answer, make_folder

# of the samples: to train on, at most; fresh ones for machines; to test on
_TRAIN, _FRESH, _TEST = 5000, 1500, 1000
_SMALL = 16  # pixels: smaller pictures are easier, and fewer samples tell more
_SIZES = {"digits": (10, 30, 100), "mnist": (30, 100, 300)}


@dataclass(frozen=True)
class Samples:
    """What the networks learn from, fresh samples for machines, and test samples."""

    notation: str
    classes: tuple[str, ...]
    train: datasets.Dataset
    fresh: datasets.Dataset
    test: datasets.Dataset

    @property
    def recipe(self) -> str:
        """Which recipe of :mod:`npk.networks.recipes` suits the size of the pictures."""
        return "digits" if self.train.X.shape[-1] < _SMALL else "mnist"


def run(
    out: str | os.PathLike, *, data: str = "digits", seed: int = 0, progress: bool | Progress = True
) -> StudyResult:
    """Run the demo and write checkpoints, kernels, ``results.json``, figures and ``report.html``
    into a folder.

    Half of the samples train the networks, at most 5,000; a quarter are fresh ones, which machines
    are fitted to; the others test.

    Args:
        out: the folder; made if missing.
        data: DATA notation of labelled pictures: "digits", "mnist5k", or "idx:DIR" of Fashion-MNIST.
        seed: of split, weights and training.
        progress: ``True`` for bars on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        Everything that was found; the same is in ``results.json``.

    Raises:
        DataError: data without labels or without positions.
        StoreError: the folder cannot be written.
        MissingPackageError: what draws figures and pages is not installed.
    """
    check_installed(*REPORT)
    started, out, progress = time.perf_counter(), Path(out), as_progress(progress)
    samples = choose_samples(data, seed)
    make_folder(out)
    networks = prepare_networks(samples, out, seed, progress)
    question = ask(
        networks,
        samples.fresh,
        test=samples.test,
        seen=False,
        n=_possible(samples),
        seed=seed,
        samples_train=len(samples.train),
        command=f"npk demo --out . --data {data} --seed {seed}",
    )
    result = answer(question, out, progress)
    result = dataclasses.replace(
        result,
        data=data,
        test=data,
        checks=(*result.checks, *ensembles(samples, seed, progress)),
        seconds=time.perf_counter() - started,
    )
    write(result, out, progress)
    return result


def _possible(samples: Samples) -> list[int]:
    """Numbers of fresh samples that there are enough for."""
    sizes = _SIZES[samples.recipe]
    most = max(len(samples.fresh) // 3, len(samples.classes))
    return [n for n in sizes if len(samples.classes) <= n <= most] or [most]


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
    train, others = datasets.split(dataset, test=0.5, seed=seed)
    fresh, test = datasets.split(others, test=0.5, seed=seed)
    parts = ((train, _TRAIN), (fresh, _FRESH), (test, _TEST))
    return Samples(data, dataset.classes, *(_part(part, most, seed) for part, most in parts))


def _part(dataset: datasets.Dataset, most: int, seed: int) -> datasets.Dataset:
    """A stratified part of at most so many samples."""
    if len(dataset) <= most:
        return dataset
    return datasets.split(dataset, test=most / len(dataset), seed=seed)[1]


__all__ = ["Samples", "choose_samples", "run"]
