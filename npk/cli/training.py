"""Training from the command line: build, train, measure, save, for one seed or several."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from npk.checkpoint import save
from npk.cli.reading import SHARE, Loading, check_folder, check_place, network, settings
from npk.data import Dataset, split
from npk.errors import DataError, OptionError
from npk.networks import TrainingResult, build, describe, train
from npk.results import Result
from npk.studies.subjects import decided, outputs
from npk.typed import Typed

# The options of the command that are those of npk.networks.train, but for lists of numbers and seed.
STEPS = ("regime", "epochs", "batch_size", "optimizer", "loss", "learning_rate", "weight_decay")
STEPS += ("momentum", "schedule", "warm_up", "label_smoothing", "augment", "shift", "validation")
STEPS += ("select", "patience", "device")


@dataclasses.dataclass(frozen=True)
class Trial(Typed):
    """The network of one seed."""

    seed: int  # of weights, training and split
    checkpoint: str
    accuracy: float  # on the test samples, 0..1
    training: TrainingResult


@dataclasses.dataclass(frozen=True)
class TrainReport(Result):
    """What `npk train` did."""

    network: str  # in a line
    data: str  # DATA notation
    test: str  # DATA notation; empty: a quarter of the data, drawn by the seed
    test_samples: int
    trials: tuple[Trial, ...]
    accuracy: float  # mean over the seeds
    standard_error: float | None  # of that mean; None for one seed


@dataclasses.dataclass(frozen=True)
class Job:
    """What `npk train` is asked for, checked before any work.

    Args:
        arch: of :func:`npk.networks.build`.
        kind: of :func:`npk.networks.build`.
        option: ``key=json`` for :func:`npk.networks.build`.
        data: DATA.
        test: DATA of the test samples; ``None``: a quarter of the data, drawn by the seed.
        out: the checkpoint; with several seeds their names have the seed behind them.
        seeds: one network each.
        features: checkpoint of the network whose gates are copied.
        resume: state of the training, named like the checkpoint.
        json: file for the report.
        loading: how DATA becomes samples; the checkpoint keeps it.
        steps: of :func:`npk.networks.train`.
    """

    arch: str
    kind: str
    option: Sequence[str]
    data: str
    test: str | None
    out: Path
    seeds: Sequence[int]
    features: Path | None
    resume: Path | None
    json: Path | None
    loading: Loading
    steps: dict[str, Any]

    def __post_init__(self) -> None:
        """Refuse places that cannot be written.

        Raises:
            OptionError: not a .safetensors file, the kind that describes its network.
        """
        if self.out.suffix.lower() != ".safetensors":
            raise OptionError(
                f"--out {self.out} is no .safetensors file, the kind that describes its network. "
                f"Give for instance --out model.safetensors."
            )
        check_place(self.json)
        for seed in self.seeds:
            check_place(self.place(self.out, seed), self.place(self.resume, seed))
            if self.steps.get("snapshots"):
                check_folder(self.snapshots(seed))

    def place(self, path: Path | None, seed: int) -> Path | None:
        """A file of one seed: the file itself where there is one seed alone."""
        if path is None or len(self.seeds) == 1:
            return path
        return path.with_name(f"{path.stem}-seed{seed}{path.suffix}")

    def snapshots(self, seed: int) -> Path:
        """The folder with the networks on the way."""
        file = self.place(self.out, seed) or self.out
        return file.with_name(f"{file.stem}-epochs")

    def run(self, tell: Callable[[Trial, str, int], None]) -> TrainReport:
        """Train a network for every seed.

        Args:
            tell: is told of each when it is done, with the network in a line and the number of
                test samples.

        Returns:
            What came out; in the file ``json`` too.

        Raises:
            DataError: test samples that do not fit the training samples.
        """
        load = self.loading.load
        whole, apart = load(self.data), None if self.test is None else load(self.test)
        trials: list[Trial] = []
        what, count = "", 0
        for seed in self.seeds:
            kept, held = split(whole, test=SHARE, seed=seed) if apart is None else (whole, apart)
            _check_test(kept, held)
            net = built(self.arch, self.kind, kept, seed, settings(self.option))
            what, count = describe(net), len(held)
            trials.append(self._trial(net, kept, held, seed))
            tell(trials[-1], what, count)
        rights = [trial.accuracy for trial in trials]
        spread = statistics.stdev(rights) / math.sqrt(len(rights)) if len(rights) > 1 else None
        report = TrainReport(
            what, self.data, self.test or "", count, tuple(trials), statistics.mean(rights), spread
        )
        if self.json is not None:
            report.save(self.json)
        return report

    def _trial(self, net: nn.Module, kept: Dataset, held: Dataset, seed: int) -> Trial:
        """Train one network and save it with what was found."""
        out = self.place(self.out, seed) or self.out
        result = train(
            net,
            kept.X,
            kept.require_labels(),
            features=None if self.features is None else network(self.features),
            checkpoint=self.place(self.resume, seed),
            seed=seed,
            progress=True,
            **self.steps,
        )
        right = float((decided(outputs(net, held.X)) == held.require_labels()).mean())
        about = {"data": self.data, "seed": seed, "regime": result.regime}
        about["test"] = SHARE if self.test is None else self.test
        given = self.loading.preparation
        save(net, out, preparation=given, accuracy=right, epoch=result.best_epoch, **about)
        if result.snapshots:
            self.snapshots(seed).mkdir(exist_ok=True)
        for epoch, past in result.snapshots.items():
            name = f"epoch-{epoch:0{len(str(self.steps['epochs']))}d}.safetensors"
            save(past, self.snapshots(seed) / name, preparation=given, epoch=epoch, **about)
        return Trial(seed, str(out), right, result)


def chosen_seeds(seed: int, seeds: str | None) -> list[int]:
    """The seeds that ``--seed`` or ``--seeds`` names.

    Raises:
        OptionError: both, or one twice.
    """
    if seeds is None:
        return [seed]
    numbers = whole_numbers("--seeds", seeds)
    if seed != 0:
        raise OptionError(f"--seed {seed} and --seeds {seeds} were given. Give one of them.")
    if len(set(numbers)) < len(numbers):
        raise OptionError(f"--seeds {seeds} names a seed twice. Name each once.")
    return numbers


def whole_numbers(option: str, text: str) -> list[int]:
    """Numbers with commas between them.

    Raises:
        OptionError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise OptionError(
            f"{option} {text} is not understood. Write whole numbers with commas, such as 0,1,2."
        )
    return [int(part) for part in parts]


def _check_test(kept: Dataset, held: Dataset) -> None:
    """Refuse test samples that the network could not be tried on, before the training."""
    kept.require_labels()
    if held.X.shape[1:] != kept.X.shape[1:]:
        raise DataError(
            f"{held.name} has samples of shape {list(held.X.shape[1:])}, {kept.name} of "
            f"{list(kept.X.shape[1:])}. Give test samples of the same shape."
        )
    if held.require_labels().max(initial=-1) >= len(kept.classes):
        raise DataError(
            f"{held.name} has labels up to {held.require_labels().max()}, {kept.name} has "
            f"{len(kept.classes)} classes. Number the classes of both alike."
        )


def built(arch: str, kind: str, data: Dataset, seed: int, options: dict[str, Any]) -> nn.Module:
    """A fresh network for a data set.

    Raises:
        OptionError: options of the wrong type.
    """
    try:
        return build(
            arch,
            kind,
            input_shape=data.X.shape[1:],
            classes=len(data.classes),
            seed=seed,
            **options,
        )
    except TypeError as error:
        raise OptionError(
            f"the options of {arch} cannot be used ({error}). Write numbers and lists as JSON, "
            f"such as channels=[64,64]."
        ) from error
