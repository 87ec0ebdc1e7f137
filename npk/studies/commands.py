"""The command lines that give the numbers of a study again, run in its folder."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npk.checkpoint import save
from npk.files import written_whole
from npk.studies.draws import Draws, Labeled
from npk.studies.kernels import Kernels
from npk.studies.subjects import Subject

_PREPARED = ("--mean", "none")


@dataclass(frozen=True)
class Commands:
    """Command lines of a study.

    Args:
        out: the folder, in which they run.
        whole: what makes all of it again; empty where Python was called.
        loading: words that a checkpoint needs to become a network: ``--arch ...``.
    """

    out: Path
    whole: str
    loading: tuple[str, ...] = ()

    def loading_of(self, subject: Subject) -> tuple[str, ...]:
        """Words with which another command reads a checkpoint as the study does, and the samples in
        the folder as they are: they are what the network was given, whatever its file says.
        """
        return (*self.loading, *_fixed(subject), *_PREPARED)

    def place(self, subject: Subject) -> str:
        """The checkpoint of a network, as seen from the folder; empty: there is none."""
        if subject.checkpoint is None:
            return ""
        return os.path.relpath(subject.checkpoint, self.out)

    def fit(self, kernels: Kernels, gates: str, n: int) -> str:
        """Ridge on the kernel of each draw, one after the other."""
        if gates == "trained":
            place, loading = self.place(kernels.subject), self.loading_of(kernels.subject)
        else:
            place = untrained_place(kernels.subject, "$k")
            loading = (*_fixed(kernels.subject), *_PREPARED)
            if not (self.out / untrained_place(kernels.subject, "0")).exists():
                return self.whole
        if not place:
            return self.whole
        asked = kernels.asked
        words = [
            shlex.quote(place) if gates == "trained" else f'"{place}"',
            f'--data "fresh$k.npz[:{n}]"',
        ]
        words += ["--test test.npz", *map(shlex.quote, loading), f"--scale {asked.scale}"]
        words += [
            f"--bias {kernels.bias}",
            f"--gates {asked.gates}",
            f"--value-input {asked.value_input}",
        ]
        splits = " ".join(map(str, range(kernels.draws.splits)))
        return f"for k in {splits}; do npk fit {' '.join(words)}; done"

    def gates(self, subject: Subject) -> str:
        """Statistics of the gates of the first draw."""
        place = self.place(subject)
        if not place:
            return self.whole
        words = ["npk", "gates", place, "--data", "fresh0.npz", "--statistics"]
        return shlex.join([*words, *self.loading_of(subject)])

    def check(self, name: str, kernels: Kernels) -> str:
        """A check of the theory."""
        place, asked = self.place(kernels.subject), kernels.asked
        if not place:
            return self.whole
        words = ["npk", "check", name, place, "--data", "test.npz", "--bias", kernels.bias]
        for option, value in (("--gates", asked.gates), ("--value-input", asked.value_input)):
            if value != "auto" and (name, option) != ("duality", "--gates"):
                words += [option, value]
        return shlex.join([*words, *self.loading_of(kernels.subject)])

    def kernel(self, kernels: Kernels) -> str:
        """The kernel of the first draw."""
        place = self.place(kernels.subject)
        if not place:
            return self.whole
        asked = kernels.asked
        words = [
            "npk",
            "kernel",
            place,
            "--data",
            "fresh0.npz",
            "--out",
            f"{kernels.subject.stem}.npy",
        ]
        words += [*self.loading_of(kernels.subject), "--scale", asked.scale, "--bias", kernels.bias]
        return shlex.join([*words, "--gates", asked.gates, "--value-input", asked.value_input])


def _fixed(subject: Subject) -> tuple[str, ...]:
    return tuple(word for name in subject.fixed for word in ("--fixed", name))


def untrained_place(subject: Subject, number: str) -> str:
    """Where a network made anew is kept, in the study's folder."""
    return f"untrained/{subject.stem}-{number}.safetensors"


def keep_untrained(subject: Subject, net: object, number: int, out: Path) -> None:
    """Keep a network made anew, where a file can describe it."""
    if isinstance(getattr(net, "architecture", None), dict):
        place = out / untrained_place(subject, str(number))
        place.parent.mkdir(exist_ok=True)
        save(net, place)  # type: ignore[arg-type]


def keep_samples(draws: Draws, out: Path) -> None:
    """Write the samples of each draw, in their order, and the test samples."""
    for number, order in enumerate(draws.order):
        _keep(draws.fresh.take(order), out / f"fresh{number}.npz")
    _keep(draws.test, out / "test.npz")


def _keep(part: Labeled, path: Path) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"X": part.X} if part.y is None else {"X": part.X, "y": part.y}
    if part.y is not None:
        arrays["classes"] = np.array(part.classes)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
