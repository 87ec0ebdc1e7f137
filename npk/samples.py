"""The door for samples: what people have them in becomes one array, and what would have to be
guessed is refused by its name.

Arrays, tensors of any type, device and stride, tables, pictures, lists of them, and data sets and
loaders of torch (of whose items ``(x, y)`` the first is taken) come in. Masked and sparse values,
loaders that shuffle or leave samples out, and what has no length stay outside.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from numbers import Number
from typing import Any

import numpy as np

from npk.errors import DataError, DataWarning, NpkError, warn

_HOLLOW = (type(None), str, bytes, bytearray, os.PathLike, Number, Set, range)
_PALETTES = ("P", "PA")


def as_samples(X: Any, name: str = "X") -> np.ndarray:
    """Samples as a finite floating-point array with at least one row.

    Args:
        X: ``(n, *input_shape)`` in any of the forms of :func:`as_array`.
        name: what messages call it.

    Returns:
        float32, or float64 where floats of 8 bytes and more came; the array itself if it is such a
        one. Bytes (uint8) are pixels and divided by 255; other numbers stay as they are.

    Raises:
        DataError: empty, of no number type, not finite, or in a form that is refused.
    """
    array = as_floats(as_array(X, name), name)
    if array.ndim < 2 or array.size == 0:
        single = f" Is it one sample? Give {name}[None]." if array.ndim == 1 and array.size else ""
        raise DataError(
            f"{name} has shape {array.shape}. Give samples as (n, *input_shape) with n "
            f"at least 1.{single}"
        )
    # both pass a NaN on, and neither takes memory
    if not np.isfinite([array.min(), array.max()]).all():
        raise DataError(
            f"{name} has {np.count_nonzero(~np.isfinite(array))} values that are NaN "
            f"or infinite. Clean the data first."
        )
    return array


def as_floats(array: np.ndarray, name: str = "X", scale_pixels: float | None = None) -> np.ndarray:
    """Numbers as a network takes them, from files and arrays alike.

    Args:
        array: of any type of numbers.
        name: what messages call it.
        scale_pixels: what the values are divided by; ``None``: bytes (uint8), which are pixels, by
            255, and nothing else.

    Returns:
        float32, or float64 where floats of 8 bytes and more came.

    Raises:
        DataError: no numbers.
    """
    kind = array.dtype.kind
    if kind not in "fiub":
        raise DataError(_no_numbers(array, name))
    if scale_pixels is None and array.dtype == np.uint8:
        scale_pixels = 255
    if scale_pixels is None and kind in "iu" and _may_be_pixels(array):
        warn(
            f"{name} holds whole numbers from {array.min()} to {array.max()} ({array.dtype}), taken "
            f"as they are. If they are pixels, have them divided: scale_pixels=255, on the command "
            f"line --scale-pixels 255; 1 says that they are right.",
            DataWarning,
        )
    wide = kind == "f" and array.dtype.itemsize >= 8
    with np.errstate(over="ignore"):  # becomes infinite, which is reported by who asked
        array = array.astype(np.float64 if wide else np.float32, copy=False)
    return array if scale_pixels in (None, 1) else array / array.dtype.type(scale_pixels)


def _may_be_pixels(array: np.ndarray) -> bool:
    return array.size > 0 and array.min() >= 0 and 127 < array.max() < 256


def as_array(X: Any, name: str = "X") -> np.ndarray:
    """What came as one array, values untouched; half precision that NumPy does not know becomes
    float32.

    Args:
        X: an array (or what NumPy makes one of: a table of pandas, a picture, a
            :class:`npk.data.Dataset`), a tensor, a data set or a loader of torch, or a list of
            these.
        name: what messages call it.

    Returns:
        The array, of the type that came.

    Raises:
        DataError: a form that is refused: masked, sparse, ragged, shuffled, without length, no
            array at all.
    """
    torch = sys.modules.get("torch")  # whose objects can have come only if it is there
    if isinstance(X, np.ndarray):
        return _plain(X, name)
    if torch is not None and isinstance(X, torch.Tensor):
        return _of_tensor(X, name)
    if torch is not None and isinstance(X, (torch.utils.data.DataLoader, torch.utils.data.Dataset)):
        if isinstance(X, torch.utils.data.DataLoader):
            return _of_loader(X, name)
        return _of_data_set(X, name)
    if isinstance(X, (list, tuple)):
        return _of_list(X, name)
    if hasattr(X, "tocsr"):
        raise DataError(f"{name} is sparse ({type(X).__name__}). Give {name}.toarray().")
    if isinstance(X, Mapping):
        raise DataError(
            f"{name} is a {type(X).__name__} with the entries {_some(X)}. Give the one "
            f"that holds the samples."
        )
    if isinstance(X, _HOLLOW) or isinstance(X, type) or not _speaks_numpy(X):
        raise DataError(_no_array(X, name))
    return _foreign(X, name)


def _plain(X: np.ndarray, name: str) -> np.ndarray:
    hidden = int(np.ma.count_masked(X)) if isinstance(X, np.ma.MaskedArray) else 0
    if hidden:
        raise DataError(
            f"{name} is a masked array with {hidden} values masked. Fill them "
            f"({name}.filled(value)) or drop those samples."
        )
    if X.dtype.names:
        raise DataError(
            f"{name} has the fields {_some(X.dtype.names)}. Give a plain array, such "
            f"as np.stack([...], axis=1) of them."
        )
    return np.asarray(X)


def _of_tensor(X: Any, name: str) -> np.ndarray:
    """The tensor's values on the host; bfloat16 and other types that NumPy lacks as float32."""
    import torch

    if X.layout != torch.strided:
        raise DataError(f"{name} is sparse ({X.layout}). Give {name}.to_dense().")
    if X.is_quantized or X.is_nested or X.is_meta:
        kind, remedy = (
            ("quantized", f"{name}.dequantize()")
            if X.is_quantized
            else ("nested: its samples have several shapes", "samples of one shape")
            if X.is_nested
            else ("on the meta device and has no values", "a tensor with values")
        )
        raise DataError(f"{name} is {kind}. Give {remedy}.")
    known = (
        X.dtype.is_complex
        or not X.dtype.is_floating_point
        or X.dtype in (torch.float16, torch.float32, torch.float64)
    )
    try:
        return (X if known else X.detach().float()).numpy(force=True)
    except (TypeError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{name} is a {type(X).__name__} of {X.dtype} without values to read "
            f"({_line(error)}). Give an array."
        ) from error


def _foreign(X: Any, name: str) -> np.ndarray:
    """What says itself how NumPy should read it."""
    if getattr(X, "mode", None) in _PALETTES and hasattr(X, "convert"):
        raise DataError(
            f"{name} is a picture whose pixels are numbers of colours (mode {X.mode}). "
            f"Give picture.convert('RGB')."
        )
    try:
        if hasattr(X, "to_numpy") and hasattr(X, "columns"):
            array = _of_table(X, name)
        else:
            array = np.asarray(X)
    except NpkError:
        raise
    except Exception as error:  # of a foreign library: of any kind
        raise DataError(
            f"{name} is a {type(X).__name__} that gives no array ({_line(error)}). "
            f"Give a NumPy array."
        ) from error
    if array.dtype.kind == "O":
        raise DataError(_no_numbers(array, name) if array.ndim else _no_array(X, name))
    return _plain(array, name)


def _of_table(X: Any, name: str) -> np.ndarray:
    """A table of numbers; types with a missing value of their own become float64 with NaN."""
    array = X.to_numpy()
    if array.dtype.kind != "O":
        return array
    foreign = [
        str(column)
        for column in X.columns
        if np.dtype(getattr(X[column].dtype, "numpy_dtype", "O")).kind not in "fiub"
    ]
    foreign = [column for column in foreign if getattr(X[column].dtype, "kind", "O") not in "fiub"]
    if foreign:
        raise DataError(
            f"{name} has columns that hold no numbers: {_some(foreign)}. Drop or encode them."
        )
    return X.to_numpy(dtype=np.float64, na_value=np.nan)


def _of_list(X: Sequence[Any], name: str) -> np.ndarray:
    """Lists of numbers, as NumPy reads them; lists of arrays, tensors and pictures, one a sample."""
    if X and all(_is_pair(item) for item in X):
        raise DataError(
            f"{name} is a list of pairs, such as (sample, label). Give the samples "
            f"alone: [x for x, y in {name}]."
        )
    if any(
        _is_array(item) or (isinstance(item, (list, tuple)) and any(map(_is_array, item)))
        for item in X
    ):
        return _stacked((as_array(item, f"{name}[{i}]") for i, item in enumerate(X)), name)
    try:
        array = np.asarray(X)
    except Exception as error:  # ragged, or of tensors deep inside: of any kind
        if "inhomogeneous" in str(error):
            why = "ragged: its samples have several shapes"
        else:
            why = f"no list of samples ({_line(error)})"
        raise DataError(f"{name} is {why}. Give each sample the same shape.") from error
    return _plain(array, name)


def _stacked(items: Iterable[np.ndarray], name: str) -> np.ndarray:
    samples = list(items)
    for i, item in enumerate(samples):
        if item.shape != samples[0].shape:
            raise DataError(
                f"{name} is ragged: sample 0 has shape {samples[0].shape}, sample {i} has "
                f"{item.shape}. Give each sample the same shape."
            )
    return np.stack(samples) if samples else np.empty(0, np.float32)


def _of_data_set(X: Any, name: str) -> np.ndarray:
    """The samples of a torch data set in its order."""
    import torch

    kind = type(X).__name__
    if isinstance(X, torch.utils.data.IterableDataset) or not hasattr(X, "__len__"):
        raise DataError(
            f"{name} is a {kind} without a length. Collect its samples first: "
            f"np.stack([x for x, y in dataset])."
        )
    if isinstance(X, torch.utils.data.TensorDataset):
        return _of_tensor(X.tensors[0], name)
    items = _read((X[i] for i in range(len(X))), name, kind)
    return _stacked(
        (as_array(_sample(item, name, kind), f"{name}[{i}]") for i, item in enumerate(items)), name
    )


def _of_loader(X: Any, name: str) -> np.ndarray:
    """The samples of a torch loader, if they come in the order of its data set, and all of them."""
    from torch.utils import data

    if isinstance(X.dataset, data.IterableDataset):
        raise DataError(
            f"{name} is a loader of a data set without a length. Collect its samples "
            f"first: np.concatenate(batches)."
        )
    _check_order(X, name)
    with _as_random_as_before(X):
        batches = [
            as_array(_sample(batch, name, "loader"), name) for batch in _read(X, name, "loader")
        ]
    if X.batch_sampler is None:
        return _stacked(batches, name)
    if len({batch.shape[1:] if batch.ndim else None for batch in batches}) > 1:
        raise DataError(
            f"{name} is a loader whose batches do not fit each other. Give each sample "
            f"the same shape."
        )
    return np.concatenate(batches) if batches and batches[0].ndim else np.empty(0, np.float32)


def _check_order(X: Any, name: str) -> None:
    """Refuse a loader that changes the order of its data set, or leaves some of it out."""
    from torch.utils import data

    batches, orders = X.batch_sampler, [X.sampler]
    if batches is not None:  # none where the loader gives one sample at a time
        orders += (
            [getattr(batches, "sampler", batches)]
            if type(batches) is data.BatchSampler
            else [batches]
        )
    strange = [order for order in orders if type(order) is not data.SequentialSampler]
    if strange:
        raise DataError(
            f"{name} is a loader in the order of its {type(strange[0]).__name__}: rows of the "
            f"kernel would be no rows of the "
            "data set. Give a loader with shuffle=False, or its dataset."
        )
    left = len(X.dataset) % batches.batch_size if batches is not None and batches.drop_last else 0
    if left:
        raise DataError(
            f"{name} is a loader with drop_last=True, which leaves out the last {left} "
            f"samples. Give one without it."
        )


@contextlib.contextmanager
def _as_random_as_before(loader: Any) -> Iterator[None]:
    """A loader draws a seed for its workers whenever it is read, from torch or its own."""
    import torch

    own = loader.generator
    state = own.get_state() if own is not None else None
    with torch.random.fork_rng(devices=[]):
        yield
    if own is not None:
        own.set_state(state)


def _read(items: Iterable[Any], name: str, kind: str) -> Iterator[Any]:
    """The items; the user's own code runs behind them."""
    try:
        yield from items
    except NpkError:
        raise
    except Exception as error:
        raise DataError(
            f"reading {name}, a {kind}, failed with {type(error).__name__}: "
            f"{_line(error)}. Mend the data set."
        ) from error


def _sample(item: Any, name: str, kind: str) -> Any:
    """The sample of an item ``(x, y)``, or of an item that is a sample."""
    if isinstance(item, Mapping):
        raise DataError(
            f"{name} is a {kind} whose items have the entries {_some(item)}. Give the "
            f"one that holds the samples as an array."
        )
    return item[0] if isinstance(item, (tuple, list)) and item and _is_array(item[0]) else item


def _is_array(item: Any) -> bool:
    return (hasattr(item, "__array__") or hasattr(item, "__array_interface__")) and not isinstance(
        item, np.generic
    )


def _is_pair(item: Any) -> bool:
    """A sample and something of another shape."""
    if not (isinstance(item, tuple) and len(item) == 2 and _is_array(item[0])):
        return False
    first, second = (getattr(part, "shape", ()) for part in item)
    return bool(first) and tuple(first) != tuple(second)


def _speaks_numpy(X: Any) -> bool:
    ways = "array array_interface array_struct cuda_array_interface dlpack".split()
    return any(hasattr(X, f"__{way}__") for way in ways)


def _no_numbers(array: np.ndarray, name: str) -> str:
    if array.dtype.kind == "c":
        return (
            f"{name} has dtype {array.dtype}. Complex data not supported: give real numbers, "
            f"such as both parts as channels."
        )
    if array.dtype.kind == "O":
        what = " (Python objects: are its samples of several shapes, or None among them?)"
    else:
        what = ""
    return f"{name} has dtype {array.dtype}{what}. Give an array of numbers."


def _no_array(X: Any, name: str) -> str:
    if isinstance(X, (str, os.PathLike)) and not name.startswith("X"):
        return f"{name} is {os.fspath(X)!r}, not an array of numbers. Give the array."
    if isinstance(X, (str, os.PathLike)):
        return (
            f"{name} is {os.fspath(X)!r}, not samples. Load them first: "
            f"npk.data.load({os.fspath(X)!r}).X."
        )
    if isinstance(X, type):
        return f"{name} is the class {X.__name__}, not samples. Give an array (n, *input_shape)."
    if isinstance(X, Iterator):
        return (
            f"{name} is a {type(X).__name__} without a length. Collect its samples first: "
            f"np.stack(list(...))."
        )
    what = "None" if X is None else f"of type {type(X).__name__}"
    if not name.startswith("X"):
        return f"{name} is {what}, not an array of numbers. Give the array."
    return (
        f"{name} is {what}, not samples. Give an array (n, *input_shape), a tensor or a data set."
    )


def _some(names: Iterable[Any]) -> str:
    names_shown = [str(name) for name in names]
    return ", ".join(names_shown[:6]) + (", ..." if len(names_shown) > 6 else "")


def _line(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
