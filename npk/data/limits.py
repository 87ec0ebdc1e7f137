"""Data files from strangers: refused where they unpack to far more than they hold."""

import gzip
import io
import math
import pickle
import pickletools
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npk.errors import DataError

# bytes that any file may unpack to; beyond them, times its size
ALWAYS_ALLOWED, LARGEST_GROWTH = 1 << 26, 100
LARGEST_PICTURE = 1 << 24  # pixels
# By content, whatever the suffix: others are read by programs that Pillow starts.
KINDS_OF_PICTURES = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_NUMBERS = {
    f"{kind}{size}": f"<{kind}{size}"
    for kind in "iuf"
    for size in (1, 2, 4, 8)
    if (kind, size) != ("f", 1)
}


def check_growth(path: Path, size: int, packed: int) -> None:
    """Refuse what unpacks to far more than it is.

    Raises:
        DataError: it does.
    """
    if size > ALWAYS_ALLOWED + LARGEST_GROWTH * packed:
        raise DataError(
            f"{path} has {packed:,} bytes and unpacks to {size:,}. Is it the file you "
            f"mean? Write it again, less packed."
        )


def checked_member(file: Any, path: Path, name: str) -> NDArray[Any]:
    """An array of an ``.npz`` file; its size, its header and its bytes agree.

    Args:
        file: the file as :func:`numpy.load` opened it.
        path: where it is.
        name: of the array.

    Raises:
        DataError: it unpacks to far more than the file, or there is another one of its name.
        ValueError: an array of Python objects, or one that is not as large as it says.
    """
    members = [info for info in file.zip.infolist() if info.filename in (name, f"{name}.npy")]
    if len(members) != 1:
        raise DataError(
            f"{path} has {len(members)} arrays {name}. Save it with np.savez(file, X=X, y=y)."
        )
    check_growth(path, members[0].file_size, path.stat().st_size)
    with file.zip.open(members[0]) as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            read = np.lib.format.read_array_header_1_0
        else:
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded")
        if math.prod(shape) * dtype.itemsize != members[0].file_size - member.tell():
            raise ValueError("its header tells another size")
    return np.asarray(file[name])


def check_pictures(files: Sequence[Path]) -> None:
    """Refuse links to nowhere and pictures far larger than their files, before a pixel is read.

    Raises:
        DataError: no plain file, no picture, or a large one.
    """
    pixels, packed = 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, which are refused here
        for file in files:
            size = _pixels(file)
            pixels, packed = pixels + size, packed + file.stat().st_size
            check_growth(file.parent.parent, 3 * pixels, packed)


def _pixels(file: Path) -> int:
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file} is no plain file. Remove it.")
    try:
        with Image.open(file, formats=KINDS_OF_PICTURES) as picture:
            size = math.prod(picture.size)
    except Exception as error:  # a damaged picture raises nearly anything
        raise DataError(
            f"{file} is truncated or no picture. Remove it or write it again."
        ) from error
    if size > LARGEST_PICTURE:
        raise DataError(
            f"{file} has {size:,} pixels, npk reads up to {LARGEST_PICTURE:,}. Make it smaller."
        )
    return size


def bytes_of_idx(path: Path, dimensions: int) -> tuple[tuple[int, ...], bytes]:
    """The shape that an idx file tells, and as many bytes behind its head; one byte more where
    there are more.

    Args:
        path: the file, packed by gzip if its name ends so.
        dimensions: how many it must have.

    Returns:
        Shape and content; an empty shape for another kind of file.

    Raises:
        DataError: the shape is far larger than the file.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        head = file.read(4 + 4 * dimensions)
        if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
            return (), b""
        shape = struct.unpack(f">{dimensions}I", head[4:])
        check_growth(path, math.prod(shape), path.stat().st_size)
        return shape, file.read(math.prod(shape) + 1)


def arrays_only(content: bytes) -> Any:
    """What a pickle of plain containers and NumPy arrays of whole numbers holds.

    Args:
        content: the pickle.

    Raises:
        DataError: it asks for any other name, before that is imported.
        ValueError: it is damaged.
    """
    for count, (step, argument, _) in enumerate(pickletools.genops(content)):
        if "PUT" in step.name and int(str(argument)) > count:  # pickle would make room for as many
            raise ValueError("it counts wrongly")
    return _arrays_in(_ArraysOnly(io.BytesIO(content), encoding="bytes").load())


class _Kind:
    """The kind of an array's numbers, as a pickle tells it."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.dtype = _NUMBERS[name.decode() if isinstance(name, bytes) else name]

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise ValueError("its numbers are in another order of bytes")


class _Array:
    """An array, as a pickle tells it."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, in_columns, content = state
        self.values = np.frombuffer(content, kind.dtype).reshape(
            shape, order="F" if in_columns else "C"
        )


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays; any other name is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _Kind
        if (module, name) == ("numpy", "ndarray") or (
            name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray")
        ):
            return _Array
        raise DataError(
            f"the pickle asks for {module}.{name}, and npk never runs pickled code. "
            f"Use the python batches of CIFAR's authors."
        )


def _arrays_in(content: Any) -> Any:
    """The content with the arrays themselves, one level deep."""
    if isinstance(content, dict):
        return {
            key: value.values if isinstance(value, _Array) else value
            for key, value in content.items()
        }
    return content
