"""The options of a kernel, brought into one form or refused before anything is computed."""

import os
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from npk.backends import check_backend
from npk.choices import (
    CHOICES,
    BackendName,
    BiasName,
    DtypeLike,
    DtypeName,
    GatesName,
    ScaleName,
    ValueInputName,
    chosen,
)
from npk.errors import OptionError, StoreError
from npk.graph.biases import settled_bias
from npk.graph.path_graph import PathGraph
from npk.progress import Progress
from npk.recursion.instruments import Instrument, instrument_of

_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
_MOST_BYTES = 2**63 - 1
_STORES = ("", ".zarr")


@dataclass(frozen=True)
class KernelOptions:
    """What a kernel is of, beside network and samples; refused when it is made, for Python,
    estimators and the command line alike.

    Args:
        scale: "fan_in" (every parametric layer divides by its fan-in), "count" (all variances 1),
            "cosine".
        dtype: "float32" or "float64", of the arithmetic and of the result; a type of NumPy or
            PyTorch goes by its name.
        gates: "hard", "soft" or "auto" (as the network evaluates).
        value_input: "x", "ones" or "auto" (as the network has it).
        bias: "paths" (biases start paths of their own), "ignore", or "auto": paths where the network
            has biases, shifts or constants; :meth:`settled` says which that is.
        backend: "reference", "cpu", "cuda" or "auto" (the CPU).
        of: what is asked of the paths: "paths", "tangent", "depth=8" or another instrument (see
            ``npk.recursion.instruments``), or such an object; it is kept as its text.

    Raises:
        OptionError: another value.
        BackendError: a backend that is not available.
    """

    scale: ScaleName = "fan_in"
    dtype: DtypeName = "float32"
    gates: GatesName = "auto"
    value_input: ValueInputName = "auto"
    bias: BiasName = "auto"
    backend: BackendName = "auto"
    of: str | Instrument = "paths"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_named(self.dtype))
        for name in CHOICES:
            chosen(name, getattr(self, name))
        object.__setattr__(self, "of", instrument_of(self.of).text)
        check_backend(self.backend)  # says what is missing now, not behind a recording
        object.__setattr__(self, "backend", "cpu" if self.backend == "auto" else self.backend)

    def settled(self, graph: PathGraph) -> "KernelOptions":
        """The options for the network of a path graph, of whose biases is known what is taken."""
        return replace(self, bias=settled_bias(self.bias, graph))

    @property
    def instrument(self) -> Instrument:
        """What is asked of the paths."""
        return instrument_of(self.of)


class KernelKeywords(TypedDict, total=False):
    """Keywords of ``npk.kernel`` that do not change what it returns."""

    scale: ScaleName
    dtype: DtypeLike
    gates: GatesName
    value_input: ValueInputName
    bias: BiasName
    backend: BackendName
    fixed: str | Sequence[str]
    of: str | Instrument
    memory: int | str | None
    progress: bool | Progress
    resume: bool


@dataclass(frozen=True)
class Promise:
    """Bytes that a call may take: for samples, gates, working memory and result together.

    Args:
        memory: bytes, or text such as "8GB"; ``None`` for no promise.
        beside: bytes that the process holds beside, where the promise is for all of it.

    Raises:
        OptionError: no size.
    """

    memory: int | str | None = None
    beside: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", parse_bytes(self.memory))

    @property
    def bytes(self) -> int | None:
        """The promise as a number; ``None``: there is none."""
        assert not isinstance(self.memory, str)
        return self.memory

    def holding(self, beside: int) -> "Promise":
        """The same promise for a process that holds so much beside."""
        return replace(self, beside=beside)


def dtype_named(dtype: object) -> DtypeName:
    """The name of a type of numbers: of "float32", ``np.float32``, ``np.dtype("float32")`` or
    ``torch.float32``.

    Args:
        dtype: what came.

    Returns:
        The name; what is no type of numbers, as it came.
    """
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return cast(DtypeName, np.dtype(dtype).name)
    return cast(DtypeName, str(dtype).removeprefix("torch."))


def parse_bytes(memory: Any) -> int | None:
    """Bytes of "8GB", "512MiB", or a number.

    Args:
        memory: what came; ``None`` for no promise.

    Returns:
        The bytes.

    Raises:
        OptionError: not a size.
    """
    if memory is None:
        return None
    size = _size(memory)
    if size is None or not 1 <= size <= _MOST_BYTES:
        raise OptionError(
            f"memory={reprlib.repr(memory)} is not a size. Give a number of bytes, "
            f"or text such as '8GB' or '512MiB'."
        )
    return int(size)


def _size(memory: Any) -> float | int | None:
    """Bytes; ``None`` for what is no number of them."""
    if isinstance(memory, (bool, np.bool_)):
        return None
    if isinstance(memory, Real):
        # a NaN lies between nothing
        return int(memory) if isinstance(memory, Integral) else float(memory)
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", memory.upper(), re.ASCII)
    else:
        match = None
    if match is None or match[2] == "I":
        return None
    return float(match[1]) * _UNITS[match[2]]


def check_store_place(out: Any) -> Path:
    """See that a store can be where it is wanted, before any work.

    Args:
        out: path of the store: a folder that is not there, is empty, or holds a store.

    Returns:
        The path.

    Raises:
        OptionError: no path, or one with the suffix of a file.
        StoreError: a file is there, or the folder around it is missing or read-only.
    """
    if not isinstance(out, (str, os.PathLike)) or not str(out) or "\0" in str(out):
        raise OptionError(
            f"out={reprlib.repr(out)} is no path. Give the name of a store, such as out='K.zarr'."
        )
    path = Path(out)
    if is_folder(path):
        return path
    # resnet-0.5 is a name
    if path.suffix.lower() not in _STORES and not path.suffix[1:2].isdigit():
        raise OptionError(
            f"{out}: npk writes .npy files, or stores (folders) such as "
            f"{path.stem}.zarr.{_saving(path)}"
        )
    if path.exists():
        raise StoreError(
            f"cannot write {out}: it is a file, and a store is a folder. Choose another name."
        )
    check_folder_around(path)
    return path


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder.

    Args:
        path: to look at.

    Returns:
        The answer.

    Raises:
        StoreError: the system cannot even look, as at a name that is too long.
    """
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"cannot write {reprlib.repr(str(path))}: {why}. Choose another name."
        ) from error


def check_folder_around(path: Path) -> None:
    """Refuse a place whose folder is missing or read-only.

    Args:
        path: what will be written.

    Raises:
        StoreError: so it is.
    """
    folder = path.absolute().parent
    if not is_folder(folder):
        if folder.exists():
            raise StoreError(f"cannot write {path}: {folder} is a file. Choose another place.")
        raise StoreError(
            f"cannot write {path}: there is no folder {folder}. Make it, or choose another one."
        )
    if not os.access(folder, os.W_OK):
        raise StoreError(
            f"cannot write {path}: the folder {folder} is read-only. Choose another one."
        )


def _saving(path: Path) -> str:
    if path.suffix.lower() == ".npy":
        return f" For a file: np.save({path.name!r}, npk.kernel(net, X))."
    return " Choose one of these."
