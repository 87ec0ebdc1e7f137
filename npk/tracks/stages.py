"""The networks of a training in their order: snapshots by epoch, or the checkpoints of a folder."""

import os
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from npk.checkpoint.folders import checkpoints_in, holds_weights
from npk.errors import CheckpointError, DataError, OptionError
from npk.files import put_back


def in_order(files: Sequence[Path]) -> dict[int, Path]:
    """Checkpoints by the number in their names, ascending.

    Of names with several numbers, such as ``run2-epoch10-loss0.31``, the first number counts that
    is another in every name.

    Args:
        files: with numbers in their names; those without any are left out.

    Returns:
        The files by number.

    Raises:
        DataError: fewer than two, or names that no number tells apart.
    """
    numbers = {file: [int(n) for n in re.findall(r"\d+", file.stem)] for file in files}
    named = {file: found for file, found in numbers.items() if found}
    if len(named) < 2:
        what = f"{len(named)} of {len(files)} checkpoints have a number in their names"
        raise DataError(f"{what}. A track needs two or more, such as epoch-0.pt and epoch-8.pt.")
    for place in range(min(map(len, named.values()))):
        found = {each[place]: file for file, each in named.items()}
        if len(found) == len(named):
            return dict(sorted(found.items()))
    names = ", ".join(file.name for file in list(named)[:3])
    raise DataError(
        f"no number tells the checkpoints {names} apart. Name them by their epoch, such as epoch-8.pt."
    )


def checkpoints_of(run: Path) -> dict[int, Path]:
    """The checkpoints of a run by epoch: files of its folder, or folders with weights in it.

    Args:
        run: the folder.

    Returns:
        Files, or folders of one checkpoint each, ascending.

    Raises:
        CheckpointError: no folder, or none with checkpoints.
        DataError: as :func:`in_order`.
    """
    put_back(run)
    if not run.is_dir():
        raise CheckpointError(f"{run} is no folder. Name the folder with the checkpoints of a run.")
    inside = [folder for folder in sorted(run.iterdir()) if holds_weights(folder)]
    return in_order(inside or checkpoints_in(run))


def snapshots_of(run: Any) -> dict[int, Any]:
    """Networks by epoch, ascending.

    Args:
        run: networks by epoch; a training result with snapshots; or a folder, whose checkpoints
            say themselves what network they are of.

    Returns:
        The networks.

    Raises:
        OptionError: something else, or epochs that are no whole numbers.
        DataError: fewer than two.
    """
    if isinstance(run, str | os.PathLike):
        from npk.checkpoint import load

        return {epoch: load(path) for epoch, path in checkpoints_of(Path(run)).items()}
    given = getattr(run, "snapshots", run)
    if not isinstance(given, Mapping) or not all(_is_epoch(key) for key in given):
        what = f"a track is of networks by epoch, and this is {type(given).__name__}"
        raise OptionError(f"{what}. Give a dictionary such as {{0: net, 8: other}}, or a folder.")
    if len(given) < 2:
        what = f"there is {len(given)} network" + ("" if len(given) == 1 else "s")
        raise DataError(f"{what}. A track needs two or more: train with snapshots=[0, 1, 2, 4].")
    return {int(epoch): given[epoch] for epoch in sorted(given)}


def _is_epoch(key: Any) -> bool:
    return isinstance(key, Integral) and not isinstance(key, bool) and int(key) >= 0
