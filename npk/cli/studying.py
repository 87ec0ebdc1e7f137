"""Studies from the command line: checkpoints, data and options become a question."""

import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from npk.checkpoint import architecture
from npk.checkpoint.folders import checkpoints_in
from npk.cli.reading import Asked, How, about_samples, literals
from npk.data import Dataset
from npk.data.tables import read_labels
from npk.errors import DataError, OptionError
from npk.files import put_back
from npk.studies.asking import ask
from npk.studies.running import Question
from npk.studies.subjects import Subject


def checkpoints(given: Sequence[Path]) -> list[Path]:
    """The files of checkpoints; a folder stands for those in it."""
    found: list[Path] = []
    for path in given:
        put_back(path)
        found += checkpoints_in(path) if path.is_dir() else [path]
    return found


def question(
    given: Sequence[Path],
    data: str,
    test: str | None,
    labels: Path | None,
    how: How,
    prepared: Asked,
    tell: Callable[[list[str]], None],
    **asked: Any,
) -> Question:
    """What a command line asks.

    Args:
        given: checkpoints, or folders of them.
        data: DATA of the fresh samples.
        test: DATA of the test samples; ``None``: half of the others.
        labels: file with labels of ``data``.
        how: the checkpoints are read.
        prepared: what the networks were given, where options say so.
        tell: is told of the samples, and how each network itself does on them.
        **asked: other arguments of :func:`npk.studies.asking.ask`.

    Returns:
        The question, checked.

    Raises:
        OptionError: not one name a checkpoint.
    """
    found = checkpoints(given)
    loading = prepared.loading(*found)
    samples = _with_labels(loading.load(data), labels)
    held = None if test is None else loading.load(test)
    names = asked.pop("names", None) or _names(found)
    if len(names) != len(found):
        raise OptionError(
            f"--name is given {len(names)} times for {len(found)} checkpoints. Give one each."
        )
    networks = [subject(path, name, how) for path, name in zip(found, names, strict=True)]
    for one in networks:
        lines = about_samples(loading, one.net, samples if held is None else held)
        tell([f"{one.name}: {line}" for line in lines])
    return ask(
        networks,
        samples,
        test=held,
        command=_command(asked.pop("out")),
        loading=_loading(how),
        fixed=tuple(how.fixed),
        **asked,
    )


def _with_labels(samples: Dataset, labels: Path | None) -> Dataset:
    """A data set with the labels of a file."""
    if labels is None:
        return samples
    return samples.with_labels(read_labels(labels))


def _names(found: Sequence[Path]) -> list[str]:
    """Names of files; with their folders where two are alike."""
    stems = [path.stem for path in found]
    if len(set(stems)) == len(stems):
        return stems
    return [str(path.with_suffix("")) for path in found]


def subject(path: Path, name: str, how: How) -> Subject:
    """The network of a checkpoint, with what makes it anew."""
    make: Callable[[], Any] | None = None
    if how.arch is not None and how.output is None and how.layout == "nchw":
        make = functools.partial(architecture.make, how.arch, literals(how.arch_option))

    return Subject(how.network(path), name, path, make)


def _loading(how: How) -> tuple[str, ...]:
    """Words with which another command reads the same checkpoints, from anywhere."""
    words: list[str] = []
    if how.arch is not None:
        file, colon, attribute = how.arch.rpartition(":")
        file = os.path.abspath(file) if file.endswith(".py") else file
        words += ["--arch", f"{file}{colon}{attribute}"]
    for option in how.arch_option:
        words += ["--arch-option", option]
    for name, value in (("--key", how.key), ("--output", how.output)):
        words += [name, value] if value is not None else []
    return (*words, *(["--layout", how.layout] if how.layout != "nchw" else []))


def _command(out: Path) -> str:
    """The command line of this process, from the study's folder."""
    here = os.path.relpath(Path.cwd(), out)
    return f"cd {shlex.quote(here)} && {shlex.join(['npk', *sys.argv[1:]])}"


def curves(path: Path | None, run: Path) -> tuple[list[float], list[float | None]]:
    """The curves of the training whose networks are in a folder.

    Args:
        path: what `npk train --json` wrote; ``None``: they are not known.
        run: the folder.

    Returns:
        Loss and validation accuracy of each epoch.

    Raises:
        DataError: the file tells of several trainings, and none wrote the folder.
    """
    from npk.cli.training import TrainReport

    if path is None:
        return [], []
    trials = TrainReport.load(path).trials
    own = [one for one in trials if f"{Path(one.checkpoint).stem}-epochs" == run.resolve().name]
    if len(trials) > 1 and len(own) != 1:
        what = f"{path} tells of {len(trials)} trainings, and {run} is the folder of none of them"
        raise DataError(f"{what}. Name the folder as npk train did, such as model-seed0-epochs.")
    result = (own or list(trials))[0].training
    return result.curve_train, result.curve_validation


def sizes(text: str | None) -> list[int] | None:
    """``30,100,300`` as numbers.

    Raises:
        OptionError: it is something else.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise OptionError(
            f"-n {text} is not understood. Write whole numbers with commas, such as 30,100,300."
        )
    return [int(part) for part in parts]


def words(text: str) -> list[str]:
    """``a,b`` as a list; "none" is an empty one."""
    return [] if text == "none" else [part.strip() for part in text.split(",") if part.strip()]
